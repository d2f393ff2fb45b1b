"""A small DAVIS on disk: white squares on grey, and masks beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_HW = (48, 64)


def squares(n: int) -> np.ndarray:
    """Masks (n, 48, 64) of a square that moves right by a JPEG block a frame."""
    masks = np.zeros((n, *SIZE_HW), bool)
    for i in range(n):
        left = 16 * (i % 3)
        masks[i, 16:32, left : left + 16] = True
    return masks


def write_sequence(
    root: Path, name: str, masks: np.ndarray, shown: np.ndarray | None = None
) -> None:
    """One sequence; `shown`: where the picture is white, `masks` unless it is given."""
    pictures = root / "JPEGImages/480p" / name
    annotations = root / "Annotations/480p" / name
    for folder in (pictures, annotations):
        folder.mkdir(parents=True)
    for i, mask in enumerate(masks):
        white = mask if shown is None else shown[i]
        grey = np.where(white, 255, 60).astype(np.uint8)
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(pictures / f"{i:05d}.jpg", quality=95)
        Image.fromarray(mask.astype(np.uint8) * 255).save(annotations / f"{i:05d}.png")


def break_mask(root: Path, name: str, frame: int = 0) -> None:
    """Cut a mask file short."""
    file = root / f"Annotations/480p/{name}/{frame:05d}.png"
    file.write_bytes(file.read_bytes()[:50])
