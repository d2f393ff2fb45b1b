"""How many frames a source has, and how they are spread, before anything is decoded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.clip import DEFAULT_IMAGE_FPS
from dyn3r.io.image_folder import folder_images
from dyn3r.io.images import IMAGE_SUFFIXES
from dyn3r.io.video import open_video, plan_sampling


class SourceLength(NamedTuple):
    """How many frames a source has, before any are left out."""

    frames: int | None
    """Estimated for videos; None: the file does not say."""
    rate: float
    """Frames per second."""

    def between(self, start: float, end: float | None) -> int | None:
        """Number of frames from `start` to `end`, in seconds; None: unknown."""
        if self.frames is None:
            return None
        last = self.frames if end is None else min(self.frames, math.ceil(end * self.rate))
        return max(0, last - math.ceil(start * self.rate))


def source_length(path: str | Path, fps: float = 0.0) -> SourceLength:
    """Frames and rate of a video, a folder of images or an image, without decoding it.

    `fps`: the rate at which the images of a folder were taken (0: 24). Raises InputError: as
    `read_clip`, for a source that is missing or cannot be opened.
    """
    source = checked_path(path, "the source")
    if not source.exists():
        raise InputError(f"{source} does not exist")
    if source.is_dir():
        return SourceLength(len(folder_images(source).files), fps or DEFAULT_IMAGE_FPS)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return SourceLength(1, fps or DEFAULT_IMAGE_FPS)
    with open_video(source) as container:
        sampling = plan_sampling(container)
    return SourceLength(sampling.expected, sampling.rate)


def spread_over(available: int, num_frames: int) -> float:
    """The `every` of `read_clip` that keeps `num_frames` of `available` frames, evenly spread."""
    return max(1.0, available / num_frames)
