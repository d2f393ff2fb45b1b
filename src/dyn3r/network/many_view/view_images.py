"""Images as the many-view network wants them: resized, sides multiples of 14, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.network.many_view.view_config import VIEW_PATCH

DEFAULT_RESOLUTION = 504
"""Length in pixels of the side that a resolution refers to. Source: published default."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours in 0..1. Source: as published."""

ResizeMethod = Literal[
    "upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop"
]


class PreparedViews(NamedTuple):
    """Images of one size, and how their pixels follow from those of the sources."""

    images: UInt8[np.ndarray, "s h w 3"]
    scale_xy: Float[np.ndarray, "s 2"]
    """Prepared pixels per source pixel."""
    crop_xy: Float[np.ndarray, "s 2"]
    """Left and top of the crop in resized pixels."""

    def K_from_source(self, K: Float[np.ndarray, "s 3 3"]) -> Float[np.ndarray, "s 3 3"]:
        """Intrinsics of the prepared images, for pixel i covering [i, i + 1]."""
        out = np.array(K, np.float64)
        out[:, :2] *= self.scale_xy[:, :, None]
        out[:, :2, 2] -= self.crop_xy
        return out


def prepare_views(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    resolution: int = DEFAULT_RESOLUTION,
    method: ResizeMethod = "upper_bound_resize",
) -> PreparedViews:
    """Resize RGB images to sides that are multiples of 14 and crop all to the smallest size.

    `upper_bound`: `resolution` is the longer side; `lower_bound`: the shorter. `resize`: each side
    then becomes the nearest multiple of 14, which changes the aspect ratio by up to 7 pixels;
    `crop`: a centre crop to the multiple below. Images of different sizes are cropped about their
    centres. Raises InputError for no images, or an image too small for one patch.
    """
    if not len(images):
        raise InputError("no images were given: at least one is needed")
    resized = [_resized(image, resolution, method) for image in images]
    scale = [np.divide(r.shape[1::-1], image.shape[1::-1]) for r, image in zip(resized, images)]
    cropped, crops = zip(*(_cropped(image, _multiples_below(image)) for image in resized))
    smallest = (min(x.shape[0] for x in cropped), min(x.shape[1] for x in cropped))
    out, more = zip(*(_cropped(image, smallest) for image in cropped))
    return PreparedViews(np.stack(out), np.array(scale), np.add(crops, more).astype(float))


def normalised(images: UInt8[np.ndarray, "s h w 3"]) -> Float[Tensor, "s 3 h w"]:
    """Images with ImageNet's mean and standard deviation removed, channels first."""
    return standardised(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2) / 255)


def standardised(images: Float[Tensor, "s 3 h w"]) -> Float[Tensor, "s 3 h w"]:
    """Images of 0..1 with ImageNet's mean and standard deviation removed."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def _resized(
    image: UInt8[np.ndarray, "_ _ 3"], resolution: int, method: ResizeMethod
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Image resized to `resolution` and, for `resize`, to multiples of 14 in a second step."""
    bounded = max if method.startswith("upper") else min
    height, width = image.shape[:2]
    scale = resolution / bounded(height, width)
    sides = tuple(max(1, round(side * scale)) for side in (height, width))
    image = _resize(image, sides, grows=scale > 1)
    if method.endswith("resize"):
        nearest = tuple(max(1, _nearest(side / VIEW_PATCH)) * VIEW_PATCH for side in sides)
        grows = any(new > old for new, old in zip(nearest, sides))
        image = _resize(image, nearest, grows=grows)
    if min(image.shape[:2]) < VIEW_PATCH:
        raise InputError(
            f"an image of {width}x{height} pixels is too elongated for patches of {VIEW_PATCH}"
        )
    return image


def _resize(
    image: UInt8[np.ndarray, "_ _ 3"], size_hw: tuple[int, ...], *, grows: bool
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Image of another size: bicubic if it grows, else area averages."""
    import cv2

    if image.shape[:2] == size_hw:
        return image
    how = cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size_hw[::-1], interpolation=how))


def _nearest(value: float) -> int:
    """Nearest whole number; a tie goes up."""
    return int(np.floor(value + 0.5))


def _multiples_below(image: UInt8[np.ndarray, "_ _ 3"]) -> tuple[int, int]:
    """Height and width rounded down to multiples of 14."""
    height, width = image.shape[:2]
    return height // VIEW_PATCH * VIEW_PATCH, width // VIEW_PATCH * VIEW_PATCH


def _cropped(
    image: UInt8[np.ndarray, "_ _ 3"], size_hw: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Centre crop, and its left and top."""
    height, width = size_hw
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width], (left, top)
