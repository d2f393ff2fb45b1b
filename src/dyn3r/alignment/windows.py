"""Long clips window by window, and clips of several connected components (SPEC 6, Windows).

Cameras are estimated in windows of frames. Later windows keep the cameras, depth and focal length
of earlier ones fixed. Pairs between two fixed frames are left out, so each pair is solved once, and
time and memory are linear in the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.components import (
    ComponentInputs,
    ComponentSolution,
    Report,
    Solver,
    solve_component,
)
from dyn3r.alignment.merge_components import KnownValues, merge_components, relative_to_camera
from dyn3r.alignment.objective import depth_change
from dyn3r.alignment.spanning_tree import register_pairs
from dyn3r.alignment.state import PAIR_SCALE, Observations, State
from dyn3r.geometry.cameras import transform


@dataclass(frozen=True)
class AlignedCameras:
    """Cameras and pair similarities of all frames in one world."""

    state: State
    used_pairs: Bool[np.ndarray, " m"]
    """Pairs that have a similarity; dense depth follows from them."""
    determined: Bool[np.ndarray, " n"]
    """Frames whose camera was estimated, not guessed."""
    depth_prior: float
    """The depth prior term of the objective."""
    notes: tuple[str, ...]
    """Warnings for the user."""
    depth: Float[Tensor, "n h w"] | None = None
    """Depth of all pixels that is known already; NaN: not known."""


def window_spans(num_frames: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """First frame and end of every window; `size` 0: one window for all frames."""
    if size <= 0 or num_frames <= size:
        return [(0, num_frames)]
    step = max(1, size - max(1, round(size * overlap)))
    return [(s, min(s + size, num_frames)) for s in range(0, num_frames - size + step, step)]


def solve_windows(inputs: ComponentInputs, report: Report, solver: Solver) -> AlignedCameras:
    """Cameras, sampled depth and pair similarities of all frames, window after window.

    Frames that only pairs longer than a window reach come last. Components that no pair connects
    are solved separately and placed by a guess, which a note names.
    """
    n, options = inputs.observations.num_frames, inputs.options
    clip, frames = _WindowSolver(inputs, report, solver), np.arange(n)
    spans = window_spans(n, options.window, options.overlap)
    for number, (first, end) in enumerate(spans):
        next_first = spans[number + 1][0] if number + 1 < len(spans) else n
        clip.extend((frames >= first) & (frames < end), frames < next_first)
    size = options.window or n
    while len(remaining := clip.unsolved_frames()):
        block, before = np.isin(frames, remaining[:size]), len(remaining)
        clip.extend(block | (clip.component >= 0), block)
        size = size if len(clip.unsolved_frames()) < before else 2 * size
    return clip.finish()


class _WindowSolver:
    """Solution of the windows so far.

    `component` is 0 for frames of the main component, 1, 2, ... for others, -1 for unsolved frames.
    """

    def __init__(self, inputs: ComponentInputs, report: Report, solver: Solver) -> None:
        seen, known = inputs.observations, inputs.known
        n, m, device = seen.num_frames, len(seen.edges), seen.points.device
        eye = torch.eye(4, dtype=torch.float64, device=device)
        self.report, self.solver, self.given = report, solver, known
        known = KnownValues(*(getattr(known, field.name).clone() for field in fields(known)))
        self.inputs = replace(inputs, known=known, K=inputs.K.to(device).clone())
        self.state = State(
            T_world_camera=torch.where(known.T_fixed[:, None, None], known.T_world_camera, eye),
            K=self.inputs.K,
            depth=seen.points.new_ones(n, len(seen.uv)),
            pair_scale=torch.full((m,), PAIR_SCALE, dtype=torch.float64, device=device),
            pair_R=eye[:3, :3].repeat(m, 1, 1),
            pair_t=torch.zeros(m, 3, dtype=torch.float64, device=device),
        )
        self.initial_depth = self.state.depth.clone()
        self.edges = seen.edges.cpu().numpy()
        self.usable = (inputs.scores > 0).cpu().numpy()
        self.solved_pairs = np.zeros(m, dtype=bool)
        self.component = np.full(n, -1)
        self.doubtful: list[int] = []

    def unsolved_frames(self) -> Int[np.ndarray, " k"]:
        """Frames without a camera that a usable pair shows."""
        shown = np.unique(self.edges[self.usable])
        return np.asarray(shown[self.component[shown] < 0])

    def extend(self, inside: Bool[np.ndarray, " n"], leaving: Bool[np.ndarray, " n"]) -> None:
        """Solve the frames `inside` the window that pairs connect to solved ones.

        Frames that are connected to none start a new component if one of them is `leaving` the
        window: later windows do not see it again.
        """
        for component in range(int(self.component.max()) + 1):
            candidates = inside & ((self.component < 0) | (self.component == component))
            for frames, pairs in self._connected(candidates):
                if (self.component[frames] == component).any():
                    self._solve(frames, pairs, component)
        for frames, pairs in self._connected(inside & (self.component < 0)):
            if self.component.max() < 0 or leaving[frames].any():
                self._solve(frames, pairs, int(self.component.max()) + 1)

    def _connected(self, nodes: Bool[np.ndarray, " n"]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Frames and pairs of the connected components of `nodes` that have an unsolved frame.

        The largest component comes first.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        unsolved = self.component < 0
        eligible = self.usable & nodes[self.edges].all(1) & unsolved[self.edges].any(1)
        pairs = np.flatnonzero(eligible & ~self.solved_pairs)
        if len(pairs) == 0:
            return []
        i, j = self.edges[pairs].T
        links = coo_array((np.ones(len(pairs)), (i, j)), shape=(len(nodes), len(nodes)))
        label = connected_components(links, directed=False)[1]
        order = np.argsort(label[i], kind="stable")
        groups = np.split(pairs[order], np.flatnonzero(np.diff(label[i][order])) + 1)
        found = [(np.unique(self.edges[group]), group) for group in groups]
        return sorted(found, key=lambda frames_pairs: -len(frames_pairs[0]))

    def _solve(self, frames: np.ndarray, pairs: np.ndarray, component: int) -> None:
        device = self.state.depth.device
        frame_rows, pair_rows = (torch.from_numpy(x).to(device) for x in (frames, pairs))
        inputs = self.inputs.subset(frame_rows, pair_rows)
        solution = solve_component(inputs, self.report, self.solver)
        is_new = self.component[frames] < 0
        state, new = solution.state, torch.from_numpy(is_new).to(device)
        self.state.pair_scale[pair_rows] = state.pair_scale
        self.state.pair_R[pair_rows], self.state.pair_t[pair_rows] = state.pair_R, state.pair_t
        rows = frame_rows[new]
        self.state.T_world_camera[rows] = state.T_world_camera[new]
        self.state.depth[rows] = state.depth[new]
        self.initial_depth[rows] = solution.initial_depth[new]
        self._freeze(inputs, solution, frame_rows, new)
        self.component[frames[is_new]] = component
        self.solved_pairs[pairs] = True
        self.doubtful += [int(frames[t]) for t in solution.doubtful]

    def _freeze(
        self,
        inputs: ComponentInputs,
        solution: ComponentSolution,
        frames: Int[Tensor, " k"],
        new: Bool[Tensor, " k"],
    ) -> None:
        """Fix the cameras, depth and focal lengths of new frames for later windows."""
        known, seen, state = self.inputs.known, inputs.observations, solution.state
        rows = frames[new]
        weight = torch.zeros_like(state.depth).index_add_(0, seen.frame, seen.weights)
        observed = torch.where(weight > 0, state.depth, torch.nan)[new]
        known.T_world_camera[rows], known.T_fixed[rows] = state.T_world_camera[new], True
        known.depth[rows], known.depth_fixed[rows] = observed, torch.isfinite(observed)
        K = self.inputs.K  # shared with self.state
        if self.inputs.options.shared_focal:
            if not bool(known.K_fixed.any()):
                K[:, :2, :2] *= state.K[0, 0, 0] / inputs.K[0, 0, 0]
                K[frames] = state.K
            known.K_fixed[:] = True
        else:
            K[rows], known.K_fixed[rows] = state.K[new], True

    def finish(self) -> AlignedCameras:
        """Register the remaining pairs and merge the components."""
        state, seen, given = self.state, self.inputs.observations, self.given
        component_of = self.component[self.edges]
        same = component_of[:, 0] == component_of[:, 1]
        rest = self.usable & ~self.solved_pairs & same
        if rest.any():
            self._register(torch.from_numpy(np.flatnonzero(rest)).to(state.depth.device))
        fixed = given.T_fixed.cpu().numpy()
        state, more = merge_components(state, seen, self.component.tolist(), fixed)
        determined = (self.component == 0) | fixed
        used = self.solved_pairs | rest
        if not bool(torch.isfinite(given.T_world_camera[:, 0, 0]).any()):
            state = relative_to_camera(state, int(determined.argmax()))
            if not bool(given.depth_fixed.any()):
                main = torch.from_numpy(used & (component_of == 0).all(1)).to(state.depth.device)
                mean_scale = float(state.pair_scale[main].log().mean().exp())
                state = state.rescaled(PAIR_SCALE / mean_scale)
        determined[self.doubtful] = False
        change = depth_change(state.depth, self.initial_depth, seen.dynamic)
        notes = (*self._notes(rest), *more)
        return AlignedCameras(state, used, determined, float(change), notes)

    def _register(self, pairs: Int[Tensor, " q"]) -> None:
        """Similarities of pairs between frames that are solved."""
        state, seen = self.state, self.inputs.observations
        frames = torch.unique(seen.edges[pairs])
        fit = register_pairs(seen.subset(frames, pairs), _world_points(state, seen, frames))
        state.pair_scale[pairs], state.pair_R[pairs], state.pair_t[pairs] = fit

    def _notes(self, rest: Bool[np.ndarray, " m"]) -> list[str]:
        notes, count = [], len(rest)
        unused = self.usable & ~self.solved_pairs & ~rest
        if rest.any():
            notes.append(
                f"{int(rest.sum())} of {count} pairs reach beyond their window: they shape depth "
                "but not the cameras; a larger window uses them"
            )
        if unused.any():
            notes.append(
                f"{int(unused.sum())} of {count} pairs between separate components are not used"
            )
        return notes


def _world_points(
    state: State, seen: Observations, frames: Int[Tensor, " k"]
) -> Float[Tensor, "k p 3"]:
    T = state.T_world_camera[frames].float()
    points = state.depth[frames][..., None] * seen.rays(state.K[frames])
    return transform(T, points)
