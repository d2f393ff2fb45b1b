"""Mask refiner without a network: temporal voting along optical flow and a guided filter.

Results are in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError
from dyn3r.flow import DisFlow, FlowEstimator
from dyn3r.flow.fields import measure_flow
from dyn3r.motion.flow_sampling import sample_along_flow
from dyn3r.motion.guided_filter import guided_filter_color
from dyn3r.motion.mask_refiner import MaskRefiner, check_masks
from dyn3r.types import FlowFields, Progress, no_progress


@dataclass(frozen=True)
class EdgeRefiner:
    """Masks by temporal voting and a guided filter.

    Source of the defaults: development clips (docs/results.md).
    """

    reach: int = 2
    """Frames before and after that vote, along the flow; 0: none. Larger: steadier and slower;
    objects that are visible only briefly fade."""
    radius: float = 0.04
    """Radius of the guided filter as a share of the long side; 0: no filter. Larger: masks reach
    edges that are farther away; small objects fade."""
    softness: float = 3e-4
    """Variance of the colours (0..1) below which the image counts as plain, about (4 / 255)^2, the
    noise of a camera. Larger: masks follow strong edges only."""
    threshold: float = 0.5
    """A pixel is dynamic where its filtered votes (0..1) exceed this: the majority. Larger: fewer
    pixels."""
    flow: FlowEstimator = field(default_factory=DisFlow)
    """Estimator of the flow between neighbouring frames."""
    measured: FlowFields | None = None
    """Flow that was measured before; `flow` is asked for steps between frames that it lacks."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.reach < 0 or self.radius < 0 or not self.softness > 0 or not 0 < self.threshold < 1:
            raise InputError(
                "edge refinement needs reach and radius of at least 0, softness above 0 and a "
                "threshold between 0 and 1"
            )

    @property
    def name(self) -> str:
        """Name of this refiner in options: `edges`."""
        return "edges"

    def refine(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        masks: Bool[np.ndarray, "n h w"],
        *,
        progress: Progress = no_progress,
    ) -> Bool[np.ndarray, "n h w"]:
        """Refined masks, see `MaskRefiner.refine`.

        Raises InputError for images and masks that do not fit together.
        """
        check_masks(images, masks)
        n = len(masks)
        if not masks.any():
            return masks.copy()
        flow = self._steps(images, progress) if self.reach and n > 1 else None
        radius = round(self.radius * max(masks.shape[1:]))
        out = np.empty_like(masks)
        for t in range(n):
            votes = masks[t].astype(np.float32)
            if flow is not None:
                votes = vote(masks, flow, t, self.reach)
            if radius:
                votes = guided_filter_color(votes, images[t], radius, self.softness)
            out[t] = votes > self.threshold
            progress("refining masks", t + 1, n)
        return out

    def _steps(self, images: UInt8[np.ndarray, "n h w 3"], progress: Progress) -> FlowFields:
        """Flow from each frame to the next and back, among others."""
        n = len(images)
        steps = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
        if self.measured is not None and self.measured.flow.shape[1:3] == images.shape[1:3]:
            known = set(map(tuple, self.measured.edges.tolist()))
            if known.issuperset(map(tuple, [*steps.tolist(), *steps[:, ::-1].tolist()])):
                return self.measured
        return measure_flow(images, steps, self.flow, progress=progress)


def reading(refiner: MaskRefiner | None, flow: FlowFields | None) -> MaskRefiner | None:
    """The refiner, which reads `flow` of the same clip in place of measuring it if it can."""
    return replace(refiner, measured=flow) if isinstance(refiner, EdgeRefiner) else refiner


def vote(
    masks: Bool[np.ndarray, "n h w"], flow: FlowFields, t: int, reach: int
) -> Float[np.ndarray, "h w"]:
    """Share (0..1) of the frames up to `reach` away in which each pixel of frame t is dynamic.

    A frame votes where the chained flow to it is reliable; t itself always votes. `flow` holds all
    steps (t, t + 1) and (t + 1, t).
    """
    rows = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    dynamic = masks[t].astype(np.float32)
    voters = np.ones(dynamic.shape, np.float32)
    for direction in (-1, 1):
        for other, chained, visible in _chain(flow, rows, t, direction * reach, len(masks)):
            dynamic += visible * sample_along_flow(masks[other].astype(np.float32), chained)
            voters += visible
    return dynamic / voters


def _chain(
    flow: FlowFields,
    rows: dict[tuple[int, int], int],
    t: int,
    reach: int,
    num_frames: int,
) -> Iterator[tuple[int, Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]]:
    """Frames up to `reach` (negative: backwards) away from t, flow to them, where it is reliable.

    The flow is chained from frame to frame, in pixels; reliability is 0 or 1.
    """
    h, w = flow.flow.shape[1:3]
    total = np.zeros((h, w, 2), np.float32)
    reliable = np.ones((h, w), np.float32)
    direction = 1 if reach > 0 else -1
    for here in range(t, t + reach, direction):
        other = here + direction
        if not 0 <= other < num_frames:
            return
        row = rows[here, other]
        if flow.visible is not None:
            visible = sample_along_flow(flow.visible[row].astype(np.float32), total)
            reliable = reliable * (visible > 0.5)
        total = total + sample_along_flow(np.asarray(flow.flow[row], dtype=np.float32), total)
        yield other, total, reliable
