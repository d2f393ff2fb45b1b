"""KITTI depth selection (Uhrig 2017): 1000 single pictures of the validation set, sparse depth.

Layout (docs/design/DATASETS.md, 2.5): `depth_selection/val_selection_cropped/` with
`image/DRIVE_sync_image_FRAME_image_0{2,3}.png`, `groundtruth_depth/` (metres x 256, 0 where
unknown; "groundtruth_depth" in place of the first "image" of the name) and `intrinsics/*.txt`, the
9 numbers of K, named as the picture. Pictures are cropped, and K is that of the crop.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.cameras import known_K
from dyn3r.datasets.files import (
    image_files,
    listing,
    per_file,
    read_depth_png,
    read_lines,
    read_rgb,
)
from dyn3r.datasets.kitti import PER_METRE
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

PLACES = ("depth_selection/val_selection_cropped", "val_selection_cropped", ".")
NAME = re.compile(r"(.+_sync)_image_(\d{10}_image_0[23])")


def sequences(root: Path) -> list[Sequence]:
    """Every picture, as a sequence of one frame named DRIVE_sync_FRAME_image_0N.

    K is that of the pictures; without a folder `intrinsics` it is unknown.

    Raises:
        InputError: another layout; pictures with other names or without depth; damaged K.
    """
    for place in PLACES:
        base = root / place
        if (base / "image").is_dir() and (base / "groundtruth_depth").is_dir():
            return [_sequence(base, image) for image in image_files(base / "image")]
    raise InputError(
        f"{root} is not the depth selection of KITTI: expected {PLACES[0]}/image and "
        f"groundtruth_depth, found {listing(root)}"
    )


def _sequence(base: Path, image: Path) -> Sequence:
    parts = NAME.fullmatch(image.stem)
    if parts is None:
        raise InputError(f"{image}: expected a name such as DRIVE_sync_image_0000000005_image_02")
    drive, frame = parts.groups()
    depth = base / "groundtruth_depth" / f"{drive}_groundtruth_depth_{frame}.png"
    if not depth.is_file():
        raise InputError(f"{image} has no true depth: expected {depth}")
    name = f"{drive}_{frame}"
    calibration = base / "intrinsics" / f"{image.stem}.txt"
    return Sequence(
        name=name,
        frame_names=(name,),
        image=per_file([image], read_rgb),
        depth=per_file([depth], partial(read_depth_png, per_unit=PER_METRE)),
        K=_intrinsics(calibration) if calibration.parent.is_dir() else None,
    )


def _intrinsics(file: Path) -> Float[np.ndarray, "1 3 3"]:
    words = " ".join(read_lines(file)).split()
    try:
        K = np.array([float(word) for word in words]).reshape(1, 3, 3)
    except ValueError:
        raise InputError(f"{file}: expected 9 numbers, found {' '.join(words)[:60]!r}") from None
    return known_K(K, file)
