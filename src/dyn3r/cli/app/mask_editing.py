"""Editing of motion masks: the object at a pixel, and the same object in the other frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from dyn3r.geometry.warping import sample_bilinear
from dyn3r.scene import Scene

_DEPTH_WEIGHT = 400.0
"""Weight of log depth against colour (CIELAB): 10 % of depth weigh as much as a clear edge."""
_SEGMENT_SCALE = 150.0
_MIN_SEGMENT_PX = 40
_MIN_AREA = 0.15
"""Share of its area at the clicked frame below which an object counts as gone."""


class ObjectTracker(Protocol):
    """Finds an object and follows it, as `dyn3r.motion.sam2.Sam2Refiner` does."""

    def object_at(
        self, images: UInt8[np.ndarray, "n h w 3"], t: int, row: int, column: int
    ) -> Bool[np.ndarray, "n h w"]:
        """Masks of the object at a pixel of frame t, in all frames."""

    def follow(
        self, images: UInt8[np.ndarray, "n h w 3"], t: int, mask: Bool[np.ndarray, "h w"]
    ) -> Bool[np.ndarray, "n h w"]:
        """The object of a mask of frame t, in all frames."""


def toggle(
    scene: Scene, t: int, pixel: int, *, whole_clip: bool, tracker: ObjectTracker | None = None
) -> Bool[np.ndarray, "n h w"]:
    """Masks with the object at a pixel of frame t added, or removed if the pixel is dynamic.

    The object is a segment of similar colour and depth, or the connected part of the mask.
    `whole_clip`: follow it through the other frames with optical flow. A `tracker` finds and
    follows it instead.
    """
    row, column = divmod(pixel, scene.size_hw[1])
    masks = scene.dynamic.copy()
    if masks[t, row, column]:
        clicked = component(masks[t], row, column)
        for s, seen in _in_frames(scene, t, clicked, tracker, whole_clip=whole_clip).items():
            masks[s] &= ~touched(masks[s], seen)
        return masks
    if tracker is not None:
        everywhere = tracker.object_at(scene.images, t, row, column)
        return masks | everywhere if whole_clip else _with_frame(masks, t, everywhere[t])
    labels = segments(scene, t)
    clicked = labels == labels[row, column]
    for s, seen in _in_frames(scene, t, clicked, tracker, whole_clip=whole_clip).items():
        masks[s] |= seen
    return masks


def _with_frame(
    masks: Bool[np.ndarray, "n h w"], t: int, added: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "n h w"]:
    masks[t] |= added
    return masks


def _in_frames(
    scene: Scene, t: int, mask: Bool[np.ndarray, "h w"], tracker: ObjectTracker | None, *,
    whole_clip: bool,
) -> dict[int, Bool[np.ndarray, "h w"]]:  # fmt: skip
    """An object of frame t in that frame, or in all in which it is seen."""
    if not whole_clip:
        return {t: mask}
    if tracker is None:
        return follow_all(scene, t, mask)
    return dict(enumerate(tracker.follow(scene.images, t, mask)))


def paint(
    masks: Bool[np.ndarray, "n h w"], t: int, pixels: Sequence[int], radius_px: float, *, add: bool
) -> Bool[np.ndarray, "n h w"]:
    """Masks after a stroke of a round brush through pixels of frame t, which adds or removes.

    Between two pixels the brush goes straight. A single pixel is a touch.
    """
    h, w = masks.shape[1:]
    path = np.stack(np.divmod(np.asarray(pixels), w), axis=-1).astype(float)
    grid = np.moveaxis(np.mgrid[:h, :w], 0, -1)
    painted = masks.copy()
    for start, end in zip(path, [*path[1:], path[-1]]):
        along = (grid - start) @ (end - start) / max(1e-9, float(((end - start) ** 2).sum()))
        away = grid - start - np.clip(along, 0, 1)[..., None] * (end - start)
        painted[t, (away**2).sum(axis=-1) <= radius_px**2] = add
    return painted


def propagate(
    scene: Scene, t: int, before: Bool[np.ndarray, "n h w"], tracker: ObjectTracker | None = None
) -> Bool[np.ndarray, "n h w"]:
    """Masks with what was changed in frame t since `before` changed in all frames.

    What was added, and what was removed, follow optical flow (or `tracker`) until they are gone.
    """
    masks = scene.dynamic.copy()
    here = scene.dynamic[t]
    for part, is_dynamic in ((here & ~before[t], True), (before[t] & ~here, False)):
        if part.any():
            for s, seen in _in_frames(scene, t, part, tracker, whole_clip=True).items():
                masks[s, seen] = is_dynamic
    return masks


def segments(scene: Scene, t: int) -> Int[np.ndarray, "h w"]:
    """Label of the segment of every pixel: similar colour and depth (Felzenszwalb 2004)."""
    import cv2
    from skimage.segmentation import felzenszwalb

    lab = cv2.cvtColor(scene.images[t], cv2.COLOR_RGB2LAB).astype(np.float32)
    depth = scene.depth[t]
    known = depth > 0
    log_depth = np.log(np.where(known, depth, depth[known].max() if known.any() else 1.0))
    channels = np.concatenate([lab, _DEPTH_WEIGHT * log_depth[..., None]], axis=-1) / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that four channels may be no colours
        labels: np.ndarray = felzenszwalb(
            channels, scale=_SEGMENT_SCALE, sigma=0.8, min_size=_MIN_SEGMENT_PX, channel_axis=-1
        )
    return labels.astype(np.int64)


def component(mask: Bool[np.ndarray, "h w"], row: int, column: int) -> Bool[np.ndarray, "h w"]:
    """Connected part of a mask that holds a pixel."""
    labels = _components(mask)
    return labels == labels[row, column]


def touched(
    mask: Bool[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Connected parts of a mask of which `seen` covers a half or more, and `seen` itself."""
    labels = _components(mask)
    sizes = np.bincount(labels.ravel())
    covered = np.bincount(labels[seen], minlength=len(sizes))
    chosen = covered >= 0.5 * sizes
    chosen[0] = False
    return chosen[labels] | seen


def _components(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    import cv2

    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1])


def follow_all(
    scene: Scene, t: int, mask: Bool[np.ndarray, "h w"]
) -> dict[int, Bool[np.ndarray, "h w"]]:
    """The object of a mask of frame t in that frame and those around it, until it is gone."""
    found = {t: mask}
    for frames in (range(t + 1, len(scene)), range(t - 1, -1, -1)):
        at = t
        for s in frames:
            moved = follow(scene, at, s, found[at])
            if moved.sum() < _MIN_AREA * mask.sum():
                break
            found[s], at = moved, s
    return found


def follow(scene: Scene, t: int, s: int, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mask of frame t, brought to the neighbouring frame s by optical flow."""
    from dyn3r.flow.dis import DisFlow

    flow = DisFlow().flow(scene.images[s], scene.images[t])
    h, w = mask.shape
    grid: Float32[np.ndarray, "h w 2"] = np.stack(
        np.meshgrid(np.arange(w), np.arange(h)), axis=-1
    ).astype(np.float32)
    target = grid + flow
    inside = ((target >= 0) & (target <= [w - 1, h - 1])).all(axis=-1)
    moved = sample_bilinear(mask.astype(np.float32), target)
    return np.asarray((moved > 0.5) & inside)
