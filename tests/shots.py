"""Shots made by code: a camera that pans over a textured wall."""

from __future__ import annotations

import cv2
import numpy as np


def shot(frames: int, seed: int = 0, hw: tuple[int, int] = (144, 192), step: int = 5) -> np.ndarray:
    """(frames, h, w, 3) of a wall with blobs of many sizes; the camera pans by `step` a frame."""
    random = np.random.default_rng(seed)
    h, w = hw
    wide = w + step * frames
    wall = np.zeros((h, wide, 3), np.float32)
    for size in (2, 4, 8, 16):
        noise = random.normal(0, 1, (h // size + 2, wide // size + 2, 3)).astype(np.float32)
        wall += cv2.resize(noise, (wide, h), interpolation=cv2.INTER_CUBIC)
    wall = (128 + 30 * wall).clip(0, 255).astype(np.uint8)
    return np.stack([wall[:, step * t : step * t + w] for t in range(frames)])


def black(frames: int, noise: float, hw: tuple[int, int] = (144, 192)) -> np.ndarray:
    """Frames of a covered lens."""
    random = np.random.default_rng(1)
    return (10 + random.normal(0, noise, (frames, *hw, 3))).clip(0, 255).astype(np.uint8)
