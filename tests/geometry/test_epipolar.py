"""Cameras judged by tracked points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import dyn3r.assets.demo
from dyn3r.geometry.epipolar import epipolar_error_px
from dyn3r.io.clip import read_clip


def test_true_cameras_fit_and_wrong_ones_do_not() -> None:
    demo = Path(dyn3r.assets.demo.__file__).parent / "living_room_walk"
    images = read_clip(demo / "frames", size=160, num_frames=9).images
    with np.load(demo / "camera.npz") as arrays:
        T = arrays["cam2world"][:9]
    assert epipolar_error_px(images, T) < 0.15
    assert epipolar_error_px(images, np.linalg.inv(T)) > 0.5
    some = T.copy()
    some[::3] = np.nan
    assert epipolar_error_px(images, some) < 0.15
    turning = np.tile(np.eye(4), (9, 1, 1))
    assert epipolar_error_px(np.repeat(images[:1], 9, axis=0), turning) < 0.01  # nothing moves
    assert epipolar_error_px(images, turning) > 0.5


def test_nothing_to_track() -> None:
    T = np.tile(np.eye(4), (3, 1, 1))
    grey = np.full((3, 48, 64, 3), 128, np.uint8)
    assert epipolar_error_px(grey, T) == np.inf
    assert epipolar_error_px(grey[:1], T[:1]) == np.inf
