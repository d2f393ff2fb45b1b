"""Uncertainty of the final depth: the standard deviation of log depth of every pixel.

Depth is z in camera coordinates, in the scene's unit of length, 0 where unknown. Sigma is the
standard deviation of the logarithm of depth, dimensionless: 0.05 means 5 %.

    sigma^2 = FLOOR^2 + c^2 ((DISAGREEMENT d)^2 + (SHARED d_clip)^2 + (DRIFT s)^2 + (STAGE e)^2
                             + DYNAMIC^2 on dynamic pixels)

d: median |log| disagreement with the depth of neighbouring frames, apart from their scales; d_clip:
its median over the clip, as frames that share cameras and a network share errors too; s: how far
the scale of the frame's depth is from the other frames' (log); e: |log| difference from the depth
of the stage before, which was found in another way; c: (network confidence / its median)^-TRUST.
A term without input drops out: e without estimates, c = 1 without network confidence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from dyn3r.geometry.filters import window_mean_reflect
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.scene.compared_depth import LARGEST, ComparedDepth
from dyn3r.scene.visibility_rule import as_stored

LARGEST_TRUST = 2.0
"""Log of the ratio of network confidence to its median at which it is clipped
(a factor of 7.4). Source: set, not fitted; bounds the effect of single confidences."""
ROUNDS = 5
"""Reweighted least squares solutions per fit. Source: 25 more change the fit by
at most 0.4 % on 22 of 24 synthetic clips (13 % on the worst)."""

# Source of the constants below: quantile regression at 68 % (Koenker and Bassett 1978) of the error
# on 24 synthetic clips after the ratio of medians as scale (evaluation.depth_metrics.align_depth),
# with a reward for its correlation within a clip; docs/experiments.md, Uncertainty of depth. FLOOR
# is set, not fitted.
FLOOR = 0.02
"""Sigma (log depth) where all agrees: below the errors of every synthetic clip (68 %: 0.03 up)."""
DISAGREEMENT = 1.10
"""Sigma per unit of disagreement between frames."""
SHARED = 4.24
"""Sigma per unit of the clip's median disagreement: shared errors show in no single comparison."""
DRIFT = 0.74
"""Sigma per unit of the scale of a frame (1 if the scale found were exactly its bias)."""
STAGE = 0.71
"""Sigma per unit of difference from the stage before."""
DYNAMIC = 0.155
"""Sigma of log depth that dynamic pixels have in addition: no other frame confirms them."""
TRUST = 0.17
"""Exponent of network confidence above 1 (its least value), relative to the median of the clip."""


class Stage(NamedTuple):
    """Depth of the stage before, and how its inverse is to be mapped to the final one."""

    depth: Float32[Tensor, "n h w"]
    """0 where unknown."""
    scale: float
    """Of inverse depth."""
    shift: float
    """Of inverse depth, 1 / length."""


def log_depth_sigma(
    compared: ComparedDepth,
    before: Stage | None = None,
    network_confidence: Float32[Tensor, "n h w"] | None = None,
) -> Float32[Tensor, "n h w"]:
    """Standard deviation of log depth of every pixel: the formula at the top of this file.

    `before`: depth of the stage before; earlier ones added nothing on synthetic clips.
    `network_confidence`: above 1, as the pointmap network gives it. On the device of the depth.
    """
    depth, n = compared.depth, len(compared.depth)
    scale = torch.from_numpy(compared.scales().astype(np.float32)).to(depth.device)
    threads = threads_on(depth.device)
    values, seen = torch.empty_like(depth), torch.empty_like(depth, dtype=torch.bool)
    found = ordered_map(lambda i: compared.disagreement(i, scale), range(n), threads)
    for i, (d, known) in enumerate(found):
        values[i], seen[i] = d, known
    shared = values.masked_fill(~seen, torch.nan).flatten().nanmedian().nan_to_num(0)
    of_frames = (DRIFT * scale).square() + (SHARED * shared).square()
    ratio = None if network_confidence is None else relative_trust(network_confidence)
    sigma = values  # in place, frame by frame
    for i in range(n):
        variance = (DISAGREEMENT * smooth(values[i], seen[i])).square() + of_frames[i]
        variance += DYNAMIC**2 * compared.dynamic[i]
        if before is not None:
            variance += (STAGE * smooth(*stage_difference(depth[i], before, i))).square()
        if ratio is not None:
            variance *= (-2 * TRUST * ratio[i]).exp()
        sigma[i] = (variance + FLOOR**2).sqrt()
    return sigma


def stage_difference(
    depth: Float32[Tensor, "h w"], before: Stage, i: int
) -> tuple[Float32[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """|log| difference of the depth of frame i from the stage before, at most `LARGEST`, and the
    pixels that both know (0 elsewhere)."""
    known = (depth > 0) & (before.depth[i] > 0)
    there, own = (1 / torch.where(known, x, 1) for x in (before.depth[i], depth))
    mapped = torch.maximum(before.scale * there + before.shift, 1e-3 * own)
    apart = (mapped / own).log().abs().clamp(max=LARGEST)
    return torch.where(known, apart, 0), known


def stage_fit(
    depth: Float32[np.ndarray, "n h w"],
    estimate: Float32[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> tuple[float, float] | None:
    """Scale and shift of inverse depth of an `estimate` of the depth, for the clip.

    They say how the units and the relief of the whole differ, not where depth is wrong. Robust fit
    on static pixels: relative error, weights of Huber (1964) at 1.5 times the median residual. None
    for less than two of them.
    """
    depth = as_stored(depth)
    static = (depth > 0) & (estimate > 0) & ~dynamic
    if static.sum() < 2:
        return None
    scale, shift = inverse_depth_fit(1 / estimate[static], 1 / depth[static])
    return float(scale), float(shift)


def inverse_depth_fit(
    x: Float32[np.ndarray, " k"], y: Float32[np.ndarray, " k"]
) -> tuple[np.float32, np.float32]:
    """Scale and shift with scale x + shift = y, robust in relative error (`ROUNDS` of reweighting);
    scale alone where x is constant. x, y: inverse depth, 1 / length."""
    x, y = x[:: 1 + len(x) // 50_000].astype(np.float64), y[:: 1 + len(y) // 50_000]
    design = np.stack([x / y, 1 / y], 1).astype(np.float64)
    if np.ptp(x) < 1e-4 * np.median(x):
        return np.float32(np.median(y / x)), np.float32(0)
    weight = np.ones(len(x))
    for _ in range(ROUNDS):
        weighted = design * weight[:, None]
        solution = np.linalg.lstsq(weighted.T @ design, weighted.sum(0), rcond=None)[0]
        residual = np.abs(design @ solution - 1)
        knee = 1.5 * np.median(residual) + 1e-6
        weight = 1 / np.maximum(1, residual / knee)
    return np.float32(solution[0]), np.float32(solution[1])


def relative_trust(
    confidence: Float32[Tensor, "n h w"],
) -> Float32[Tensor, "n h w"]:
    """Log of network confidence above 1, smoothed, less its median over the clip; within
    `LARGEST_TRUST` of 0."""
    side = window(tuple(confidence.shape[1:]))
    smoothed = torch.empty_like(confidence)
    for i, frame in enumerate(confidence):
        smoothed[i] = window_mean_reflect((frame - 1).clamp(min=1e-3).log()[None], side)[0]
    middle = smoothed.flatten().median()
    return smoothed.sub_(middle).clamp_(-LARGEST_TRUST, LARGEST_TRUST)


def smooth(values: Float32[Tensor, "h w"], seen: Bool[Tensor, "h w"]) -> Float32[Tensor, "h w"]:
    """Root of the mean square over the pixels of a window that are `seen`; 0 where there are none.

    Errors of neighbours are alike while single comparisons are noisy. `values` are 0 elsewhere."""
    both = torch.stack([seen.float(), values.square()])
    weight, total = window_mean_reflect(both, window(tuple(values.shape)))
    return (total.clamp(min=0) / weight.clamp(min=1e-3)).sqrt()


def window(shape: tuple[int, ...]) -> int:
    """Side of the smoothing window, pixels: 7 at 224. Source: 15 pixels were no better (stage term,
    17 synthetic clips)."""
    return 2 * (max(shape) // 64) + 1
