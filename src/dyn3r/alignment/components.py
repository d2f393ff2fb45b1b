"""Solve frames that hang together: from sampled pointmaps to cameras, depth and pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.alignment.adam import solve_adam
from dyn3r.alignment.gauss_newton import solve_fast
from dyn3r.alignment.merge_components import Known, back_to_fixed, to_known
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.sampled_objective import (
    AlignmentProblem,
    Fixed,
    SampledFlow,
    fit_depth,
    look,
    solver_weights,
)
from dyn3r.alignment.spanning_tree import start
from dyn3r.alignment.state import Observations, State

AGREES = 0.1
"""Pixels whose pairs agree within this share of the depth count for a frame's quality."""


@dataclass(frozen=True)
class Inputs:
    """Everything that cameras are found from."""

    observations: Observations
    scores: Float[Tensor, " m"]
    """0 for pairs that can't be used."""
    K: Float[Tensor, "n 3 3"]
    known: Known
    flow: SampledFlow | None
    options: AlignmentOptions

    def at(self, frames: Int[Tensor, " k"], pairs: Int[Tensor, " q"]) -> Inputs:
        """The same for some pairs and the frames they show, renumbered."""
        known = self.known.at(frames)
        return replace(
            self,
            observations=self.observations.part(frames, pairs),
            scores=self.scores[pairs],
            K=self.K[frames],
            known=known,
            flow=_flow_between(self.flow, frames, self.observations.num_frames, known),
        )


def _flow_between(
    flow: SampledFlow | None, frames: Int[Tensor, " k"], num_frames: int, known: Known
) -> SampledFlow | None:
    """Flow among `frames`; not between fixed cameras with fixed depth, where it changes nothing."""
    if flow is None:
        return None
    place = torch.full((num_frames,), -1, device=frames.device)
    place[frames] = torch.arange(len(frames), device=frames.device)
    edges = place[flow.edges]
    inside = (edges >= 0).all(-1)
    fixed = known.T_fixed & known.depth_fixed.all(-1)
    rows = torch.nonzero(inside)[:, 0]
    rows = rows[~fixed[edges[rows]].all(-1)]
    if len(rows) == 0:
        return None
    return SampledFlow(edges[rows], flow.flow[rows], flow.still[rows])


@dataclass(frozen=True)
class Solved:
    """What was found for the frames of one problem."""

    state: State
    first_depth: Float[Tensor, "n p"]
    doubtful: list[int]
    """Frames whose camera was a guess to begin with, and still does not agree with its pairs."""


def solve_part(inputs: Inputs, report: Callable[[float], None]) -> Solved:
    """Cameras, depth and pair similarities of frames that pairs connect (SPEC 6).

    What is fixed in `inputs.known` comes back as it is; otherwise the world is arbitrary and the
    geometric mean of the pair scales 0.5.
    """
    observations, options = inputs.observations, inputs.options
    begin = start(observations, inputs.K, inputs.scores)
    state = begin.state.normalised()
    none = torch.zeros_like(state.depth, dtype=torch.bool)
    problem = AlignmentProblem(
        observations=observations,
        weights=solver_weights(observations, options.dynamic_weight),
        options=replace(options, depth_prior_weight=0.0),
        fixed=Fixed(none[:, 0], none[:, 0], none, False),
        first_depth=state.depth,
        flow=inputs.flow,
    )
    state = fit_depth(state, problem, reweightings=5, fresh=True)
    state, fixed = to_known(state, inputs.known)
    first_depth = state.depth
    problem = replace(problem, options=options, fixed=fixed, first_depth=first_depth)
    solver = solve_adam if options.solver == "adam" else solve_fast
    state = back_to_fixed(solver(state, problem, report), inputs.known, fixed)
    unsure = [t for t in begin.unsolved if not bool(fixed.cameras[t])]
    doubtful = [t for t in unsure if frame_residual(state, problem, t) >= AGREES]
    return Solved(state, first_depth, doubtful)


def frame_residual(state: State, problem: AlignmentProblem, frame: int) -> float:
    """Mean distance between a frame's points and where the pairs put them, over its depth."""
    rows = problem.observations.views_of(frame)
    weights = problem.weights[rows]
    if not bool((weights > 0).any()):
        return float("inf")
    length = look(state, problem).length[rows]
    return float((weights * length / state.depth[frame]).sum() / weights.sum())
