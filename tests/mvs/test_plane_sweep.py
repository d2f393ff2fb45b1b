"""Plane sweep: the true depth has the lowest cost, and invalid pixels have no influence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyn3r.mvs.plane_sweep import CHANNELS, PLANES, Sweep, SweepFrames, plane_sweep
from dyn3r.mvs.source_frames import MAX_SOURCES
from dyn3r.types import Geometry
from tests.mvs.walls import BOARD, SIZE, WALL, sideways, walls
from tests.oracles import plane_sweep as oracle

STATIC = np.zeros((5, *SIZE), bool)


def swept(
    images: np.ndarray,
    found: Geometry,
    i: int = 2,
    dynamic: np.ndarray = STATIC,
    depth: np.ndarray | None = None,
) -> Sweep:
    depth = found.depth if depth is None else depth
    return plane_sweep(SweepFrames(images, found.K, found.T_world_camera, depth, dynamic), i)


def best_depth(sweep: Sweep) -> np.ndarray:
    """At half resolution."""
    return 1 / np.maximum(sweep.channels[-2].numpy() * sweep.max_inverse_depth, 1e-6)


def half(depth: np.ndarray) -> np.ndarray:
    return depth[::2, ::2]


def test_the_best_plane_is_the_true_depth_for_a_wrong_depth_before() -> None:
    images, found = walls(sideways())
    sweep = swept(images, found, depth=np.full_like(found.depth, 2.5))
    assert sweep.channels.shape == (CHANNELS, SIZE[0] // 2, SIZE[1] // 2)
    inner = (slice(4, -4), slice(12, -12))  # the others see the rim in part
    error = np.log(best_depth(sweep) / half(found.depth[2]))[inner]
    assert np.median(np.abs(error)) < 0.03
    assert (np.abs(error) < 0.1).mean() > 0.85  # not on the outline of the board
    assert half(found.depth[2])[16, 24] == BOARD
    assert best_depth(sweep)[16, 24] == pytest.approx(BOARD, rel=0.05)


def test_rotated_and_zoomed_cameras() -> None:
    square, known = walls(sideways(2, 0.3), size_hw=(64, 64))
    still = np.zeros((2, 64, 64), bool)

    def best(images: np.ndarray, T: np.ndarray, K: np.ndarray) -> np.ndarray:
        return best_depth(plane_sweep(SweepFrames(images, K, T, known.depth, still), 0))

    T, K = known.T_world_camera.copy(), known.K.copy()
    expected = best(square, T, K)
    assert expected[16, 16] == pytest.approx(BOARD, rel=0.05)
    other = square.copy()  # taken with the camera on its side, and a shorter focal length
    other[1] = np.rot90(square[1])  # what is right in the scene is up in the picture
    inner = (slice(8, 24), slice(8, 24))
    assert np.median(np.abs(best(other, T, K) / expected - 1)[inner]) > 0.1
    T[1, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(best(other, T, K)[inner], expected[inner], rtol=0.05)
    other[1] = 128
    other[1, 16:48, 16:48] = square[1].reshape(32, 2, 32, 2, 3).mean((1, 3))
    K[1, :2, :2] /= 2
    error = np.abs(np.log(best(other, known.T_world_camera, K) / expected))[inner]
    assert np.median(error) < 0.05


def test_costs_are_between_0_and_1_and_lowest_at_the_truth() -> None:
    images, found = walls(sideways(), board=False)
    sweep = swept(images, found)
    costs = sweep.channels[:-2]
    assert float(costs.min()) >= 0
    assert float(costs.max()) <= 1
    truth = round(1 / WALL / sweep.max_inverse_depth * (PLANES - 1))
    mean = sweep.channels[:PLANES, 8:-8, 16:-16].mean((1, 2))
    assert abs(int(mean.argmin()) - truth) <= 1
    assert float(mean.min()) < 0.3 * float(mean.median())


def test_dynamic_pixels_of_source_frames_are_left_out() -> None:
    images, found = walls(sideways(), board=False)
    false = images.copy()
    false[[0, 1, 3, 4], 20:44, 30:66] = 255 - false[[0, 1, 3, 4], 20:44, 30:66]
    dynamic = STATIC.copy()
    dynamic[[0, 1, 3, 4], 20:44, 30:66] = True
    wrong, right = swept(false, found), swept(false, found, dynamic=dynamic)
    middle = (slice(12, 20), slice(18, 30))
    # covered in all others: nothing to compare with there, and no wrong answer either
    assert float(right.channels[PLANES, middle[0], middle[1]].min()) == 1.0
    assert float(wrong.channels[PLANES, middle[0], middle[1]].min()) < 0.9
    outside = np.abs(np.log(best_depth(right) / WALL))[:8, 14:-14]
    assert np.median(outside) < 0.05


@pytest.mark.parametrize("centres", [np.zeros((5, 3)), np.zeros((1, 3))])
def test_without_parallax_there_is_nothing_to_compare_with(centres: np.ndarray) -> None:
    images, found = walls(centres)
    sweep = swept(images, found, 0, STATIC[: len(centres)])
    assert sweep.plane_spacing_px == 0
    assert (sweep.channels[:-2] == 1).all()
    assert torch.isfinite(sweep.channels).all()


def test_what_lies_behind_the_other_camera_is_not_compared() -> None:
    """The other camera has gone through the near planes: they are behind it and show nothing."""
    images, found = walls(sideways(2))
    T = found.T_world_camera.copy()
    T[1, :3, 3] = T[0, :3, 3] + [0, 0, 0.45 * WALL]
    near = np.full_like(found.depth, WALL)
    near[:, :, :6] = 0.3 * WALL
    sweep = plane_sweep(SweepFrames(images, found.K, T, near, STATIC[:2]), 0)
    behind = np.linspace(0, sweep.max_inverse_depth, PLANES) > 1 / (0.42 * WALL)
    assert 5 < behind.sum() < PLANES - 5
    assert (sweep.channels[:PLANES][torch.from_numpy(behind)] == 1).all()
    assert (sweep.channels[:PLANES][torch.from_numpy(~behind), 16, 24] < 1).any()


def test_frames_without_overlap_are_no_source_frames() -> None:
    images, found = walls(sideways())
    T = found.T_world_camera.copy()
    T[[0, 1, 3]] = T[[0, 1, 3]] @ np.diag([-1.0, 1, -1, 1])  # backwards
    only = plane_sweep(SweepFrames(images, found.K, T, found.depth, STATIC), 2)
    both = [2, 4]
    two = (x[both] for x in (images, found.K, found.T_world_camera, found.depth))
    alone = plane_sweep(SweepFrames(*two, STATIC[:2]), 0)
    torch.testing.assert_close(only.channels, alone.channels)


@pytest.mark.slow
def test_source_frames_have_short_and_long_baselines() -> None:
    images, found = walls(sideways(30, 0.03))
    still = np.zeros((30, *SIZE), bool)
    frames = SweepFrames(images, found.K, found.T_world_camera, found.depth, still)
    chosen, parallax, *_ = frames.sources[15]
    assert len(chosen) == len(set(chosen.tolist())) == MAX_SOURCES
    assert 15 not in chosen
    assert parallax.max() > 3 * parallax.min()
    assert (chosen < 15).any()
    assert (chosen > 15).any()


def test_plane_spacing_grows_with_the_baseline() -> None:
    near, far = (swept(*walls(sideways(step=step))).plane_spacing_px for step in (0.05, 0.1))
    assert far == pytest.approx(2 * near, rel=0.05)


def test_a_frame_that_is_all_dynamic_has_a_sweep() -> None:
    images, found = walls(sideways())
    sweep = swept(images, found, dynamic=np.ones_like(STATIC))
    assert torch.isfinite(sweep.channels).all()
    assert sweep.max_inverse_depth > 0


def test_features_are_cached_and_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from dyn3r.mvs import plane_sweep as module

    images, found = walls(sideways(3))
    monkeypatch.setattr(module, "MAX_FRAME_DISTANCE", 0)  # one is kept
    frames = SweepFrames(images, found.K, found.T_world_camera, found.depth, STATIC[:3])
    first = frames.features(0)
    assert first.shape == (4, *SIZE)
    assert frames.features(0) is first
    assert frames.features(1) is not first
    again = frames.features(0)
    assert again is not first
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_source_frames_are_near_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from dyn3r.mvs import source_frames

    images, found = walls(sideways(9, 0.05))
    still = np.zeros((9, *SIZE), bool)
    monkeypatch.setattr(source_frames, "MAX_FRAME_DISTANCE", 2)
    frames = SweepFrames(images, found.K, found.T_world_camera, found.depth, still)
    assert set(frames.sources[1].frames.tolist()) == {0, 2, 3}


@pytest.mark.parametrize("forward", [0.0, 0.3 * WALL])
def test_sweeps_are_those_of_opencv(forward: float) -> None:
    """With cameras that turn, moving pixels, and planes that are behind other cameras."""
    images, found = walls(sideways())
    T = found.T_world_camera.copy()
    T[:, 2, 3] += forward * np.arange(5)
    T[1, :3, :3] = [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]
    dynamic = STATIC.copy()
    dynamic[1:, 10:40, 20:50] = True
    depth = found.depth.copy()
    depth[:, :, :8] *= 0.3
    frames = SweepFrames(images, found.K, T, depth, dynamic)
    for i in (0, 2):
        seen = plane_sweep(frames, i)
        expected = oracle.plane_sweep(images, i, found.K, T, depth, dynamic)
        chosen, parallax = oracle.choose_sources(i, found.K, T, depth, dynamic)
        np.testing.assert_array_equal(frames.sources[i].frames, chosen)
        np.testing.assert_allclose(frames.sources[i].parallax_px, parallax, rtol=1e-4)
        assert seen.max_inverse_depth == pytest.approx(expected.max_inverse_depth, rel=1e-4)
        assert seen.plane_spacing_px == pytest.approx(expected.plane_spacing_px, rel=1e-3)
        off = (seen.channels - expected.channels).abs()
        # a block at the rim of what is seen may count or not
        assert float((off > 1e-3).float().mean()) < 2e-3
        assert float(off.median()) < 1e-5
