"""Frames of a video or folder one at a time, as they are decoded.

Frames, names and times are those of `read_clip`, at source resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.clip import check_sampling, choose_images, frame_name, white_note
from dyn3r.io.image_folder import FolderImages, folder_images
from dyn3r.io.images import IMAGE_SUFFIXES, read_rgb
from dyn3r.io.inspection.file_facts import images_facts, rotation_notes, video_facts
from dyn3r.io.text import storable
from dyn3r.io.video import nothing_decoded, open_video, plan_sampling, sampled_frames
from dyn3r.types.input_report import InputReport


class StreamedFrame(NamedTuple):
    """A source image before it is prepared."""

    image: Image.Image | np.ndarray
    """RGB, any size, the same for all frames of a stream."""
    name: str
    """As in `Clip.names`."""
    time_s: float
    """Seconds since the start of the source."""
    pixel_aspect: float = 1.0
    """Width of its pixels over their height."""


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
    report: InputReport = field(default_factory=InputReport)
    """What the file says, and what was left out of a folder."""

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
    found = folder_images(source) if source.is_dir() else FolderImages([source], [])
    chosen, times, rate = choose_images(source, found.files, fps, num_frames, start)
    white, notes = white_note(chosen)
    facts = images_facts(chosen)
    frames = (
        StreamedFrame(read_rgb(file, white), storable(file.name), float(time_s), facts.pixel_aspect)
        for file, time_s in zip(chosen, times)
    )
    report = InputReport((*found.notes, *notes, *facts.notes))
    return FrameStream(frames, rate, len(chosen), storable(str(source)), report)


def _of_video(source: Path, fps: float, num_frames: int | None, start: float) -> FrameStream:
    with open_video(source) as container:
        facts = video_facts(container, source)
        plan = plan_sampling(container, fps=fps, start_s=start, limit=num_frames)
        first = next(sampled_frames(container, plan), None)
    if first is None:
        raise nothing_decoded(source, plan)
    aspect = facts.upright_aspect(first.turned)

    def frames() -> Iterator[StreamedFrame]:
        with open_video(source) as container:
            for sample in sampled_frames(container, plan):
                yield StreamedFrame(sample.image, frame_name(sample.index), sample.time_s, aspect)

    report = InputReport((*rotation_notes(first.turned), *facts.notes))
    where = storable(str(source))
    return FrameStream(frames(), plan.rate / plan.step, plan.expected, where, report)
