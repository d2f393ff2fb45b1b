"""The classical refiner: neighbours in time vote, then masks are pulled to the picture's edges.

Temporal vote along optical flow, and the guided filter with a colour picture as its guide (He, Sun
and Tang 2010, section 3.3). No weights, no random numbers. docs/refine.md says what it brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError
from dyn3r.flow import DisFlow, FlowEstimator
from dyn3r.flow.fields import measure_flow
from dyn3r.motion.mask_refiner import check_masks
from dyn3r.types import FlowFields, Progress, no_progress


@dataclass(frozen=True)
class EdgeRefiner:
    """Masks by a vote over time and a guided filter.

    The numbers were chosen on clips of the synthetic world (docs/refine.md).
    """

    reach: int = 2
    """Frames before and after that vote, along the flow. 0: none. More: steadier, slower; what
    shows only for a moment fades."""
    radius: float = 0.054
    """Of the guided filter, as a share of the long side; 0: no filter. Larger: masks reach edges
    that are farther away, small things fade."""
    softness: float = 3e-4
    """Variance of colours (0..1) below which the picture counts as plain; here that of differences
    of 4 in 255, as noise makes them. Larger: masks follow only strong edges."""
    threshold: float = 0.4
    """A pixel moves where the filtered votes exceed this. Larger: fewer pixels."""
    flow: FlowEstimator = field(default_factory=DisFlow)
    """Measures the flow between neighbouring frames."""

    def __post_init__(self) -> None:
        if self.reach < 0 or self.radius < 0 or not self.softness > 0 or not 0 < self.threshold < 1:
            raise InputError(
                "edge refinement needs reach and radius of at least 0, softness above 0 and a "
                "threshold between 0 and 1"
            )

    @property
    def name(self) -> str:
        """`edges`."""
        return "edges"

    def refine(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        masks: Bool[np.ndarray, "n h w"],
        *,
        progress: Progress = no_progress,
    ) -> Bool[np.ndarray, "n h w"]:
        """See `MaskRefiner.refine`. Raises InputError for pictures and masks that don't fit."""
        check_masks(images, masks)
        n = len(masks)
        if not masks.any():
            return masks.copy()
        flow = None
        if self.reach and n > 1:
            steps = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
            flow = measure_flow(images, steps, self.flow, progress=progress)
        radius = round(self.radius * max(masks.shape[1:]))
        out = np.empty_like(masks)
        for t in range(n):
            votes = masks[t].astype(np.float32)
            if flow is not None:
                votes = vote(masks, flow, t, self.reach)
            if radius:
                votes = guided_filter(votes, images[t], radius, self.softness)
            out[t] = votes > self.threshold
            progress("refining masks", t + 1, n)
        return out


def vote(
    masks: Bool[np.ndarray, "n h w"], flow: FlowFields, t: int, reach: int
) -> Float[np.ndarray, "h w"]:
    """Share (0..1) of the frames up to `reach` away that call a pixel of frame t moving.

    A frame votes where the flow to it, from frame to frame, can be believed; t itself always does.
    `flow` holds all steps (t, t + 1) and (t + 1, t).
    """
    rows = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    moving = masks[t].astype(np.float32)
    voters = np.ones(moving.shape, np.float32)
    for direction in (-1, 1):
        for other, field_, seen in _chain(flow, rows, t, direction, reach, len(masks)):
            moving += seen * _at(masks[other].astype(np.float32), field_)
            voters += seen
    return moving / voters


def _chain(
    flow: FlowFields,
    rows: dict[tuple[int, int], int],
    t: int,
    direction: int,
    reach: int,
    num_frames: int,
) -> Iterator[tuple[int, Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]]:
    """Frame after frame in one direction: its number, flow from t to it, and where that holds."""
    h, w = flow.flow.shape[1:3]
    total = np.zeros((h, w, 2), np.float32)
    seen = np.ones((h, w), np.float32)
    for here in range(t, t + direction * reach, direction):
        other = here + direction
        if not 0 <= other < num_frames:
            return
        row = rows[here, other]
        if flow.visible is not None:
            seen = seen * (_at(flow.visible[row].astype(np.float32), total) > 0.5)
        total = total + _at(np.asarray(flow.flow[row], dtype=np.float32), total)
        yield other, total, seen


def _at(
    values: Float[np.ndarray, "h w *c"], field_: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w *c"]:
    """Values where the flow goes, bilinear; beyond the border the nearest."""
    import cv2

    h, w = field_.shape[:2]
    v, u = np.mgrid[:h, :w].astype(np.float32)
    return cv2.remap(
        values, u + field_[..., 0], v + field_[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def guided_filter(
    values: Float[np.ndarray, "h w"],
    picture: UInt8[np.ndarray, "h w 3"],
    radius: int,
    softness: float,
) -> Float[np.ndarray, "h w"]:
    """In every window the values become the nearest linear function of the colours; then the mean.

    `radius` in pixels; `softness` is the regularisation of the colours' covariance, for 0..1.
    """
    import cv2

    size = (2 * radius + 1, 2 * radius + 1)

    def mean(x: np.ndarray) -> np.ndarray:
        # plane by plane: OpenCV takes no arrays with more axes
        flat = np.ascontiguousarray(x.reshape(*x.shape[:2], -1), dtype=np.float64)
        parts = [
            cv2.boxFilter(flat[..., k], -1, size, borderType=cv2.BORDER_REFLECT)
            for k in range(flat.shape[-1])
        ]
        return np.stack(parts, -1).reshape(x.shape)

    colours = picture.astype(np.float64) / 255
    colours_mean, value_mean = mean(colours), mean(values)
    together = mean(colours * values[..., None]) - colours_mean * value_mean[..., None]
    pairs = colours[..., :, None] * colours[..., None, :]
    spread = mean(pairs) - colours_mean[..., :, None] * colours_mean[..., None, :]
    spread += softness * np.eye(3)
    slope = np.linalg.solve(spread, together[..., None])[..., 0]
    offset = value_mean - (slope * colours_mean).sum(-1)
    return ((mean(slope) * colours).sum(-1) + mean(offset)).astype(np.float32)
