"""Spring (Mehl 2023): a rendered film with disparity and cameras.

Layout (docs/design/DATASETS.md, 3.3): `spring/train/%04d/frame_left/frame_left_%04d.png` from 0001,
`disp1_left/disp1_left_%04d.dsp5` (HDF5 `disparity`, twice the image's size, in pixels of the
image; 0 is infinitely far) and `cam_data/{intrinsics,extrinsics}.txt`, a line a frame: `fx fy cx
cy`, and 16 numbers, world to camera, metres.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dyn3r.datasets.cameras import (
    inverse_poses,
    known_K,
    known_poses,
    lost_notes,
    pinhole,
)
from dyn3r.datasets.files import listing, per_file, read_rgb, read_table
from dyn3r.datasets.hdf5 import read_h5
from dyn3r.datasets.numbered import numbered_files, numbered_frames
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

BASELINE_M = 0.065
"""Distance between the two cameras. Source: DATASETS.md, 3.3."""
PLACES = ("spring/train", "train", ".")


def sequences(root: Path) -> list[Sequence]:
    """Every sequence of the training split that has disparity. `dyn3r[hdf5]` reads it.

    Raises:
        InputError: another layout; files that do not fit.
    """
    for place in PLACES:
        files = sorted(root.glob(f"{place}/*/cam_data/extrinsics.txt"))
        if files:
            return [_sequence(file.parents[1]) for file in files]
    raise InputError(
        f"{root} is not Spring: expected {PLACES[0]}/0001/cam_data/extrinsics.txt, "
        f"found {listing(root)}"
    )


def _sequence(folder: Path) -> Sequence:
    intrinsics, extrinsics = (
        folder / "cam_data" / f"{name}.txt" for name in ("intrinsics", "extrinsics")
    )
    K = np.stack([pinhole(*row) for row in read_table(intrinsics, 4)])
    T = read_table(extrinsics, 16).reshape(-1, 4, 4)
    if len(T) != len(K):
        raise InputError(f"{folder}: {len(K)} rows of intrinsics.txt, {len(T)} of extrinsics.txt")
    frames = numbered_frames(
        numbered_files(folder / "frame_left", r"frame_left_(\d+)\.png"),
        numbered_files(folder / "disp1_left", r"disp1_left_(\d+)\.dsp5"),
        len(T),
        first=1,
    )
    K = known_K(K[frames.rows], intrinsics)
    T_world_camera = inverse_poses(known_poses(T[frames.rows], extrinsics))
    return Sequence(
        name=folder.name,
        frame_names=frames.names,
        image=per_file(frames.images, read_rgb),
        depth=_depth_reader(frames.depths, K[:, 0, 0]),
        T_world_camera=T_world_camera,
        K=K,
        notes=(*frames.notes, *lost_notes(T_world_camera)),
    )


def _depth_reader(
    files: list[Path], focal_px: np.ndarray
) -> Callable[[int], Float32[np.ndarray, "h w"]]:
    """A reader of metres at the size of the images, for their focal lengths in pixels."""

    def read(i: int) -> Float32[np.ndarray, "h w"]:
        disparity = read_h5(files[i], "disparity")
        if disparity.ndim != 2 or disparity.dtype.kind != "f":
            raise InputError(
                f"{files[i]}: disparity is {disparity.dtype} {disparity.shape}, expected float "
                "(H, W)"
            )
        disparity = disparity[::2, ::2].astype(np.float64)
        known = np.isfinite(disparity) & (disparity > 0)
        depth = focal_px[i] * BASELINE_M / np.where(known, disparity, 1)
        return np.where(known, depth, 0).astype(np.float32)

    return read
