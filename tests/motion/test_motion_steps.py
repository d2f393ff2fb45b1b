"""Each step of the motion search against numbers worked out by hand or by a slow, readable loop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyn3r.errors import InputError
from dyn3r.motion.attention import (
    fuse_channels,
    minmax,
    per_frame,
    relative_deviation,
    score_statistics,
)
from dyn3r.motion.multi_otsu import last_otsu_threshold, upsample
from dyn3r.motion.segments import cluster_means, cluster_tokens
from dyn3r.motion.stillness import otsu_separability
from dyn3r.network.patches import token_mask

GOLDEN = Path(__file__).parents[1] / "golden"


def slow_statistics(scores, frames, num_frames):
    """SPEC 4, step 1, as it is written."""
    mean = np.zeros((num_frames, *scores.shape[1:]))
    deviation = np.zeros_like(mean)
    for t in range(num_frames):
        rows = [scores[k].astype(np.float64) for k in range(len(frames)) if frames[k] == t]
        for row in rows:
            row[0, 0] = (row[0, 1] + row[1, 0]) / 2
        if rows:
            mean[t] = np.mean(rows, axis=0)
        if len(rows) > 1:
            deviation[t] = np.std(rows, axis=0, ddof=1)
    return mean, deviation


@settings(deadline=None, max_examples=25)
@given(
    pairs=st.integers(0, 12),
    offset=st.sampled_from([0.0, 50.0]),
    seed=st.integers(0, 99),
)
def test_running_statistics_agree_with_the_slow_ones(pairs, offset, seed):
    rng = np.random.default_rng(seed)
    scores = (offset + rng.standard_normal((pairs, 2, 3, 4))).astype(np.float32)
    frames = rng.integers(0, 4, pairs)
    fast = score_statistics(scores, frames, 4)
    mean, deviation = slow_statistics(scores, frames, 4)
    np.testing.assert_allclose(fast.mean, mean, atol=2e-5)
    np.testing.assert_allclose(fast.deviation, deviation, atol=2e-5)
    np.testing.assert_array_equal(fast.num_pairs, np.bincount(frames, minlength=4))


def test_statistics_by_hand():
    scores = np.zeros((3, 2, 2, 1), np.float32)
    scores[:, 1, 1, 0] = [1.0, 3.0, 7.0]
    scores[:, 0, 0, 0] = 1000.0  # the sink
    scores[:, 0, 1, 0], scores[:, 1, 0, 0] = 2.0, 4.0
    out = score_statistics(scores, np.array([0, 0, 1]), 2)
    assert out.mean[0, 1, 1, 0] == 2.0
    assert out.deviation[0, 1, 1, 0] == pytest.approx(math.sqrt(2))
    assert out.deviation[1, 1, 1, 0] == 0.0  # a single pair
    assert (out.mean[:, 0, 0, 0] == 3.0).all()


@pytest.mark.parametrize(("grid", "corner"), [((1, 2), 5.0), ((2, 1), 5.0), ((1, 1), 9.0)])
def test_the_sink_on_grids_of_one_row_or_column(grid, corner):
    scores = np.full((1, *grid, 1), 5.0, np.float32)
    scores[0, 0, 0] = 9.0
    assert score_statistics(scores, np.array([0]), 1).mean[0, 0, 0, 0] == corner


def test_scores_in_a_file_are_read_in_half_precision(tmp_path):
    scores = np.random.default_rng(0).standard_normal((6, 3, 4, 5)).astype(np.float16)
    np.save(tmp_path / "scores.npy", scores)
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    frames = np.array([0, 1, 0, 1, 0, 1])
    fast = score_statistics(mapped, frames, 2)
    np.testing.assert_allclose(fast.deviation, slow_statistics(scores, frames, 2)[1], atol=1e-6)


def test_normalisation_is_over_all_frames_and_channels_then_over_the_fused_map():
    values = np.zeros((2, 1, 2, 2), np.float32)
    values[0, 0, 0] = [0.0, 10.0]
    values[0, 0, 1] = [10.0, 10.0]
    values[1, 0, 0] = [5.0, 5.0]
    values[1, 0, 1] = [10.0, 5.0]
    fused = fuse_channels(values, np.array([True, True]))
    # after the first step 0..1 over everything, channel means are 0.5, 1, 0.5, 0.75
    np.testing.assert_allclose(fused, [[[0.0, 1.0]], [[0.0, 0.5]]], atol=1e-5)


def test_frames_that_are_not_valid_do_not_shift_the_normalisation():
    values = np.random.default_rng(1).random((3, 2, 2, 4)).astype(np.float32)
    values[1] = 100.0
    fused = fuse_channels(values, np.array([True, False, True]))
    np.testing.assert_array_equal(
        fused[[0, 2]], fuse_channels(values[[0, 2]], np.array([True] * 2))
    )
    assert not fused[1].any()


def test_minmax_of_constant_values_is_zero():
    assert not minmax(np.full((2, 2), 3.0, np.float32)).any()
    maps = np.stack([np.arange(4.0).reshape(2, 2), np.full((2, 2), 7.0)]).astype(np.float32)
    assert per_frame(maps)[0].max() == pytest.approx(1.0, abs=1e-5)
    assert not per_frame(maps)[1].any()


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100), offset=st.floats(-5, 5))
def test_relative_deviation_ignores_scale_and_offset(scale, offset):
    scores = np.random.default_rng(2).standard_normal((6, 3, 3, 4)).astype(np.float32)
    frames = np.array([0, 0, 0, 1, 1, 1])
    moved = (scale * (scores + offset)).astype(np.float32)
    first = relative_deviation(score_statistics(scores, frames, 2))
    second = relative_deviation(score_statistics(moved, frames, 2))
    np.testing.assert_allclose(first, second, rtol=1e-3)


def test_relative_deviation_without_spread_is_zero():
    scores = np.full((4, 2, 2, 3), 2.0, np.float32)
    assert not relative_deviation(score_statistics(scores, np.array([0, 0, 1, 1]), 2)).any()


def test_clusters_share_their_mean_value():
    values = np.array([[[0.0, 0.2]], [[1.0, 0.4]]], np.float32)
    clusters = np.array([[[0, 1]], [[0, 1]]])
    # cluster 0: mean 0.5, cluster 1: mean 0.3; per frame 1 and 0
    np.testing.assert_allclose(cluster_means(values, clusters), [[[1, 0]], [[1, 0]]], atol=1e-4)
    # frame 1 says nothing: cluster means 0 and 0.2
    informed = np.array([True, False])
    refined = cluster_means(values, clusters, informed)
    np.testing.assert_allclose(refined, [[[0, 1]], [[0, 1]]], atol=1e-4)


def test_a_cluster_that_nobody_knows_about_is_still():
    values = np.array([[[0.5, 1.0]], [[0.9, 0.9]]], np.float32)
    clusters = np.array([[[0, 1]], [[0, 2]]])
    refined = cluster_means(values, clusters, np.array([True, False]))
    assert refined[1, 0, 1] == 0.0
    assert refined[1, 0, 0] == pytest.approx(1.0, abs=1e-4)


def test_clustering_puts_like_with_like_and_copes_with_few_or_equal_tokens():
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((3, 8))
    truth = rng.integers(0, 3, (2, 12))
    tokens = kinds[truth] + 0.01 * rng.standard_normal((2, 12, 8))
    found = cluster_tokens(tokens, (3, 4), clusters=3)
    assert found.shape == (2, 3, 4)
    assert len(set(zip(found.ravel(), truth.ravel()))) == 3
    assert len(np.unique(cluster_tokens(tokens, (3, 4), clusters=64))) == 24
    assert not cluster_tokens(np.ones((2, 12, 8), np.float32), (3, 4)).any()


def test_golden_clusters_are_equal_up_to_renaming():
    with np.load(GOLDEN / "motion.npz") as golden:
        found = cluster_tokens(golden["tokens"], (5, 10))
        names = set(zip(found.ravel().tolist(), golden["clusters"].ravel().tolist()))
    assert len(names) == 64


@pytest.mark.parametrize("index", [0, 1, 2])
def test_golden_thresholds(index):
    with np.load(GOLDEN / "otsu.npz") as golden:
        found = last_otsu_threshold(golden[f"img_{index}"])
        assert found == pytest.approx(float(golden[f"thr_{index}"]), abs=1e-6)


def slow_last_threshold(values):
    """SPEC 4, step 5, with a label image."""
    from skimage.filters import threshold_multiotsu

    best_score, best = -math.inf, math.inf
    for classes in (2, 3, 4):
        thresholds = threshold_multiotsu(values, classes)
        labels = np.digitize(values, thresholds)
        means = [values[labels == k].mean() for k in range(classes)]
        score = np.var(means) / math.sqrt(classes)
        if score > best_score:
            best_score, best = score, thresholds[-1]
    return best


@pytest.mark.parametrize("seed", range(5))
def test_threshold_agrees_with_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    groups = [rng.normal(c, 0.05 + 0.02 * seed, (1, 40, 30)) for c in rng.random(2 + seed % 3)]
    values = np.concatenate(groups).astype(np.float32)
    assert last_otsu_threshold(values) == pytest.approx(slow_last_threshold(values), abs=1e-6)


def test_threshold_of_few_values():
    assert last_otsu_threshold(np.full((2, 4, 4), 0.3)) == math.inf
    assert last_otsu_threshold(np.zeros((0, 4, 4))) == math.inf
    two = np.array([[0.0, 0.0, 1.0]])
    assert ((two > last_otsu_threshold(two)) == (two > 0.5)).all()
    for levels in (3, 4, 5):
        values = np.linspace(0, 1, levels)
        assert 0 < last_otsu_threshold(values) < 1


def test_upsampling_keeps_means_and_centres():
    up = upsample(np.array([[[0.0, 1.0]]]), (16, 32))
    assert up.shape == (1, 16, 32)
    assert up[0, 3, 7] == 0.0  # left of the first centre the border value
    assert up[0, 3, 15] == pytest.approx(0.5 - 0.5 / 16)  # half a pixel before the middle
    assert up.mean() == pytest.approx(0.5)


def test_separability_of_known_spreads():
    rng = np.random.default_rng(0)
    assert otsu_separability(rng.random(20000)) == pytest.approx(0.75, abs=0.01)
    assert otsu_separability(rng.standard_normal(20000)) == pytest.approx(2 / math.pi, abs=0.02)
    assert otsu_separability(np.array([0.0, 0.0, 1.0])) == pytest.approx(1.0)
    assert otsu_separability(np.full(9, 0.1)) == 0.0
    assert otsu_separability(np.zeros(0)) == 0.0


def test_a_token_is_dynamic_if_any_pixel_of_its_patch_is():
    masks = np.zeros((2, 32, 48), bool)
    masks[0, 15, 16] = masks[1, 31, 47] = True
    found = token_mask(masks)
    expected = np.zeros((2, 2, 3), bool)
    expected[0, 0, 1] = expected[1, 1, 2] = True
    np.testing.assert_array_equal(found, expected)
    assert token_mask(np.ones((1, 16, 16), bool)).all()


@pytest.mark.parametrize("shape", [(2, 30, 48), (32, 48), (2, 32, 50)])
def test_masks_of_odd_sizes_are_refused(shape):
    with pytest.raises(InputError, match="multiples of 16"):
        token_mask(np.zeros(shape, bool))
