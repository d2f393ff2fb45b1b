"""Frames whose images, depth and cameras are matched by the number in their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dyn3r.datasets.files import listing
from dyn3r.errors import InputError
from dyn3r.io.images import visible_files


@dataclass(frozen=True)
class NumberedFrames:
    """Frames that have an image, a depth file and a row in the table of cameras."""

    images: list[Path]
    depths: list[Path]
    rows: list[int]
    """Row of each frame in the table of cameras."""
    notes: tuple[str, ...]
    """What was dropped."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images without suffix."""
        return tuple(f.stem for f in self.images)


def numbered_files(folder: Path, pattern: str) -> dict[int, Path]:
    """Files of a folder by the number that the group of the regular expression finds, sorted.

    Raises:
        InputError: no such folder, or no file whose whole name fits.
    """
    files = visible_files(folder) if folder.is_dir() else []
    found = {int(m[1]): f for f in files if (m := re.fullmatch(pattern, f.name))}
    if not found:
        raise InputError(f"{folder}: expected files such as {pattern}, found {listing(folder)}")
    return dict(sorted(found.items()))


def numbered_frames(
    images: dict[int, Path], depths: dict[int, Path], cameras: int, *, first: int = 0
) -> NumberedFrames:
    """Frames that have everything.

    Args:
        images: images by number.
        depths: depth files by number.
        cameras: number of rows of the table of cameras.
        first: number of the frame of its row 0.

    Raises:
        InputError: no frame has everything.
    """
    kept = [k for k in images if k in depths and 0 <= k - first < cameras]
    if not kept:
        where = next(iter(images.values())).parent
        raise InputError(
            f"{where}: none of {len(images)} images has one of {len(depths)} depth files and one "
            f"of {cameras} cameras of its number"
        )
    dropped = len(images) - len(kept)
    notes = (f"{dropped} of {len(images)} images have no depth or no camera",) if dropped else ()
    return NumberedFrames(
        [images[k] for k in kept], [depths[k] for k in kept], [k - first for k in kept], notes
    )
