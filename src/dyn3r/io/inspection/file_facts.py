"""What a file says about its picture: rotation, shape of the pixels, projection, focal length."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from dyn3r.io.images import BROKEN, ORIENTATION, readable_formats
from dyn3r.io.regular_files import open_regular
from dyn3r.io.text import storable
from dyn3r.types import Clip, FrameMapping
from dyn3r.types.input_report import MAX_CHARACTERS, InputNote

if TYPE_CHECKING:
    from av.container import InputContainer

EXIF, FOCAL_35MM = 0x8769, 0xA405
"""Tags of EXIF: the block of the camera, focal length in mm on 35 mm film."""
TURNS = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
"""Degrees clockwise of EXIF orientations; 2, 4, 5 and 7 are mirrored as well."""
QUICKTIME_35MM = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
FILM_DIAGONAL_MM = 43.27
"""Diagonal of 35 mm film, to which equivalent focal lengths refer (CIPA DCG-001, 2005)."""
FOCAL_35MM_RANGE = (5.0, 2000.0)
PHOTO_SIGMA = 0.05
"""Standard error of the log focal length of a photograph: some makers take the width in place of
the diagonal (4 % at 4:3), and whole millimetres are given (2 % at 26)."""
VIDEO_SIGMA = 0.15
"""The same for a video: its picture is a part of the sensor, and stabilisation crops more."""
SCANNED_BYTES = 1 << 20
"""Marks of a projection are looked for in so many bytes at both ends of a file."""
PANORAMA_MARKS = ((b"GSpherical:",), (b"GPano:ProjectionType",), (b"sv3d", b"proj", b"equi"))
"""Of spherical pictures, all of one row: Google's metadata of videos, of photographs, and the boxes
of the newer form for videos."""
_LOGGER = "dyn3r.io.video"


class FileFacts(NamedTuple):
    """What a file says."""

    notes: list[InputNote]
    focal_35mm: float | None = None
    """Focal length in mm on 35 mm film."""
    focal_sigma: float = math.nan
    """Standard error of its logarithm."""
    pixel_aspect: float = 1.0
    """Width of a pixel over its height; of images after, of videos before their rotation."""
    each_focal_35mm: tuple[float, ...] = ()
    """`focal_35mm` of every image, of images that differ in size; empty: not all state one."""

    def upright_aspect(self, turned: int) -> float:
        """Width over height of the pixels of a video that is turned by so many degrees."""
        return 1 / self.pixel_aspect if turned % 180 else self.pixel_aspect

    def about(self, clip: Clip, picture_hw: tuple[int, int]) -> Clip:
        """The clip with what the file says; `picture_hw`: its picture in pixels of the source."""
        if self.focal_35mm is None:
            return replace(clip, report=clip.report.adding(*self.notes))
        source_px, frame_px = _focal_px(self.focal_35mm, picture_hw, clip.mapping)
        text = (
            f"the file states a focal length of {self.focal_35mm:g} mm on 35 mm film: "
            f"{source_px:.0f} pixels of the source, taken to be right to {self.focal_sigma:.0%}"
        )
        return self._with_lens(clip, text, frame_px)

    def about_each(self, clip: Clip) -> Clip:
        """The clip of images of different sizes with what each file says."""
        if not self.each_focal_35mm:
            return replace(clip, report=clip.report.adding(*self.notes))
        focal = [
            _focal_px(film, mapping.source_hw, mapping)[1]
            for film, mapping in zip(self.each_focal_35mm, clip.mapping.frame_mappings, strict=True)
        ]
        low, high = min(self.each_focal_35mm), max(self.each_focal_35mm)
        stated = f"{low:g} mm" if low == high else f"{low:g} to {high:g} mm"
        text = (
            f"the files state focal lengths of {stated} on 35 mm film, taken to be right to "
            f"{self.focal_sigma:.0%}"
        )
        return self._with_lens(clip, text, np.array(focal))

    def _with_lens(self, clip: Clip, text: str, focal_px: float | np.ndarray) -> Clip:
        report = clip.report.adding(*self.notes, InputNote("lens", text))
        return replace(clip, report=report, focal_px=focal_px, focal_sigma=self.focal_sigma)


def _focal_px(
    focal_35mm: float, picture_hw: tuple[int, int], mapping: FrameMapping
) -> tuple[float, float]:
    """Focal length in pixels of the source, and of the frames; `picture_hw`: within bars."""
    (height, width), aspect = picture_hw, mapping.pixel_aspect
    source_px = focal_35mm * math.hypot(height, width * aspect) / FILM_DIAGONAL_MM
    scale_x, scale_y = mapping.scale_xy
    return source_px, source_px * (scale_x / aspect + scale_y) / 2


def mixed_facts(files: Sequence[Path]) -> FileFacts:
    """Of images that differ in size: what each says of its rotation and its focal length."""
    every = [_image_facts(file) for file in files]
    turned = sum(any(note.topic == "rotation" for note in facts.notes) for facts in every)
    notes = [note for note in every[0].notes if note.topic != "rotation"]
    if turned:
        text = f"{turned} of {len(files)} images are turned, as the files say"
        notes.append(InputNote("rotation", text))
    focal = tuple(facts.focal_35mm for facts in every if facts.focal_35mm is not None)
    return every[0]._replace(
        notes=notes, focal_35mm=None, each_focal_35mm=focal if len(focal) == len(files) else ()
    )


def images_facts(files: Sequence[Path]) -> FileFacts:
    """Of images: what the first one says, and the focal length if the last one has the same."""
    first, last = _image_facts(files[0]), _image_facts(files[-1])
    turned = [{note for note in facts.notes if note.topic == "rotation"} for facts in (first, last)]
    if turned[0] != turned[1]:
        text = "the first and the last image are turned differently, as the files say"
        first.notes.append(InputNote("rotation", text, warning=True))
    return first if last.focal_35mm == first.focal_35mm else first._replace(focal_35mm=None)


def _image_facts(path: Path) -> FileFacts:
    """Of an image file; damaged metadata says nothing."""
    orientation, camera, density, pictures = 1, {}, None, 1
    with contextlib.suppress(Image.DecompressionBombError, *BROKEN), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_regular(path) as file, Image.open(file, formats=readable_formats()) as image:
            exif = image.getexif()
            orientation, camera = exif.get(ORIENTATION, 1), exif.get_ifd(EXIF)
            density = image.info.get("dpi") or image.info.get("aspect")
            pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    notes = [_turned(TURNS[orientation])] if orientation in TURNS else []
    aspect = _aspect(density)
    notes += _pixels(aspect) + _projection(path) + _pictures(pictures)
    focal = _focal(camera.get(FOCAL_35MM))
    return FileFacts(
        notes, focal, PHOTO_SIGMA, 1 / aspect if TURNS.get(orientation, 0) % 180 else aspect
    )


def video_facts(container: InputContainer, path: Path) -> FileFacts:
    """Of an open video."""
    stream = container.streams.video[0]
    metadata = {**container.metadata, **stream.metadata}
    aspect = _plausible(float(stream.sample_aspect_ratio or 1))
    notes = _pixels(aspect) + _projection(path)
    return FileFacts(notes, _focal(metadata.get(QUICKTIME_35MM)), VIDEO_SIGMA, aspect)


def rotation_notes(clockwise: int) -> list[InputNote]:
    """The note on a rotation by degrees, if it is one."""
    return [_turned(clockwise)] if clockwise else []


@contextmanager
def reading_notes() -> Iterator[list[InputNote]]:
    """Collects the warnings of the video reader, for the report: damage, an early end."""
    found: list[InputNote] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = storable(record.getMessage())[:MAX_CHARACTERS]
            found.append(InputNote("frames", text, warning=True))

    collector = Collector(logging.WARNING)
    logging.getLogger(_LOGGER).addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger(_LOGGER).removeHandler(collector)


def _turned(clockwise: int) -> InputNote:
    return InputNote("rotation", f"turned by {clockwise} degrees clockwise, as the file says")


def _aspect(density: Any) -> float:
    """Width of a pixel over its height, from dots per inch (x, y)."""
    with contextlib.suppress(TypeError, ValueError, ArithmeticError):
        across, down = (float(value) for value in density)
        if across > 0 and down > 0:
            return _plausible(down / across)
    return 1.0


def _pictures(count: int) -> list[InputNote]:
    """The note on animations and files of several pages."""
    if count == 1:
        return []
    text = (
        f"an image file holds {count} pictures, of which the first is read: make a video or a "
        "folder of images of it"
    )
    return [InputNote("frames", text, warning=True)]


def _plausible(aspect: float) -> float:
    """The aspect of pixels, or 1 where it is absurd or nearly 1."""
    return aspect if 0.1 < aspect < 10 and abs(aspect - 1) >= 0.01 else 1.0


def _pixels(aspect: float) -> list[InputNote]:
    if aspect == 1:
        return []
    text = (
        f"not square: the file says {aspect:.3f} times as wide as high. Frames are resampled to "
        "square ones; source resolution stays that of the file"
    )
    return [InputNote("pixels", text)]


def _projection(path: Path) -> list[InputNote]:
    with open_regular(path) as file:
        content = file.read(SCANNED_BYTES)
        file.seek(0, 2)
        file.seek(max(len(content), file.tell() - SCANNED_BYTES))
        content += file.read(SCANNED_BYTES)
    if not any(all(mark in content for mark in marks) for marks in PANORAMA_MARKS):
        return []
    text = (
        "the file says that it is a 360 degree panorama: its picture is no pinhole image, and the "
        "result will be wrong; cut out a plain view first (FFmpeg: -vf v360=e:flat)"
    )
    return [InputNote("lens", text, warning=True)]


def _focal(value: Any) -> float | None:
    with contextlib.suppress(TypeError, ValueError, ArithmeticError):
        number = float(value)
        if FOCAL_35MM_RANGE[0] <= number <= FOCAL_35MM_RANGE[1]:
            return number
    return None
