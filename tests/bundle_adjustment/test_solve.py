"""The equations of bundle adjustment against slow, plain ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment import schur as system
from dyn3r.bundle_adjustment.depth_prior import DepthPrior, independent_prior, network_prior
from dyn3r.bundle_adjustment.measurements import flow_measurements, regular_grid
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.reduced_system import CameraBlocks, solve_dense, solve_sparse
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.bundle_adjustment.solver import minimise, total_cost
from tests.bundle_adjustment.made_up import Truth, disturbed, made_up

WIDTH = 3.0


def problem_of(truth: Truth, samples: int = 12) -> tuple[BundleProblem, Estimate]:
    """A small problem in double precision, a little away from the answer."""
    n, h, w = truth.depth.shape
    uv = regular_grid((h, w), samples)
    start = disturbed(truth)
    T = torch.linalg.inv(torch.from_numpy(0.7 * truth.T + 0.3 * start.T_world_camera))
    u, _, v = torch.linalg.svd(T[:, :3, :3])
    K = torch.from_numpy(1.03 * truth.K)
    log_depth = torch.from_numpy(np.log(0.9 * truth.depth[:, uv[:, 1], uv[:, 0]]))
    seen = [
        flow_measurements(truth.flow, image, i, uv, None) for i, image in enumerate(truth.images)
    ]
    problem = BundleProblem(
        uv=torch.from_numpy(uv.astype(np.float64)),
        measurements=seen,
        center=K[:, :2, 2],
        focal=K[:, [0, 1], [0, 1]],
        prior=independent_prior(log_depth, torch.full_like(log_depth, 0.5)),
        focal_sigma=0.1,
        fixed=torch.arange(n) == 0,
    )
    bumps = 0.05 * torch.sin(torch.arange(len(uv), dtype=torch.float64))
    return problem, Estimate(u @ v, T[:, :3, 3], log_depth + bumps, torch.tensor(0.02).double())


@pytest.fixture(scope="module", params=["independent", "smooth", "heavy tails"])
def tiny(request: pytest.FixtureRequest) -> tuple[BundleProblem, Estimate]:
    """With each kind of prior."""
    problem, now = problem_of(made_up(4, (48, 64)))
    if request.param == "independent":
        return problem, now
    prior = network_prior(problem.prior, problem.uv, (48, 64))
    prior = prior.reweighted(
        now.log_depth + 0.1 * torch.cos(torch.arange(len(problem.uv)).double())
    )
    return problem.with_prior(replace(prior, heavy_tails=request.param == "heavy tails")), now


def moved(now: Estimate, change: torch.Tensor, deeper: torch.Tensor | float = 0.0) -> Estimate:
    """Cameras shifted and turned by their six numbers, the focal length by the last."""
    shift, turn = change[:-1].reshape(-1, 6).split(3, 1)
    x, y, z = turn.T
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(-1, 3, 3)
    R = torch.linalg.matrix_exp(cross)
    t = (R @ now.t[..., None])[..., 0] + shift
    return Estimate(R @ now.R, t, now.log_depth + deeper, now.log_focal + change[-1])


def slope(function, size: int, step: float = 1e-6) -> torch.Tensor:
    """Central differences by each of `size` unknowns, in the last dimension."""
    columns = []
    for unknown in range(size):
        change = torch.zeros(size, dtype=torch.float64)
        change[unknown] = step
        columns.append((function(change) - function(-change)) / (2 * step))
    return torch.stack(columns, -1)


@pytest.mark.parametrize("i", [0, 2])
def test_derivatives_are_those_of_finite_differences(tiny, i: int) -> None:
    problem, now = tiny
    n, seen = len(now.R), problem.measurements[i]

    def error(change: torch.Tensor) -> torch.Tensor:
        return residuals(problem, moved(now, change), seen, derivatives="none").error

    found, full = residuals(problem, now, seen), slope(error, 6 * n + 1)
    assert found.in_front.all()
    for e, j in enumerate(seen.target.tolist()):
        columns = [*range(6 * i, 6 * i + 6), *range(6 * j, 6 * j + 6), 6 * n]
        torch.testing.assert_close(
            found.derivatives.all()[e].double(), full[e][..., columns], rtol=1e-5, atol=1e-5
        )
        others = sorted(set(range(6 * n)) - set(columns))
        assert full[e][..., others].abs().max() < 1e-6  # no other camera matters

    def by_depth(change: torch.Tensor) -> torch.Tensor:
        deeper = replace(now, log_depth=now.log_depth + change)
        return residuals(problem, deeper, seen, derivatives="none").error

    depth = slope(by_depth, 1)[..., 0]
    torch.testing.assert_close(found.J_depth.double(), depth, rtol=1e-5, atol=1e-5)
    alone = residuals(problem, now, seen, derivatives="depth")
    assert alone.derivatives is None
    torch.testing.assert_close(alone.J_depth, found.J_depth)


def test_points_behind_the_other_camera_pull_at_nothing(tiny) -> None:
    problem, now = tiny
    t = now.t.clone()
    t[1, 2] -= 20
    behind = replace(now, t=t)
    found = residuals(problem, behind, problem.measurements[0])
    row = problem.measurements[0].target.tolist().index(1)
    assert not found.in_front[row].any()
    assert not robust_weight(problem.measurements[0], found, WIDTH)[row].any()
    assert total_cost(problem, behind, WIDTH) > total_cost(problem, now, WIDTH)


def test_gradient_is_that_of_the_cost(tiny) -> None:
    problem, now = tiny
    found, size = system.linearise(problem, now, WIDTH), 6 * len(now.R) + 1

    def cost(change: torch.Tensor) -> torch.Tensor:
        return torch.tensor(total_cost(problem, moved(now, change), WIDTH), dtype=torch.float64)

    torch.testing.assert_close(2 * found.gradient, slope(cost, size), rtol=1e-5, atol=1e-3)
    few = slope(lambda c: cost_of_depth(problem, now, c), 3)
    torch.testing.assert_close(2 * found.depth_gradient[1, :3], few, rtol=1e-5, atol=1e-4)


def cost_of_depth(problem: BundleProblem, now: Estimate, change: torch.Tensor) -> torch.Tensor:
    log_depth = now.log_depth.clone()
    log_depth[1, : len(change)] += change
    value = total_cost(problem, replace(now, log_depth=log_depth), WIDTH)
    return torch.tensor(value, dtype=torch.float64)


def dense_precision(prior: DepthPrior, i: int) -> torch.Tensor:
    """Inverse of the covariance of the log depths of frame i: independent and smooth errors."""
    B = prior.basis[i]
    return torch.linalg.inv(
        torch.diag(1 / prior.precision[i]) + B @ torch.diag(prior.basis_variance) @ B.T
    )


def full_step(problem: BundleProblem, now: Estimate, damping: float) -> Estimate:
    """Gauss and Newton with all unknowns in one dense matrix."""
    n, k = now.log_depth.shape
    cameras = 6 * n + 1
    H = torch.zeros(cameras + n * k, cameras + n * k, dtype=torch.float64)
    g = torch.zeros(len(H), dtype=torch.float64)
    for seen in problem.measurements:
        found = residuals(problem, now, seen)
        weight = robust_weight(seen, found, WIDTH)
        for e, (i, j) in enumerate(zip(seen.source.tolist(), seen.target.tolist())):
            at = [*range(6 * i, 6 * i + 6), *range(6 * j, 6 * j + 6), 6 * n, 0]
            for s in range(k):
                at[-1] = cameras + i * k + s
                J = torch.cat(
                    [found.derivatives.all()[e, s], found.J_depth[e, s][:, None]], 1
                ).double()
                where = torch.tensor(at)
                H[where[:, None], where] += weight[e, s] * J.T @ J
                g[where] += weight[e, s] * J.T @ found.error[e, s]
    bare = H.diagonal()[:cameras].clone()
    bare[-1] += problem.focal_sigma**-2
    prior = problem.prior
    H.diagonal()[cameras:] += prior.precision.flatten()
    H.diagonal()[cameras:] *= 1 + damping  # the smooth part of the prior is not damped
    for i, q in enumerate(prior.precision):
        at = slice(cameras + i * k, cameras + (i + 1) * k)
        H[at, at] += dense_precision(prior, i) - torch.diag(q)
    H.diagonal()[:cameras] += damping * bare + 1e-9 * bare.mean()
    H[cameras - 1, cameras - 1] += problem.focal_sigma**-2
    g[cameras - 1] += now.log_focal * problem.focal_sigma**-2
    for i in range(n):
        at = slice(cameras + i * k, cameras + (i + 1) * k)
        g[at] += dense_precision(prior, i) @ (now.log_depth - prior.mean)[i]
    free = torch.ones(len(H), dtype=torch.bool)
    free[:cameras] = torch.cat([~problem.fixed.repeat_interleave(6), torch.tensor([True])])
    change = torch.zeros_like(g)
    change[free] = -torch.linalg.solve(H[free][:, free], g[free])
    return moved(now, change[:cameras], change[cameras:].reshape(n, k))


def same(a: Estimate | None, b: Estimate | None, tolerance: float) -> None:
    assert a is not None
    assert b is not None
    for name in ("R", "t", "log_depth", "log_focal"):
        x, y = getattr(a, name), getattr(b, name)
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_step_is_that_of_all_unknowns_together(tiny, damping: float) -> None:
    problem, now = tiny
    found = system.damped_step(problem, now, system.linearise(problem, now, WIDTH), damping)
    wanted = full_step(problem, now, damping)
    assert (wanted.log_depth - now.log_depth).abs().max() > 0.01  # it goes somewhere
    assert (
        wanted.log_depth - now.log_depth
    ).abs().max() < system.MAX_LOG_DEPTH_STEP  # and unclipped
    assert not found.R[0].sub(now.R[0]).any()
    assert not found.t[0].sub(now.t[0]).any()
    same(found, wanted, 1e-5)  # of steps of 0.1; derivatives are in single precision


@pytest.mark.slow
@pytest.mark.parametrize("focal_sigma", [0.1, 0.0])
def test_sparse_steps_are_those_of_the_dense_matrix(monkeypatch, focal_sigma: float) -> None:
    problem, now = problem_of(made_up(70, (16, 32), graph="swinstride-2-noncyclic"), 8)
    problem = replace(problem, focal_sigma=focal_sigma)
    found = system.linearise(problem, now, WIDTH)
    dense = system.damped_step(problem, now, found, 1e-3)

    def never(*_):
        raise AssertionError("dense")

    monkeypatch.setattr(system, "MIN_SPARSE_UNKNOWNS", 0)
    monkeypatch.setattr(system, "solve_dense", never)
    same(system.damped_step(problem, now, found, 1e-3), dense, 1e-8)


@pytest.mark.parametrize("batch", [1, 200, 10**9])
def test_how_many_are_worked_on_at_once_does_not_matter(monkeypatch, batch: int) -> None:
    problem, now = problem_of(made_up(6, (32, 48)))
    problem = replace(problem, measurements=problem.measurements[1:])  # a frame without flow
    monkeypatch.setattr("dyn3r.bundle_adjustment.problem.BATCH_MEASUREMENTS", batch)
    frames = [sorted(set(some.source.tolist())) for some in problem.batches]
    assert [i for some in frames for i in some] == [1, 2, 3, 4, 5]  # in order, in one batch each
    assert len(frames) == {1: 5, 10**9: 1}.get(batch, len(frames))
    found = system.linearise(problem, now, WIDTH)
    monkeypatch.setattr("dyn3r.bundle_adjustment.problem.BATCH_MEASUREMENTS", 100)
    other = replace(problem)
    expected = system.linearise(other, now, WIDTH)
    assert other.batches is not problem.batches
    torch.testing.assert_close(found.gradient, expected.gradient)
    torch.testing.assert_close(found.information, expected.information)
    same(
        system.damped_step(problem, now, found, 0.1),
        system.damped_step(other, now, expected, 0.1),
        1e-6,
    )
    assert total_cost(problem, now, WIDTH) == pytest.approx(total_cost(other, now, WIDTH))


def test_where_many_frames_meet_the_matrix_stays_dense(tiny, monkeypatch) -> None:
    problem, now = tiny
    monkeypatch.setattr(system, "MIN_SPARSE_UNKNOWNS", 0)
    monkeypatch.setattr(system, "solve_sparse", lambda *_: pytest.fail("sparse"))
    assert system.damped_step(problem, now, system.linearise(problem, now, WIDTH), 1e-3) is not None


@pytest.mark.parametrize("solve", [solve_dense, solve_sparse])
def test_equations_without_a_solution_are_told(solve) -> None:
    zero, free = torch.zeros(7, dtype=torch.float64), torch.ones(7, dtype=torch.bool)
    first, ones = torch.zeros(1, dtype=torch.int64), torch.ones(1, 6, 6, dtype=torch.float64)
    block = CameraBlocks(first, first, ones, first, ones[:, :, :2], ones[0, 0, :2])
    assert solve(iter([block]), zero, zero, free) is None
    unit = torch.ones(7, dtype=torch.float64)
    alone = torch.arange(7) == 2  # (1 + 1) x = 1 + 2
    found = solve(iter([block]), unit, 2 * unit, alone)
    torch.testing.assert_close(found, 1.5 * alone.double())


def with_few_pairs(problem: BundleProblem) -> BundleProblem:
    """Frames with 2, 1, no and 2 pairs."""
    names, kept = ("source", "target", "uv", "whiten", "weight"), []
    for seen, count in zip(problem.measurements, (2, 1, 0, 2)):
        few = replace(seen, **{name: getattr(seen, name)[:count] for name in names})
        kept += [few] if count else []
    return replace(problem, measurements=kept)


@pytest.mark.parametrize(("empty", "groups"), [(0.0, [2, 1]), (0.2, [3])])
def test_frames_with_other_numbers_of_pairs_are_solved_together(
    tiny, monkeypatch, empty: float, groups: list[int]
) -> None:
    monkeypatch.setattr("dyn3r.bundle_adjustment.problem.MAX_EMPTY_SHARE", empty)
    problem, now = with_few_pairs(tiny[0]), tiny[1]
    found = system.linearise(problem, now, WIDTH)
    assert [len(block.group.frames) for block in found.blocks] == groups
    wanted = full_step(problem, now, 0.1)
    assert (wanted.log_depth - now.log_depth).abs().max() < system.MAX_LOG_DEPTH_STEP
    same(system.damped_step(problem, now, found, 0.1), wanted, 1e-5)


def test_the_same_pair_twice_counts_twice(tiny) -> None:
    problem, now = tiny
    twice = []
    for seen in problem.measurements:
        names = ("source", "target", "uv", "whiten", "weight")
        twice.append(replace(seen, **{n: torch.cat([getattr(seen, n)] * 2) for n in names}))
    double = replace(problem, measurements=twice)
    heavy = replace(
        problem, measurements=[replace(s, weight=2 * s.weight) for s in problem.measurements]
    )
    a, b = (
        system.damped_step(p, now, system.linearise(p, now, WIDTH), 1e-3) for p in (double, heavy)
    )
    same(a, b, 1e-7)


def test_the_cost_falls_until_the_gradient_is_gone(tiny) -> None:
    problem, now = tiny
    solution = minimise(problem, now, 100, least_decrease=1e-6)
    problem = problem.with_prior(problem.prior.reweighted(solution.estimate.log_depth))
    before = total_cost(problem, now, solution.width)
    assert total_cost(problem, solution.estimate, solution.width) < 0.5 * before
    start = system.linearise(problem, now, solution.width).depth_gradient.norm()
    end = system.linearise(problem, solution.estimate, solution.width).depth_gradient.norm()
    assert end < 0.01 * start
