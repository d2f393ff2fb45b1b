"""Background model: a textured wall, and a square that moves in front of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from tests.oracles import background_model as oracle
from textured_wall import H, W, wall

import dyn3r.geometry.reprojection as reprojection
import dyn3r.motion.background_model as model
from dyn3r.geometry.inpainting import inpaint_depth
from dyn3r.motion.background_model import MIN_FRAMES


class Found(NamedTuple):
    """As `BackgroundEvidence`, in arrays with colours last."""

    color_difference: np.ndarray
    colour: np.ndarray


def background_evidence(*given: np.ndarray) -> Found:
    found = model.background_evidence(*given)
    return Found(found.color_difference.numpy(), found.colour.permute(0, 2, 3, 1).numpy())


def smoothed(image: np.ndarray) -> np.ndarray:
    return model.smoothed(torch.from_numpy(image)).permute(1, 2, 0).numpy()


def test_dynamic_pixels_differ_and_static_ones_do_not() -> None:
    images, depth, moving, K, T = wall()
    color_difference = background_evidence(
        images, depth, np.zeros_like(moving), K, T
    ).color_difference
    assert color_difference.shape == depth.shape
    assert color_difference.dtype == np.float32
    known = np.isfinite(color_difference)
    assert known.mean() > 0.8
    wide = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5))) > 0 for m in moving])
    assert np.median(color_difference[known & moving]) > 60
    assert (color_difference[known & ~wide] < 3).mean() > 0.9  # some were hidden half of the time


def test_known_dynamic_pixels_are_not_used() -> None:
    """Other frames show the wall where the square was; with its mask fewer do."""
    images, depth, moving, K, T = wall(step=0.0)
    half = moving.copy()
    half[:3] = False
    free = background_evidence(images, depth, np.zeros_like(moving), K, T).color_difference
    masked = background_evidence(images, depth, moving, K, T).color_difference
    assert np.isfinite(free[:, 3:-3, 3:-3]).all()
    place = np.zeros((H, W), bool)
    place[20:32, 34:44] = True  # the square of frame 2
    assert np.isfinite(masked[2][place]).any()
    all_but_two = np.zeros_like(moving)
    all_but_two[2:, 20:32, 34:44] = True
    few = background_evidence(images, depth, all_but_two, K, T).color_difference
    assert np.isnan(few[0][place]).all()  # one other frame shows it: too few
    assert np.isfinite(few[0][3:8, 3:-3]).all()


def test_errors_of_one_pixel_and_exposure_are_tolerated() -> None:
    images, depth, moving, K, T = wall()
    shifted = images.copy()
    shifted[1::2] = np.roll(images[1::2], 1, axis=2)
    darker = (images.astype(int) - 30 * (np.arange(len(images)) % 2)[:, None, None, None]).clip(0)
    for changed in (shifted, darker.astype(np.uint8)):
        color_difference = background_evidence(changed, depth, moving, K, T).color_difference
        known = np.isfinite(color_difference) & ~moving
        known[..., :3] = False
        assert np.median(color_difference[known]) < 4


def test_frames_with_wrong_cameras_are_not_used() -> None:
    images, depth, moving, K, T = wall(8)
    right = background_evidence(images, depth, moving, K, T).color_difference
    T[4:, 1, 3] += 0.9  # as across a cut: nothing fits between the halves
    halves = background_evidence(images, depth, moving, K, T).color_difference
    known = np.isfinite(halves[:4]) & ~moving[:4]
    assert known.mean() > 0.5
    assert (halves[:4][known] < 3).mean() > 0.9
    lost = T.copy()
    lost[:, 1, 3] += 0.7 * np.arange(8)  # no two fit
    assert (
        np.isnan(background_evidence(images, depth, moving, K, lost).color_difference).mean() > 0.9
    )
    assert np.isfinite(right).mean() > 0.7


@pytest.mark.parametrize("frames", [1, 2, MIN_FRAMES])
def test_few_frames_give_no_result(frames: int) -> None:
    images, depth, moving, K, T = wall(frames)
    assert np.isnan(background_evidence(images, depth, moving, K, T).color_difference).all()


def test_everything_masked_and_wild_depth_give_no_verdict_and_no_error() -> None:
    images, depth, moving, K, T = wall()
    assert np.isnan(
        background_evidence(images, depth, np.ones_like(moving), K, T).color_difference
    ).all()
    wild = np.random.default_rng(1).uniform(1e-6, 1e6, depth.shape).astype(np.float32)
    color_difference = background_evidence(images, wild, moving, K, T).color_difference
    assert ((color_difference >= 0) | np.isnan(color_difference)).all()


def test_dynamic_depth_is_inpainted_from_beside() -> None:
    depth = np.full((2, H, W), 3.0, np.float32)
    moving = np.zeros((2, H, W), bool)
    moving[0, 10:30, 10:30] = True
    depth[moving] = 1.0
    moving[1] = True
    out = inpaint_depth(depth, moving)
    np.testing.assert_allclose(out[0], 3.0, rtol=1e-4)
    np.testing.assert_array_equal(out[1], depth[1])  # nothing beside it


def test_other_frames_show_the_background_of_a_moving_object() -> None:
    images, depth, moving, K, T = wall()
    found = background_evidence(images, depth, moving, K, T)
    assert found.colour.shape == images.shape
    np.testing.assert_array_equal(np.isnan(found.colour[..., 0]), np.isnan(found.color_difference))
    known = np.isfinite(found.color_difference) & moving
    assert known.sum() > 50
    free = np.stack([smoothed(image) for image in wall(square=False)[0]])
    assert np.abs(free - 250)[known].mean() > 100
    assert np.abs(found.colour - free)[known].mean() < 10


def test_background_colours_have_the_exposure_of_the_frame() -> None:
    images, depth, moving, K, T = wall(square=False)
    darker = images.copy()
    darker[::2] = (images[::2].astype(int) - 30).clip(0)
    colour = background_evidence(darker, depth, moving, K, T).colour
    for t in (2, 3):
        known = np.isfinite(colour[t])
        assert abs(np.median((colour[t] - smoothed(darker[t]))[known])) < 3


def test_a_shadow_has_one_ratio_for_all_colours() -> None:
    images, depth, _, K, T = wall(step=0.0, square=False)
    shadow = np.zeros((H, W), bool)
    shadow[10:30, 20:40] = True
    images[2][shadow] = images[2][shadow] // 2
    found = background_evidence(images, depth, np.zeros((len(images), H, W), bool), K, T)
    inside = cv2.erode(shadow.astype(np.uint8), np.ones((7, 7))) > 0
    ratio = (found.colour[2] / smoothed(images[2]))[inside]
    assert np.median(ratio) == pytest.approx(2, rel=0.05)
    assert np.median(np.ptp(ratio, axis=-1)) < 0.1


def with_noise(step: float = 0.1) -> list[np.ndarray]:
    """The wall with an error of depth and colours of every pixel, and a camera that turns."""
    images, depth, moving, K, T = wall(8, step)
    random = np.random.default_rng(0)
    images = (images + random.normal(0, 3, images.shape)).clip(0, 255).astype(np.uint8)
    depth = (depth * np.exp(random.normal(0, 0.03, depth.shape))).astype(np.float32)
    moving[::2] = False
    angle = 0.01 * np.arange(8)
    T[:, 0, 0] = T[:, 2, 2] = np.cos(angle)
    T[:, 0, 2], T[:, 2, 0] = np.sin(angle), -np.sin(angle)
    return [images, depth, moving, K, T]


@pytest.mark.parametrize("step", [0.1, 0.0])
def test_the_same_as_warps_by_opencv(step: float) -> None:
    """But for positions, which some versions of OpenCV round to 1/32 pixel."""
    given = with_noise(step)
    found, expected = background_evidence(*given), Found(*oracle.background_evidence(*given))
    known = np.isfinite(expected.color_difference)
    assert 0.5 < known.mean() < 1
    assert (np.isfinite(found.color_difference) != known).mean() < 0.002
    known &= np.isfinite(found.color_difference)
    for name, mean, most in (("color_difference", 0.03, 0.3), ("colour", 0.1, 1.0)):
        difference = np.abs(getattr(found, name) - getattr(expected, name))[known]
        assert difference.mean() < mean
        assert np.quantile(difference, 0.99) < most
    picture = given[0][0]
    np.testing.assert_allclose(smoothed(picture), oracle.smoothed(picture), atol=1e-3)


def test_pairs_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = with_noise()
    alone = background_evidence(*given)
    monkeypatch.setattr(reprojection, "PIXELS_AT_ONCE", 3 * H * W)
    for one, three in zip(alone, background_evidence(*given)):
        np.testing.assert_array_equal(one, three)
