"""Photographs as textures: square tiles, and skies from equirectangular panoramas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.images import open_image

TILE = 256
"""Side of a tile in texels."""
SMALLEST = 16
"""Smallest side of a photograph in pixels."""
SKY_HW = (256, 512)
"""Size of a sky."""
SUFFIXES = (".jpg", ".jpeg", ".png")


def read_photographs(
    folder: Path, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cut tiles (256, 256, 3) and skies (256, 512, 3) from the photographs of a folder.

    Raises InputError if the folder is missing, or has an unreadable image or none.
    """
    tiles, skies = [], []
    for path, image in _photographs(folder):
        if path.name.startswith("pano_"):
            sky = image.resize(SKY_HW[::-1], Image.Resampling.LANCZOS)
            skies.append(np.asarray(sky))
        for k in range(4):
            tiles.append(_crop_tile(image, rng, whole=k == 0))
    return tiles, skies


def check_photographs(folder: Path) -> None:
    """Read every photograph once, before processes are started that need them.

    Raises InputError if the folder is missing, or has an unreadable image or none.
    """
    for _ in _photographs(folder):
        pass


def _photographs(folder: Path) -> Iterator[tuple[Path, Image.Image]]:
    """Paths and RGB images of the photographs of a folder. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"photos: '{folder}' is not a folder; give a folder of jpg or png images")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"photos: '{folder}' has no jpg or png image")
    for path in files:
        try:
            image = open_image(path).convert("RGB")
        except InputError as error:
            raise InputError(f"photos: {error}; remove it") from error
        if min(image.size) < SMALLEST:
            w, h = image.size
            raise InputError(f"photos: {path} has {w}x{h} pixels, too few for a texture; remove it")
        yield path, image


def _crop_tile(image: Image.Image, rng: np.random.Generator, *, whole: bool) -> np.ndarray:
    """Cut a square at a random place: of the short side if whole, else smaller."""
    w, h = image.size
    side = min(w, h) if whole else int(min(w, h) * rng.uniform(0.25, 0.9))
    side = max(side, 2)
    x, y = int(rng.integers(0, w - side + 1)), int(rng.integers(0, h - side + 1))
    crop = image.crop((x, y, x + side, y + side))
    return np.asarray(crop.resize((TILE, TILE), Image.Resampling.LANCZOS))
