"""Noise of measured flow, estimated from the residuals of a solution, pair by pair."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, Measurements
from dyn3r.bundle_adjustment.residuals import residuals
from dyn3r.flow.noise import MEDIAN_NORMAL_ERROR
from dyn3r.types import FlowFields

MAX_TYPICAL_SIGMA_PX = 1.0
"""Flow whose typical standard error is larger says nothing: it is 0.08 to 0.5 pixels on 38 clips,
and 1.6 between noise images, where it returns to within 3 pixels by chance
(docs/experiments.md, Refused adjustments)."""
STATED_SAMPLES = 20.0
"""The stated covariance of a pair counts as this many samples against its residuals. Source: small
beside the 350 samples of a frame, so that it decides for pairs that see hardly anything."""
MIN_SCALE = 1e-3
"""Lower bound of the scale of a pair's standard errors."""
MAX_CORRELATION = 0.6
"""Upper bound of the correlation of neighbouring residuals: they count as 1/16 of independent ones,
the least that was tried on the synthetic world."""
CLIPPED_ERROR = 3.0
"""Longer residuals, in standard errors, count as this long in the correlation."""


def typical_sigma_px(problem: BundleProblem) -> float:
    """Median of the smaller standard error of the measurements that count, in pixels; NaN without.

    `problem`: with the standard errors that flow states, not inflated.
    """
    found = [
        torch.linalg.svdvals(m.whiten.double())[..., 0][m.weight > 0] for m in problem.measurements
    ]
    return float(1 / torch.cat(found).median()) if found else math.nan


def is_random(flow: FlowFields, problem: BundleProblem) -> bool:
    """Whether flow is as uncertain as between noise images (MAX_TYPICAL_SIGMA_PX).

    Flow that states its own errors is not judged. `problem`: as for `typical_sigma_px`.
    """
    return flow.whitening is None and typical_sigma_px(problem) > MAX_TYPICAL_SIGMA_PX


def with_estimated_noise(problem: BundleProblem, estimate: Estimate) -> BundleProblem:
    """The problem with the standard errors and weights of every pair that its residuals suggest.

    Standard errors are scaled by the median residual over MEDIAN_NORMAL_ERROR, whether that is
    above or below 1. The weight of a pair is its share of independent measurements.
    """
    measurements: list[Measurements] = []
    for frame in problem.measurements:
        error = residuals(problem, estimate, frame, derivatives="none").error
        used = frame.weight > 0
        length = error.norm(dim=-1).masked_fill(~used, torch.nan)
        scale = (length.nanmedian(dim=1).values / MEDIAN_NORMAL_ERROR).nan_to_num(1.0)
        scale, count = scale.clamp(min=MIN_SCALE), used.sum(1)
        factor = (scale.log() * count / (count + STATED_SAMPLES)).exp()
        share = independent_share(error / scale[:, None, None], used, problem.columns)
        measurements.append(
            frame.with_noise(
                whiten=frame.whiten / factor[:, None, None, None].float(),
                weight=torch.where(used, share[:, None], 0.0).to(frame.weight),
            )
        )
    return replace(problem, measurements=measurements)


def independent_share(
    error: Float[Tensor, "m k 2"], used: Bool[Tensor, "m k"], columns: int
) -> Float[Tensor, " m"]:
    """Share of independent measurements of each pair: ((1 - r) / (1 + r))^2.

    r is the correlation of residuals (in standard errors) of neighbouring samples, along rows and
    columns of the grid. Source: effective sample size of a first-order autoregression along each
    of the two axes.
    """
    m = len(error)
    length = error.norm(dim=-1, keepdim=True)
    e = (error * (CLIPPED_ERROR / length.clamp(min=CLIPPED_ERROR))).reshape(m, -1, columns, 2)
    u = used.reshape(m, -1, columns)
    covariance, variance = error.new_zeros(m), error.new_zeros(m)
    for axis in (1, 2):
        size = e.shape[axis] - 1
        a, b = e.narrow(axis, 1, size), e.narrow(axis, 0, size)
        both = (u.narrow(axis, 1, size) & u.narrow(axis, 0, size))[..., None]
        covariance += (a * b * both).sum((1, 2, 3))
        variance += ((a**2 + b**2) / 2 * both).sum((1, 2, 3))
    r = (covariance / variance.clamp(min=1e-9)).clamp(0, MAX_CORRELATION)
    return ((1 - r) / (1 + r)) ** 2
