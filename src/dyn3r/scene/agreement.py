"""Colours of static pixels that several frames agree on, and pixels that other frames contradict.

A moving object that its mask misses in one frame leaves a ghost in the background: other frames see
another colour at the same place, or see through it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from dyn3r.scene.scene import Scene
from dyn3r.scene.visibility_rule import comparisons

_DEPTH_TOLERANCE = 0.05
"""Difference of two log depths up to which two frames see the same surface."""
_SEEN_THROUGH = 0.15
"""Log depth by which another frame sees something behind the pixel."""
_MAX_COLOR_ERROR = 60
"""Levels (of 255) that a pixel may differ from the median of the frames that agree in depth."""
_MIN_FRAMES = 4
"""Frames, its own included, that must agree in depth before a colour is called wrong."""
_BLOCK = 50_000  # pixels at a time: bounds the memory


class Agreement(NamedTuple):
    """What the frames agree on, one row per pixel."""

    colors: UInt8[np.ndarray, "k 3"]
    """Median colour of the frames that see the pixel's surface."""
    kept: Bool[np.ndarray, " k"]
    """False: the pixel's colour is far from that median, or most frames see through it."""


def agreement(scene: Scene, t: int, pixels: Int[np.ndarray, " k"]) -> Agreement:
    """Compare static pixels of frame t (row-major) with the neighbouring frames."""
    blocks = [
        _compare(scene, t, pixels[a : a + _BLOCK]) for a in range(0, max(1, len(pixels)), _BLOCK)
    ]
    return Agreement(*(np.concatenate(part) for part in zip(*blocks)))


def _compare(scene: Scene, t: int, pixels: Int[np.ndarray, " k"]) -> Agreement:
    own = scene.images[t].reshape(-1, 3)[pixels]
    seen, agrees = [own], [np.ones(len(pixels), bool)]
    through = np.zeros(len(pixels), np.int32)
    cameras = scene.K, scene.T_world_camera
    for j, log_z, target in comparisons(t, pixels, scene.depth, *cameras):
        depth = scene.depth[j].ravel()[target]
        usable = (target >= 0) & (depth > 0) & ~scene.dynamic[j].ravel()[target]
        behind = np.log(np.where(usable, depth, 1)) - log_z
        agrees.append(usable & (np.abs(behind) < _DEPTH_TOLERANCE))
        through += usable & (behind > _SEEN_THROUGH)
        seen.append(scene.images[j].reshape(-1, 3)[target])
    same = np.stack(agrees)
    count = same.sum(axis=0)
    colors = _median(np.stack(seen), same, count)
    error = np.abs(colors.astype(np.int16) - own).max(axis=-1)
    wrong_color = (error > _MAX_COLOR_ERROR) & (count >= _MIN_FRAMES)
    return Agreement(colors, ~wrong_color & (through <= count))


def _median(
    colors: UInt8[np.ndarray, "m k 3"],
    used: Bool[np.ndarray, "m k"],
    count: Int[np.ndarray, " k"],
) -> UInt8[np.ndarray, "k 3"]:
    """Lower median over the first axis of the colours that are used; at least one is."""
    ranked = np.sort(np.where(used[..., None], colors, 255), axis=0)
    middle: np.ndarray = np.take_along_axis(ranked, ((count - 1) // 2)[None, :, None], axis=0)[0]
    return middle
