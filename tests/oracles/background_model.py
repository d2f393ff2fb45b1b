"""The background model in NumPy and OpenCV, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from dyn3r.geometry.inpainting import inpaint_depth
from dyn3r.motion.background_model import (
    MASK_MARGIN,
    MAX_LOG_DEPTH_DIFFERENCE,
    MIN_FRAMES,
    MIN_SAME_SHARE,
    SAME_COLOR,
    SMOOTH_PX,
    other_frames,
)
from tests.oracles.reprojection import MIN_DEPTH, camera_points, pixels_of

Array = np.ndarray


def background_evidence(
    images: Array, depth: Array, dynamic: Array, K: Array, T_world_camera: Array
) -> tuple[Array, Array]:
    """Differences (n, h, w) and colours (n, h, w, 3)."""
    lookup = _Lookup(images, inpaint_depth(depth, dynamic).astype(np.float32), dynamic, K,
                     T_world_camera.astype(np.float32))  # fmt: skip
    found = [_median(list(lookup.differences(t)), depth.shape[1:]) for t in range(len(depth))]
    differences, colours = zip(*found)
    return np.stack(differences), np.stack(colours)


def smoothed(image: Array) -> Array:
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH_PX))


class _Lookup:
    def __init__(
        self, images: Array, depth: Array, dynamic: Array, K: Array, T_world_camera: Array
    ) -> None:
        self.depth, self.K, self.T = depth, K.astype(np.float32), T_world_camera
        self.size_hw = (int(depth.shape[1]), int(depth.shape[2]))
        radius = max(1, round(MASK_MARGIN * max(self.size_hw)))
        margin = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        self.excluded = [cv2.dilate(mask.astype(np.uint8), margin) for mask in dynamic]
        square = np.ones((3, 3), np.uint8)
        smooth = [smoothed(image) for image in images]
        self.appearance = [(x, cv2.erode(x, square), cv2.dilate(x, square)) for x in smooth]

    def differences(self, t: int) -> Iterator[tuple[Array, Array]]:
        T = self.T[t]
        world = camera_points(self.depth[t], self.K[t]) @ T[:3, :3].T + T[:3, 3]
        for other in other_frames(t, len(self.depth)):
            x, y, usable = self._place(world, other)
            if not usable.any():
                continue
            difference, colour = self._compare(t, other, (x, y), usable)
            if (difference[usable] < SAME_COLOR).mean() >= MIN_SAME_SHARE:
                yield np.where(usable, difference, np.nan), colour

    def _place(self, world: Array, other: int) -> tuple[Array, Array, Array]:
        h, w = self.size_hw
        T = self.T[other]
        seen = (world - T[:3, 3]) @ T[:3, :3]
        x, y, z = pixels_of(seen, self.K[other])
        usable = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2) & (seen[..., 2] > 0)
        usable &= cv2.remap(self.excluded[other], x, y, cv2.INTER_NEAREST) == 0
        there = np.maximum(cv2.remap(self.depth[other], x, y, cv2.INTER_LINEAR), MIN_DEPTH)
        usable &= np.abs(np.log(there / z)) < MAX_LOG_DEPTH_DIFFERENCE
        return x, y, usable

    def _compare(
        self, t: int, other: int, xy: tuple[Array, Array], usable: Array
    ) -> tuple[Array, Array]:
        mine = self.appearance[t][0]
        colour, least, largest = (
            cv2.remap(values, *xy, cv2.INTER_LINEAR) for values in self.appearance[other]
        )
        brighter = np.median((mine - (least + largest) / 2)[usable], axis=0)
        corrected = mine - brighter
        outside = np.maximum(least - corrected, corrected - largest)
        return np.maximum(outside.max(-1), 0), colour + brighter


def _median(seen: list[tuple[Array, Array]], size_hw: tuple[int, ...]) -> tuple[Array, Array]:
    if len(seen) < MIN_FRAMES:
        return np.full(size_hw, np.nan, np.float32), np.full((*size_hw, 3), np.nan, np.float32)
    differences = np.stack([difference for difference, _ in seen])
    colours = np.stack([colour for _, colour in seen])
    order = np.argsort(differences, axis=0, kind="stable")  # NaN last
    count = np.isfinite(differences).sum(0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(seen) - 1)
    low, high = (np.take_along_axis(order, k[None], 0) for k in (low, high))
    both = [np.take_along_axis(differences, k, 0) for k in (low, high)]
    median = (both[0] + both[1])[0] / 2
    colour = np.take_along_axis(colours, low[..., None], 0)[0]
    known = count >= MIN_FRAMES
    return (
        np.where(known, median, np.nan).astype(np.float32),
        np.where(known[..., None], colour, np.nan).astype(np.float32),
    )
