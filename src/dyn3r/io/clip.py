"""Clips from a video, a folder of images, one image, or images in memory (SPEC 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.image_folder import FolderImages, folder_images
from dyn3r.io.images import (
    IMAGE_SUFFIXES,
    Fit,
    FrameStack,
    Window,
    check_same_size,
    check_size,
    frame_mapping,
    prepare_image,
    prepare_images,
    read_rgb,
    white_level,
)
from dyn3r.io.inspection.borders import find_borders, in_source
from dyn3r.io.inspection.file_facts import (
    FileFacts,
    images_facts,
    mixed_facts,
    reading_notes,
    rotation_notes,
    video_facts,
)
from dyn3r.io.inspection.inspector import Inspector
from dyn3r.io.inspection.interlacing import one_field
from dyn3r.io.mask_files import match_frames, read_masks
from dyn3r.io.mixed_sizes import (
    mixed_mapping,
    mixed_note,
    prepare_mixed,
    sizes_if_mixed,
)
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.io.text import counted, storable
from dyn3r.io.video import (
    nothing_decoded,
    open_video,
    plan_sampling,
    sampled_frames,
    time_notes,
)
from dyn3r.types import Clip, FrameMapping, Progress, no_progress
from dyn3r.types.input_report import InputNote

__all__ = ["clip_from_images", "match_frames", "prepare_images", "read_clip", "read_masks"]

DEFAULT_IMAGE_FPS = 24.0
"""Frames per second of folders of images, unless given."""
MAX_FRAMES = 10_000
"""Largest number of frames of a clip; at 512x288 they take 4.4 GB."""
MAX_START_S = 1e7
"""Largest number of seconds to skip: 116 days."""
_STAGE = "reading frames"


def read_clip(  # noqa: PLR0913  all but one are keyword-only
    path: str | Path,
    *,
    fps: float = 0.0,
    num_frames: int | None = None,
    size: int = 512,
    square_ok: bool = False,
    square_crop: bool = False,
    fit: Fit = "crop",
    start: float = 0.0,
    end: float | None = None,
    every: float = 1.0,
    crop_borders: bool = True,
    progress: Progress = no_progress,
) -> Clip:
    """Read a video file, a folder of images (natural order) or one image.

    Images of a folder may differ in size (`dyn3r.io.mixed_sizes`). The frames are inspected:
    `Clip.report` says what was found, and the other fields hold it
    (docs/files.md).

    Args:
        path: a video in any format FFmpeg reads, a folder, or an image.
        fps: videos: keep every round(video_fps / fps)-th frame; 0 keeps all. Folders: the rate at
            which the images were taken (0: 24); every image is kept.
        num_frames: keep the first `num_frames` of those; None: all. To spread them over the clip,
            choose `every` (`spread_over` computes it).
        size: long side of the prepared frames in pixels; a multiple of 16 from 64 to 4096.
        square_ok: leave square images square; otherwise they are cropped to 4:3.
        square_crop: short side to `size`, then the centre square (the published 224 model).
        fit: how an image becomes a frame: crop, cover or area; see `dyn3r.io.images.frame_mapping`.
            `dyn3r run` takes `Model.fit`.
        start: seconds of the source to skip.
        end: seconds from the beginning at which the clip ends; None: that of the source.
        every: keep every `every`-th frame or image; 2.5: every second or third. Videos: instead of
            `fps`.
        crop_borders: leave out black bars around the picture, which stay the same over the clip.
        progress: called as progress("reading frames", done, total); total is an estimate.

    Raises:
        InputError: nothing there, nothing readable, a video whose size changes, an image too
            small or too elongated, or an option out of range. One damaged image in a folder is
            an error; a damaged video gives the frames that can be read and a warning in the log.
    """
    check_sampling(fps, num_frames, start, end=end, every=every)
    check_size(size)
    chosen = _Choice(fps, num_frames, start, math.inf if end is None else end, every)
    source = checked_path(path, "the source")
    crop: dict[str, Any] = {
        "size": size, "square_ok": square_ok, "square_crop": square_crop, "fit": fit,
    }  # fmt: skip
    try:
        if not source.exists():
            raise InputError(f"{source} does not exist")
        read = _reader(source, chosen, progress)
        plain = Preparation(crop)
        clip, interlaced = read(plain)
        if clip.mapping.is_mixed:
            return clip
        picture = find_borders(clip.images) if crop_borders else None
        if picture is not None:
            picture = in_source(picture, clip.mapping)
        better = Preparation(crop, picture, one_field=interlaced)
        if better == plain:
            return clip
        return _with(read(better).clip, *better.notes(clip.mapping.source_hw))
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
    fit: Fit = "crop",
    fps: float = DEFAULT_IMAGE_FPS,
    names: Sequence[str] | None = None,
) -> Clip:
    """A clip from images in memory: PIL images or uint8 arrays (H,W,3).

    Args:
        images: the images in order; a (n,H,W,3) array will do. In a list they may differ in size
            (`dyn3r.io.mixed_sizes`).
        size, square_ok, square_crop, fit: see `read_clip`.
        fps: frames per second, for the clip's times.
        names: one per image; default `frame_000000`, `frame_000001`, ...

    Raises:
        InputError: see `dyn3r.io.images.prepare_images`; or fps is not above 0.
    """
    check_sampling(fps, None, 0.0)
    if fps == 0:
        raise InputError("a clip from images needs fps above 0")
    crop: dict[str, Any] = {
        "size": size, "square_ok": square_ok, "square_crop": square_crop, "fit": fit,
    }  # fmt: skip
    mixed = prepare_mixed(images, **crop) if isinstance(images, (list, tuple)) else None
    frames, mapping = mixed or prepare_images(images, **crop)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise InputError("names of frames must be texts")
    labels = tuple(names) if names is not None else tuple(map(frame_name, range(len(frames))))
    clip = Clip(frames, mapping, labels, np.arange(len(frames)) / fps, "memory", float(fps))
    if mapping.is_mixed:
        clip = _with(clip, mixed_note(mapping, labels))
    inspector = Inspector(FrameMapping(mapping.size_hw, mapping.size_hw, (0, 0), mapping.size_hw))
    for frame in frames:
        inspector.add(Image.fromarray(frame))
    return inspector.inspected(clip)


def check_sampling(
    fps: float,
    num_frames: int | None,
    start: float,
    *,
    end: float | None = None,
    every: float = 1.0,
) -> None:
    """Raise InputError for a rate, number of frames, start or end that no clip can have."""
    checked_number(fps, "fps", low=0, high=10_000)
    checked_number(start, "start", low=0, high=MAX_START_S)
    checked_number(every, "every", low=1, high=1e7)
    if end is not None:
        checked_number(end, "end", low=0, high=MAX_START_S)
        if end <= start:
            raise InputError(f"the end ({end:g} s) must be later than the start ({start:g} s)")
    if num_frames is not None:
        checked_whole(num_frames, "the number of frames", low=1, high=MAX_FRAMES)


class _Choice(NamedTuple):
    """Which frames of a source are kept: arguments of `read_clip`."""

    fps: float
    num_frames: int | None
    start: float
    end: float
    every: float


class Preparation(NamedTuple):
    """What is done with every frame."""

    crop: dict[str, Any]
    """Keyword arguments of `frame_mapping`."""
    picture: Window | None = None
    """Its part within bars."""
    one_field: bool = False
    """Whether its even rows alone are used."""

    def mapping(self, source_hw: tuple[int, int], pixel_aspect: float = 1.0) -> FrameMapping:
        """The mapping of frames of this size. Raises InputError as `frame_mapping` does."""
        mapping = frame_mapping(
            source_hw, **self.crop, picture=self.picture, pixel_aspect=pixel_aspect
        )
        return replace(mapping, one_field=self.one_field)

    def notes(self, source_hw: tuple[int, int]) -> list[InputNote]:
        """What differs from the plain preparation."""
        out = []
        if self.one_field:
            text = "interlaced: the even rows are used, and odd ones are made from these"
            out.append(InputNote("fields", text))
        if self.picture is not None:
            (h, w), (left, top, right, bottom) = source_hw, self.picture
            sides = {"left": left, "right": w - right, "top": top, "bottom": h - bottom}
            bars = ", ".join(f"{name} {width}" for name, width in sides.items() if width)
            size = f"{right - left}x{bottom - top} of {w}x{h}"
            text = f"bars cropped ({bars} pixels): the picture is {size}"
            out.append(InputNote("borders", text))
        return out


class _Read(NamedTuple):
    clip: Clip
    interlaced: bool


def _reader(source: Path, choice: _Choice, progress: Progress) -> Callable[[Preparation], _Read]:
    """Function that reads the source. Raises InputError if there is nothing to read."""
    if source.is_dir() or source.suffix.lower() in IMAGE_SUFFIXES:
        found = folder_images(source) if source.is_dir() else FolderImages([source], [])
        chosen = choose_images(source, found.files, *choice)
        return partial(_read_images, source, chosen, found.notes, progress)
    if not source.is_file():
        raise InputError(f"{source} is a device, pipe or socket, not a file")
    return partial(_read_video, source, choice, progress)


class _Frames:
    """Frames that are prepared and inspected one by one.

    They come from images of one size, or of those of `mixed`.
    """

    def __init__(self, how: Preparation, expected: int, mixed: FrameMapping | None = None) -> None:
        self.names: list[str] = []
        self._how, self._expected = how, expected
        self._mapping: FrameMapping | None = None
        self._mixed = mixed

    def __len__(self) -> int:
        return len(self.names)

    def add(self, image: Image.Image, name: str, pixel_aspect: float) -> None:
        hw = (image.height, image.width)
        if self._mapping is None:
            try:
                self._mapping = self._mixed or self._how.mapping(hw, pixel_aspect)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            self._stack = FrameStack(self._mapping.size_hw, self._expected)
            self._inspector = Inspector(self._mapping)
        own = self._mapping.of_frame(len(self.names))
        check_same_size(own.source_hw, hw, (self.names or [name])[0], name)
        if self._how.one_field:
            image = one_field(image)
        self._stack.append(prepare_image(image, own))
        self._inspector.add(image)
        self.names.append(name)

    def read(
        self,
        times_s: Sequence[float] | np.ndarray,
        source: Path,
        rate: float,
        facts: FileFacts,
    ) -> _Read:
        assert self._mapping is not None
        names = tuple(map(storable, self.names))
        frames, times = self._stack.stacked(), np.array(times_s, dtype=np.float64)
        clip = Clip(frames, self._mapping, names, times, storable(str(source)), rate)
        if self._mapping.is_mixed:
            clip = facts.about_each(_with(clip, mixed_note(self._mapping, names)))
            return _Read(self._inspector.inspected(clip), interlaced=False)
        h, w = self._mapping.source_hw
        clip = _with(clip, InputNote("frames", f"{len(clip)} of {w}x{h} pixels"))
        left, top, right, bottom = self._how.picture or (0, 0, w, h)
        clip = facts.about(clip, (bottom - top, right - left))
        return _Read(self._inspector.inspected(clip), self._inspector.interlaced)


def _read_video(source: Path, choice: _Choice, progress: Progress, how: Preparation) -> _Read:
    times: list[float] = []
    moved = turned = 0
    with open_video(source) as container, reading_notes() as warned:
        facts = video_facts(container, source)
        plan = plan_sampling(
            container, fps=choice.fps, start_s=choice.start, limit=choice.num_frames,
            end_s=choice.end, every=choice.every,
        )  # fmt: skip
        frames = _Frames(how, min(plan.expected or 0, MAX_FRAMES))
        for sample in sampled_frames(container, plan):
            if len(frames) == MAX_FRAMES:
                raise InputError(
                    f"{source} has more than {MAX_FRAMES} frames: ask for fewer with fps or "
                    "a number of frames"
                )
            aspect = facts.upright_aspect(sample.turned)
            frames.add(sample.image, frame_name(sample.index), aspect)
            times.append(sample.time_s)
            moved += sample.is_time_moved
            turned = sample.turned
            progress(_STAGE, len(frames), max(plan.expected or 0, len(frames)))
    if not times:
        raise nothing_decoded(source, plan)
    progress(_STAGE, len(frames), len(frames))
    found = [*rotation_notes(turned), *time_notes(moved), *warned]
    facts = facts._replace(notes=[*facts.notes, *found])
    return frames.read(times, source, plan.rate / plan.step, facts)


def _read_images(
    source: Path,
    chosen: tuple[list[Path], Float[np.ndarray, " n"], float],
    notes: Sequence[InputNote],
    progress: Progress,
    how: Preparation,
) -> _Read:
    files, times, rate = chosen
    if len(files) > MAX_FRAMES:
        raise InputError(f"{source} has more than {MAX_FRAMES} images: ask for fewer")
    white, depth_notes = white_note(files)
    sizes = sizes_if_mixed(files)
    facts = images_facts(files) if sizes is None else mixed_facts(files)
    facts = facts._replace(notes=[*notes, *depth_notes, *facts.notes])
    mixed = None
    if sizes is not None:
        names, aspect = [file.name for file in files], facts.pixel_aspect
        mixed = mixed_mapping(sizes, names, **how.crop, pixel_aspect=aspect)
    frames = _Frames(how, len(files), mixed)
    for done, file in enumerate(files):
        frames.add(read_rgb(file, white), file.name, facts.pixel_aspect)
        progress(_STAGE, done + 1, len(files))
    return frames.read(times, source, rate, facts)


def white_note(files: Sequence[Path]) -> tuple[int | None, list[InputNote]]:
    """`white_level`, and a note on it. Raises InputError as that function does."""
    white = white_level(files)
    if white is None:
        return None, []
    text = f"16-bit files with values of {white.bit_length()} bits: {white} is white"
    return white, [InputNote("pixels", text)]


def _with(clip: Clip, *notes: InputNote) -> Clip:
    return replace(clip, report=clip.report.adding(*notes))


def choose_images(
    source: Path,
    files: list[Path],
    fps: float,
    num_frames: int | None,
    start: float,
    end: float = math.inf,
    every: float = 1.0,
) -> tuple[list[Path], Float[np.ndarray, " n"], float]:
    """The images to read, their times in seconds, and frames per second.

    Raises InputError if none is left.
    """
    rate = fps or DEFAULT_IMAGE_FPS
    first = math.ceil(start * rate)
    last = len(files) if end == math.inf else min(len(files), math.ceil(end * rate))
    count = math.ceil(max(0, last - first) / every)
    count = count if num_frames is None else min(count, num_frames)
    # the small number: k * (n / m) may be an ulp below the whole number it stands for
    kept = first + np.floor(every * np.arange(count) + 1e-6).astype(int)
    if not count:
        raise InputError(
            f"{source} has {counted(len(files), 'image')}: none is left after {start:g} s"
        )
    return [files[k] for k in kept], kept / rate, float(rate / every)


def frame_name(index: int) -> str:
    """Name of a frame of a video."""
    return f"frame_{index:06d}"
