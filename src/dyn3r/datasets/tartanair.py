"""TartanAir v1 (Wang 2020): rendered flights.

Layout (docs/design/DATASETS.md, 3.2): `ENV/{Easy,Hard}/P%03d/image_left/%06d_left.png`,
`depth_left/%06d_left_depth.npy` (metres) and `pose_left.txt`, a line `tx ty tz qx qy qz qw` a
frame, camera to world, with axes x forward, y right, z down. The archives repeat the folder of the
environment, so that `ENV/ENV/Hard` occurs too. All images are 640x480 with one camera.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from dyn3r.datasets.cameras import known_poses, lost_notes, pinhole
from dyn3r.datasets.files import (
    listing,
    per_file,
    poses_from_quaternions,
    read_npy,
    read_rgb,
    read_table,
)
from dyn3r.datasets.numbered import numbered_files, numbered_frames
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

K = pinhole(320, 320, 320, 240)
"""The camera of every image."""
SKY_M = 1000.0
"""Depth from which on nothing but sky is seen, about 10 000 m. Source: CUT3R."""
AXES = [1, 2, 0]
"""x right, y down, z forward from x forward, y right, z down."""


def sequences(root: Path, *, level: Literal["Easy", "Hard"] = "Hard") -> list[Sequence]:
    """Every recording of a level, named ENV/P000; MonST3R trains on Hard.

    Raises:
        InputError: another layout; files that do not fit.
    """
    poses = sorted({*root.glob(f"*/{level}/P*/pose_left.txt"),
                    *root.glob(f"*/*/{level}/P*/pose_left.txt")})  # fmt: skip
    if not poses:
        raise InputError(
            f"{root} is not TartanAir: expected ENVIRONMENT/{level}/P000/pose_left.txt, "
            f"found {listing(root)}"
        )
    return [_sequence(file) for file in poses]


def _sequence(file: Path) -> Sequence:
    folder = file.parent
    T = read_poses(file)
    frames = numbered_frames(
        numbered_files(folder / "image_left", r"(\d+)_left\.png"),
        numbered_files(folder / "depth_left", r"(\d+)_left_depth\.npy"),
        len(T),
    )
    return Sequence(
        name=f"{folder.parents[1].name}/{folder.name}",
        frame_names=frames.names,
        image=per_file(frames.images, read_rgb),
        depth=per_file(frames.depths, _depth),
        T_world_camera=T[frames.rows],
        K=np.tile(K, (len(frames.rows), 1, 1)),
        notes=(*frames.notes, *lost_notes(T[frames.rows])),
    )


def read_poses(file: Path) -> Float[np.ndarray, "n 4 4"]:
    """Camera-to-world transforms, x right, y down, z forward in both, of a pose file.

    The same permutation turns positions and the vector parts of the quaternions.
    """
    table = read_table(file, 7)
    if not np.isfinite(table).all():
        raise InputError(f"{file}: expected finite numbers, found NaN or infinity")
    vector = table[:, 3:6][:, AXES]
    xyzw = np.concatenate([vector, table[:, 6:]], axis=1)
    return known_poses(poses_from_quaternions(table[:, :3][:, AXES], xyzw, file), file)


def _depth(file: Path) -> Float32[np.ndarray, "h w"]:
    depth = read_npy(file)
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise InputError(f"{file}: depth is {depth.dtype} {depth.shape}, expected float32 (H, W)")
    known = np.isfinite(depth) & (depth > 0) & (depth < SKY_M)
    return np.where(known, depth, 0).astype(np.float32)
