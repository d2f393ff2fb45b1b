"""The frames of a folder of images: which files are frames, and what is said about the others."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.images import image_mode, images_in, visible_files
from dyn3r.io.text import counted, storable
from dyn3r.types.input_report import InputNote

OTHER_MAPS = frozenset(
    {"depth", "depths", "disp", "disparity", "mask", "masks", "normal", "normals", "conf", "seg"}
)
"""Words in the names of images that are no colour images."""
PHOTO_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".exr", ".hdr", ".jxl", ".psd"}
)
"""Suffixes (lower case) of photographs that are not read."""
BY_LOSS = (
    ".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".jp2", ".webp", ".jpg", ".jpeg", ".avif",
    ".heic", ".heif",
)  # fmt: skip
"""Suffixes of images, usually with less loss first; what needs an extra comes last."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".gif"}
)
"""Suffixes (lower case) by which videos are named in messages."""
MIN_STEPS, EQUAL_STEPS = 4, 0.7
"""Missing numbers are looked for in so many steps, of which this share must be equal: names that
are times count unevenly."""
MAX_NAMED = 4
"""Most folders that a message names."""


class FolderImages(NamedTuple):
    """The frames of a folder."""

    files: list[Path]
    """In natural order."""
    notes: list[InputNote]
    """What was left out."""


def folder_images(folder: Path) -> FolderImages:
    """The images of a folder that are frames.

    Depth maps and masks beside the images of the same numbers are left out, by their names. Of
    images that differ in the suffix only (photographs stored twice), one is taken.

    Raises:
        InputError: no images (folders in it that have images, and videos, are named), or 16-bit
            grey images among colour images.
    """
    images, visible = images_in(folder), visible_files(folder)
    if not images:
        raise InputError(f"the folder {folder} {_why_none(folder)}")
    maps = [file for file in images if OTHER_MAPS & set(_words(file))]
    frames = [file for file in images if file not in maps]
    numbers = {_numbers(file) for file in frames}
    if not frames or sum(_numbers(file) in numbers for file in maps) <= len(maps) / 2:
        frames, maps = images, []
    frames, twins = _without_twins(frames)
    _check_kinds(folder, frames)
    notes = [_left_out(maps, "depth maps, masks or the like")] if maps else []
    notes += [_left_out(twins, "images again, under another suffix")] if twins else []
    notes += _gaps(frames)
    others = [file for file in visible if file not in set(images)]
    photos = [file for file in others if file.suffix.lower() in PHOTO_SUFFIXES]
    if photos:
        notes.append(_left_out(photos, "photographs in a format that is not read", warning=True))
    if len(others) > len(photos):
        rest = [file for file in others if file not in photos]
        notes.append(_left_out(rest, "no images"))
    return FolderImages(frames, notes)


def _without_twins(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Files of different names apart from the suffix, and the others.

    The suffix that most files have is kept, then the one with less loss.
    """
    counts = Counter(file.suffix.lower() for file in files)

    def rank(file: Path) -> tuple[int, int]:
        suffix = file.suffix.lower()
        return -counts[suffix], BY_LOSS.index(suffix) if suffix in BY_LOSS else len(BY_LOSS)

    best: dict[str, Path] = {}
    for file in sorted(files, key=rank):
        best.setdefault(file.stem.casefold(), file)
    kept = set(best.values())
    return [file for file in files if file in kept], [file for file in files if file not in kept]


def _gaps(files: list[Path]) -> list[InputNote]:
    """The note on missing numbers, where nearly all names count in equal steps."""
    numbers = [_numbers(file)[-1:] for file in files]
    steps = np.diff([number[0] for number in numbers]) if all(numbers) else np.zeros(0)
    if len(steps) < MIN_STEPS or (steps <= 0).any():
        return []
    step, count = Counter(steps.tolist()).most_common(1)[0]
    jumps = np.flatnonzero(steps != step)
    if not len(jumps) or count < EQUAL_STEPS * len(steps):
        return []
    before, after = (storable(files[int(jumps[0]) + k].name) for k in (0, 1))
    more = ", and there are more" if len(jumps) > 1 else ""
    text = f"numbers are missing after {before} ({after} is next{more}): times count the images"
    return [InputNote("times", text, warning=True)]


def _check_kinds(folder: Path, files: list[Path]) -> None:
    """Raise InputError if 16-bit grey images (depth maps) are among others."""
    kinds: dict[bool, Path] = {}
    for file in files:
        mode = image_mode(file)
        if mode is not None:
            kinds.setdefault(mode.startswith("I"), file)
    if len(kinds) > 1:
        raise InputError(
            f"the folder {folder} mixes 16-bit grey images ({kinds[True].name}) and others "
            f"({kinds[False].name}): if those are depth maps, give a folder without them"
        )


def _words(file: Path) -> list[str]:
    return re.findall(r"[a-z]+", file.stem.lower())


def _numbers(file: Path) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"[0-9]{1,18}", file.stem))


def _left_out(files: list[Path], what: str, *, warning: bool = False) -> InputNote:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    named = ", ".join(f"{count} {storable(kind)}" for kind, count in kinds.most_common(MAX_NAMED))
    example = storable(min(file.name for file in files))
    text = f"left out: {len(files)} of the folder's files are {what} ({named}; {example:.80})"
    return InputNote("frames", text, warning=warning)


def _why_none(folder: Path) -> str:
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not inside:
        return "is empty"
    found = [(path, len(images_in(path))) for path in inside if path.is_dir()]
    named = [f"{path.name}/ ({counted(count, 'image')})" for path, count in found if count]
    videos = [path.name for path in inside if path.suffix.lower() in VIDEO_SUFFIXES]
    if not named and videos:
        return f"has no images in it, but a video: give {videos[0]}"
    if not named:
        return "has no images in it"
    more = " and others" if len(named) > MAX_NAMED else ""
    return (
        "has no images in it, but folders that have: give one of them, "
        f"{', '.join(named[:MAX_NAMED])}{more}"
    )
