"""Textured walls seen by a moving camera: images, depth and cameras that agree exactly."""

from __future__ import annotations

import numpy as np

from dyn3r.types import Geometry
from tests.bundle_adjustment.made_up import alignment_of

SIZE = (64, 96)
WALL, BOARD = 4.0, 2.0
"""Depth of the wall, and of a board in front of its middle."""


def texture(seed: int) -> np.ndarray:
    """Texture of a wall, (512, 512, 3), 0..255."""
    import cv2

    noise = np.random.default_rng(seed).normal(0, 1, (512, 512, 3)).astype(np.float32)
    x = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (128 + 50 * x / x.std()).clip(0, 255).astype(np.float32)


def walls(
    centres: np.ndarray, *, board: bool = True, size_hw: tuple[int, int] = SIZE
) -> tuple[np.ndarray, Geometry]:
    """Images and the true cameras and depth; the cameras look along z from `centres`."""
    import cv2

    h, w = size_hw
    K = np.array([[80.0, 0, (w - 1) / 2], [0, 80.0, (h - 1) / 2], [0, 0, 1]])
    v, u = np.mgrid[:h, :w]
    ray = np.stack([(u - K[0, 2]) / 80, (v - K[1, 2]) / 80, np.ones_like(u)], -1)
    images, depths = [], []
    for centre in centres:
        picture, depth = np.zeros((h, w, 3), np.float32), np.full((h, w), WALL - centre[2])
        for distance, paint in ((WALL, texture(1)), (BOARD, texture(2))):
            z = distance - centre[2]
            x, y = centre[0] + z * ray[..., 0], centre[1] + z * ray[..., 1]
            here = np.ones((h, w), bool)
            if distance == BOARD:
                here = (np.abs(x) < 0.5) & (np.abs(y) < 0.4) if board else np.zeros((h, w), bool)
            at = [(256 + 60 * value).astype(np.float32) for value in (x, y)]
            seen = cv2.remap(paint, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            picture[here], depth[here] = seen[here], z
        images.append(picture.round().astype(np.uint8))
        depths.append(depth)
    T = np.tile(np.eye(4), (len(centres), 1, 1))
    T[:, :3, 3] = centres
    return np.stack(images), alignment_of(T, np.tile(K, (len(centres), 1, 1)), np.stack(depths))


def sideways(n: int = 5, step: float = 0.1) -> np.ndarray:
    """Camera centres along x."""
    return np.stack([[step * (t - n // 2), 0.0, 0.0] for t in range(n)])
