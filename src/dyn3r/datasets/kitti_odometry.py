"""KITTI odometry (Geiger 2012): a car's drives with the path of its cameras.

Layout (docs/design/DATASETS.md, 2.5): `sequences/NN/image_2/%06d.png` (colour; else the grey
`image_0`), `sequences/NN/calib.txt`, `sequences/NN/times.txt`, `poses/NN.txt` (12 numbers a line:
camera 0 to world). Frame 0 of camera 0 is the world.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.files import image_files, listing, per_file, read_rgb, read_table
from dyn3r.datasets.kitti import read_projection
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

CAMERAS = (2, 0)
"""Left colour, left grey: the first that is there is read."""


def sequences(root: Path) -> list[Sequence]:
    """Every drive with pictures; poses, in metres, where they are published (00 to 10).

    Poses are those of the camera that took the pictures: camera 0's, moved by the baseline.

    Raises:
        InputError: another layout; no calibration; poses or times that do not fit the pictures.
    """
    base = root / "dataset" if (root / "dataset").is_dir() else root
    drives = base / "sequences"
    found = sorted(p for p in drives.iterdir() if p.is_dir()) if drives.is_dir() else []
    if not found:
        raise InputError(
            f"{root} is not KITTI odometry: expected sequences/00/image_2 and poses/00.txt, "
            f"found {listing(base)}"
        )
    return [_sequence(folder, base / "poses" / f"{folder.name}.txt") for folder in found]


def _sequence(folder: Path, poses: Path) -> Sequence:
    camera = next((c for c in CAMERAS if (folder / f"image_{c}").is_dir()), None)
    if camera is None:
        raise InputError(f"{folder}: expected image_2 or image_0, found {listing(folder)}")
    images = image_files(folder / f"image_{camera}")
    P = read_projection(folder / "calib.txt", f"P{camera}")
    times = _rows(folder / "times.txt", 1, len(images))
    path = _rows(poses, 12, len(images))
    return Sequence(
        name=folder.name,
        frame_names=tuple(f.stem for f in images),
        image=per_file(images, read_rgb),
        T_world_camera=None if path is None else _camera_path(path, P),
        K=np.tile(P[:, :3], (len(images), 1, 1)),
        times_s=None if times is None else times[:, 0],
        fps=10.0,
    )


def _rows(file: Path, columns: int, count: int) -> Float[np.ndarray, "n c"] | None:
    """A table with one row a picture, None for no file."""
    if not file.is_file():
        return None
    table = read_table(file, columns)
    if len(table) != count:
        raise InputError(f"{file}: expected {count} rows, one a picture, found {len(table)}")
    return table


def _camera_path(
    path: Float[np.ndarray, "n 12"], P: Float[np.ndarray, "3 4"]
) -> Float[np.ndarray, "n 4 4"]:
    """Camera-to-world transforms of the camera of P = K [I | t], of those of camera 0.

    A point X of camera 0 is X + t in that camera.
    """
    T_world_camera0 = np.tile(np.eye(4), (len(path), 1, 1))
    T_world_camera0[:, :3] = path.reshape(-1, 3, 4)
    T_camera0_camera = np.eye(4)
    T_camera0_camera[:3, 3] = -np.linalg.solve(P[:, :3], P[:, 3])
    return T_world_camera0 @ T_camera0_camera
