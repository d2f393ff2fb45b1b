"""Bonn RGB-D Dynamic (Palazzolo 2019): people and objects that move in a room.

Layouts (docs/design/DATASETS.md, 2.4): folders `rgbd_bonn_SEQ` that are raw recordings
(`trajectories`), or as MonST3R prepares them, `rgb_110/`, `depth_110/`, `groundtruth_110.txt`. The
stored poses are those of a body of markers on the camera.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.files import listing
from dyn3r.datasets.sequence import Sequence
from dyn3r.datasets.trajectories import (
    associated_recording,
    lacking,
    named_stream,
    nearest,
    raw_or_prepared,
    read_trajectory,
    recording,
)
from dyn3r.errors import InputError

PREFIX = "rgbd_bonn_"
K_BONN = np.array([[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]])
"""Intrinsics for 640x480. The lens distorts (k1 .0399, k2 -.0993), which published runs ignore."""
PREPARED = ("110",)
AXES = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""A: exchanges axes of the motion capture system."""
MARKER_CAMERA = np.array(
    [
        [1.0157, 0.1828, -0.2389, 0.0113],
        [0.0009, -0.8431, -0.6413, -0.0098],
        [-0.3009, 0.6147, -0.8085, 0.0111],
        [0, 0, 0, 1],
    ]
)
"""B: camera to marker body, as published: its rotation is 1.0593 times too large."""


def sequences(root: Path) -> list[Sequence]:
    """The recording `root`, or every recording in it, named without "rgbd_bonn_".

    Raw recordings keep the pictures that have a pose. Prepared ones keep all: their poses were not
    chosen by time and are unknown for most pictures. Depth is always that nearest in time.

    Raises:
        InputError: no recording, half a recording, files that do not fit together.
    """
    base = root / "rgbd_bonn_dataset" if (root / "rgbd_bonn_dataset").is_dir() else root
    if _is_recording(base):
        return [_sequence(base)]
    found = sorted(p for p in base.iterdir() if _is_recording(p)) if base.is_dir() else []
    if not found:
        raise InputError(
            f"{root} is not Bonn RGB-D Dynamic: expected {PREFIX}SEQUENCE/rgb.txt and "
            f"{PREFIX}SEQUENCE/groundtruth.txt, found {listing(base)}"
        )
    return [_sequence(folder) for folder in found]


def _is_recording(folder: Path) -> bool:
    named = folder.is_dir() and folder.resolve().name.startswith(PREFIX)
    return named and raw_or_prepared(folder, PREPARED) is not None


def _sequence(folder: Path) -> Sequence:
    suffix = raw_or_prepared(folder, PREPARED)
    sequence = _prepared(folder, suffix) if suffix else associated_recording(folder)
    T = sequence.T_world_camera
    return replace(
        sequence,
        name=folder.resolve().name.removeprefix(PREFIX),
        T_world_camera=None if T is None else camera_poses(T),
        K=np.tile(K_BONN, (len(sequence), 1, 1)),
    )


def camera_poses(T_marker: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """Camera-to-world transforms A T A B of stored marker poses T.

    B's 3x3 part is divided by its scale, and made a rotation exactly: it has four digits.
    """
    from scipy.linalg import polar

    B = MARKER_CAMERA.copy()
    B[:3, :3] = polar(B[:3, :3])[0]
    return AXES @ T_marker @ AXES @ B


def _prepared(folder: Path, suffix: str) -> Sequence:
    """Every picture, with the depth and the pose nearest in time.

    Positions in the three lists do not correspond.
    """
    images, depth = (named_stream(folder / f"{kind}_{suffix}") for kind in ("rgb", "depth"))
    times, T = read_trajectory(folder / f"groundtruth_{suffix}.txt")
    pose, partner = nearest(images.times_s, times), nearest(images.times_s, depth.times_s)
    notes = lacking(pose, "pose")
    moved = int((partner != np.arange(len(partner))).sum())
    if moved:
        notes.append(
            f"{moved} of {len(partner)} pictures have another depth than that of their position"
        )
    found = T[pose]
    found[pose < 0] = np.nan
    T_known = None if (pose < 0).all() else found
    sequence = recording(folder.name, images, depth, T_known, notes)
    return replace(sequence, prepared_for="monst3r/bonn")
