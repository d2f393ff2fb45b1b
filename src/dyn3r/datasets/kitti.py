"""KITTI depth (Uhrig 2017): 13 drives of the validation set, left colour camera, sparse depth.

Layouts (docs/design/DATASETS.md, 2.5): raw, `val/DRIVE_sync/proj_depth/groundtruth/image_02/*.png`
and `DATE/DRIVE_sync/image_02/data/*.png`, with or without `DATE/calib_cam_to_cam.txt`; prepared by
MonST3R, `groundtruth_depth_gathered/DRIVE_sync_02/*.png` and `image_gathered/` alike, in
`depth_selection/val_selection_cropped`. Depth is metres x 256, 0 where unknown.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.files import (
    image_files,
    listing,
    per_file,
    read_depth_png,
    read_lines,
    read_rgb,
)
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

PER_METRE = 256.0
DATE_CHARACTERS = len("2011_09_26")
VAL_DRIVES = tuple(
    f"{date}_drive_{number}_sync_02"
    for date, numbers in {
        "2011_09_26": "0002 0005 0013 0020 0023 0036 0079 0095 0113",
        "2011_09_28": "0037",
        "2011_09_29": "0026",
        "2011_09_30": "0016",
        "2011_10_03": "0047",
    }.items()
    for number in numbers.split()
)
"""The drives of the published table. Source: DATASETS.md, 2.5."""
GATHERED = "groundtruth_depth_gathered"
TRUTH = Path("proj_depth/groundtruth/image_02")


def sequences(root: Path) -> list[Sequence]:
    """Every drive with pictures and depth, named DRIVE_sync_02; frames are those with depth.

    The raw layout has all frames of a drive; the prepared one has the first 110. Drives
    without a folder of pictures are left out.

    Raises:
        InputError: another layout; no drive with pictures; names that do not fit.
    """
    raw, gathered = _raw_drives(root), _gathered_drives(root)
    for layout in (raw, gathered):
        found = [drive for drive in layout if drive.pictures.is_dir()]
        if found:
            return [_sequence(drive) for drive in found]
    if raw or gathered:
        first = (raw + gathered)[0]
        raise InputError(
            f"{root} has depth without pictures: expected {first.pictures} for {first.depth}, "
            f"found {listing(first.pictures)}"
        )
    raise InputError(
        f"{root} is not KITTI depth: expected val/DRIVE_sync/{TRUTH} or {GATHERED}/"
        f"DRIVE_sync_02, found {listing(root)}"
    )


class _Drive(NamedTuple):
    name: str
    depth: Path
    pictures: Path
    calibration: Path | None


def _raw_drives(root: Path) -> list[_Drive]:
    out = []
    for folder in sorted(p.parents[2] for p in (root / "val").glob(f"*_sync/{TRUTH}")):
        date = root / folder.name[:DATE_CHARACTERS]
        pictures = date / folder.name / "image_02/data"
        calibration = date / "calib_cam_to_cam.txt"
        out.append(_Drive(f"{folder.name}_02", folder / TRUTH, pictures, calibration))
    return out


def _gathered_drives(root: Path) -> list[_Drive]:
    """The drives of the prepared layout, in `root` or where the archive unpacks."""
    for below in ("depth_selection/val_selection_cropped", "val_selection_cropped", "."):
        depth, pictures = root / below / GATHERED, root / below / "image_gathered"
        if depth.is_dir():
            drives = sorted(p for p in depth.iterdir() if p.is_dir())
            return [_Drive(p.name, p, pictures / p.name, None) for p in drives]
    return []


def _sequence(drive: _Drive) -> Sequence:
    truth = image_files(drive.depth)
    images = {f.stem: f for f in image_files(drive.pictures)}
    kept = [f for f in truth if f.stem in images]
    if not kept:
        raise InputError(
            f"{drive.name}: expected pictures named as the {len(truth)} files in {drive.depth}, "
            f"found {listing(drive.pictures)}"
        )
    dropped = len(truth) - len(kept)
    K = _intrinsics(drive.calibration)
    return Sequence(
        name=drive.name,
        frame_names=tuple(f.stem for f in kept),
        image=per_file([images[f.stem] for f in kept], read_rgb),
        depth=per_file(kept, partial(read_depth_png, per_unit=PER_METRE)),
        K=None if K is None else np.tile(K, (len(kept), 1, 1)),
        fps=10.0,
        notes=(f"{dropped} of {len(truth)} depth maps have no picture",) if dropped else (),
    )


def _intrinsics(calibration: Path | None) -> Float[np.ndarray, "3 3"] | None:
    """K of the rectified left colour camera, where its file was unpacked too."""
    if calibration is None or not calibration.is_file():
        return None
    return read_projection(calibration, "P_rect_02")[:, :3]


def read_projection(calibration: Path, key: str) -> Float[np.ndarray, "3 4"]:
    """The projection matrix of the line `KEY: 12 numbers`.

    Raises:
        InputError: no such file or line, or other numbers.
    """
    for line in read_lines(calibration):
        label, _, rest = line.partition(":")
        if label.strip() == key:
            return _twelve_numbers(rest, calibration, key)
    raise InputError(f"{calibration}: expected a line '{key}: ' with 12 numbers, found none")


def _twelve_numbers(text: str, calibration: Path, key: str) -> Float[np.ndarray, "3 4"]:
    try:
        P = np.array([float(word) for word in text.split()]).reshape(3, 4)
    except ValueError:
        P = np.full((3, 4), np.nan)
    if not np.isfinite(P).all() or abs(np.linalg.det(P[:, :3])) < 1e-9:
        raise InputError(f"{calibration}: expected 12 numbers after '{key}:', found {text[:60]!r}")
    return P
