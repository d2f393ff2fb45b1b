"""Colours of the pixels of a scene, and thresholds of their confidence."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.drawing import confidence_picture, depth_picture, motion_picture
from dyn3r.scene.pictures import Limits

_MAX_SAMPLES = 4_000_000  # pixels that a confidence quantile is taken of


def pixel_colors(
    scene: Scene, t: int, pixels: Int[np.ndarray, " k"], color: str, limits: Limits
) -> UInt8[np.ndarray, "k 3"]:
    """Colours of pixels of frame t; `color` is a value of `Appearance.color`."""
    if len(pixels) == 0:
        return np.zeros((0, 3), np.uint8)
    image: np.ndarray = scene.images[t].reshape(-1, 3)[pixels]
    colors = image
    if color == "depth":
        depth = scene.depth[t].reshape(-1)[pixels]
        colors = depth_picture(depth[None], limits.inverse_depth)[0]
    elif color == "confidence":
        confidence = scene.confidence[t].reshape(-1)[pixels]
        colors = confidence_picture(confidence[None], limits.confidence)[0]
    elif color == "motion":
        colors = motion_picture(image[None], scene.dynamic[t].reshape(1, -1)[:, pixels])[0]
    elif color == "time":
        share = t / max(1, len(scene) - 1)
        tint = depth_picture(np.array([[1 / (1 + share)]]), (1.0, 2.0))[0, 0]
        # Half of the brightness is the image's, so that shapes stay visible.
        brightness = 0.5 + 0.5 * image.mean(axis=1, keepdims=True) / 255
        colors = (brightness * tint).astype(np.uint8)
    else:
        assert color == "rgb"
    return colors


def confidence_threshold(scene: Scene, drop: float, *, moving: bool) -> float:
    """Confidence below which a share `drop` (0..1) of the static or of the dynamic pixels lies."""
    if drop <= 0:
        return 0.0
    step = max(1, scene.confidence.size // _MAX_SAMPLES)
    confidence = scene.confidence.reshape(-1)[::step]
    kept = confidence[(scene.dynamic.reshape(-1)[::step] == moving) & (confidence > 0)]
    return float(np.quantile(kept, drop)) if len(kept) else 0.0
