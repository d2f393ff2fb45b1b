"""Bundle adjustment problem: measurements, priors and unknowns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.bundle_adjustment.camera_prior import CameraPrior
from dyn3r.bundle_adjustment.depth_prior import DepthPrior

BATCH_MEASUREMENTS = 32_000
"""Measurements that are processed at once, about 1 KB each. Source: run time."""


@dataclass(frozen=True)
class Measurements:
    """Positions of the samples of one or more frames in other frames, a row per pair of frames."""

    source: Int[Tensor, " m"]
    """Frame that the samples belong to."""
    target: Int[Tensor, " m"]
    """Frame in which they are measured."""
    uv: Float[Tensor, "m k 2"]
    """Measured pixel coordinates in the target frame."""
    whiten: Float[Tensor, "m k 2 2"]
    """W with W^T W = the inverse covariance of `uv`, in 1 / pixels."""
    weight: Float[Tensor, "m k"]
    """Weight of each measurement; 0 for those that are not visible or dynamic."""

    @cached_property
    def uv_rows(self) -> Float[Tensor, "2 m k"]:
        """`uv` with the samples along the last axis, which arithmetic is fastest on."""
        return self.uv.movedim(-1, 0).contiguous()

    @cached_property
    def whiten_columns(self) -> Float[Tensor, "2 m 2 k"]:
        """The columns of `whiten` with the samples along the last axis."""
        return self.whiten.permute(3, 0, 2, 1).contiguous()


@dataclass(frozen=True)
class BundleProblem:
    """Given values: samples, measurements, priors and fixed cameras."""

    uv: Float[Tensor, "k 2"]
    """Pixels of the samples; the same in every frame."""
    measurements: list[Measurements | None]
    """Measurements of the samples of each frame; None: no flow."""
    center: Float[Tensor, "n 2"]
    """Principal points in pixels."""
    focal: Float[Tensor, "n 2"]
    """Initial focal lengths in pixels along x and y."""
    prior: DepthPrior
    """Prior of the log depth of the samples."""
    focal_sigma: float
    """Standard error of the log of the common factor of the focal lengths; 0: they are known."""
    fixed: Bool[Tensor, " n"]
    """Cameras that are known."""
    camera_prior: CameraPrior | None = None
    """Prior of the cameras; None: flow alone places them."""

    def with_prior(self, prior: DepthPrior) -> BundleProblem:
        """The problem with another prior; what is computed from the measurements is kept."""
        out = replace(self, prior=prior)
        if "batches" in vars(self):
            vars(out)["batches"] = self.batches
        return out

    @cached_property
    def batches(self) -> list[Measurements]:
        """Measurements of all frames in order, joined into batches (BATCH_MEASUREMENTS)."""
        out: list[Measurements] = []
        batch: list[Measurements] = []
        for frame in self.measurements:
            if frame is None:
                continue
            rows = sum(len(m.target) for m in (*batch, frame))
            if batch and rows * len(self.uv) > BATCH_MEASUREMENTS:
                out.append(join_measurements(batch))
                batch = []
            batch.append(frame)
        return [*out, join_measurements(batch)] if batch else out


def join_measurements(parts: list[Measurements]) -> Measurements:
    """The rows of all parts in order."""
    names = ("source", "target", "uv", "whiten", "weight")
    return Measurements(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Estimate:
    """Values of the unknowns, float64."""

    R: Float[Tensor, "n 3 3"]
    """World to camera."""
    t: Float[Tensor, "n 3"]
    """World to camera."""
    log_depth: Float[Tensor, "n k"]
    log_focal: Float[Tensor, ""]
    """Logarithm of the factor on all focal lengths."""
