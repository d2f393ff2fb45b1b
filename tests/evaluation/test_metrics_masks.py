"""Mask metrics: golden DAVIS values, masks with known overlap, empty masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.evaluation.mask_metrics import (
    boundary_accuracy,
    mask_errors,
    region_similarity,
    sequence_stats,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "misc_metrics.npz")
PREDICTED, TRUTH = GOLDEN["davis__pred"], GOLDEN["davis__gt"]


def test_golden_davis() -> None:
    j, f = region_similarity(PREDICTED, TRUTH), boundary_accuracy(PREDICTED, TRUTH)
    np.testing.assert_allclose(j, GOLDEN["davis__J"], atol=1e-12)
    np.testing.assert_allclose(f, GOLDEN["davis__F"], atol=1e-12)
    for values, name in ((j, "J"), (f, "F")):
        published = GOLDEN[f"davis__{name}_stats(mean,recall,decay)"]
        np.testing.assert_allclose(sequence_stats(values), published, atol=1e-12)
    errors = mask_errors(PREDICTED, TRUTH)
    assert errors.j_mean == pytest.approx(j.mean())
    assert errors.j_recall == pytest.approx(0.75)
    assert errors.f_mean == pytest.approx(f.mean())


def square(top: int, left: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((1, 60, 80), bool)
    mask[0, top : top + side, left : left + side] = True
    return mask


def test_known_overlap() -> None:
    errors = mask_errors(square(10, 10), square(10, 20))
    assert errors.j_mean == pytest.approx(1 / 3)
    assert errors.precision == errors.recall == pytest.approx(0.5)


def test_the_boundary_may_be_off_by_the_tolerance() -> None:
    assert boundary_accuracy(square(10, 10), square(10, 11))[0] == pytest.approx(1)
    assert boundary_accuracy(square(10, 10), square(13, 13))[0] < 0.2
    assert boundary_accuracy(square(10, 10), square(13, 13), bound=0.05)[0] == pytest.approx(1)


def test_empty_masks() -> None:
    empty = np.zeros((1, 60, 80), bool)
    both = mask_errors(empty, empty)
    assert both.j_mean == both.f_mean == 1
    assert np.isnan([both.precision, both.recall]).all()
    missing = mask_errors(empty, square(5, 5))
    assert missing.j_mean == missing.f_mean == missing.recall == 0
    assert mask_errors(square(5, 5), empty).j_mean == 0
    assert mask_errors(~empty, ~empty).j_mean == 1


def test_decay_of_a_falling_measure() -> None:
    assert sequence_stats(np.linspace(1, 0, 9)).decay == pytest.approx(0.75)
    assert sequence_stats(np.array([0.7])) == (0.7, 1.0, 0.0)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="masks must both"):
        mask_errors(PREDICTED, TRUTH[:3])
