"""Background model: the colour that other frames show at the place of every pixel.

Flow between frames that are close in time says little about objects that move slowly, stand still
for a while or move along with the camera, and it is dragged along at their outlines. With cameras
and depth known, every pixel can be looked up in all frames: static surfaces have the same colour
there, while a moving object has left. This is background subtraction (Stauffer and Grimson 1999)
for a moving camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.geometry.inpainting import inpaint_depth
from dyn3r.geometry.reprojection import MIN_DEPTH, camera_points, pixels_of
from dyn3r.io.workers import kept_results, ordered_map
from dyn3r.types import Progress, no_progress

MAX_FRAMES, MAX_FRAMES_APART = 14, 40
"""Largest number of other frames, spread over those that are at most so many frames away."""
MASK_MARGIN = 0.013
"""Pixels closer to a mask than this share of the long side are not used."""
MAX_LOG_DEPTH_DIFFERENCE = 0.1
"""A pixel of another frame shows the same place if its log depth differs by less than this."""
SAME_COLOR, MIN_SAME_SHARE = 3.0, 0.4
"""A frame is used if at least this share of its pixels differs by less than SAME_COLOR (0..255);
else its camera is wrong. Source: development clips; 45 to 98 % in registered frames, 1 to 20 %
across a cut."""
MIN_FRAMES = 3
"""Frames that must show a place for a result."""
SMOOTH_PX = 0.8
"""Standard deviation in pixels of the Gaussian blur before frames are compared."""


@dataclass(frozen=True)
class BackgroundEvidence:
    """Colour at the place of every pixel in other frames; NaN where too few of them show it."""

    color_difference: Float[np.ndarray, "n h w"]
    """Median difference from those frames in the channel that differs most, 0..255."""
    colour: Float[np.ndarray, "n h w 3"]
    """RGB, 0..255, in the frame with the median difference (the lower of two), corrected to the
    exposure of this frame and blurred as by `smoothed`."""

    def part(self, rows: slice) -> BackgroundEvidence:
        """Some of the frames."""
        return BackgroundEvidence(self.color_difference[rows], self.colour[rows])


def background_evidence(
    images: UInt8[np.ndarray, "n h w 3"],
    depth: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    progress: Progress = no_progress,
) -> BackgroundEvidence:
    """Differences of every pixel from the same place in other frames, and the colour there.

    Pixels known to be `dynamic` are not used; the surface behind them is taken to be as far away as
    the static pixels next to them. A colour within the range of the 3x3 pixels around the place has
    difference 0, which tolerates an error of one pixel. Differences of exposure are removed by
    their median.
    """
    n, h, w = depth.shape
    lookup = _Lookup(images, inpaint_depth(depth, dynamic).astype(np.float32), dynamic, K,
                     T_world_camera.astype(np.float32))  # fmt: skip
    out = BackgroundEvidence(np.empty((n, h, w), np.float32), np.empty((n, h, w, 3), np.float32))
    progress("comparing frames", 0, n)
    found = ordered_map(lambda t: _median(list(lookup.differences(t)), (h, w)), range(n))
    for t, (difference, colour) in enumerate(found):
        out.color_difference[t], out.colour[t] = difference, colour
        progress("comparing frames", t + 1, n)
    return out


def smoothed(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Image blurred by SMOOTH_PX, float32, 0..255: as frames are compared."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH_PX))


class _Lookup:
    """Places of one frame's pixels in other frames."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        depth: Float[np.ndarray, "n h w"],
        dynamic: Bool[np.ndarray, "n h w"],
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
    ) -> None:
        """`depth` is that of the static scene, float32, as are the cameras."""
        import cv2

        self.depth, self.K, self.T = depth, K.astype(np.float32), T_world_camera
        self.size_hw = (int(depth.shape[1]), int(depth.shape[2]))
        radius = max(1, round(MASK_MARGIN * max(self.size_hw)))
        margin = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        self.excluded = [cv2.dilate(mask.astype(np.uint8), margin) for mask in dynamic]
        square = np.ones((3, 3), np.uint8)

        def appearance(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """A blurred frame, and the least and the largest value of its 3x3 pixels."""
            smooth = smoothed(images[t])
            return smooth, cv2.erode(smooth, square), cv2.dilate(smooth, square)

        self.appearance = kept_results(appearance, 2 * MAX_FRAMES)

    def differences(
        self, t: int
    ) -> Iterator[tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]]:
        """Difference (0..255, NaN where unknown) and colour, from every usable other frame."""
        world = self._world_points(t)
        for other in _other_frames(t, len(self.depth)):
            x, y, usable = self._place(world, other)
            if not usable.any():
                continue
            difference, colour = self._compare(t, other, (x, y), usable)
            if (difference[usable] < SAME_COLOR).mean() >= MIN_SAME_SHARE:
                yield np.where(usable, difference, np.nan), colour

    def _world_points(self, t: int) -> Float[np.ndarray, "h w 3"]:
        """Points of a frame's static scene in the world."""
        T = self.T[t]
        return camera_points(self.depth[t], self.K[t]) @ T[:3, :3].T + T[:3, 3]

    def _place(
        self, world: Float[np.ndarray, "h w 3"], other: int
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Pixel coordinates (u, v) of points in another frame, and where that shows them."""
        import cv2

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
        self, t: int, other: int, xy: tuple[np.ndarray, np.ndarray], usable: np.ndarray
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
        """Largest difference over the channels, and the colour in the exposure of frame t."""
        import cv2

        mine = self.appearance(t)[0]
        colour, least, largest = (
            cv2.remap(values, *xy, cv2.INTER_LINEAR) for values in self.appearance(other)
        )
        brighter = np.median((mine - (least + largest) / 2)[usable], axis=0)
        corrected = mine - brighter
        outside = np.maximum(least - corrected, corrected - largest)
        difference = np.maximum(np.maximum(outside[..., 0], outside[..., 1]), outside[..., 2])
        return np.maximum(difference, 0), colour + brighter


def _other_frames(t: int, num_frames: int) -> list[int]:
    """Frames to compare frame t with."""
    first, end = max(0, t - MAX_FRAMES_APART), min(num_frames, t + MAX_FRAMES_APART + 1)
    near = [k for k in range(first, end) if k != t]
    picks = np.linspace(0, len(near) - 1, min(len(near), MAX_FRAMES)).astype(int)
    return [near[k] for k in picks]


def _median(
    seen: list[tuple[np.ndarray, np.ndarray]], size_hw: tuple[int, int]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Median difference and its colour over the frames that show a place; NaN for too few."""
    if len(seen) < MIN_FRAMES:
        return np.full(size_hw, np.nan, np.float32), np.full((*size_hw, 3), np.nan, np.float32)
    differences = np.stack([difference for difference, _ in seen])
    colours = np.stack([colour for _, colour in seen])
    order = np.argsort(differences, axis=0)  # NaN last
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
