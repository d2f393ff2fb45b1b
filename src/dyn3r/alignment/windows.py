"""Long clips window by window, and clips whose pairs do not hang together (SPEC 6, Windows).

Cameras are found in windows of frames. What an earlier window found is frozen in a later one:
cameras, depth, and the focal length. Pairs between two frozen frames say nothing new and are left
out, so every pair is solved once, and time and memory grow linearly with the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.components import Inputs, Solved, solve_part
from dyn3r.alignment.merge_components import Known, from_first_camera, place_components
from dyn3r.alignment.objective import depth_change
from dyn3r.alignment.spanning_tree import register_pairs
from dyn3r.alignment.state import PAIR_SCALE, Observations, State
from dyn3r.geometry import transform


@dataclass(frozen=True)
class Whole:
    """All frames in one world."""

    state: State
    used: Bool[np.ndarray, " m"]
    """Pairs that have a similarity; depth follows from them."""
    determined: Bool[np.ndarray, " n"]
    depth_prior: float
    notes: list[str]


def windows(num_frames: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """First frame and end of every window; `size` 0: one for all frames."""
    if size <= 0 or num_frames <= size:
        return [(0, num_frames)]
    step = max(1, size - max(1, round(size * overlap)))
    return [(s, min(s + size, num_frames)) for s in range(0, num_frames - size + step, step)]


def solve_windows(inputs: Inputs, report: Callable[[float], None]) -> Whole:
    """Cameras, sampled depth and pairs of all frames, window after window.

    Frames that only pairs longer than a window reach come last. Parts that no pair connects are
    solved each on its own and placed by guess; the note says so.
    """
    n, options = inputs.observations.num_frames, inputs.options
    world, frames = _World(inputs, report), np.arange(n)
    spans = windows(n, options.window, options.overlap)
    for number, (first, end) in enumerate(spans):
        left = spans[number + 1][0] if number + 1 < len(spans) else n
        world.grow((frames >= first) & (frames < end), frames < left)
    size = options.window or n
    while len(left_over := world.unsolved_frames()):
        block, before = np.isin(frames, left_over[:size]), len(left_over)
        world.grow(block | (world.part >= 0), block)
        size = size if len(world.unsolved_frames()) < before else 2 * size
    return world.finished()


class _World:
    """What is solved so far. `part`: 0 for the main part, 1, 2, ... for others, -1 not solved."""

    def __init__(self, inputs: Inputs, report: Callable[[float], None]) -> None:
        seen, known = inputs.observations, inputs.known
        n, m, device = seen.num_frames, len(seen.edges), seen.points.device
        eye = torch.eye(4, dtype=torch.float64, device=device)
        self.report, self.given = report, known
        known = Known(*(value.clone() for value in vars(known).values()))
        self.inputs = replace(inputs, known=known, K=inputs.K.to(device).clone())
        self.state = State(
            T_world_camera=torch.where(known.T_fixed[:, None, None], known.T_world_camera, eye),
            K=self.inputs.K,
            depth=seen.points.new_ones(n, len(seen.uv)),
            pair_scale=torch.full((m,), PAIR_SCALE, dtype=torch.float64, device=device),
            pair_R=eye[:3, :3].repeat(m, 1, 1),
            pair_t=torch.zeros(m, 3, dtype=torch.float64, device=device),
        )
        self.first_depth = self.state.depth.clone()
        self.edges = seen.edges.cpu().numpy()
        self.usable = (inputs.scores > 0).cpu().numpy()
        self.solved_pairs = np.zeros(m, dtype=bool)
        self.part = np.full(n, -1)
        self.doubtful: list[int] = []

    def unsolved_frames(self) -> Int[np.ndarray, " k"]:
        """Frames without a camera that some usable pair shows."""
        shown = np.unique(self.edges[self.usable])
        return shown[self.part[shown] < 0]

    def grow(self, inside: Bool[np.ndarray, " n"], leaving: Bool[np.ndarray, " n"]) -> None:
        """Solve frames `inside` that hang on solved ones; then parts that have a `leaving` frame.

        (A part that later windows see as well may yet turn out to hang on something.)
        """
        for part in range(int(self.part.max()) + 1):
            for frames, pairs in self._pieces(inside & ((self.part < 0) | (self.part == part))):
                if (self.part[frames] == part).any():
                    self._solve(frames, pairs, part)
        for frames, pairs in self._pieces(inside & (self.part < 0)):
            if self.part.max() < 0 or leaving[frames].any():
                self._solve(frames, pairs, int(self.part.max()) + 1)

    def _pieces(self, nodes: Bool[np.ndarray, " n"]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Frames and pairs of connected pieces among `nodes`, with a new frame, largest first."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        fresh = self.part < 0
        pairs = np.flatnonzero(
            self.usable & nodes[self.edges].all(1) & fresh[self.edges].any(1) & ~self.solved_pairs
        )
        if len(pairs) == 0:
            return []
        i, j = self.edges[pairs].T
        links = coo_array((np.ones(len(pairs)), (i, j)), shape=(len(nodes), len(nodes)))
        label = connected_components(links, directed=False)[1]
        order = np.argsort(label[i], kind="stable")
        groups = np.split(pairs[order], np.flatnonzero(np.diff(label[i][order])) + 1)
        pieces = [(np.unique(self.edges[group]), group) for group in groups]
        return sorted(pieces, key=lambda piece: -len(piece[0]))

    def _solve(self, frames: np.ndarray, pairs: np.ndarray, part: int) -> None:
        device = self.state.depth.device
        frame_rows, pair_rows = (torch.from_numpy(x).to(device) for x in (frames, pairs))
        inputs = self.inputs.at(frame_rows, pair_rows)
        found = solve_part(inputs, self.report)
        fresh = self.part[frames] < 0
        state, mine = found.state, torch.from_numpy(fresh).to(device)
        self.state.pair_scale[pair_rows] = state.pair_scale
        self.state.pair_R[pair_rows], self.state.pair_t[pair_rows] = state.pair_R, state.pair_t
        rows = frame_rows[mine]
        self.state.T_world_camera[rows] = state.T_world_camera[mine]
        self.state.depth[rows] = state.depth[mine]
        self.first_depth[rows] = found.first_depth[mine]
        self._freeze(inputs, found, frame_rows, mine)
        self.part[frames[fresh]] = part
        self.solved_pairs[pairs] = True
        self.doubtful += [int(frames[t]) for t in found.doubtful]

    def _freeze(
        self,
        inputs: Inputs,
        found: Solved,
        frames: Int[Tensor, " k"],
        mine: Bool[Tensor, " k"],
    ) -> None:
        """Later windows must not touch what this one found."""
        known, seen, rows = self.inputs.known, inputs.observations, frames[mine]
        weight = torch.zeros_like(found.state.depth).index_add_(0, seen.frame, seen.weights)
        sure = torch.where(weight > 0, found.state.depth, torch.nan)[mine]
        known.T_world_camera[rows], known.T_fixed[rows] = found.state.T_world_camera[mine], True
        known.depth[rows], known.depth_fixed[rows] = sure, torch.isfinite(sure)
        K = self.inputs.K  # also the state's
        if self.inputs.options.shared_focal:
            if not bool(known.K_fixed.any()):
                K[:, :2, :2] *= found.state.K[0, 0, 0] / inputs.K[0, 0, 0]
                K[frames] = found.state.K
            known.K_fixed[:] = True
        else:
            K[rows], known.K_fixed[rows] = found.state.K[mine], True

    def finished(self) -> Whole:
        """Register the pairs left out so far, and put the parts side by side."""
        state, seen, given = self.state, self.inputs.observations, self.given
        part_of = self.part[self.edges]
        rest = self.usable & ~self.solved_pairs & (part_of[:, 0] == part_of[:, 1])
        notes = self._notes(rest)
        if rest.any():
            pairs = torch.from_numpy(np.flatnonzero(rest)).to(state.depth.device)
            frames = seen.edges[pairs].unique()
            world = _world_points(state, seen, frames)
            fit = register_pairs(seen.part(frames, pairs), world)
            state.pair_scale[pairs], state.pair_R[pairs], state.pair_t[pairs] = fit
        fixed = given.T_fixed.cpu().numpy()
        state, more = place_components(state, seen, self.part.tolist(), fixed)
        determined = (self.part == 0) | fixed
        used = self.solved_pairs | rest
        if not bool(torch.isfinite(given.T_world_camera[:, 0, 0]).any()):
            state = from_first_camera(state, int(determined.argmax()))
            if not bool(given.depth_fixed.any()):
                main = torch.from_numpy(used & (part_of == 0).all(1)).to(state.depth.device)
                middle = float(state.pair_scale[main].log().mean().exp())
                state = state.rescaled(PAIR_SCALE / middle)
        determined[self.doubtful] = False
        change = depth_change(state.depth, self.first_depth, seen.moving)
        return Whole(state, used, determined, float(change), notes + more)

    def _notes(self, rest: Bool[np.ndarray, " m"]) -> list[str]:
        notes, count = [], len(rest)
        lost = self.usable & ~self.solved_pairs & ~rest
        if rest.any():
            notes.append(
                f"{int(rest.sum())} of {count} pairs reach beyond their window: they shape depth "
                "but not the cameras; a larger window uses them"
            )
        if lost.any():
            notes.append(f"{int(lost.sum())} of {count} pairs between separate parts are not used")
        return notes


def _world_points(
    state: State, seen: Observations, frames: Int[Tensor, " k"]
) -> Float[Tensor, "k p 3"]:
    T = state.T_world_camera[frames].float()
    points = state.depth[frames][..., None] * seen.rays(state.K[frames])
    return transform(T, points)
