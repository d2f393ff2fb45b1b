"""One view of a training pair: crops, scaling and augmentation as published (DATASETS.md, 3.0)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageEnhance

from dyn3r.errors import InputError

LEAST_MARGIN = 0.2
"""The principal point must be this share of the side away from every border."""
FOCAL_CROP = 0.9
"""Smallest share of the image that the focal augmentation keeps."""
MAX_SLACK_PX = 16
"""The scaled image is up to this much, exclusive, larger than the target."""
JITTER, HUE_JITTER = 0.5, 0.1
"""Largest relative change of brightness, contrast and saturation; largest change of hue, turns."""


@dataclass(frozen=True)
class View:
    """An image with its truth, all of one size."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    depth: Float32[np.ndarray, "h w"]
    """z along the optical axis, 0 where unknown."""
    moving: Bool[np.ndarray, "h w"]
    """True on moving pixels; False everywhere where the data set does not say."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics in pixels; integer coordinates are pixel centres."""
    T_world_camera: Float[np.ndarray, "4 4"]
    """Camera to world, in the unit of the depth."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (int(self.depth.shape[0]), int(self.depth.shape[1]))


class Augmentation(NamedTuple):
    """What is drawn at random for one view."""

    focal_crop: float = 1.0
    """Share of the image that is kept, about its centre."""
    slack_px: int = 0
    """How much larger than the target the scaled image is."""
    jitter: np.random.Generator | None = None
    """Draws the change of colours; None: colours stay."""


def sample_augmentation(rng: np.random.Generator) -> Augmentation:
    """Sample focal crop, slack and colours as published."""
    focal = FOCAL_CROP + (1 - FOCAL_CROP) * float(rng.beta(0.5, 0.5))
    return Augmentation(focal, int(rng.integers(MAX_SLACK_PX)), rng)


def fit_view(view: View, target_hw: tuple[int, int], augmentation: Augmentation) -> View:
    """Crop and scale a view to `target_hw`; K follows.

    Crop symmetric about the principal point; central crop; scaling that covers the target (Lanczos
    down, bicubic up, depth nearest); centre crop. Raises InputError for a principal point near the
    border.
    """
    view = _crop_about_principal_point(view)
    h, w = (round(side * augmentation.focal_crop) for side in view.size_hw)
    view = _centre_crop(view, (h, w))
    slack = augmentation.slack_px
    view = _scale_to_cover(view, (target_hw[0] + slack, target_hw[1] + slack))
    view = _centre_crop(view, target_hw)
    if augmentation.jitter is not None:
        view = replace(view, image=_jittered(view.image, augmentation.jitter))
    return view


def _crop_about_principal_point(view: View) -> View:
    h, w = view.size_hw
    cx, cy = round(float(view.K[0, 2])), round(float(view.K[1, 2]))
    half_w, half_h = min(cx, w - cx), min(cy, h - cy)
    if half_w < LEAST_MARGIN * w or half_h < LEAST_MARGIN * h:
        raise InputError(
            f"the principal point ({cx}, {cy}) of an image of {w}x{h} is too near to its border"
        )
    return _crop(view, cx - half_w, cy - half_h, (2 * half_h, 2 * half_w))


def _centre_crop(view: View, size_hw: tuple[int, int]) -> View:
    h, w = view.size_hw
    return _crop(view, (w - size_hw[1]) // 2, (h - size_hw[0]) // 2, size_hw)


def _crop(view: View, left: int, top: int, size_hw: tuple[int, int]) -> View:
    rows, columns = slice(top, top + size_hw[0]), slice(left, left + size_hw[1])
    K = view.K.copy()
    K[:2, 2] -= (left, top)
    return replace(
        view, image=view.image[rows, columns], depth=view.depth[rows, columns],
        moving=view.moving[rows, columns], K=K,
    )  # fmt: skip


def _scale_to_cover(view: View, least_hw: tuple[int, int]) -> View:
    """Scale to the smallest size of the same aspect ratio that has at least `least_hw` pixels."""
    h, w = view.size_hw
    scale = max(least_hw[0] / h, least_hw[1] / w)
    new_h, new_w = max(least_hw[0], round(h * scale)), max(least_hw[1], round(w * scale))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    image = np.asarray(Image.fromarray(view.image).resize((new_w, new_h), method))
    rows = ((np.arange(new_h) + 0.5) * h / new_h).astype(int)
    columns = ((np.arange(new_w) + 0.5) * w / new_w).astype(int)
    nearest = np.ix_(rows, columns)
    ratio = np.array([new_w / w, new_h / h])
    K = view.K.copy()
    K[:2, 2] = (K[:2, 2] + 0.5) * ratio - 0.5
    K[0, :2] *= ratio[0]
    K[1, 1] *= ratio[1]
    return replace(view, image=image, depth=view.depth[nearest], moving=view.moving[nearest], K=K)


def _jittered(image: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Change brightness, contrast, saturation and hue in random order."""
    changed = Image.fromarray(image)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in rng.permutation(len(enhancers) + 1):
        if kind < len(enhancers):
            changed = enhancers[kind](changed).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
        else:
            changed = _turn_hue(changed, rng.uniform(-HUE_JITTER, HUE_JITTER))
    return np.asarray(changed)


def _turn_hue(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + round(turns * 256)) % 256
    parts = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", parts).convert("RGB")
