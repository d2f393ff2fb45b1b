"""Alignment of one connected component: cameras, depth and pair similarities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.alignment.merge_components import KnownValues, register_to_priors, restore_fixed
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.sampled_objective import (
    AlignmentProblem,
    FixedUnknowns,
    SampledFlow,
    evaluate,
    fit_depth,
    pair_term_weights,
)
from dyn3r.alignment.spanning_tree import initialise
from dyn3r.alignment.state import Observations, State

AGREEMENT_TOLERANCE = 0.1
"""Pairs agree on a pixel if their points differ by less than this share of the depth.
Source: chosen by hand; it is a definition of `Geometry.frame_quality`."""
INITIAL_REWEIGHTINGS = 5
"""Re-weightings of the initial depth. Source: chosen by hand."""

Report = Callable[[float], None]
"""Called with the objective after every iteration of a solver."""
Solver = Callable[[State, AlignmentProblem, Report], State]
"""Minimises the objective of a component from an initial state."""


@dataclass(frozen=True)
class ComponentInputs:
    """Everything that cameras are estimated from."""

    observations: Observations
    scores: Float[Tensor, " m"]
    """Confidence of each pair; 0 for pairs that are not usable."""
    K: Float[Tensor, "n 3 3"]
    """Initial intrinsics in pixels, float64."""
    known: KnownValues
    flow: SampledFlow | None
    options: AlignmentOptions

    def subset(self, frames: Int[Tensor, " k"], pairs: Int[Tensor, " q"]) -> ComponentInputs:
        """The inputs of some pairs and the frames that they show, renumbered."""
        known = self.known.subset(frames)
        return replace(
            self,
            observations=self.observations.subset(frames, pairs),
            scores=self.scores[pairs],
            K=self.K[frames],
            known=known,
            flow=_flow_subset(self.flow, frames, self.observations.num_frames, known),
        )


def _flow_subset(
    flow: SampledFlow | None, frames: Int[Tensor, " k"], num_frames: int, known: KnownValues
) -> SampledFlow | None:
    """Flow between `frames`, without that between frames whose cameras and depth are fixed."""
    if flow is None:
        return None
    new_index = torch.full((num_frames,), -1, device=frames.device)
    new_index[frames] = torch.arange(len(frames), device=frames.device)
    edges = new_index[flow.edges]
    inside = (edges >= 0).all(-1)
    fixed = known.T_fixed & known.depth_fixed.all(-1)
    rows = torch.nonzero(inside)[:, 0]
    rows = rows[~fixed[edges[rows]].all(-1)]
    if len(rows) == 0:
        return None
    return SampledFlow(edges[rows], flow.flow[rows], flow.static[rows])


@dataclass(frozen=True)
class ComponentSolution:
    """Solution of one component."""

    state: State
    initial_depth: Float[Tensor, "n p"]
    doubtful: list[int]
    """Frames whose initial camera was a guess and whose pairs still disagree with it."""


def solve_component(inputs: ComponentInputs, report: Report, solver: Solver) -> ComponentSolution:
    """Cameras, depth and pair similarities of frames that pairs connect (SPEC 6).

    Values that `inputs.known` fixes are returned unchanged. Otherwise the world frame is arbitrary
    and the geometric mean of the pair scales is 0.5.
    """
    observations, options = inputs.observations, inputs.options
    initial = initialise(observations, inputs.K, inputs.scores)
    state = initial.state.normalised()
    problem = AlignmentProblem(
        observations=observations,
        weights=pair_term_weights(observations, options.dynamic_weight),
        options=replace(options, depth_prior_weight=0.0),
        fixed=FixedUnknowns.nothing(state),
        initial_depth=state.depth,
        flow=inputs.flow,
    )
    state = fit_depth(state, problem, INITIAL_REWEIGHTINGS, restart=True)
    state, fixed = register_to_priors(state, inputs.known)
    initial_depth = state.depth
    problem = replace(problem, options=options, fixed=fixed, initial_depth=initial_depth)
    state = restore_fixed(solver(state, problem, report), inputs.known, fixed)
    guessed = [t for t in initial.unsolved if not bool(fixed.cameras[t])]
    doubtful = [t for t in guessed if frame_residual(state, problem, t) >= AGREEMENT_TOLERANCE]
    return ComponentSolution(state, initial_depth, doubtful)


def frame_residual(state: State, problem: AlignmentProblem, frame: int) -> float:
    """Weighted mean distance between a frame's points and those of its pairs, over the depth."""
    rows = problem.observations.views_of(frame)
    weights = problem.weights[rows]
    if not bool((weights > 0).any()):
        return float("inf")
    length = evaluate(state, problem).length[rows]
    return float((weights * length / state.depth[frame]).sum() / weights.sum())
