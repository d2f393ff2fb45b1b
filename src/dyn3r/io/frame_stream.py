"""Frames of a video or folder one at a time, as they are decoded.

Frames, names and times are those of `read_clip`, at source resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.clip import check_sampling, choose_images, frame_name
from dyn3r.io.image_folder import folder_images
from dyn3r.io.images import IMAGE_SUFFIXES, read_rgb, white_level
from dyn3r.io.text import storable
from dyn3r.io.video import open_video, plan_sampling, sampled_frames


class StreamedFrame(NamedTuple):
    """A source image before it is prepared."""

    image: Image.Image | np.ndarray
    """RGB, any size, the same for all frames of a stream."""
    name: str
    """As in `Clip.names`."""
    time_s: float
    """Seconds since the start of the source."""


@dataclass(frozen=True)
class FrameStream:
    """Frames that are decoded on access; can be iterated once."""

    frames: Iterator[StreamedFrame]
    """The frames in order."""
    fps: float
    """Frames per second of the frames kept."""
    expected: int | None
    """Estimated number of frames; None if the source does not say."""
    source: str
    """The path it was opened from."""

    def __iter__(self) -> Iterator[StreamedFrame]:
        """Iterate over the frames."""
        return self.frames


def stream_frames(
    path: str | Path, *, fps: float = 0.0, num_frames: int | None = None, start: float = 0.0
) -> FrameStream:
    """Open a video, a folder of images or an image; arguments as for `read_clip`.

    Raises:
        InputError: nothing there, nothing readable (a damaged image: when it is reached), or an
            option out of range.
    """
    check_sampling(fps, num_frames, start)
    source = checked_path(path, "the source")
    if not source.exists():
        raise InputError(f"{source} does not exist")
    if not source.is_dir() and source.suffix.lower() not in IMAGE_SUFFIXES:
        return _of_video(source, fps, num_frames, start)
    files = folder_images(source).files if source.is_dir() else [source]
    chosen, times, rate = choose_images(source, files, fps, num_frames, start)
    white = white_level(chosen)
    frames = (
        StreamedFrame(read_rgb(file, white), storable(file.name), float(time_s))
        for file, time_s in zip(chosen, times)
    )
    return FrameStream(frames, rate, len(chosen), storable(str(source)))


def _of_video(source: Path, fps: float, num_frames: int | None, start: float) -> FrameStream:
    with open_video(source) as container:
        plan = plan_sampling(container, fps=fps, start_s=start, limit=num_frames)

    def frames() -> Iterator[StreamedFrame]:
        came = False
        with open_video(source) as container:
            for sample in sampled_frames(container, plan):
                came = True
                yield StreamedFrame(sample.image, frame_name(sample.index), sample.time_s)
        if not came:
            where = f" after {start:g} s" if start else ""
            raise InputError(f"no frame of {source} could be decoded{where}: is it complete?")

    return FrameStream(frames(), plan.rate / plan.step, plan.expected, storable(str(source)))
