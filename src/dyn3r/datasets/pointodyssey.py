"""PointOdyssey (Zheng 2023): rendered scenes with moving people, animals and objects.

Layout (docs/design/DATASETS.md, 3.1): `SPLIT/SEQ/rgbs/rgb_%05d.jpg`, `depths/depth_%05d.png` (16
bit, metres x 65.535, cut at 1000 m), `anno.npz` (`intrinsics`, and `extrinsics`, which map world to
camera) and `info.npz`, the shapes of the arrays of the former.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dyn3r.datasets.cameras import inverse_poses, known_K, known_poses, lost_notes
from dyn3r.datasets.files import listing, npz_names, per_file, read_depth_png, read_npz, read_rgb
from dyn3r.datasets.numbered import numbered_files, numbered_frames
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

PER_METRE = 65535 / 1000
CUT_M = 1000.0
"""Depth at which the files end: the sky, and everything behind."""
LEAST_TRACKS = 16
"""A sequence needs more tracks than this. Source: DATASETS.md, 3.1; others have faulty truth."""


def sequences(root: Path) -> list[Sequence]:
    """Every usable sequence of `root/train`, or of `root` if it holds sequences itself.

    Published rule: a sequence without annotation, or with few tracks, is not usable.

    Raises:
        InputError: another layout; no usable sequence; files that do not fit.
    """
    base = root / "train" if (root / "train").is_dir() else root
    folders = sorted(p.parent for p in base.glob("*/rgbs") if p.is_dir())
    if not folders:
        raise InputError(
            f"{root} is not PointOdyssey: expected SPLIT/SEQUENCE/rgbs/rgb_00000.jpg, "
            f"found {listing(base)}"
        )
    found = [_sequence(folder) for folder in folders if _is_usable(folder)]
    if not found:
        raise InputError(
            f"{base}: none of {len(folders)} sequences has anno.npz, and info.npz with more than "
            f"{LEAST_TRACKS} tracks"
        )
    return found


def _is_usable(folder: Path) -> bool:
    if not (folder / "anno.npz").is_file() or not (folder / "info.npz").is_file():
        return False
    if "trajs_3d" not in npz_names(folder / "info.npz"):
        return False
    shape = np.ravel(read_npz(folder / "info.npz", "trajs_3d"))
    return len(shape) == 3 and bool(shape[1] > LEAST_TRACKS)


def _sequence(folder: Path) -> Sequence:
    file = folder / "anno.npz"
    K, T = read_npz(file, "intrinsics"), read_npz(file, "extrinsics")
    if K.shape != (len(K), 3, 3) or T.shape != (len(K), 4, 4):
        raise InputError(
            f"{file}: expected intrinsics (T,3,3) and extrinsics (T,4,4), found {K.shape} and "
            f"{T.shape}"
        )
    frames = numbered_frames(
        numbered_files(folder / "rgbs", r"rgb_(\d+)\.jpg"),
        numbered_files(folder / "depths", r"depth_(\d+)\.png"),
        len(K),
    )
    T_world_camera = inverse_poses(known_poses(T[frames.rows], file))
    return Sequence(
        name=folder.name,
        frame_names=frames.names,
        image=per_file(frames.images, read_rgb),
        depth=per_file(frames.depths, _depth),
        T_world_camera=T_world_camera,
        K=known_K(K[frames.rows], file),
        notes=(*frames.notes, *lost_notes(T_world_camera)),
    )


def _depth(file: Path) -> Float32[np.ndarray, "h w"]:
    depth = read_depth_png(file, PER_METRE)
    return np.where(depth < CUT_M, depth, np.float32(0))
