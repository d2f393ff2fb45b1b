"""Photographs as textures: square tiles, and skies from equirectangular panoramas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dyn3r.errors import InputError

TILE = 256
"""Side of a tile in texels."""
SKY_HW = (256, 512)
"""Size of a sky."""
SUFFIXES = (".jpg", ".jpeg", ".png")


def read_photographs(
    folder: Path, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cut tiles (256, 256, 3) and skies (256, 512, 3) from the photographs of a folder.

    Raises InputError if the folder is missing, or has an unreadable image or none.
    """
    if not folder.is_dir():
        raise InputError(f"photos: '{folder}' is not a folder; give a folder of jpg or png images")
    tiles, skies = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"photos: '{path}' can't be read ({error}); remove it") from error
        if path.name.startswith("pano_"):
            sky = image.resize(SKY_HW[::-1], Image.Resampling.LANCZOS)
            skies.append(np.asarray(sky))
        for k in range(4):
            tiles.append(_crop_tile(image, rng, whole=k == 0))
    if not tiles:
        raise InputError(f"photos: '{folder}' has no jpg or png image")
    return tiles, skies


def _crop_tile(image: Image.Image, rng: np.random.Generator, *, whole: bool) -> np.ndarray:
    """Cut a square at a random place: of the short side if whole, else smaller."""
    w, h = image.size
    side = min(w, h) if whole else int(min(w, h) * rng.uniform(0.25, 0.9))
    side = max(side, 2)
    x, y = int(rng.integers(0, w - side + 1)), int(rng.integers(0, h - side + 1))
    crop = image.crop((x, y, x + side, y + side))
    return np.asarray(crop.resize((TILE, TILE), Image.Resampling.LANCZOS))
