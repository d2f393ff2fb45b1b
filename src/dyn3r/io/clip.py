"""Clips from a video, a folder of images, one image, or images in memory (SPEC 2)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.input_report import InputReport
from dyn3r.io.arguments import checked_path
from dyn3r.io.images import (
    IMAGE_SUFFIXES,
    FrameStack,
    check_same_size,
    check_size,
    frame_mapping,
    images_in,
    open_image,
    prepare_image,
    prepare_images,
    to_rgb,
    visible_files,
)
from dyn3r.io.mask_files import match_frames, read_masks
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.io.text import storable
from dyn3r.io.video import open_video, plan_sampling, sampled_frames, time_notes
from dyn3r.types import Clip, FrameMapping, Progress, no_progress

__all__ = ["clip_from_images", "match_frames", "prepare_images", "read_clip", "read_masks"]

logger = logging.getLogger(__name__)

DEFAULT_IMAGE_FPS = 24.0
"""Frames per second of folders of images, unless given."""
MAX_FRAMES = 10_000
"""Largest number of frames of a clip; at 512x288 they take 4.4 GB."""
MAX_START_S = 1e7
"""Largest number of seconds to skip: 116 days."""
_STAGE = "reading frames"


def read_clip(
    path: str | Path,
    *,
    fps: float = 0.0,
    num_frames: int | None = None,
    size: int = 512,
    square_ok: bool = False,
    square_crop: bool = False,
    start: float = 0.0,
    progress: Progress = no_progress,
) -> Clip:
    """Read a video file, a folder of images (natural order) or one image.

    Args:
        path: a video in any format FFmpeg reads, a folder, or an image.
        fps: videos: keep every round(video_fps / fps)-th frame; 0 keeps all. Folders: the rate at
            which the images were taken (0: 24); every image is kept.
        num_frames: keep the first `num_frames` of those; None: all.
        size: long side of the prepared frames in pixels; a multiple of 16 from 64 to 4096.
        square_ok: leave square images square; otherwise they are cropped to 4:3.
        square_crop: short side to `size`, then the centre square (the published 224 model).
        start: seconds of the source to skip.
        progress: called as progress("reading frames", done, total); total is an estimate.

    Raises:
        InputError: nothing there, nothing readable, images of different sizes, an image too
            small or too elongated, or an option out of range. One damaged image in a folder is
            an error; a damaged video gives the frames that can be read and a warning in the log.
    """
    check_sampling(fps, num_frames, start)
    check_size(size)
    source = checked_path(path, "the source")
    crop = {"size": size, "square_ok": square_ok, "square_crop": square_crop}
    try:
        if not source.exists():
            raise InputError(f"{source} does not exist")
        if source.is_dir():
            files = image_files(source)
        elif source.suffix.lower() in IMAGE_SUFFIXES:
            files = [source]
        elif source.is_file():
            return _read_video(source, fps, num_frames, start, crop, progress)
        else:
            raise InputError(f"{source} is a device, pipe or socket, not a file")
        return _read_images(source, files, fps, num_frames, start, crop, progress)
    except (OSError, ValueError) as error:  # no permission, a name with a NUL in it, ...
        raise InputError(f"{source} cannot be read: {error}") from error
    except MemoryError:
        raise InputError(
            f"the frames of {source} do not fit in memory: ask for fewer, or smaller ones"
        ) from None


def clip_from_images(
    images: Iterable[Image.Image | np.ndarray],
    *,
    size: int = 512,
    square_ok: bool = False,
    square_crop: bool = False,
    fps: float = DEFAULT_IMAGE_FPS,
    names: Sequence[str] | None = None,
) -> Clip:
    """A clip from images in memory: PIL images or uint8 arrays (H,W,3), all of one size.

    Args:
        images: the images in order; a (n,H,W,3) array will do.
        size, square_ok, square_crop: see `read_clip`.
        fps: frames per second, for the clip's times.
        names: one per image; default `frame_000000`, `frame_000001`, ...

    Raises:
        InputError: see `dyn3r.io.images.prepare_images`; or fps is not above 0.
    """
    check_sampling(fps, None, 0.0)
    if fps == 0:
        raise InputError("a clip from images needs fps above 0")
    frames, mapping = prepare_images(
        images, size=size, square_ok=square_ok, square_crop=square_crop
    )
    if names is not None and not all(isinstance(name, str) for name in names):
        raise InputError("names of frames must be texts")
    labels = tuple(names) if names is not None else tuple(map(frame_name, range(len(frames))))
    return Clip(frames, mapping, labels, np.arange(len(frames)) / fps, "memory", float(fps))


def check_sampling(fps: float, num_frames: int | None, start: float) -> None:
    """Raise InputError for a rate, number of frames or start that no clip can have."""
    checked_number(fps, "fps", low=0, high=10_000)
    checked_number(start, "start", low=0, high=MAX_START_S)
    if num_frames is not None:
        checked_whole(num_frames, "the number of frames", low=1, high=MAX_FRAMES)


def _read_video(
    source: Path,
    fps: float,
    num_frames: int | None,
    start: float,
    crop: dict,
    progress: Progress,
) -> Clip:
    mapping: FrameMapping | None = None
    frames: FrameStack | None = None
    names: list[str] = []
    times: list[float] = []
    moved = 0
    with open_video(source) as container:
        plan = plan_sampling(container, fps=fps, start_s=start, limit=num_frames)
        for sample in sampled_frames(container, plan):
            hw = (sample.image.height, sample.image.width)
            names.append(frame_name(sample.index))
            if mapping is None or frames is None:
                mapping = frame_mapping(hw, **crop)
                frames = FrameStack(mapping.size_hw, min(plan.expected or 0, MAX_FRAMES))
            check_same_size(mapping.source_hw, hw, names[0], names[-1])
            if len(frames) == MAX_FRAMES:
                raise InputError(
                    f"{source} has more than {MAX_FRAMES} frames: ask for fewer with fps or "
                    "a number of frames"
                )
            frames.append(prepare_image(sample.image, mapping))
            times.append(sample.time_s)
            moved += sample.is_time_moved
            progress(_STAGE, len(frames), max(plan.expected or 0, len(frames)))
    if mapping is None or frames is None:
        where = f" after {start:g} s" if start else ""
        raise InputError(f"no frame of {source} could be decoded{where}: is it complete?")
    progress(_STAGE, len(frames), len(frames))
    rate, where = plan.rate / plan.step, storable(str(source))
    report = InputReport(time_notes(moved))
    return Clip(frames.stacked(), mapping, tuple(names), np.array(times), where, rate, report)


def _read_images(
    source: Path,
    files: list[Path],
    fps: float,
    num_frames: int | None,
    start: float,
    crop: dict,
    progress: Progress,
) -> Clip:
    chosen, times, rate = choose_images(source, files, fps, num_frames, start)
    if len(chosen) > MAX_FRAMES:
        raise InputError(f"{source} has more than {MAX_FRAMES} images: ask for fewer")
    mapping: FrameMapping | None = None
    frames: FrameStack | None = None
    for done, file in enumerate(chosen):
        image = to_rgb(open_image(file))
        hw = (image.height, image.width)
        if mapping is None or frames is None:
            mapping = _named_mapping(file, hw, crop)
            frames = FrameStack(mapping.size_hw, len(chosen))
        check_same_size(mapping.source_hw, hw, chosen[0].name, file.name)
        frames.append(prepare_image(image, mapping))
        progress(_STAGE, done + 1, len(chosen))
    assert mapping is not None
    assert frames is not None
    names = tuple(storable(f.name) for f in chosen)
    return Clip(frames.stacked(), mapping, names, times, storable(str(source)), rate)


def _named_mapping(file: Path, hw: tuple[int, int], crop: dict) -> FrameMapping:
    try:
        return frame_mapping(hw, **crop)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def choose_images(
    source: Path, files: list[Path], fps: float, num_frames: int | None, start: float
) -> tuple[list[Path], Float[np.ndarray, " n"], float]:
    """The images to read, their times in seconds, and frames per second.

    Raises InputError if none is left.
    """
    rate = fps or DEFAULT_IMAGE_FPS
    first = math.ceil(start * rate)
    chosen = list(islice(files, first, None if num_frames is None else first + num_frames))
    if not chosen:
        raise InputError(f"{source} has {len(files)} images: none is left after {start:g} s")
    return chosen, (first + np.arange(len(chosen))) / rate, float(rate)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, in natural order. Raises InputError if there are none."""
    files, visible = images_in(folder), visible_files(folder)
    if not files:
        what = "is empty" if not any(folder.iterdir()) else "has no images in it"
        raise InputError(f"the folder {folder} {what}")
    if len(files) < len(visible):
        logger.warning("%d files of %s are no images: ignored", len(visible) - len(files), folder)
    return files


def frame_name(index: int) -> str:
    """Name of a frame of a video."""
    return f"frame_{index:06d}"
