"""Prepared frames from images: decode, rotate, convert to RGB, resize, crop (SPEC 2).

All file formats of single images, and the rule by which a source image of any size becomes a frame
whose sides are multiples of 16.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image, ImageOps

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.regular_files import open_regular
from dyn3r.types import FrameMapping

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
        ".heic", ".heif",
    }
)  # fmt: skip
"""Suffixes (lower case) of image files."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats of Pillow that are read. Others may start programs (EPS) or are rarely tested."""

DEEP_WHITES = (255, 1023, 4095, 16383)
"""Largest values of 8, 10, 12 and 14 bits."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
PATCH = 16
NARROW, WIDE = 4 / 3, 16 / 9
"""Ratios of sides between which all frames have the same long side; see `frame_mapping`."""
Fit = Literal["crop", "cover", "area"]
"""How an image becomes a frame; see `frame_mapping`."""
MIN_SIZE, MAX_SIZE = 64, 4096

BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error)
"""What Pillow's decoders raise on broken files, beside its own errors."""


class Window(NamedTuple):
    """Part of an image in pixels: rows top..bottom, columns left..right, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int


def frame_mapping(
    source_hw: tuple[int, int],
    *,
    size: int = 512,
    square_ok: bool = False,
    square_crop: bool = False,
    fit: Fit = "crop",
    picture: Window | None = None,
    pixel_aspect: float = 1.0,
) -> FrameMapping:
    """Resizing and crop of a source image of `source_hw` (height, width).

    Both sides of a frame are multiples of 16. `fit`:

    - crop (SPEC 2, the published programs): the long side becomes `size`, and as much of the centre
      is kept as fits; a square image is cropped to 4:3 unless `square_ok`. With `square_crop` the
      short side becomes `size` and the centre square is kept: the published 224 model's rule.
    - cover: the short side becomes the multiple of 16 that is nearest, the image is resized until
      it covers the frame, and less is cut off.
    - area: as cover, with a longer or shorter side than `size`, so that the frames of a picture
      wider than 16:9 have as many pixels as those of 16:9, and those of one narrower than 4:3 as
      many as those of 4:3.

    `picture`: the part of the image within its bars, which is resized and cropped as if it were the
    image. `pixel_aspect`: width of its pixels over their height; those of the frames are square.

    Raises:
        InputError: `size` is no multiple of 16 from 64 to 4096, or the crop would be empty.
    """
    check_size(size)
    height, width = source_hw
    picture = picture or Window(0, 0, width, height)
    inner_hw = picture.bottom - picture.top, picture.right - picture.left
    if min(inner_hw) < PATCH:
        raise InputError(
            f"an image of {width}x{height} pixels is too small: "
            f"both sides must have at least {PATCH} pixels"
        )
    shape = inner_hw[0], inner_hw[1] * pixel_aspect
    if fit == "crop" or square_crop:
        long_side, size_hw = _cropped(shape, size, square_ok=square_ok, square_crop=square_crop)
    else:
        long_side, size_hw = _covered(shape, _side_of_area(size, shape) if fit == "area" else size)
    resized_h, resized_w = (round(side * long_side / max(shape)) for side in shape)
    if min(size_hw) == 0:
        raise InputError(
            f"an image of {width}x{height} pixels is too elongated: at size {size} it would be "
            f"{resized_w}x{resized_h}, and less than {PATCH} pixels of a side are left"
        )
    centre_x, centre_y = resized_w // 2, resized_h // 2
    if inner_hw != source_hw:
        whole = height, width * pixel_aspect
        resized_h, resized_w = (round(side * long_side / max(shape)) for side in whole)
        centre_x = round((picture.left + picture.right) / 2 * resized_w / width)
        centre_y = round((picture.top + picture.bottom) / 2 * resized_h / height)
    return FrameMapping(
        source_hw=(int(height), int(width)),
        resized_hw=(int(resized_h), int(resized_w)),
        crop_xy=(int(centre_x - size_hw[1] // 2), int(centre_y - size_hw[0] // 2)),
        size_hw=(int(size_hw[0]), int(size_hw[1])),
        pixel_aspect=float(pixel_aspect),
    )


def _cropped(
    shape: tuple[float, float], size: int, *, square_ok: bool, square_crop: bool
) -> tuple[float, tuple[int, int]]:
    """Long side of the resized picture, and size of the frame: fit crop of `frame_mapping`."""
    long_side = round(size * max(shape) / min(shape)) if square_crop else int(size)
    resized_h, resized_w = (round(side * long_side / max(shape)) for side in shape)
    if square_crop:
        half_w = half_h = min(resized_w, resized_h) // 2
    else:
        half_w = 2 * (resized_w // 2) // PATCH * (PATCH // 2)
        half_h = 2 * (resized_h // 2) // PATCH * (PATCH // 2)
        if resized_w == resized_h and not square_ok:
            # 4:3, and still a multiple of 16 where three quarters of the side is none.
            half_h = 3 * half_w // 4 // (PATCH // 2) * (PATCH // 2)
    return long_side, (2 * half_h, 2 * half_w)


def _covered(shape: tuple[float, float], side: int) -> tuple[float, tuple[int, int]]:
    """Long side of the resized picture, and size of the frame, whose long side is `side`."""
    short = PATCH * math.ceil(side * min(shape) / max(shape) / PATCH - 0.5)
    size_hw = (short, side) if shape[0] < shape[1] else (side, short)
    return max(h * max(shape) / length for h, length in zip(size_hw, shape, strict=True)), size_hw


def _side_of_area(size: int, shape: tuple[float, float]) -> int:
    """Long side of a frame with as many pixels as those from 4:3 to 16:9 whose long side is `size`.

    To a multiple of 16.
    """
    ratio = max(shape) / min(shape)
    return PATCH * round(size * math.sqrt(ratio / min(max(ratio, NARROW), WIDE)) / PATCH)


def check_size(size: int) -> None:
    """Raise InputError unless `size` is a multiple of 16 from 64 to 4096."""
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if not whole or size % PATCH or not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(
            f"the frame size must be a multiple of {PATCH} from {MIN_SIZE} to {MAX_SIZE}, "
            f"not {size!r}"
        )


def prepare_image(image: Image.Image, mapping: FrameMapping) -> UInt8[np.ndarray, "h w 3"]:
    """Resize and crop one RGB image as `mapping` says: Lanczos down, bicubic up (SPEC 2)."""
    assert image.mode == "RGB"
    assert (image.height, image.width) == mapping.source_hw
    shrinks = max(mapping.source_hw) > max(mapping.resized_hw)
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    resized = image.resize((mapping.resized_hw[1], mapping.resized_hw[0]), method)
    left, top = mapping.crop_xy
    height, width = mapping.size_hw
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def prepare_images(
    images: Iterable[Image.Image | np.ndarray],
    *,
    size: int = 512,
    square_ok: bool = False,
    square_crop: bool = False,
    fit: Fit = "crop",
    pixel_aspect: float = 1.0,
) -> tuple[UInt8[np.ndarray, "n h w 3"], FrameMapping]:
    """Prepare images in memory, or from a generator, one at a time.

    Args:
        images: PIL images (their EXIF rotation is applied) or arrays (H,W), (H,W,3) or (H,W,4)
            of uint8 or uint16, RGB order; all of one size.
        size, square_ok, square_crop, fit, pixel_aspect: see `frame_mapping`.

    Returns:
        The frames and the mapping back to the images' pixels (the same for all).

    Raises:
        InputError: no image, images of different sizes, an array of another shape or type, or a
            size that `frame_mapping` refuses.
    """
    if not isinstance(images, Iterable):
        raise InputError(f"images must be a list or an array, not {type(images).__name__}")
    options: dict[str, Any] = {
        "size": size, "square_ok": square_ok, "square_crop": square_crop, "fit": fit,
        "pixel_aspect": pixel_aspect,
    }  # fmt: skip
    mapping: FrameMapping | None = None
    frames = []
    for index, image in enumerate(images):
        rgb = as_rgb(image, index)
        hw = (rgb.height, rgb.width)
        if mapping is None:
            mapping = frame_mapping(hw, **options)
        check_same_size(mapping.source_hw, hw, "image 0", f"image {index}")
        frames.append(prepare_image(rgb, mapping))
    if mapping is None:
        raise InputError("no images were given: at least one is needed")
    return np.stack(frames), mapping


_FIRST_BYTES = 256 << 20


class FrameStack:
    """Growing array of frames of one size, without a second copy of the clip."""

    def __init__(self, size_hw: tuple[int, int], expected: int) -> None:
        """Allocate room for the expected number of frames."""
        room = max(1, _FIRST_BYTES // (3 * size_hw[0] * size_hw[1]))  # the estimate may be absurd
        self._frames = np.empty((max(1, min(expected, room)), *size_hw, 3), dtype=np.uint8)
        self._count = 0

    def __len__(self) -> int:
        """Number of frames so far."""
        return self._count

    def append(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add a frame at the end."""
        if self._count == len(self._frames):
            more = max(16, self._count // 2)
            self._frames.resize((self._count + more, *self._frames.shape[1:]), refcheck=False)
        self._frames[self._count] = frame
        self._count += 1

    def stacked(self) -> UInt8[np.ndarray, "n h w 3"]:
        """All frames; the stack must not be used after this."""
        self._frames.resize((self._count, *self._frames.shape[1:]), refcheck=False)
        return self._frames


def check_same_size(
    first_hw: tuple[int, int], hw: tuple[int, int], first_name: str, name: str
) -> None:
    """Raise InputError, naming both, if two frames of a clip differ in size."""
    if hw != first_hw:
        raise InputError(
            f"all frames must have one size, but {first_name} is {first_hw[1]}x{first_hw[0]} "
            f"and {name} is {hw[1]}x{hw[0]}: convert them to one size first"
        )


def open_image(path: Path) -> Image.Image:
    """Read an image file completely (the first image of a file with several).

    The format is one of FORMATS, whatever the name says.

    Raises:
        InputError: no regular file, not readable, damaged, of another format, or larger than
            Pillow's decompression-bomb limit.
        MissingExtraError: a HEIC image, and pillow-heif is not installed.
    """
    if path.suffix.lower() in (".heic", ".heif"):
        register_heif(path)
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of large images
            with Image.open(file, formats=readable_formats()) as image:
                image.load()
                return image
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels to be read safely") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path} cannot be read as an image: "
            f"it is none of {', '.join(readable_formats())}, or damaged"
        ) from error
    except BROKEN as error:
        raise InputError(f"{path} cannot be read as an image: {first_line(error)}") from error


def image_mode(path: Path) -> str | None:
    """Pillow's mode of an image file, from its header; None if it cannot be read."""
    refused = (InputError, Image.DecompressionBombError, *BROKEN)
    with contextlib.suppress(*refused), warnings.catch_warnings(), open_regular(path) as file:
        warnings.simplefilter("ignore")
        with Image.open(file, formats=readable_formats()) as image:
            return image.mode
    return None


def register_heif(path: Path) -> None:
    """Let Pillow read HEIC. Raises MissingExtraError without pillow-heif; `path` is for it."""
    try:
        import pillow_heif
    except ImportError:
        raise MissingExtraError("pillow-heif", "heic", f"reading {path.name}") from None
    pillow_heif.register_heif_opener()


def readable_formats() -> tuple[str, ...]:
    """Formats that this Pillow reads; older ones have no AVIF, HEIF is an extra."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_rgb(path: Path, white: int | None = None) -> Image.Image:
    """An image file as `to_rgb` makes it; `white` (see `white_level`) is the largest value."""
    image = open_image(path)
    if white is None:
        return to_rgb(image)
    values = _deep_values(path, image)
    assert values is not None  # as white_level found
    scaled = np.round(values.clip(0, white) * (255 / white)).astype(np.uint8)
    grey_or_colour = Image.fromarray(scaled)
    grey_or_colour.info = image.info  # with the EXIF rotation
    return to_rgb(grey_or_colour)


def white_level(files: Sequence[Path]) -> int | None:
    """Largest value that images of 16 bits can have, if they were made with 8 to 14 bits.

    The smallest 2^bits - 1 that holds the values of all of them; None if that is 16 bits, or if
    the first file is no 16-bit grey image or 16-bit PNG. Raises InputError as `open_image`.
    """
    largest = 0
    for file in files:
        values = _deep_values(file, open_image(file))
        if values is None:
            return None
        largest = max(largest, int(values.max()))
        if largest > DEEP_WHITES[-1]:
            return None
    return next((white for white in DEEP_WHITES if largest <= white), None)


def _deep_values(path: Path, image: Image.Image) -> UInt16[np.ndarray, "h w *c"] | None:
    """Values of 16 bits, grey or RGB; None for other images."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.format != "PNG":
        return None
    with open_regular(path) as file:
        content = file.read()
    bits, colours = content[24], content[25]  # of its header, which Pillow has checked
    if bits != 16 or colours not in (2, 6):
        return None
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # Pillow: 8 bits
    if values is None or values.dtype != np.uint16:
        return None
    return np.ascontiguousarray(values[..., 2::-1])


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB with the EXIF rotation applied; transparent images are blended with white."""
    with contextlib.suppress(*BROKEN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged EXIF block is no reason to refuse an image
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_deep_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey_to_8_bit(grey: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """8-bit grey from 16- and 32-bit grey.

    The range is 0..65535 for uint16 and for integers above 255, else 0..255; for reals 0..1 or,
    above 1, 0..255.
    """
    values = np.nan_to_num(grey.astype(np.float64))
    largest = values.max()
    if np.issubdtype(grey.dtype, np.floating):
        values = values * 255 if largest <= 1 else values
    elif grey.dtype == np.uint16 or largest > 255:
        values = values / 257
    return np.round(values.clip(0, 255)).astype(np.uint8)


def as_rgb(image: Image.Image | np.ndarray, index: int) -> Image.Image:
    """`to_rgb` of an image, or of an array as `prepare_images` takes it; `index` is for messages.

    Raises InputError for arrays of another shape or type.
    """
    return to_rgb(image if isinstance(image, Image.Image) else _from_array(image, index))


def _from_array(array: np.ndarray, index: int) -> Image.Image:
    array = np.asarray(array)
    good_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not good_shape or array.dtype not in (np.uint8, np.uint16) or array.size == 0:
        raise InputError(
            f"image {index} must be a uint8 or uint16 array (H,W), (H,W,3) or (H,W,4), "
            f"not {array.dtype} of shape {array.shape}"
        )
    if array.dtype == np.uint16:
        array = np.round(array / 257).astype(np.uint8)
    return Image.fromarray(array)


def resize_nearest(
    maps: Shaped[np.ndarray, "*batch H W"], mapping: FrameMapping
) -> Shaped[np.ndarray, "*batch h w"]:
    """Masks or depth at source resolution, resized (nearest) and cropped like the frames."""
    assert maps.shape[-2:] == mapping.source_hw
    picks = []
    for axis in (0, 1):
        # Pillow resizes a row of indices, so that ties at pixel borders are resolved as it does
        indices = Image.fromarray(np.arange(mapping.source_hw[axis], dtype=np.int32)[None])
        resized = indices.resize((mapping.resized_hw[axis], 1), Image.Resampling.NEAREST)
        crop = mapping.crop_xy[1 - axis]
        picks.append(np.asarray(resized)[0, crop : crop + mapping.size_hw[axis]])
    return maps[..., picks[0][:, None], picks[1]]


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden, in no particular order."""
    return [f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")]


def images_in(folder: Path) -> list[Path]:
    """The visible image files of a folder in natural order (frame_2 before frame_10)."""
    files = [f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that puts frame_2 before frame_10 and ignores case; ties by the exact name."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    keys = [(0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts if p]
    return keys, path.name


def first_line(error: BaseException) -> str:
    """First line of an exception's message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
