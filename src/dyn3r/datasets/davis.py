"""DAVIS 2016 and 2017 (Perazzi 2016, Pont-Tuset 2017): videos with masks of objects.

Layout: `JPEGImages/480p/SEQ/%05d.jpg`, `Annotations/480p/SEQ/%05d.png`, one mask a frame. A mask
is grey {0, 255} (2016) or a palette picture whose values are object numbers (2017; 255 is "void").
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dyn3r.datasets.files import image_files, listing, read_index_png, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

VAL_2016 = (
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
    "dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf",
    "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox",
)  # fmt: skip
"""Validation sequences of DAVIS 2016."""
VAL_2017 = tuple(
    sorted(
        (*VAL_2016, "bike-packing", "dogs-jump", "gold-fish", "india", "judo", "lab-coat",
         "loading", "mbike-trick", "pigs", "shooting")
    )
)  # fmt: skip
"""Validation sequences of DAVIS 2017."""


def sequences(root: Path) -> list[Sequence]:
    """Every sequence with pictures and masks.

    A mask is any object: labels above 0 are foreground, "void" among them, as the published
    evaluation of Easi3R counts.

    Raises:
        InputError: another layout; a sequence whose masks do not fit its pictures.
    """
    base = root / "DAVIS" if (root / "DAVIS").is_dir() else root
    pictures, masks = (_resolution(base / name) for name in ("JPEGImages", "Annotations"))
    if pictures is None or masks is None:
        missing = "JPEGImages" if pictures is None else "Annotations"
        raise InputError(
            f"{root} is not DAVIS: expected {missing}/480p/SEQUENCE, found {listing(base)}"
        )
    out = []
    for folder in sorted(p for p in pictures.iterdir() if p.is_dir()):
        if (masks / folder.name).is_dir():
            out.append(_sequence(folder, masks / folder.name))
    if not out:
        raise InputError(f"{root}: no folder of {pictures} has masks in {masks}")
    return out


def _sequence(pictures: Path, masks: Path) -> Sequence:
    images, truth = image_files(pictures), image_files(masks)
    if [f.stem for f in images] != [f.stem for f in truth]:
        raise InputError(
            f"{pictures.name}: {len(images)} pictures in {pictures} do not match {len(truth)} "
            f"masks in {masks} by name"
        )
    return Sequence(
        name=pictures.name,
        frame_names=tuple(f.stem for f in images),
        image=lambda i: read_rgb(images[i]),
        mask=partial(_mask, truth),
        unit="arbitrary",
        mask_kind="any object",
    )


def _mask(files: list[Path], index: int) -> Bool[np.ndarray, "h w"]:
    return read_index_png(files[index]) > 0


def _resolution(folder: Path) -> Path | None:
    """The folder of 480p pictures, else of any other resolution."""
    if not folder.is_dir():
        return None
    found = sorted(p for p in folder.iterdir() if p.is_dir())
    return next((p for p in found if p.name == "480p"), found[0] if found else None)
