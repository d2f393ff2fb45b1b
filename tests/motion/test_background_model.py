"""What other frames show in the place of a pixel: a textured wall, and a square that moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dyn3r.motion import other_frames
from dyn3r.motion.background_model import LEAST_FRAMES, smoothed, without_movers

H, W, F, WALL = 48, 64, 60.0, 4.0


def wall(frames: int = 6, step: float = 0.1, square: bool = True) -> tuple[np.ndarray, ...]:
    """images, depth, moving, K, T: a camera that moves right before a wall; a bright square in
    front of it moves left."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(40, 200, (40, 80, 3)).astype(np.uint8), (240, 120))
    v, u = np.mgrid[:H, :W].astype(np.float32)
    K = np.tile(np.array([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1.0]]), (frames, 1, 1))
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 0, 3] = step * np.arange(frames)
    images, moving = np.zeros((frames, H, W, 3), np.uint8), np.zeros((frames, H, W), bool)
    for t in range(frames):
        x = (u - W / 2) / F * WALL + np.float32(T[t, 0, 3])
        y = (v - H / 2) / F * WALL
        images[t] = cv2.remap(texture, (x + 3) * 30, (y + 2) * 30, cv2.INTER_LINEAR)
        moving[t, 20:32, 48 - 7 * t : 58 - 7 * t] = square
        images[t][moving[t]] = (250, 250, 250)
    return images, np.full((frames, H, W), WALL, np.float32), moving, K, T


def test_what_moves_is_unlike_and_the_rest_is_not() -> None:
    images, depth, moving, K, T = wall()
    unlike = other_frames(images, depth, np.zeros_like(moving), K, T).unlike
    assert unlike.shape == depth.shape
    assert unlike.dtype == np.float32
    known = np.isfinite(unlike)
    assert known.mean() > 0.8
    wide = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5))) > 0 for m in moving])
    assert np.median(unlike[known & moving]) > 60
    assert (unlike[known & ~wide] < 3).mean() > 0.9  # some were hidden half of the time


def test_what_is_known_to_move_is_not_asked() -> None:
    """Where the square was, other frames show the wall all the same; and with its mask they say so
    of less."""
    images, depth, moving, K, T = wall(step=0.0)
    half = moving.copy()
    half[:3] = False
    free = other_frames(images, depth, np.zeros_like(moving), K, T).unlike
    told = other_frames(images, depth, moving, K, T).unlike
    assert np.isfinite(free[:, 3:-3, 3:-3]).all()
    place = np.zeros((H, W), bool)
    place[20:32, 34:44] = True  # the square of frame 2
    assert np.isfinite(told[2][place]).any()
    all_but_two = np.zeros_like(moving)
    all_but_two[2:, 20:32, 34:44] = True
    few = other_frames(images, depth, all_but_two, K, T).unlike
    assert np.isnan(few[0][place]).all()  # one other frame shows it: too few
    assert np.isfinite(few[0][3:8, 3:-3]).all()


def test_a_pixel_beside_and_another_exposure_are_forgiven() -> None:
    images, depth, moving, K, T = wall()
    shifted = images.copy()
    shifted[1::2] = np.roll(images[1::2], 1, axis=2)
    darker = (images.astype(int) - 30 * (np.arange(len(images)) % 2)[:, None, None, None]).clip(0)
    for changed in (shifted, darker.astype(np.uint8)):
        unlike = other_frames(changed, depth, moving, K, T).unlike
        known = np.isfinite(unlike) & ~moving
        known[..., :3] = False
        assert np.median(unlike[known]) < 4


def test_frames_whose_cameras_are_wrong_have_no_say() -> None:
    images, depth, moving, K, T = wall(8)
    right = other_frames(images, depth, moving, K, T).unlike
    T[4:, 1, 3] += 0.9  # as across a cut: nothing fits between the halves
    halves = other_frames(images, depth, moving, K, T).unlike
    known = np.isfinite(halves[:4]) & ~moving[:4]
    assert known.mean() > 0.5
    assert (halves[:4][known] < 3).mean() > 0.9
    lost = T.copy()
    lost[:, 1, 3] += 0.7 * np.arange(8)  # no two fit
    assert np.isnan(other_frames(images, depth, moving, K, lost).unlike).mean() > 0.9
    assert np.isfinite(right).mean() > 0.7


@pytest.mark.parametrize("frames", [1, 2, LEAST_FRAMES])
def test_few_frames_say_nothing(frames: int) -> None:
    images, depth, moving, K, T = wall(frames)
    assert np.isnan(other_frames(images, depth, moving, K, T).unlike).all()


def test_everything_masked_and_wild_depth_give_no_verdict_and_no_error() -> None:
    images, depth, moving, K, T = wall()
    assert np.isnan(other_frames(images, depth, np.ones_like(moving), K, T).unlike).all()
    wild = np.random.default_rng(1).uniform(1e-6, 1e6, depth.shape).astype(np.float32)
    unlike = other_frames(images, wild, moving, K, T).unlike
    assert ((unlike >= 0) | np.isnan(unlike)).all()


def test_movers_are_painted_with_what_is_beside_them() -> None:
    depth = np.full((2, H, W), 3.0, np.float32)
    moving = np.zeros((2, H, W), bool)
    moving[0, 10:30, 10:30] = True
    depth[moving] = 1.0
    moving[1] = True
    out = without_movers(depth, moving)
    np.testing.assert_allclose(out[0], 3.0, rtol=1e-4)
    np.testing.assert_array_equal(out[1], depth[1])  # nothing beside it


def test_other_frames_show_what_is_behind_a_mover() -> None:
    images, depth, moving, K, T = wall()
    found = other_frames(images, depth, moving, K, T)
    assert found.colour.shape == images.shape
    np.testing.assert_array_equal(np.isnan(found.colour[..., 0]), np.isnan(found.unlike))
    known = np.isfinite(found.unlike) & moving
    assert known.sum() > 50
    free = np.stack([smoothed(image) for image in wall(square=False)[0]])
    assert np.abs(free - 250)[known].mean() > 100
    assert np.abs(found.colour - free)[known].mean() < 10


def test_what_other_frames_show_is_as_bright_as_this_frame() -> None:
    images, depth, moving, K, T = wall(square=False)
    darker = images.copy()
    darker[::2] = (images[::2].astype(int) - 30).clip(0)
    colour = other_frames(darker, depth, moving, K, T).colour
    for t in (2, 3):
        known = np.isfinite(colour[t])
        assert abs(np.median((colour[t] - smoothed(darker[t]))[known])) < 3


def test_a_shadow_has_one_ratio_for_all_colours() -> None:
    images, depth, _, K, T = wall(step=0.0, square=False)
    shadow = np.zeros((H, W), bool)
    shadow[10:30, 20:40] = True
    images[2][shadow] = images[2][shadow] // 2
    found = other_frames(images, depth, np.zeros((len(images), H, W), bool), K, T)
    inside = cv2.erode(shadow.astype(np.uint8), np.ones((7, 7))) > 0
    ratio = (found.colour[2] / smoothed(images[2]))[inside]
    assert np.median(ratio) == pytest.approx(2, rel=0.05)
    assert np.median(np.ptp(ratio, axis=-1)) < 0.1
