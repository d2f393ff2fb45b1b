"""Editing of motion masks: the object at a pixel, and the same object in the other frames."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float32, Int

from dyn3r.geometry.warping import sample_bilinear
from dyn3r.scene import Scene

_DEPTH_WEIGHT = 400.0
"""Weight of log depth against colour (CIELAB): 10 % of depth weigh as much as a clear edge."""
_SEGMENT_SCALE = 150.0
_MIN_SEGMENT_PX = 40
_MIN_AREA = 0.15
"""Share of its area at the clicked frame below which an object counts as gone."""


def toggle(scene: Scene, t: int, pixel: int, *, whole_clip: bool) -> Bool[np.ndarray, "n h w"]:
    """Masks with the object at a pixel of frame t added, or removed if the pixel is dynamic.

    The object is a segment of similar colour and depth, or the connected part of the mask.
    `whole_clip`: follow it through the other frames with optical flow.
    """
    row, column = divmod(pixel, scene.size_hw[1])
    masks = scene.dynamic.copy()
    if masks[t, row, column]:
        clicked = component(masks[t], row, column)
        for s, seen in (follow_all(scene, t, clicked) if whole_clip else {t: clicked}).items():
            masks[s] &= ~touched(masks[s], seen)
        return masks
    labels = segments(scene, t)
    clicked = labels == labels[row, column]
    for s, seen in (follow_all(scene, t, clicked) if whole_clip else {t: clicked}).items():
        masks[s] |= seen
    return masks


def paint(
    masks: Bool[np.ndarray, "n h w"], t: int, pixel: int, radius_px: float, *, add: bool
) -> Bool[np.ndarray, "n h w"]:
    """Masks after a touch of a round brush at a pixel of frame t, which adds or removes."""
    h, w = masks.shape[1:]
    row, column = divmod(pixel, w)
    rows, columns = np.ogrid[:h, :w]
    painted = masks.copy()
    painted[t, (rows - row) ** 2 + (columns - column) ** 2 <= radius_px**2] = add
    return painted


def propagate(scene: Scene, t: int, before: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Masks with what was changed in frame t since `before` changed in all frames.

    What was added, and what was removed, follow optical flow until they are gone.
    """
    masks = scene.dynamic.copy()
    here = scene.dynamic[t]
    for part, is_dynamic in ((here & ~before[t], True), (before[t] & ~here, False)):
        if part.any():
            for s, seen in follow_all(scene, t, part).items():
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
