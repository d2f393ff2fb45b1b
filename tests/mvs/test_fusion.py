"""Fusion of depth on textured walls whose depth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dyn3r.geometry.reprojection
import dyn3r.mvs.fusion
from dyn3r.evaluation.depth_detail import flicker
from dyn3r.types import Geometry
from tests.mvs.walls import BOARD, WALL, sideways, walls
from tests.oracles import fusion as oracle

NO_MOTION = np.zeros((7, 64, 96), bool)


@pytest.fixture(scope="module")
def truth() -> Geometry:
    return walls(sideways(7))[1]


def flickering(depth: np.ndarray, sigma: float = 0.02) -> np.ndarray:
    """Depth with an error of its own in every frame, and one that all frames share."""
    noise = np.random.default_rng(0).normal(0, sigma, (len(depth), 1, 1))
    return (depth * np.exp(noise) * 1.1).astype(np.float32)


def fuse_depth(
    depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray, dynamic: np.ndarray
) -> np.ndarray:
    there = (torch.from_numpy(x) for x in (depth, dynamic))
    return dyn3r.mvs.fusion.fuse_depth(next(there), K, T_world_camera, next(there)).numpy()


def fused(geometry: Geometry, depth: np.ndarray, dynamic: np.ndarray = NO_MOTION) -> np.ndarray:
    return fuse_depth(depth, geometry.K, geometry.T_world_camera, dynamic)


def test_flicker_goes_and_the_mean_stays(truth: Geometry) -> None:
    rough = flickering(truth.depth)
    smooth = fused(truth, rough)
    cameras = truth.K, truth.T_world_camera
    before, after = (flicker(d, truth.depth, *cameras) for d in (rough, smooth))
    assert before is not None
    assert after is not None
    assert after < 0.2 * before
    assert np.log(smooth / truth.depth).std() < 0.5 * np.log(rough / truth.depth).std()
    assert smooth.dtype == np.float32


def test_exact_depth_and_its_contours_stay(truth: Geometry) -> None:
    exact = fused(truth, truth.depth.astype(np.float32))
    inner = np.abs(np.log(exact / truth.depth))
    assert (inner < 1e-3).mean() > 0.98
    # a board half as far away as the wall stays in front of it
    assert ((exact < 1.2 * BOARD) == (truth.depth < 1.2 * BOARD)).mean() > 0.99


def test_moving_pixels_keep_their_depth_and_are_not_read(truth: Geometry) -> None:
    dynamic = NO_MOTION.copy()
    dynamic[3, 20:40, 30:60] = True
    results = []
    for moving in (3.9, 4.1):  # so near the wall that it would be taken for it
        rough = flickering(np.full_like(truth.depth, WALL))
        rough[dynamic] = moving
        results.append(fused(truth, rough, dynamic))
        assert (results[-1][dynamic] == np.float32(moving)).all()
    assert (results[0][~dynamic] == results[1][~dynamic]).all()


def test_unknown_depth_stays_unknown(truth: Geometry) -> None:
    rough = flickering(truth.depth)
    rough[2, :, :48] = 0
    smooth = fused(truth, rough)
    assert (smooth[2, :, :48] == 0).all()
    assert (smooth[[1, 3]] > 1).all()


def test_frames_that_contradict_each_other_stay_as_they_are(truth: Geometry) -> None:
    rough = truth.depth.astype(np.float32)
    rough[3] *= 1.5
    np.testing.assert_allclose(fused(truth, rough)[3], rough[3], rtol=1e-6)


def test_a_single_frame_stays_as_it_is(truth: Geometry) -> None:
    one = truth.depth[:1].astype(np.float32)
    out = fuse_depth(one, truth.K[:1], truth.T_world_camera[:1], NO_MOTION[:1])
    np.testing.assert_allclose(out, one, rtol=1e-6)


def partly_known(truth: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Flickering depth with noise of every pixel and a hole, and masks."""
    noise = np.random.default_rng(1).normal(0, 0.01, truth.depth.shape)
    rough = (flickering(truth.depth) * np.exp(noise)).astype(np.float32)
    rough[2, :, :20] = 0
    dynamic = NO_MOTION.copy()
    dynamic[3, 20:40, 30:60] = True
    return rough, dynamic


@pytest.mark.parametrize("still", [False, True])
def test_the_same_as_warps_by_opencv(truth: Geometry, still: bool) -> None:
    """But for positions, which some versions of OpenCV round to 1/32 pixel."""
    rough, dynamic = partly_known(truth)
    T = truth.T_world_camera.copy()
    if still:
        T[:] = T[0]
    else:
        T[:, :3, 3] += np.random.default_rng(2).normal(0, 0.01, (len(T), 3))
    given = rough, truth.K, T, dynamic
    found, expected = fuse_depth(*given), oracle.fuse_depth(*given)
    np.testing.assert_array_equal(found == 0, expected == 0)
    known = expected > 0
    if still:  # rounding decides whether the oracle sees the outermost pixels
        known[:, [0, -1]] = known[:, :, [0, -1]] = False
    difference = np.abs(np.log(found[known] / expected[known]))
    assert np.abs(np.log(expected[known] / rough[known])).mean() > 0.005
    assert difference.mean() < 1e-4
    assert np.quantile(difference, 0.99) < 2e-3


def test_frames_at_once_and_the_borders_of_a_still_camera(
    truth: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough, dynamic = partly_known(truth)
    alone = fused(truth, rough, dynamic)
    monkeypatch.setattr(dyn3r.geometry.reprojection, "PIXELS_AT_ONCE", 3 * 64 * 96)
    np.testing.assert_array_equal(fused(truth, rough, dynamic), alone)
    flat = np.full_like(truth.depth, WALL) * 1.01 ** np.arange(7)[:, None, None]
    flat = flat.astype(np.float32)
    T = np.tile(np.eye(4), (7, 1, 1))
    smooth = fuse_depth(flat, truth.K, T, NO_MOTION)
    np.testing.assert_allclose(smooth, np.broadcast_to(smooth[:, 32:33, 48:49], smooth.shape), 1e-5)
