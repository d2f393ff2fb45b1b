"""Frames of a stream prepared one by one, with what can be found without the whole clip.

Bars and interlacing are looked for in the first frames and taken to stay as they are. Cuts and
single frames of another place are found as in a clip (`dyn3r.io.inspection.cuts`), from two frames
before and one after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.geometry.keypoints import Keypoints, find_keypoints
from dyn3r.io.clip import DEFAULT_IMAGE_FPS, Preparation, frame_name
from dyn3r.io.frame_stream import FrameStream, StreamedFrame
from dyn3r.io.images import Fit, as_rgb, check_same_size, frame_mapping, prepare_image
from dyn3r.io.inspection.borders import find_borders, in_source
from dyn3r.io.inspection.cuts import MAX_NAMED, too_far_apart
from dyn3r.io.inspection.inspector import alone_note, far_apart_note, frame_has_texture, small_grey
from dyn3r.io.inspection.interlacing import MIN_FRAMES, is_combed, one_field
from dyn3r.io.inspection.neighbours import MAX_FEATURES, compare
from dyn3r.types import Clip, FrameMapping
from dyn3r.types.input_report import InputNote, InputReport

LEAD_FRAMES = 8
"""So many frames are looked at before the first one is handed over."""
NOT_CHECKED = InputNote(
    "overlays", "not looked for frame by frame; bars are, in the first frames alone"
)

Frame = StreamedFrame | Image.Image | np.ndarray


@dataclass(frozen=True)
class PreparedFrame:
    """A frame as the network wants it."""

    index: int
    name: str
    time_s: float
    image: UInt8[np.ndarray, "h w 3"]
    mapping: FrameMapping
    report: InputReport
    """What was found in the input up to here."""
    shot: int = 0
    """Number of the shot that it belongs to."""
    is_alone: bool = False
    """Whether it shows another place than the frames around it."""

    @cached_property
    def usable(self) -> bool:
        """Whether depth can be measured in it, and belongs to the shot."""
        return not self.is_alone and frame_has_texture(self.image)

    @cached_property
    def keypoints(self) -> Keypoints:
        """What it is compared by."""
        return find_keypoints(small_grey(self.image), MAX_FEATURES)


def frames_of_clip(clip: Clip) -> Iterator[PreparedFrame]:
    """The frames of a clip, with the shots that were found in it."""
    shots = np.searchsorted(np.array(clip.cuts), np.arange(len(clip)), side="right")
    for k, image in enumerate(clip.images):
        yield PreparedFrame(
            k, clip.names[k], float(clip.times_s[k]), image, clip.mapping, clip.report,
            shot=int(shots[k]), is_alone=clip.unusable is not None and bool(clip.unusable[k]),
        )  # fmt: skip


def frames_of_stream(
    frames: Iterable[Frame],
    size: int,
    *,
    fit: Fit = "crop",
    crop_borders: bool = True,
    split_cuts: bool = True,
) -> Iterator[PreparedFrame]:
    """Prepare the frames of a stream, and number its shots.

    Args:
        frames: images of one size; of a `FrameStream` the report is taken over.
        size, fit: long side of the prepared frames in pixels; see `dyn3r.io.clip.read_clip`.
        crop_borders: leave out bars that the first frames have.
        split_cuts: look for cuts.

    Raises:
        InputError: while iterating: frames of different sizes, or that can't be prepared.
    """
    report = frames.report if isinstance(frames, FrameStream) else InputReport()
    report = report.adding(NOT_CHECKED)
    prepared = _prepared(
        _named(frames), {"size": size, "fit": fit}, report, crop_borders=crop_borders
    )
    return _with_shots(prepared) if split_cuts else prepared


def _named(frames: Iterable[Frame]) -> Iterator[StreamedFrame]:
    """The frames as upright RGB images, with names and times."""
    for k, frame in enumerate(frames):
        if not isinstance(frame, StreamedFrame):
            frame = StreamedFrame(frame, frame_name(k), k / DEFAULT_IMAGE_FPS)
        try:
            yield frame._replace(image=as_rgb(frame.image, k))
        except InputError as problem:
            raise InputError(f"{frame.name}: {problem}") from None


def _prepared(
    frames: Iterator[StreamedFrame],
    crop: dict[str, Any],
    report: InputReport,
    *,
    crop_borders: bool,
) -> Iterator[PreparedFrame]:
    lead = list(islice(frames, LEAD_FRAMES))
    if not lead:
        return
    mapping, notes = _mapping(lead, crop, crop_borders=crop_borders)
    report = report.adding(*notes)
    for k, frame in enumerate(chain(lead, frames)):
        image = _checked(frame, lead[0].name, mapping)
        if mapping.one_field:
            image = one_field(image)
        pixels = prepare_image(image, mapping).copy()
        yield PreparedFrame(k, frame.name, frame.time_s, pixels, mapping, report)


def _checked(frame: StreamedFrame, first_name: str, mapping: FrameMapping) -> Image.Image:
    """The image of a frame. Raises InputError if it has another size than the first."""
    image = frame.image
    assert isinstance(image, Image.Image)
    check_same_size(mapping.source_hw, (image.height, image.width), first_name, frame.name)
    return image


def _mapping(
    lead: Sequence[StreamedFrame], crop: dict[str, Any], *, crop_borders: bool
) -> tuple[FrameMapping, list[InputNote]]:
    """How frames are prepared, from the first ones, and notes on it."""
    first = lead[0].image
    assert isinstance(first, Image.Image)
    hw, aspect = (first.height, first.width), lead[0].pixel_aspect
    try:
        plain = frame_mapping(hw, **crop, pixel_aspect=aspect)
    except InputError as problem:
        raise InputError(f"{lead[0].name}: {problem}") from None
    images = [_checked(frame, lead[0].name, plain) for frame in lead]
    small = np.stack([prepare_image(image, plain) for image in images])
    picture = find_borders(small) if crop_borders else None
    combed = np.mean([is_combed(np.asarray(image.convert("L"))) for image in images])
    how = Preparation(
        crop,
        None if picture is None else in_source(picture, plain),
        one_field=bool(combed >= MIN_FRAMES),
    )
    return how.mapping(hw, aspect), how.notes(hw)


def _with_shots(frames: Iterator[PreparedFrame]) -> Iterator[PreparedFrame]:
    """Number the shots, and mark frames that are alone. A frame waits where it may begin a shot."""
    waiting: deque[PreparedFrame] = deque()
    past: deque[Keypoints] = deque(maxlen=2)
    found = _Found()
    while (frame := _next(waiting, frames)) is not None:
        if frame.usable:
            differs = bool(past) and compare(past[-1], frame.keypoints).differ
            found.count(differs=differs)
            if differs and not found.far_apart:
                later = _next_usable(waiting, frames)
                frame = found.judged(frame, past, None if later is None else later.keypoints)
            past.append(frame.keypoints)
        yield replace(frame, shot=len(found.cuts), report=frame.report.adding(*found.notes()))


def _next(waiting: deque[PreparedFrame], frames: Iterator[PreparedFrame]) -> PreparedFrame | None:
    return waiting.popleft() if waiting else next(frames, None)


def _next_usable(
    waiting: deque[PreparedFrame], frames: Iterator[PreparedFrame]
) -> PreparedFrame | None:
    """The next frame that can be compared; it stays in the queue, as those before it."""
    for frame in waiting:
        if frame.usable:
            return frame
    for frame in frames:
        waiting.append(frame)
        if frame.usable:
            return frame
    return None


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.cuts: list[PreparedFrame] = []
        self.alone: list[str] = []
        self.far_apart = False
        self._differing = self._seen = 0

    def count(self, *, differs: bool) -> None:
        """Count a frame that was compared with the one before."""
        self._seen += 1
        self._differing += differs
        self.far_apart |= too_far_apart(self._differing, self._seen)

    def judged(
        self, frame: PreparedFrame, past: Sequence[Keypoints], later: Keypoints | None
    ) -> PreparedFrame:
        """A frame that differs from the one before: it begins a shot, or is alone, or neither."""
        here = frame.keypoints
        joins = later is not None and not compare(past[-1], later).differ
        if joins and later is not None and compare(here, later).differ:
            self.alone.append(frame.name)
            return replace(frame, is_alone=True)
        before = len(past) == 2 and not compare(past[0], here).differ
        if not (before or joins):
            self.cuts.append(frame)
        return frame

    def notes(self) -> list[InputNote]:
        """Notes on it."""
        notes = [alone_note(self.alone)] if self.alone else []
        notes += [far_apart_note(self._differing)] if self.far_apart else []
        if self.cuts:
            named = [f"{frame.name} ({frame.time_s:.3g} s)" for frame in self.cuts[:MAX_NAMED]]
            more = ["..."] if len(self.cuts) > MAX_NAMED else []
            text = (
                f"{len(self.cuts)}, before {', '.join(named + more)}: each shot has a reference "
                "and a world of its own; take one of them with --start and --num-frames"
            )
            notes.append(InputNote("cuts", text, warning=True))
        return notes
