"""The picture strip: frame, depth and mask of one moment side by side."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from dyn3r.scene import Scene
from dyn3r.scene.drawing import depth_picture, draw_text, motion_picture
from dyn3r.scene.pictures import Limits

_GAP = 4


def strip_width(scene: Scene, height: int = 200) -> int:
    """Width of the strip in pixels."""
    step = _step(scene, height)
    return 3 * len(range(0, scene.size_hw[1], step)) + 2 * _GAP


def strip_picture(
    scene: Scene, t: int, limits: Limits, height: int = 200
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Frame, inverse depth (red is near) and the frame with moving pixels in red, side by side.

    Every n-th pixel is taken, so that there are at most `height` rows.
    """
    step = _step(scene, height)
    image = np.ascontiguousarray(scene.images[t, ::step, ::step])
    depth = depth_picture(scene.depth[t, ::step, ::step], limits.inverse_depth)
    mask = motion_picture(image, scene.dynamic[t, ::step, ::step])
    gap = np.full((len(image), _GAP, 3), 24, np.uint8)
    shown = []
    for picture, text in ((image.copy(), "frame"), (depth, "depth"), (mask, "mask")):
        draw_text(picture, text, (4, 12), size=0.35, box=True)
        shown += [picture, gap]
    return np.concatenate(shown[:-1], axis=1)


def _step(scene: Scene, height: int) -> int:
    return -(-scene.size_hw[0] // height)
