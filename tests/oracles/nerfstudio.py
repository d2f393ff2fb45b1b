"""How nerfstudio reads a folder with transforms.json: poses, points and depth in one world.

A model of the default loader of nerfstudio 1.1.5 (`nerfstudio_dataparser.py`, `depth_dataset.py`).
It was compared with that loader itself, on an export of the scene of `tests/export/known_world.py`:
poses, K, points, colours, depth and the order of the frames are the same to float32 rounding, for
`orientation_method` up and none, with and without `applied_scale`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation


class Loaded(NamedTuple):
    """What training gets."""

    T_world_camera: np.ndarray
    """(n, 4, 4), OpenGL axes, in the loader's world."""
    K: np.ndarray
    """(n, 3, 3), integers at pixel corners."""
    points_world: np.ndarray
    """(k, 3) in the loader's world."""
    colors: np.ndarray
    """(k, 3), 0..255."""
    depth: list[np.ndarray]
    """One map (h, w) per frame in the loader's unit."""
    images: list[Path]
    """Files in the order of the frames."""


def load(folder: Path, *, orientation: str = "up", depth_unit: float = 1e-3) -> Loaded:
    """Load a folder as nerfstudio does with its defaults (all frames, no downscaling)."""
    meta = json.loads((folder / "transforms.json").read_text())
    frames = sorted(meta["frames"], key=lambda frame: folder / frame["file_path"])
    T = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
    to_new = np.eye(4)
    if orientation == "up":
        up = T[:, :3, 1].mean(axis=0)
        to_new[:3, :3] = shortest_rotation(up / np.linalg.norm(up), np.array([0.0, 0.0, 1.0]))
    to_new[:3, 3] = -to_new[:3, :3] @ T[:, :3, 3].mean(axis=0)
    T = to_new @ T
    scale = 1 / np.abs(T[:, :3, 3]).max()
    T[:, :3, 3] *= scale
    scale *= meta.get("applied_scale", 1.0)  # after the poses: only points and depth get it
    cloud = trimesh.load(folder / meta["ply_file_path"])
    points = (np.asarray(cloud.vertices) @ to_new[:3, :3].T + to_new[:3, 3]) * scale
    lenses = [{**meta, **frame} for frame in frames]
    K = [[[c["fl_x"], 0, c["cx"]], [0, c["fl_y"], c["cy"]], [0, 0, 1]] for c in lenses]
    depth = []
    for frame in frames:
        with Image.open(folder / frame["depth_file_path"]) as image:
            depth.append(np.asarray(image).astype(np.float64) * (depth_unit * scale))
    return Loaded(
        T, np.array(K), points, np.asarray(cloud.colors)[:, :3], depth,
        [folder / frame["file_path"] for frame in frames],
    )  # fmt: skip


def shortest_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation that takes a to b about the axis across both."""
    axis = np.cross(a, b)
    length = np.linalg.norm(axis)
    angle = np.arctan2(length, a @ b)
    return Rotation.from_rotvec(axis / length * angle if length > 0 else np.zeros(3)).as_matrix()
