"""Contours and flicker of depth with closed-form values."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.evaluation.depth_detail import CONTOUR_PERCENT, contour_f1, flicker


def box(columns: slice, near: float = 1.0, far: float = 2.0) -> np.ndarray:
    depth = np.full((1, 8, 12), far)
    depth[:, :, columns] = near
    return depth


def test_the_truth_at_any_scale_has_all_contours() -> None:
    truth = box(slice(4, 8))
    assert contour_f1(truth, truth) == 1
    assert contour_f1(7 * truth, truth) == 1


def test_half_of_the_contours() -> None:
    # one of two edges is a pixel off: 8 of 16 contours are found, and 8 of 16 found are true
    assert contour_f1(box(slice(4, 9)), box(slice(4, 8))) == pytest.approx(0.5)


def test_a_contour_with_the_wrong_side_in_front_is_missed() -> None:
    assert contour_f1(box(slice(4, 8), 2.0, 1.0), box(slice(4, 8))) == 0


def test_small_steps_count_for_small_thresholds_only() -> None:
    # a step of 10.5 % is a contour for t = 5 to 10, in the truth (100 %) for all
    share = CONTOUR_PERCENT[CONTOUR_PERCENT <= 10].sum() / CONTOUR_PERCENT.sum()
    assert contour_f1(box(slice(4, 8), 1.0, 1.105), box(slice(4, 8))) == pytest.approx(share)


def test_unknown_depth_is_left_out() -> None:
    truth = box(slice(4, 8))
    predicted = box(slice(4, 9))
    truth[:, :, 8:] = 0  # where the two differ
    assert contour_f1(predicted, truth) == 1
    assert contour_f1(np.ones_like(truth), np.ones_like(truth)) is None


def shifted_plane(depth: float = 4.0, step: float = 0.5) -> tuple[np.ndarray, ...]:
    """A plane seen by a camera that moves so that its points move by 2 pixels a frame."""
    K = np.array([[16.0, 0, 5.5], [0, 16.0, 3.5], [0, 0, 1]])
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = step * np.arange(3)
    return np.full((3, 8, 12), depth), np.tile(K, (3, 1, 1)), T


def test_steady_errors_do_not_flicker() -> None:
    truth, K, T = shifted_plane()
    # an error that is painted on the surface: it moves by 2 pixels to the left from frame to frame
    pattern = np.random.default_rng(0).uniform(0.5, 2, (8, 20))
    painted = np.stack([pattern[:, 2 * t : 2 * t + 12] for t in range(3)])
    assert flicker(truth * painted, truth, K, T) == pytest.approx(0, abs=1e-12)


def test_changes_from_frame_to_frame_flicker() -> None:
    truth, K, T = shifted_plane()
    scale = np.array([1.0, 1.1, 1.0])[:, None, None]
    assert flicker(3 * truth * scale, truth, K, T) == pytest.approx(np.log(1.1))


def test_dynamic_and_hidden_points_do_not_count() -> None:
    truth, K, T = shifted_plane()
    predicted = truth.copy()
    predicted[1, :, :6] *= 2
    dynamic = np.zeros(truth.shape, bool)
    dynamic[1, :, :6] = True
    assert flicker(predicted, truth, K, T, dynamic) == 0
    truth[1, :, :6] = 1.0  # something in front
    assert flicker(predicted, truth, K, T) == 0
    assert flicker(truth[:1], truth[:1], K[:1], T[:1]) is None
