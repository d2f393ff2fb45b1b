"""A plain floor and a wall with vertical stripes, seen by a camera that only turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

FOCAL = 120.0


@dataclass
class Room:
    images: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    T_world_camera: np.ndarray
    up_world: np.ndarray
    floor: np.ndarray


def room(
    yaws_deg: tuple[float, ...] = (-10.0, 0.0, 10.0),
    pitch_deg: float = 20.0,
    roll_deg: float = 3.0,
    size_hw: tuple[int, int] = (96, 144),
    striped: bool = True,
) -> Room:
    """Floor 1.2 below the camera, wall 3 ahead; the world is the first camera's."""
    h, w = size_hw
    v, u = np.mgrid[:h, :w].astype(float)
    ray = np.stack([(u - w / 2) / FOCAL, (v - h / 2) / FOCAL, np.ones((h, w))], -1)
    images, depth, floors, turns = [], [], [], []
    for yaw in yaws_deg:
        # level axes: x right, y down, z towards the wall
        R = Rotation.from_euler("YXZ", [yaw, -pitch_deg, roll_deg], degrees=True).as_matrix()
        seen = ray @ R.T
        to_floor = np.where(seen[..., 1] > 1e-6, 1.2 / np.maximum(seen[..., 1], 1e-6), np.inf)
        to_wall = 3 / np.maximum(seen[..., 2], 1e-6)
        d = np.minimum(to_floor, to_wall)
        along = seen[..., 0] * d
        # one grey level per stripe, mixed at its sharp edges as a camera does
        stripe = np.clip(np.sin(8 * along) * 12, -1, 1) * (to_wall < to_floor) * striped
        grey = 120 + 70 * stripe
        images.append(np.repeat(grey[..., None], 3, -1).astype(np.uint8))
        depth.append(d)
        floors.append(to_floor < to_wall)
        turns.append(R)
    T = np.tile(np.eye(4), (len(turns), 1, 1))
    T[:, :3, :3] = turns[0].T @ np.stack(turns)
    K = np.array([[FOCAL, 0, w / 2], [0, FOCAL, h / 2], [0, 0, 1]])
    return Room(
        np.stack(images), np.stack(depth).astype(np.float32), np.tile(K, (len(turns), 1, 1)), T,
        turns[0].T @ [0.0, -1.0, 0.0], np.stack(floors),
    )  # fmt: skip


def degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1, 1))))
