"""A world with known answers for tests of readers (docs/design/DATASETS.md, 4).

A checkered plane n.X = d and a square patch 0.2 nearer, which moves sideways by 0.15 a frame, seen
by up to five cameras that are turned and not on one line. World axes are those of a level camera:
x right, y down, z forward; lengths are metres. Depth has a closed form at every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dyn3r.datasets.sequence import Sequence

K = np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
"""Intrinsics of a picture of 64x48."""
SIZE_HW = (48, 64)
NORMAL = np.array([0.1, -0.2, 1]) / np.linalg.norm([0.1, -0.2, 1])
DISTANCE = 3.0
NEARER, STEP, HALF_SIDE = 0.2, 0.15, 0.4
"""The patch: its plane is this much nearer; sideways motion per frame; half its side."""
CENTRES = ((0, 0, 0), (0.2, 0, 0), (0.2, 0.15, 0), (0, 0.15, 0.1), (0.1, 0.05, 0.2))
YAWS_DEG = (0, 3, -4, 6, -2)


@dataclass(frozen=True)
class PlaneWorld:
    """n frames of the world and their truth."""

    images: np.ndarray
    """(n, h, w, 3) uint8."""
    depth: np.ndarray
    """(n, h, w) float64, z along the optical axis, metres; the patch is in it."""
    K: np.ndarray
    """(3, 3), the same for every frame."""
    T_world_camera: np.ndarray
    """(n, 4, 4), camera to world; frame 0 is the identity."""
    moving: np.ndarray
    """(n, h, w) bool, the patch."""

    def __len__(self) -> int:
        return len(self.images)


def plane_world(n: int = 5, K: np.ndarray = K, size_hw: tuple[int, int] = SIZE_HW) -> PlaneWorld:
    """The first `n` frames (at most 5) for a camera `K` and a picture of `size_hw`.

    A data set whose K is fixed for a large picture is tested on a small `size_hw`: its top left
    corner.
    """
    T = np.stack([camera_to_world(i) for i in range(n)])
    frames = [_render(i, K, T[i], size_hw) for i in range(n)]
    images, depth, moving = (np.stack(parts) for parts in zip(*frames))
    return PlaneWorld(images, depth, K, T, moving)


def camera_to_world(frame: int) -> np.ndarray:
    """The transform (4, 4) of a camera."""
    yaw = np.deg2rad(YAWS_DEG[frame])
    T = np.eye(4)
    T[:3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    T[:3, 3] = CENTRES[frame]
    return T


def _render(
    frame: int, K: np.ndarray, T: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rays = pixel_rays(K, size_hw)
    far, near = (plane_depth(rays, T, d) for d in (DISTANCE, DISTANCE - NEARER))
    sideways = np.cross([0, 1, 0], NORMAL)
    sideways /= np.linalg.norm(sideways)
    axes = np.stack([sideways, np.cross(NORMAL, sideways)])
    on_plane, on_patch = (_world(rays, depth, T) @ axes.T for depth in (far, near))
    moving = (np.abs(on_patch - [STEP * frame, 0]) < HALF_SIDE).all(axis=-1)
    odd = np.floor(on_plane / 0.25).astype(int).sum(axis=-1) % 2 == 1
    image = np.where(odd[..., None], np.array([200, 180, 60]), np.array([40, 60, 120]))
    image[moving] = (220, 30, 30)
    return image.astype(np.uint8), np.where(moving, near, far), moving


def pixel_rays(K: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Rays (h, w, 3) of the pixels in camera axes, with z = 1."""
    v, u = np.indices(size_hw)
    return np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T


def plane_depth(rays: np.ndarray, T: np.ndarray, distance: float) -> np.ndarray:
    """Depth (h, w) of the plane, or of one parallel to it, along rays with z = 1."""
    return (distance - NORMAL @ T[:3, 3]) / (rays @ T[:3, :3].T @ NORMAL)


def _world(rays: np.ndarray, depth: np.ndarray, T: np.ndarray) -> np.ndarray:
    return (rays * depth[..., None]) @ T[:3, :3].T + T[:3, 3]


def reprojection_error_px(sequence: Sequence, world: PlaneWorld) -> float:
    """Largest error, in pixels, of points carried from each frame to each other one.

    The points are unprojected with the sequence's own depth, K and poses where depth is known, and
    compared with the world's exact answer. Both may have any world frame and any origin. A truth
    that the data set lacks is taken from `world`.
    """
    T = world.T_world_camera if sequence.T_world_camera is None else sequence.T_world_camera
    Ks = np.tile(world.K, (len(world), 1, 1)) if sequence.K is None else sequence.K
    worst = 0.0
    for i in range(len(world)):
        depth = world.depth[i] if sequence.depth is None else sequence.depth(i)
        for j in range(len(world)):
            exact = _carried(world.depth[i], world.K, world.T_world_camera[i],
                             world.K, world.T_world_camera[j])  # fmt: skip
            found = _carried(depth.astype(float), Ks[i], T[i], Ks[j], T[j])
            worst = max(worst, float(np.abs(found - exact)[depth > 0].max()))
    return worst


def _carried(
    depth: np.ndarray, K: np.ndarray, T: np.ndarray, K_other: np.ndarray, T_other: np.ndarray
) -> np.ndarray:
    """Pixels (h, w, 2) at which another camera sees the points of a depth map."""
    points = _world(pixel_rays(K, depth.shape), depth, T)
    seen = (points - T_other[:3, 3]) @ T_other[:3, :3] @ K_other.T
    with np.errstate(all="ignore"):
        return seen[..., :2] / seen[..., 2:]


def true_flow(world: PlaneWorld, frame: int) -> np.ndarray:
    """Displacement (h, w, 2) in pixels of a frame's points until the next; the patch moves."""
    T, T_next = world.T_world_camera[frame : frame + 2]
    depth = world.depth[frame]
    points = _world(pixel_rays(world.K, depth.shape), depth, T)
    sideways = np.cross([0, 1, 0], NORMAL)
    points[world.moving[frame]] += STEP * sideways / np.linalg.norm(sideways)
    seen = (points - T_next[:3, 3]) @ T_next[:3, :3] @ world.K.T
    v, u = np.indices(depth.shape)
    return seen[..., :2] / seen[..., 2:] - np.stack([u, v], axis=-1)


def save_png(file: Path, array: np.ndarray) -> None:
    """Write a picture, uint8 or uint16 or bool (as 0 and 255), and the folders it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(file)


def save_text(file: Path, *lines: str) -> None:
    """Write lines of text, and the folders that the file needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def numbers(values: np.ndarray) -> str:
    """Numbers with all their digits, separated by blanks."""
    return " ".join(repr(float(value)) for value in np.ravel(values))
