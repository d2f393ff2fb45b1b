"""TUM RGB-D (Sturm 2012), freiburg3 "sitting" and "walking": people in an office, one camera.

Layouts (docs/design/DATASETS.md, 2.3): raw recordings (`trajectories`); prepared by MonST3R,
`rgb_90/` and `groundtruth_90.txt`; prepared by Easi3R, `rgb_all_stride30/`,
`depth_all_stride30/` and `groundtruth_all_stride30.txt`. Poses are camera to world.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dyn3r.datasets.files import listing
from dyn3r.datasets.sequence import Sequence
from dyn3r.datasets.trajectories import (
    LIMIT_S,
    Stream,
    associated_recording,
    named_stream,
    raw_or_prepared,
    read_trajectory,
    recording,
)
from dyn3r.errors import InputError

DYNAMIC = tuple(
    f"rgbd_dataset_freiburg3_{people}_{camera}"
    for people in ("sitting", "walking")
    for camera in ("static", "xyz", "halfsphere", "rpy")
)
"""The recordings of the published tables. Source: DATASETS.md, 2.3."""
K_FREIBURG3 = np.array([[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]])
"""Intrinsics of the colour camera of freiburg3, for 640x480; it has no distortion."""
PREPARED = {"90": "monst3r/tum", "all_stride30": "easi3r/tum"}


def sequences(root: Path) -> list[Sequence]:
    """The recording `root`, or every recording in it; other folders are left out.

    Raw recordings keep the pictures that have a pose. Intrinsics are known for folders whose name
    says "freiburg3".

    Raises:
        InputError: no recording, half a recording, files that do not fit together.
    """
    if _is_recording(root):
        return [_sequence(root)]
    found = sorted(p for p in root.iterdir() if _is_recording(p)) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{root} is not TUM RGB-D: expected SEQUENCE/rgb.txt and SEQUENCE/groundtruth.txt, "
            f"found {listing(root)}"
        )
    return [_sequence(folder) for folder in found]


def _is_recording(folder: Path) -> bool:
    return raw_or_prepared(folder, tuple(PREPARED)) is not None


def _sequence(folder: Path) -> Sequence:
    name, suffix = folder.resolve().name, raw_or_prepared(folder, tuple(PREPARED))
    if name.startswith("rgbd_bonn_"):
        raise InputError(f"{folder} is not TUM RGB-D: its name is that of a recording of Bonn")
    sequence = _prepared(folder, suffix) if suffix else associated_recording(folder)
    if "freiburg3" not in name:
        return replace(
            sequence, notes=(*sequence.notes, "K is unknown: the name does not say freiburg3")
        )
    return replace(sequence, K=np.tile(K_FREIBURG3, (len(sequence), 1, 1)))


def _prepared(folder: Path, suffix: str) -> Sequence:
    """Pictures and poses that belong together by their order."""
    images, truth = named_stream(folder / f"rgb_{suffix}"), folder / f"groundtruth_{suffix}.txt"
    times, T = read_trajectory(truth)
    if len(times) != len(images.files):
        raise InputError(
            f"{truth}: expected a pose for each of {len(images.files)} pictures in "
            f"{folder / f'rgb_{suffix}'}, found {len(times)}"
        )
    apart = np.abs(times - images.times_s).max()
    if apart >= LIMIT_S:
        raise InputError(
            f"{truth}: expected stamps within {LIMIT_S} s of the pictures', found {apart:.3f} s"
        )
    name, depth = folder.resolve().name, _depth(folder / f"depth_{suffix}")
    return replace(recording(name, images, depth, T, []), prepared_for=PREPARED[suffix])


def _depth(folder: Path) -> Stream | None:
    return named_stream(folder) if folder.is_dir() else None
