"""Mask refiner without a network: temporal voting along optical flow and a guided filter.

Results are in docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.flow import DisFlow, FlowEstimator
from dyn3r.flow.fields import measure_flow
from dyn3r.geometry.cameras import pixel_grid
from dyn3r.geometry.warping import sample_at
from dyn3r.io.devices import float64_device, on_device
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.motion.guided_filter import guided_filter_color
from dyn3r.motion.mask_refiner import MaskRefiner, check_masks
from dyn3r.types import FlowFields, Progress, no_progress


@dataclass(frozen=True)
class EdgeRefiner:
    """Masks by temporal voting and a guided filter.

    Source of the defaults: development clips (docs/experiments.md).
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
    device: str = "cpu"
    """PyTorch device of the votes and the filter."""

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
        device = float64_device(self.device)  # the filter needs double precision
        pictures, dynamic = (on_device(x, device) for x in (images, masks))
        voters = _Voters(dynamic.float(), flow)
        h, w = masks.shape[1:]
        radius = min(round(self.radius * max(h, w)), h, w)
        out = torch.empty_like(dynamic)

        def refined(t: int) -> Bool[Tensor, "h w"]:
            votes = voters.votes(t, self.reach)
            if radius:
                votes = guided_filter_color(votes, pictures[t], radius, self.softness)
            return votes > self.threshold

        for t, mask in enumerate(ordered_map(refined, range(n), threads_on(device))):
            out[t] = mask
            progress("refining masks", t + 1, n)
        return np.asarray(out.cpu().numpy())

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


class _Voters:
    """Masks, and the flow from each frame to the next and back, on a device."""

    def __init__(self, masks: Float32[Tensor, "n h w"], flow: FlowFields | None) -> None:
        """Without flow each frame votes for itself alone."""
        self.masks, n = masks, len(masks)
        self.ways: list[tuple[Tensor, Tensor]] = []
        if flow is None:
            return
        self.pixels = pixel_grid((masks.shape[1], masks.shape[2]), masks.device).movedim(-1, 0)
        rows = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
        for way in (-1, 1):
            steps = [rows.get((t, t + way), 0) for t in range(n)]  # the first or last is not read
            visible = np.ones((n, *masks.shape[1:]), bool)
            if flow.visible is not None:
                visible = np.array(flow.visible[steps], dtype=bool)
            fields = torch.from_numpy(np.ascontiguousarray(flow.flow[steps]))
            self.ways.append((fields.to(masks.device), torch.from_numpy(visible).to(masks.device)))

    def votes(self, t: int, reach: int) -> Float32[Tensor, "h w"]:
        """Share (0..1) of the frames up to `reach` away in which each pixel of frame t is dynamic.

        A frame votes where the chained flow to it is reliable; t itself always votes.
        """
        dynamic, voters = self.masks[t].clone(), torch.ones_like(self.masks[t])
        for way, steps in zip((-1, 1), self.ways):
            for other, ends, reliable in self._chain(steps, t, way, reach):
                there = sample_at(self.masks[other][None, None], ends[None])[0, 0]
                dynamic += reliable * there
                voters += reliable
        return dynamic / voters

    def _chain(
        self, steps: tuple[Tensor, Tensor], t: int, way: int, reach: int
    ) -> Iterator[tuple[int, Float32[Tensor, "2 h w"], Float32[Tensor, "h w"]]]:
        """Frames up to `reach` away from t, where its pixels are there, and where that is reliable.

        The flow is chained from frame to frame; reliability is 0 or 1.
        """
        fields, visible = steps
        ends, reliable = self.pixels, torch.ones_like(self.masks[t])
        for here in range(t, t + way * reach, way):
            other = here + way
            if not 0 <= other < len(self.masks):
                return
            step = torch.cat([fields[here].movedim(-1, 0).float(), visible[here][None].float()])
            if here != t:
                step = sample_at(step[None], ends[None])[0]
            ends, reliable = ends + step[:2], reliable * (step[2] > 0.5)
            yield other, ends, reliable
