"""The bundle adjustment problem: what is measured, what is known before, and what is estimated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BATCH = 12_000
"""Measurements that are worked on at once; about 1 KB each."""


@dataclass(frozen=True)
class Measurements:
    """Where the samples of one frame, or of some, are seen in other frames: a row for each pair."""

    first: Int[Tensor, " m"]
    """The frame whose samples these are."""
    frames: Int[Tensor, " m"]
    """The frame in which they are seen."""
    target: Float[Tensor, "m k 2"]
    """Pixels in those frames."""
    whiten: Float[Tensor, "m k 2 2"]
    """W with W^T W = the inverse covariance of the target, in pixels."""
    weight: Float[Tensor, "m k"]
    """0 for what is not visible."""


@dataclass(frozen=True)
class Problem:
    """Everything that is given."""

    uv: Float[Tensor, "k 2"]
    """Pixels of the samples; the same in every frame."""
    seen: list[Measurements | None]
    """Of every frame."""
    centre: Float[Tensor, "n 2"]
    """Principal points in pixels."""
    focal: Float[Tensor, "n 2"]
    """Focal lengths in pixels along x and y, before."""
    log_depth: Float[Tensor, "n k"]
    """Of the samples, before."""
    depth_sigma: Float[Tensor, "n k"]
    """Standard error of that; nearly 0 where depth is known."""
    focal_sigma: float
    """Standard error of the log of the common factor of the focal lengths; 0: they are known."""
    fixed: Bool[Tensor, " n"]
    """Cameras that must not move."""

    @cached_property
    def batches(self) -> list[Measurements]:
        """The measurements of all frames, frame by frame, so many at once that each operation on
        them is worth its call."""
        out: list[Measurements] = []
        some: list[Measurements] = []
        for mine in self.seen:
            if mine is None:
                continue
            if some and sum(len(s.frames) for s in (*some, mine)) * len(self.uv) > BATCH:
                out.append(joined(some))
                some = []
            some.append(mine)
        return [*out, joined(some)] if some else out


def joined(some: list[Measurements]) -> Measurements:
    """The rows of all of them."""
    names = ("first", "frames", "target", "whiten", "weight")
    return Measurements(*(torch.cat([getattr(s, name) for s in some]) for name in names))


@dataclass(frozen=True)
class Estimate:
    """What is sought; float64."""

    R: Float[Tensor, "n 3 3"]
    """World to camera."""
    t: Float[Tensor, "n 3"]
    log_depth: Float[Tensor, "n k"]
    log_focal: Float[Tensor, ""]
    """Logarithm of the factor on all focal lengths."""
