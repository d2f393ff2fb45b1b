"""Gauss-Newton solver: against golden values, against Adam, and its algebra against autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.alignment.align import align
from dyn3r.alignment.depth_along_rays import best_depth, decompose_along_rays
from dyn3r.alignment.gauss_newton import apply_step, assemble_blocks, frame_groups
from dyn3r.alignment.linear_solver import solve
from dyn3r.alignment.normal_equations import (
    RADIAL_REDUCTION,
    ParameterLayout,
    eliminate_depth,
    flow_terms,
    pair_terms,
)
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.sampled_objective import (
    AlignmentProblem,
    FixedUnknowns,
    SampledFlow,
    evaluate,
    fit_depth,
)
from dyn3r.alignment.spanning_tree import initial_intrinsics, initialise, pair_scores
from dyn3r.alignment.state import State, sample
from dyn3r.types import FlowFields, Geometry
from tests.oracles.adam import align_adam, objective

from .golden_alignment import golden, golden_predictions
from .synthetic_pairs import cameras, depth_error, make, pairs_within, path_error


@pytest.fixture(scope="module")
def plain() -> Geometry:
    return align(golden_predictions())


@pytest.mark.slow
def test_beats_the_published_solver_on_the_golden_problem(plain: Geometry) -> None:
    g = golden()
    assert plain.diagnostics.terms["pairs"] < float(g["plain_final_loss"])
    assert path_error(plain.T_world_camera, g["gt_poses"]) <= float(g["plain_ate_rpet_rper"][0])
    assert depth_error(plain.depth, g["gt_depth"]) <= depth_error(g["plain_depth"], g["gt_depth"])
    assert plain.K[0, 0, 0] == pytest.approx(float(g["gt_focal"]), rel=0.005)
    assert plain.diagnostics.terms["total"] == plain.diagnostics.terms["pairs"]
    assert plain.determined.all()


@pytest.mark.slow
def test_reported_terms_are_those_of_the_reported_state(plain: Geometry) -> None:
    g = golden()
    options = AlignmentOptions()
    every = sample(golden_predictions(), 48 * 64)
    similarity = torch.from_numpy(plain.diagnostics.pair_similarity)
    scale = torch.linalg.det(similarity[:, :3, :3]) ** (1 / 3)
    assert float(scale.log().mean().exp()) == pytest.approx(0.5)
    state = State(
        torch.from_numpy(plain.T_world_camera).float(),
        torch.from_numpy(plain.K).float(),
        torch.from_numpy(plain.depth).reshape(12, -1),
        scale.float(),
        (similarity[:, :3, :3] / scale[:, None, None]).float(),
        similarity[:, :3, 3].float(),
    )
    problem = simple_problem(state, every, options)
    assert float(objective(state, problem)) == pytest.approx(
        plain.diagnostics.terms["pairs"], rel=1e-5
    )
    assert len(g["edges"]) == len(similarity)


@pytest.mark.slow
def test_full_objective_is_lower_than_the_published_solver_reaches() -> None:
    g = golden()
    flow = FlowFields(g["edges"], np.moveaxis(g["flow_ij"], 1, -1))
    found = align(
        golden_predictions(),
        dynamic=g["gt_dynamic"],
        flow=flow,
        options=AlignmentOptions(smoothness_weight=0.01),
    )
    assert found.diagnostics.terms["total"] < float(g["full_final_loss"])
    assert path_error(found.T_world_camera, g["gt_poses"]) <= float(g["full_ate_rpet_rper"][0])


def simple_problem(
    state: State, observations, options: AlignmentOptions, **more
) -> AlignmentProblem:
    fixed = FixedUnknowns.nothing(state)
    return AlignmentProblem(observations, observations.weights, options, fixed, state.depth, **more)


def small_start(noise: float = 0.05, options: AlignmentOptions | None = None, **more):
    options = options or AlignmentOptions()
    predictions, _depth = make(cameras(4), pairs_within(4), noise)
    observations = sample(predictions, 64)
    scores = pair_scores(observations)
    K, _given, _found = initial_intrinsics(predictions, scores, None, shared=options.shared_focal)
    state = initialise(observations, K, scores).state.normalised()
    problem = simple_problem(state, observations, options, **more)
    plain = replace(problem, options=replace(options, depth_prior_weight=0.0))
    state = fit_depth(state, plain, 3, restart=True)
    return state, replace(problem, initial_depth=state.depth * 1.01)


def double(state: State) -> State:
    return State(**{name: value.double() for name, value in vars(state).items()})


TERMS = {
    "pairs": AlignmentOptions(flow_weight=0.0),
    "own focals": AlignmentOptions(flow_weight=0.0, shared_focal=False),
    "smoothness": AlignmentOptions(flow_weight=0.0, smoothness_weight=0.3, translation_weight=0.5),
    "flow": AlignmentOptions(flow_weight=0.5),
    "flow, own focals": AlignmentOptions(flow_weight=0.5, shared_focal=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TERMS))
def test_slope_of_the_normal_equations_is_that_of_the_objective(name: str) -> None:
    """With depth held, b is the gradient of the objective over all other unknowns."""
    options = TERMS[name]
    state, problem = small_start(options=options)
    n, m = 4, len(problem.observations.edges)
    if options.flow_weight > 0:
        edges = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 1]])
        generator = torch.Generator().manual_seed(1)
        measured = 2 * torch.randn(4, len(problem.observations.uv), 2, generator=generator)
        static = torch.rand(4, len(problem.observations.uv), generator=generator) > 0.3
        problem = replace(problem, flow=SampledFlow(edges, measured, static))
    problem = replace(problem, fixed=replace(problem.fixed, depth=torch.ones_like(state.depth) > 0))
    layout = ParameterLayout(n, 1 if options.shared_focal else n, m)
    groups = frame_groups(problem)
    generator = torch.Generator().manual_seed(2)  # away from residuals of 0, where there is a kink
    jolt = 1e-2 * torch.randn(layout.size, generator=generator, dtype=torch.float64)
    state = apply_step(state, jolt, layout, torch.zeros(m, 3, dtype=torch.float64))
    seen = evaluate(state, problem)
    blocks, centroids = assemble_blocks(state, problem, seen, layout, groups)
    slope = torch.zeros(layout.size, dtype=torch.float64)
    for block in blocks[:-1]:  # the last holds the unit of length, which the test leaves free
        slope.index_add_(0, block.index, block.b)

    exact = double(state)
    seen64 = replace(
        problem.observations,
        points=problem.observations.points.double(),
        weights=problem.observations.weights.double(),
        uv=problem.observations.uv.double(),
    )
    flow = problem.flow
    if flow is not None:
        flow = replace(flow, flow=flow.flow.double())
    problem64 = replace(
        problem, observations=seen64, weights=problem.weights.double(), flow=flow,
        initial_depth=problem.initial_depth.double(),
    )  # fmt: skip
    step = torch.zeros(layout.size, dtype=torch.float64, requires_grad=True)

    def value(step: torch.Tensor) -> torch.Tensor:
        return objective(apply_step(exact, step, layout, centroids), problem64)

    tested = torch.arange(6 * n + layout.num_focals + 14)
    numeric = torch.stack(
        [
            (value(step.detach() + 1e-5 * unit) - value(step.detach() - 1e-5 * unit)) / 2e-5
            for unit in torch.eye(layout.size, dtype=torch.float64)[tested]
        ]
    )
    torch.testing.assert_close(
        slope[tested], numeric, atol=2e-3 * float(numeric.abs().max()), rtol=0.02
    )


def test_elimination_equals_the_system_with_depth_in_it() -> None:
    """Blocks of a frame against a plain dense system: all unknowns, then a Schur complement."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    k, q, p = 3, 2, 5
    residual, ray, weight = random(k, p, 3), random(p, 3), random(k, p).abs()
    J_frame, J_pair = random(p, 3, 7), random(k, p, 3, 7)
    flow_residual, flow_weight = random(q, p, 2), random(q, p, 2).abs()
    J_own, J_other, J_depth = random(q, p, 2, 7), random(q, p, 2, 7), random(q, p, 2)
    curvature, slope = random(p).abs(), random(p)
    index = torch.arange(7 * (k + q)).reshape(-1, 7)
    terms = [
        pair_terms(*(x[None] for x in (index[:k], residual, weight, J_frame, J_pair, ray))),
        flow_terms(
            *(x[None] for x in (index[k:], flow_residual, flow_weight, J_own, J_other, J_depth))
        ),
    ]
    held = torch.tensor([True, True, False, True, True])
    (block,) = eliminate_depth(
        torch.arange(7)[None], terms, curvature[None], slope[None], held[None]
    )

    size = 7 + 7 * (k + q)
    H = torch.zeros(size + p, size + p, dtype=torch.float64)
    b = torch.zeros(size + p, dtype=torch.float64)

    def add(J: torch.Tensor, W: torch.Tensor, r: torch.Tensor, slope_weight: torch.Tensor) -> None:
        H.add_(J.T @ W @ J)
        b.add_(J.T @ (slope_weight * r))

    for pixel in range(p):
        for view in range(k):
            J = torch.zeros(3, size + p, dtype=torch.float64)
            J[:, :7], J[:, 7 + 7 * view : 14 + 7 * view] = J_frame[pixel], J_pair[view, pixel]
            J[:, size + pixel] = ray[pixel]
            r, w = residual[view, pixel].double(), weight[view, pixel].double()
            unit = r / r.norm()
            add(J, w * (torch.eye(3) - RADIAL_REDUCTION * torch.outer(unit, unit)), r, w)
        for view in range(q):
            J = torch.zeros(2, size + p, dtype=torch.float64)
            J[:, :7] = J_own[view, pixel]
            J[:, 7 + 7 * (k + view) : 14 + 7 * (k + view)] = J_other[view, pixel]
            J[:, size + pixel] = J_depth[view, pixel]
            w = flow_weight[view, pixel].double()
            add(J, torch.diag(w), flow_residual[view, pixel].double(), w)
        H[size + pixel, size + pixel] += curvature[pixel]
        b[size + pixel] += slope[pixel]
    depths = size + torch.nonzero(held)[:, 0]
    mixed, inverse = H[:size][:, depths], torch.linalg.inv(H[depths][:, depths])
    torch.testing.assert_close(
        block.H, H[:size, :size] - mixed @ inverse @ mixed.T, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        block.b, b[:size] - mixed @ inverse @ b[depths], atol=1e-4, rtol=1e-4
    )


def test_conjugate_gradients_agree_with_cholesky(monkeypatch: pytest.MonkeyPatch) -> None:
    state, problem = small_start()
    layout = ParameterLayout(4, 1, len(problem.observations.edges))
    groups = frame_groups(problem)
    blocks, _ = assemble_blocks(state, problem, evaluate(state, problem), layout, groups)
    free = torch.ones(layout.size, dtype=torch.bool)
    free[:6] = False
    dense = solve(blocks, layout.size, free, 1e-2)
    monkeypatch.setattr("dyn3r.alignment.linear_solver.MAX_FRONT", 0)
    iterative = solve(blocks, layout.size, free, 1e-2)
    assert (dense[:6] == 0).all()
    torch.testing.assert_close(iterative, dense, atol=2e-3 * float(dense.abs().max()), rtol=0)


def test_best_depth_is_a_minimum_along_the_ray() -> None:
    generator = torch.Generator().manual_seed(0)
    ray = torch.cat([0.3 * torch.randn(50, 2, generator=generator), torch.ones(50, 1)], 1)
    points = 3 * ray + 0.3 * torch.randn(7, 50, 3, generator=generator)
    weights = torch.rand(7, 50, generator=generator)
    seen = decompose_along_rays(ray, points, weights)
    best = best_depth(seen, 40)
    candidates = torch.linspace(1.5, 4.5, 3001)[:, None].expand(-1, 50)
    costs = torch.stack([(weights * seen.distances(d)).sum(0) for d in candidates])
    assert ((weights * seen.distances(best)).sum(0) <= costs.amin(0) * 1.002).all()
    direct = (best[:, None] * ray - points).norm(dim=-1)
    torch.testing.assert_close(seen.distances(best), direct, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_adam_follows_the_same_objective_and_ends_near_gauss_newton() -> None:
    predictions, _depth = make(cameras(4), pairs_within(4), 0.05)
    adam = align_adam(predictions, steps=150)
    ours = align(predictions, options=AlignmentOptions(pixels=24 * 32))
    assert adam.diagnostics.history[-1, 1] < adam.diagnostics.history[0, 1]
    assert ours.diagnostics.terms["total"] <= adam.diagnostics.terms["total"] * 1.002
    assert adam.diagnostics.terms["pairs"] == pytest.approx(
        adam.diagnostics.history[-1, 1], rel=1e-3
    )


def test_blocks_of_views_and_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views, flow fields and pairs are computed a few at a time, to save memory."""
    edges = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 1]])

    def work() -> tuple[torch.Tensor, ...]:
        state, problem = small_start(options=AlignmentOptions(flow_weight=0.5))
        shape = (len(edges), len(problem.observations.uv))
        generator = torch.Generator().manual_seed(1)
        measured = 2 * torch.randn(*shape, 2, generator=generator)
        problem = replace(problem, flow=SampledFlow(edges, measured, torch.ones(shape) > 0))
        fitted = fit_depth(state, problem, 3)
        layout = ParameterLayout(4, 1, len(problem.observations.edges))
        groups = frame_groups(problem)
        seen = evaluate(fitted, problem)
        blocks, centroids = assemble_blocks(fitted, problem, seen, layout, groups)
        return state.pair_t, fitted.depth, seen.length, centroids, blocks[0].H, blocks[-1].b

    together = work()
    monkeypatch.setattr("dyn3r.alignment.sampled_objective.AT_ONCE", 100)
    monkeypatch.setattr("dyn3r.alignment.spanning_tree.PAIRS_AT_ONCE", 3)
    for one, other in zip(work(), together):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_observations_of_all_pairs_are_not_copied() -> None:
    predictions, _depth = make(cameras(4), pairs_within(4), 0.05)
    observations = sample(predictions, 64)
    frames, pairs = torch.arange(4), torch.arange(len(observations.edges))
    assert observations.subset(frames, pairs) is observations
    turned = observations.subset(frames, pairs.flip(0))
    torch.testing.assert_close(turned.points[0], observations.points[len(pairs) - 1])
    assert len(observations.subset(frames, pairs[:-1]).edges) == len(pairs) - 1
