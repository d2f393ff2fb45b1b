"""Pairs by stride: counts by hand, and the published shares."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.training.sets.pair_choice import STRIDES, pairs_by_stride, starts


def test_the_published_range_loses_the_last_starts() -> None:
    """50 frames, stride 9: 17 instead of 21 pairs (DATASETS.md, 3.0)."""
    published = starts(50, 9, step=2, published_range=True)
    full = starts(50, 9, step=2, published_range=False)
    assert (len(published), len(full)) == (17, 21)
    assert (published[-1] + 9, full[-1] + 9) == (41, 49)
    assert len(starts(9, 9, step=1, published_range=False)) == 0
    assert list(starts(10, 9, step=1, published_range=False)) == [0]


def test_shares_of_the_strides_are_the_published_ones() -> None:
    pairs = pairs_by_stride([200] * 50, step=2, published_range=True)
    distance = pairs[:, 3] - pairs[:, 1]
    shares = np.bincount(distance, minlength=10)[1:] / len(pairs)
    np.testing.assert_allclose(
        shares, [0.074, 0.083, 0.093, 0.102, 0.111, 0.120, 0.130, 0.139, 0.148], atol=5e-4
    )
    assert (pairs[:, 0] == pairs[:, 2]).all()
    assert (pairs[:, 1] % 2 == 0).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_the_choice_is_the_same_every_time_and_no_pair_leaves_its_sequence() -> None:
    lengths = [12, 30]
    pairs = pairs_by_stride(lengths)
    np.testing.assert_array_equal(pairs, pairs_by_stride(lengths))
    assert (pairs[:, 3] < np.array(lengths)[pairs[:, 2]]).all()


def test_without_thinning_all_pairs_are_there() -> None:
    pairs = pairs_by_stride([10, 4], thin=False)
    assert len(pairs) == sum(10 - k for k in STRIDES) + 3 + 2 + 1


@pytest.mark.parametrize("thin", [True, False])
def test_short_sequences_have_the_strides_that_fit(thin: bool) -> None:
    pairs = pairs_by_stride([3], thin=thin)
    expected = [[0, 0, 0, 2]] if thin else [[0, 0, 0, 1], [0, 1, 0, 2], [0, 0, 0, 2]]
    assert [row for row in pairs.tolist() if row[3] - row[1] == 2] == [[0, 0, 0, 2]]
    if not thin:
        assert sorted(pairs.tolist()) == sorted(expected)
    assert len(pairs_by_stride([1], thin=thin)) == 0
