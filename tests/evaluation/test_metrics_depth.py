"""Depth metrics: golden values, alignments against slow solutions, corner cases."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dyn3r.errors import InputError
from dyn3r.evaluation.depth_metrics import (
    align_depth,
    depth_errors,
    mean_depth_errors,
    resize_depth,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "misc_metrics.npz")
PREDICTED, TRUTH = GOLDEN["depth__pred"], GOLDEN["depth__gt"]


@pytest.mark.parametrize(
    ("alignment", "published", "tolerance"),
    [
        ("median", "median", 2e-7),
        ("scale_shift", "scale_shift_lstsq", 2e-7),
        # Ten re-weightings do not converge fully, so the last digits depend on rounding.
        ("scale_weiszfeld", "scale_weiszfeld", 5e-5),
        # That run of the published solver was given the steps to converge; ours is exact.
        ("scale_shift_l1", "lad2", 5e-5),
    ],
)
def test_golden_depth(alignment: str, published: str, tolerance: float) -> None:
    errors = depth_errors(PREDICTED, TRUTH, alignment=alignment, max_depth=70.0)
    np.testing.assert_allclose(
        astuple(errors)[:8], GOLDEN[f"depth__{published}__values"], atol=tolerance, rtol=0
    )
    assert errors.coverage == 1


@pytest.mark.parametrize(
    "alignment", ["median", "scale_shift", "scale_weiszfeld", "scale_shift_l1"]
)
def test_scaled_ground_truth_is_perfect(alignment: str) -> None:
    errors = depth_errors(TRUTH * 0.37, TRUTH, alignment=alignment)
    assert errors.abs_rel < 1e-6
    assert errors.delta1 == 1


@pytest.mark.parametrize("alignment", ["scale_shift", "scale_shift_l1"])
def test_scaled_and_shifted_ground_truth_is_perfect(alignment: str) -> None:
    errors = depth_errors(np.where(TRUTH > 0, 0.5 * TRUTH + 3, 0), TRUTH, alignment=alignment)
    assert errors.abs_rel < 1e-5
    median = depth_errors(np.where(TRUTH > 0, 0.5 * TRUTH + 3, 0), TRUTH, alignment="median")
    assert median.abs_rel > 0.05


def test_published_steps_hardly_move_the_median_scale() -> None:
    """The known answer of docs/design/DATASETS.md, 0, finding 4: the optimum is (30, 5)."""
    predicted = np.linspace(0.2, 1.515, 1001)
    truth = 30 * predicted + 5
    assert align_depth(predicted, truth, "median")[0] == pytest.approx(35.83, abs=0.005)
    scale, shift = align_depth(predicted, truth, "lad2")
    assert scale == pytest.approx(35.73, abs=0.005)
    assert shift == pytest.approx(0.086, abs=0.0005)


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_published_steps_are_those_of_adam(noise: float) -> None:
    random = np.random.default_rng(3)
    predicted = random.uniform(0.1, 5, 500)
    truth = np.abs(1.3 * predicted + 0.2 + noise * random.standard_normal(500))
    p, t = torch.from_numpy(predicted), torch.from_numpy(truth)
    start = align_depth(predicted, truth, "median")
    scale, shift = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in start)
    adam = torch.optim.Adam([scale, shift], lr=1e-4)
    for _ in range(1000):
        adam.zero_grad()
        (scale * p + shift - t).abs().mean().backward()
        adam.step()
    found = align_depth(predicted, truth, "lad2")
    np.testing.assert_allclose(found, (scale.item(), shift.item()), atol=1e-9)


def test_least_absolute_error_agrees_with_linear_programming() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(1, 5, 80)
    t = 1.7 * p - 0.4 + rng.standard_cauchy(80) * 0.1
    A = np.stack([p, np.ones(80)], axis=1)
    bounds = [(None, None)] * 2 + [(0, None)] * 80
    upper = np.block([[A, -np.eye(80)], [-A, -np.eye(80)]])
    best = linprog(np.r_[0, 0, np.ones(80)], upper, np.r_[t, -t], bounds=bounds)
    scale, shift = align_depth(p, t, "scale_shift_l1")
    assert np.abs(scale * p + shift - t).sum() == pytest.approx(best.fun, rel=1e-6)


def test_least_squares_agrees_with_numpy() -> None:
    rng = np.random.default_rng(6)
    p, t = rng.uniform(1, 5, 50), rng.uniform(1, 5, 50)
    expected = np.polyfit(p, t, 1)
    np.testing.assert_allclose(align_depth(p, t, "scale_shift"), expected)


def test_one_alignment_per_sequence() -> None:
    drifting = TRUTH * np.array([1.0, 1.5, 2.0])[:, None, None]
    alone = [depth_errors(p, t, max_depth=70.0).abs_rel for p, t in zip(drifting, TRUTH)]
    assert max(alone) < 1e-6
    assert depth_errors(drifting, TRUTH, max_depth=70.0).abs_rel > 0.1


def test_pixels_without_depth_are_left_out_and_counted() -> None:
    holes = PREDICTED.copy()
    holes[0, :10] = 0
    holes[1, 0, 0] = np.nan
    errors = depth_errors(holes, TRUTH, max_depth=70.0)
    valid = (TRUTH > 0) & (TRUTH < 70)
    gone = valid[0, :10].sum() + valid[1, 0, 0]
    assert errors.valid_pixels == valid.sum() - gone
    assert errors.coverage == pytest.approx(1 - gone / valid.sum())
    only = np.zeros(TRUTH.shape, bool)
    only[2] = True
    assert depth_errors(holes, TRUTH, region=only, max_depth=70.0).valid_pixels == valid[2].sum()


def test_a_shift_below_zero_still_has_a_logarithm() -> None:
    p, t = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 5.0, 9.0]])
    errors = depth_errors(np.c_[p, [[0.1]]], np.c_[t, [[1.0]]], alignment=(4.0, -3.0))
    assert np.isfinite(errors.log_rmse)
    assert errors.delta1 == 0.75


def test_a_constant_prediction_has_an_alignment() -> None:
    errors = depth_errors(np.ones_like(TRUTH), TRUTH, alignment="scale_shift", max_depth=70.0)
    assert errors.rmse == pytest.approx(TRUTH[(TRUTH > 0) & (TRUTH < 70)].std(), rel=1e-6)


def test_means_are_weighted_by_valid_pixels() -> None:
    a = depth_errors(PREDICTED, TRUTH, max_depth=70.0)
    b = replace(a, abs_rel=1.0, valid_pixels=3 * a.valid_pixels)
    mean = mean_depth_errors([a, b])
    assert mean.abs_rel == pytest.approx((a.abs_rel + 3) / 4)
    assert mean.valid_pixels == 4 * a.valid_pixels


def test_resizing_keeps_pixels_in_place() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32) + 0.5, (1, 6, 1))
    big = resize_depth(ramp, (12, 16))
    # OpenCV's cubic kernel (a = -0.75), which the protocols use, bends ramps by up to 5 %.
    np.testing.assert_allclose(big[0, 6, 4:-4], (np.arange(16) + 0.5)[4:-4] / 2, atol=0.05)
    np.testing.assert_allclose(resize_depth(np.full((2, 6, 8), 3.0), (12, 16)), 3)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        depth_errors(np.zeros_like(TRUTH), TRUTH)
    with pytest.raises(InputError, match="nothing to compare"):
        depth_errors(PREDICTED, TRUTH, region=np.zeros(TRUTH.shape, bool), alignment=(1.0, 0.0))
    with pytest.raises(InputError, match="differ in shape"):
        depth_errors(PREDICTED[:2], TRUTH)
    with pytest.raises(InputError, match="unknown depth alignment"):
        depth_errors(PREDICTED, TRUTH, alignment="affine")
    with pytest.raises(InputError, match="no sequences"):
        mean_depth_errors([])
