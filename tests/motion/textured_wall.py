"""A textured wall seen by a moving camera, and a bright square that moves in front of it."""

from __future__ import annotations

import cv2
import numpy as np

H, W, F, WALL = 48, 64, 60.0, 4.0


def wall(frames: int = 6, step: float = 0.1, square: bool = True) -> tuple[np.ndarray, ...]:
    """images, depth, dynamic, K and T_world_camera of `frames` frames.

    The camera moves right by `step` a frame; the bright square moves left.
    """
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(40, 200, (40, 80, 3)).astype(np.uint8), (240, 120))
    v, u = np.mgrid[:H, :W].astype(np.float32)
    K = np.tile(np.array([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1.0]]), (frames, 1, 1))
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 0, 3] = step * np.arange(frames)
    images, dynamic = np.zeros((frames, H, W, 3), np.uint8), np.zeros((frames, H, W), bool)
    for t in range(frames):
        x = (u - W / 2) / F * WALL + np.float32(T[t, 0, 3])
        y = (v - H / 2) / F * WALL
        images[t] = cv2.remap(texture, (x + 3) * 30, (y + 2) * 30, cv2.INTER_LINEAR)
        dynamic[t, 20:32, 48 - 7 * t : 58 - 7 * t] = square
        images[t][dynamic[t]] = (250, 250, 250)
    return images, np.full((frames, H, W), WALL, np.float32), dynamic, K, T
