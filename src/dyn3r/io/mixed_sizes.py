"""Clips of images of different sizes: one size of frames, and a mapping for each image.

The size is that which an image of the folder would have alone: the one that keeps the largest share
of the pixels, in the mean over all images. (The share that a crop keeps is the ratio of the two
aspects. Between two neighbouring aspects its mean is convex, so no other size keeps more, but for
sides that are multiples of 16.) Every other image is resized until it covers the frame, and cropped
about its centre.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.images import (
    BROKEN,
    ORIENTATION,
    as_rgb,
    frame_mapping,
    open_image,
    prepare_image,
    readable_formats,
    register_heif,
    to_rgb,
)
from dyn3r.io.regular_files import open_regular
from dyn3r.types import FrameMapping
from dyn3r.types.input_report import InputNote

TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
MUCH_LOST = 0.5
"""A warning names images of which less than this share is in the frame."""
MOST_SIZES = 4
"""Sizes that the note lists."""

Size = tuple[int, int]


def sizes_if_mixed(files: Sequence[Path]) -> list[Size] | None:
    """Height and width of all images, rotated as their files say, if they are not all the same.

    None as well if a header can't be read: the error comes when the image is.
    """
    first = upright_size(files[0])
    sizes = [first]
    for file in files[1:]:
        if sizes[-1] is None:
            return None
        sizes.append(upright_size(file))
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(files) and len(set(known)) > 1 else None


def mixed_mapping(sources_hw: Sequence[Size], names: Sequence[str], **crop: Any) -> FrameMapping:
    """The mapping of images of different sizes, one for each in `frame_mappings`.

    `crop`: keyword arguments of `frame_mapping`. Raises InputError as that function does, naming
    the image.
    """
    counts = Counter(sources_hw)
    alone: dict[Size, FrameMapping] = {}
    for hw, name in zip(sources_hw, names):
        if hw not in alone:
            try:
                alone[hw] = frame_mapping(hw, **crop)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    candidates: dict[Size, FrameMapping] = {}
    for mapping in alone.values():
        candidates.setdefault(mapping.size_hw, mapping)
    shares = {
        size_hw: sum(kept_share(_covering(alone[hw], size_hw)) * k for hw, k in counts.items())
        for size_hw in candidates
    }
    best = candidates[max(shares, key=lambda size_hw: round(shares[size_hw], 9))]
    fitted = {hw: _covering(mapping, best.size_hw) for hw, mapping in alone.items()}
    return replace(best, frame_mappings=tuple(fitted[hw] for hw in sources_hw))


def prepare_mixed(
    images: Sequence[Image.Image | np.ndarray], **crop: Any
) -> tuple[UInt8[np.ndarray, "n h w 3"], FrameMapping] | None:
    """`prepare_images` for images in memory that differ in size; None if they do not.

    Raises InputError as that function does.
    """
    sizes = [(rgb.height, rgb.width) for rgb in (as_rgb(im, k) for k, im in enumerate(images))]
    if len(set(sizes)) < 2:
        return None
    mapping = mixed_mapping(sizes, [f"image {k}" for k in range(len(images))], **crop)
    frames = [
        prepare_image(as_rgb(image, k), mapping.of_frame(k)) for k, image in enumerate(images)
    ]
    return np.stack(frames), mapping


def kept_share(mapping: FrameMapping) -> float:
    """Share of an image that is in its frame."""
    (h, w), (resized_h, resized_w) = mapping.size_hw, mapping.resized_hw
    return h * w / (resized_h * resized_w)


def mixed_note(mapping: FrameMapping, names: Sequence[str]) -> InputNote:
    """What was done with images of different sizes; a warning where much of one is left out."""
    counts = Counter(own.source_hw for own in mapping.frame_mappings)
    listed = [f"{count} of {w}x{h}" for (h, w), count in counts.most_common(MOST_SIZES)]
    listed += ["..."] if len(counts) > MOST_SIZES else []
    shares = [kept_share(own) for own in mapping.frame_mappings]
    worst = min(range(len(shares)), key=shares.__getitem__)
    h, w = mapping.size_hw
    text = (
        f"{len(shares)} of {len(counts)} sizes ({', '.join(listed)} pixels): resized and cropped "
        f"about their centres to {w}x{h}, which keeps {sum(shares) / len(shares):.0%} of the "
        f"pixels ({shares[worst]:.0%} of {names[worst]})"
    )
    return InputNote("frames", text, warning=shares[worst] < MUCH_LOST)


def upright_size(path: Path) -> Size | None:
    """Height and width of an image, rotated as its file says, from the header.

    None if it can't be read. Raises MissingExtraError for HEIC without pillow-heif.
    """
    if path.suffix.lower() in (".heic", ".heif"):
        register_heif(path)
    refused = (InputError, Image.DecompressionBombError, *BROKEN)
    with contextlib.suppress(*refused), warnings.catch_warnings(), open_regular(path) as file:
        warnings.simplefilter("ignore")
        with Image.open(file, formats=readable_formats()) as image:
            if image.getexif().get(ORIENTATION, 1) not in TRANSPOSED:
                return image.height, image.width
            if image.format != "TIFF":
                return image.width, image.height
        turned = to_rgb(open_image(path))  # versions of Pillow differ in the size that they state
        return turned.height, turned.width
    return None


def _covering(alone: FrameMapping, size_hw: Size) -> FrameMapping:
    """The mapping of an image onto frames of another size than it would have alone."""
    if alone.size_hw == size_hw:
        return alone
    (height, width), (h, w) = alone.source_hw, size_hw
    shape = height, width * alone.pixel_aspect
    scale = max(h / shape[0], w / shape[1])
    resized_h, resized_w = max(h, round(shape[0] * scale)), max(w, round(shape[1] * scale))
    crop_xy = resized_w // 2 - w // 2, resized_h // 2 - h // 2
    return replace(alone, resized_hw=(resized_h, resized_w), crop_xy=crop_xy, size_hw=size_hw)
