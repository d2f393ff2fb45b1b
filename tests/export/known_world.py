"""A scene with an analytic value of every source pixel, to check exports against.

A slanted wall, seen by a camera that rotates and translates; a square moves in front of it. The
source images are 200x120. They are resized by slightly different factors along x and y and cropped
off-centre, so that a mistake in scale, crop, pixel centre or pose is visible.

All formulas have pixel *corners* at integers (the source image spans 0..200), so they assume none
of dyn3r's own conventions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.types import FrameMapping

SOURCE_HW = (120, 200)
MAPPING = FrameMapping(SOURCE_HW, resized_hw=(61, 103), crop_xy=(5, 9), size_hw=(48, 96))
FX, FY, CX, CY = 171.0, 166.0, 103.7, 57.2
SLANT = 0.25  # the wall is z = 4 + SLANT * x in world axes of the first camera


def camera(t: int) -> np.ndarray:
    """Camera to world, x right, y down, z forward."""
    yaw, pitch = np.radians(3.0 * t), np.radians(-2.0 * t)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    T = np.eye(4)
    T[:3, :3] = about_y @ about_x
    T[:3, 3] = [0.15 * t, -0.05 * t, 0.1 * t]
    return T


def wall(t: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World point (..., 3) and depth of the wall at source corner coordinates (x, y)."""
    T = camera(t)
    rays = np.stack([(x - CX) / FX, (y - CY) / FY, np.ones_like(x)], axis=-1) @ T[:3, :3].T
    depth = (4 + SLANT * T[0, 3] - T[2, 3]) / (rays[..., 2] - SLANT * rays[..., 0])
    return T[:3, 3] + depth[..., None] * rays, depth


def moves(t: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """True inside the square, at source corner coordinates."""
    return (np.abs(x - (60 + 12 * t)) < 14) & (np.abs(y - 60) < 18)


def pixels_off(t: int, xy: np.ndarray, point_world: np.ndarray) -> np.ndarray:
    """Offsets (k, 2) in source pixels from corner coordinates xy to projected wall points."""
    here, _ = wall(t, xy[:, 0], xy[:, 1])
    right, _ = wall(t, xy[:, 0] + 1, xy[:, 1])
    below, _ = wall(t, xy[:, 0], xy[:, 1] + 1)
    across = np.linalg.norm(right - here, axis=1)
    down = np.linalg.norm(below - here, axis=1)
    off = point_world - here
    along_x = (off * (right - here)).sum(axis=1) / across**2
    along_y = (off * (below - here)).sum(axis=1) / down**2
    return np.stack([along_x, along_y], axis=1)


def known_scene(n: int = 4) -> Scene:
    """A perfect reconstruction of the scene."""
    (h, w), (scale_x, scale_y) = MAPPING.size_hw, MAPPING.scale_xy
    y, x = np.indices((h, w)) + 0.5
    x, y = (x + MAPPING.crop_xy[0]) / scale_x, (y + MAPPING.crop_xy[1]) / scale_y
    depth = np.stack([wall(t, x, y)[1] for t in range(n)])
    dynamic = np.stack([moves(t, x, y) for t in range(n)])
    depth[dynamic] = 2.0
    K = np.eye(3)
    K[0, 0], K[1, 1] = FX * scale_x, FY * scale_y
    K[0, 2] = CX * scale_x - MAPPING.crop_xy[0] - 0.5
    K[1, 2] = CY * scale_y - MAPPING.crop_xy[1] - 0.5
    return Scene(
        images=np.stack([paint(t, x, y) for t in range(n)]),
        depth=depth.astype(np.float32),
        confidence=np.full((n, h, w), 3.0, np.float32),
        dynamic=dynamic,
        K=np.tile(K, (n, 1, 1)),
        T_world_camera=np.stack([camera(t) for t in range(n)]),
        mapping=MAPPING,
        names=tuple(f"shot {t}.jpg" for t in range(n)),
        times_s=0.5 + np.arange(n) / 8,
        fps=8.0,
    )


def paint(t: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """RGB image at source corner coordinates: a smooth wall, a blue square."""
    point, _ = wall(t, x, y)
    red, green = 100 + 30 * point[..., 0], 110 + 40 * point[..., 1]
    image = np.stack([red, green, np.full_like(red, 40)], axis=-1).clip(0, 255)
    image[moves(t, x, y)] = (30, 60, 240)
    return image.astype(np.uint8)


def source_xy() -> tuple[np.ndarray, np.ndarray]:
    """Corner coordinates (x, y) of the centres of all source pixels."""
    y, x = np.indices(SOURCE_HW) + 0.5
    return x, y


def write_source(folder: Path, n: int = 4) -> Path:
    """Write the source images as PNG with the names of the frames."""
    folder.mkdir(parents=True)
    for t in range(n):
        Image.fromarray(paint(t, *source_xy())).save(folder / f"shot {t}.png")
    return folder


def assert_points_are_those_of_the_frame(
    scene: Scene,
    t: int,
    xy: np.ndarray,
    depth: np.ndarray,
    colors: np.ndarray,
    *,
    moving: bool,
) -> None:
    """Points that frame t sees have the colour and depth of their pixels.

    `xy`: corner coordinates in prepared pixels; `depth`: z in the camera.
    """
    h, w = scene.size_hw
    column, row = np.floor(xy).astype(int).T
    seen = (depth > 0) & (row >= 0) & (row < h) & (column >= 0) & (column < w)
    seen[seen] &= scene.dynamic[t, row[seen], column[seen]] == moving
    assert seen.sum() > (100 if moving else 1000)
    row, column = row[seen], column[seen]
    assert np.abs(scene.images[t, row, column] - colors[seen].astype(float)).mean() < 2
    assert np.quantile(np.abs(depth[seen] / scene.depth[t, row, column] - 1), 0.95) < 0.01
