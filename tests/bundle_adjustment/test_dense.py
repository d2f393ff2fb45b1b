"""Dense depth: upsampling, smoothing, and the depth of single samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment.dense_depth import depth_of_samples
from dyn3r.bundle_adjustment.depth_smoothing import (
    joint_bilateral_upsample,
    smooth_solve,
    smoothness_weights,
)
from dyn3r.bundle_adjustment.measurements import regular_grid
from dyn3r.bundle_adjustment.problem import Estimate
from tests.bundle_adjustment.made_up import made_up
from tests.bundle_adjustment.test_solve import problem_of


def solved(values, weight, right, down) -> np.ndarray:
    """The same minimum from one dense matrix."""
    h, w = values.shape
    index = np.arange(h * w).reshape(h, w)
    A = np.diag(weight.ravel().astype(np.float64))
    for stiff, a, b in ((right, index[:, :-1], index[:, 1:]), (down, index[:-1], index[1:])):
        for s, p, q in zip(stiff.ravel(), a.ravel(), b.ravel()):
            A[p, p] += s
            A[q, q] += s
            A[p, q] -= s
            A[q, p] -= s
    return np.linalg.solve(A, (weight * values).ravel()).reshape(h, w)


@pytest.mark.parametrize("stiffness", [0.1, 10.0, 1000.0])
def test_smooth_solve_is_the_dense_solution(stiffness: float) -> None:
    random = np.random.default_rng(0)
    h, w = 7, 9
    values, start = random.normal(0, 1, (2, h, w)).astype(np.float32)
    weight = random.uniform(0, 5, (h, w)).astype(np.float32) * (random.random((h, w)) < 0.4)
    right = stiffness * random.uniform(0.02, 1, (h, w - 1)).astype(np.float32)
    down = stiffness * random.uniform(0.02, 1, (h - 1, w)).astype(np.float32)
    assert (weight == 0).any()
    torch_values = [torch.from_numpy(x) for x in (values, weight, right, down, start)]
    v, wt, r, d, s = torch_values
    exact = solved(values, weight, right, down)
    found = smooth_solve(v, wt, (r, d), s, tolerance=0.0).numpy()
    np.testing.assert_allclose(found, exact, atol=2e-3)
    early = np.abs(smooth_solve(v, wt, (r, d), s).numpy() - exact)
    first = np.abs(s.numpy() - exact)
    assert np.abs(found - exact).max() < early.max() < 0.05 * first.max()
    np.testing.assert_array_equal(s.numpy(), start)  # the start is not overwritten


def test_maps_are_smoothed_apart() -> None:
    random = torch.Generator().manual_seed(0)
    values, weight, start = torch.rand(3, 2, 6, 8, generator=random)
    images = (255 * torch.rand(2, 6, 8, 3, generator=random)).byte()
    both = smooth_solve(values, weight, smoothness_weights(images), start)
    for i in range(2):
        one = smooth_solve(values[i], weight[i], smoothness_weights(images[i]), start[i])
        torch.testing.assert_close(both[i], one)


def test_smooth_solve_keeps_a_constant() -> None:
    flat, weight = torch.full((5, 6), 0.3), torch.ones(5, 6)
    stiffness = torch.ones(5, 5), torch.ones(4, 6)
    torch.testing.assert_close(smooth_solve(flat, weight, stiffness, flat), flat)


def test_smoothness_is_weak_across_edges_of_the_image() -> None:
    image = np.full((6, 8, 3), 40, np.uint8)
    image[:, 4:] = 200
    right, down = smoothness_weights(torch.from_numpy(image), 100.0)
    assert right.shape == (6, 7)
    assert down.shape == (5, 8)
    np.testing.assert_allclose(right[:, 3], 2, atol=0.01)
    np.testing.assert_allclose(np.delete(right.numpy(), 3, 1), 100)
    np.testing.assert_allclose(down, 100)


def test_samples_lie_on_a_grid() -> None:
    np.testing.assert_array_equal(regular_grid((5, 7), 2), [[2, 2], [6, 2]])
    every = regular_grid((2, 3), 1000)
    assert len(regular_grid((192, 352), 350)) == pytest.approx(350, rel=0.1)
    assert {tuple(x) for x in every} == {(u, v) for u in range(3) for v in range(2)}


def test_depth_of_samples_with_true_cameras() -> None:
    truth = made_up(5, noise=0.0)
    problem, _ = problem_of(truth, 96)
    T = torch.linalg.inv(torch.from_numpy(truth.T))
    start = Estimate(
        T[:, :3, :3], T[:, :3, 3], problem.prior.mean.clone(), torch.tensor(-np.log(1.03))
    )
    wanted = problem.prior.mean - np.log(0.9)
    every = depth_of_samples(problem, start, slice(0, 5), 3.0)
    for i, (found, information) in enumerate(zip(*every)):
        alone = replace(problem, measurements=[problem.measurements[i]])
        one, certain = depth_of_samples(alone, start, slice(i, i + 1), 3.0)
        torch.testing.assert_close(found, one[0])
        torch.testing.assert_close(information, certain[0])
        sure = information > 10
        assert sure.double().mean() > 0.9
        assert (found - wanted[i])[sure].abs().mean() < 0.01  # 0.1 before
        unseen = information == 0
        torch.testing.assert_close(found[unseen], problem.prior.mean[i][unseen])


def test_a_frame_without_flow_keeps_its_depth() -> None:
    problem, now = problem_of(made_up(3, (32, 48)))
    del problem.measurements[1]
    now = replace(now, log_depth=problem.prior.mean)
    found, information = depth_of_samples(problem, now, slice(0, 3), 3.0)
    torch.testing.assert_close(found[1], problem.prior.mean[1])
    assert not information[1].any()
    assert information[0].any()


def test_upsampling_is_linear_and_stops_at_edges_of_the_image() -> None:
    """Linear where all colors are equal, the value of the same side at an edge."""
    h, w = 24, 30
    uv = np.stack(np.meshgrid(np.arange(2, w, 4), np.arange(2, h, 4)), -1).reshape(-1, 2)
    plane = torch.from_numpy(0.1 * uv[:, 0] - 0.2 * uv[:, 1]).double()
    image = np.full((h, w, 3), 90, np.uint8)
    information = torch.full((len(uv),), 7.0)
    values, known = joint_bilateral_upsample(plane, information, uv, torch.from_numpy(image))
    v, u = np.mgrid[2:22, 2:27]
    torch.testing.assert_close(
        values[2:22, 2:27], torch.from_numpy(0.1 * u - 0.2 * v).float(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(known, torch.full((h, w), 7.0))
    image[:, 15:] = 200
    step = torch.from_numpy((uv[:, 0] >= 15).astype(np.float64))
    values, known = joint_bilateral_upsample(step, information, uv, torch.from_numpy(image))
    torch.testing.assert_close(
        values, torch.from_numpy(image[..., 0] == 200).float(), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(known, torch.full((h, w), 7.0))


def test_upsampling_is_weighted_by_information() -> None:
    uv = np.array([[0, 0], [4, 0], [0, 4], [4, 4]])
    information = torch.tensor([1.0, 0.0, 1.0, 0.0])
    image = np.zeros((5, 5, 3), np.uint8)
    values, known = joint_bilateral_upsample(
        torch.tensor([1.0, 9.0, 1.0, 9.0]), information, uv, torch.from_numpy(image)
    )
    torch.testing.assert_close(values[:, :4], torch.ones(5, 4))
    torch.testing.assert_close(known[0], torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_upsampling_of_a_single_sample() -> None:
    values, known = joint_bilateral_upsample(
        torch.tensor([2.0]),
        torch.tensor([3.0]),
        np.array([[2, 1]]),
        torch.zeros(4, 6, 3, dtype=torch.uint8),
    )
    torch.testing.assert_close(values, torch.full((4, 6), 2.0))
    torch.testing.assert_close(known, torch.full((4, 6), 3.0))
