"""Depth metrics after the alignment of a benchmark protocol (SPEC 11).

A video has one alignment for the whole sequence: pass all frames at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError

ALIGNMENTS = ("none", "median", "scale_shift", "scale_weiszfeld", "scale_shift_l1", "lad2")
"""Alignments of `align_depth`."""

LAD2_STEPS, LAD2_RATE = 1000, 1e-4
"""Steps of Adam and their size. Source: MonST3R's evaluation; DATASETS.md, 0, finding 4."""
LAD2_BLOCK = 50
"""Steps between two searches for errors that can change their sign. Only speed depends on it."""

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
"""Decay of both moments; added to the divisor. Source: Kingma and Ba 2015, algorithm 1."""

_MIN_DEPTH = 1e-5
"""Lower limit of aligned depths, so that a negative shift leaves a logarithm."""


@dataclass(frozen=True)
class DepthErrors:
    """Depth metrics: means over the valid pixels of a sequence; p is prediction, t ground truth."""

    abs_rel: float
    """|p - t| / t."""
    sq_rel: float
    """(p - t)^2 / t, in the unit of the ground truth."""
    rmse: float
    """Root mean squared error, in the unit of the ground truth."""
    log_rmse: float
    """Root mean squared error of natural logarithms."""
    delta1: float
    """Share of pixels with max(p/t, t/p) < 1.25."""
    delta2: float
    """Share of pixels with max(p/t, t/p) < 1.25^2."""
    delta3: float
    """Share of pixels with max(p/t, t/p) < 1.25^3."""
    valid_pixels: int
    """Number of pixels with a valid true depth and a prediction."""
    coverage: float
    """Share of the pixels with a valid true depth that have a prediction."""


def align_depth(
    predicted: Float[np.ndarray, " k"],
    truth: Float[np.ndarray, " k"],
    alignment: str = "median",
) -> tuple[float, float]:
    """(scale, shift) that aligns scale * predicted + shift with the ground truth.

    `median`: ratio of the (lower) medians. `scale_shift`: least squares. `scale_weiszfeld`: the
    scale of least absolute error, by 10 re-weightings, started at the ratio of the means.
    `scale_shift_l1`: least absolute error in both. `lad2`: 1000 steps of Adam towards that, from
    (median ratio, 0), as MonST3R published; they move each of both by about 0.1 and so depend on
    the unit (DATASETS.md, 0, finding 4). `none`: (1, 0).

    Raises:
        InputError: an unknown alignment or no pixels.
    """
    if len(truth) == 0:
        raise InputError("no pixel has both a true and a predicted depth: nothing to compare")
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    if alignment == "none":
        return 1.0, 0.0
    if alignment == "median":
        return _lower_median(truth) / _lower_median(predicted), 0.0
    if alignment == "scale_shift":
        return _least_squares(predicted, truth)
    if alignment == "scale_weiszfeld":
        scale = truth.mean() / predicted.mean()
        for _ in range(10):
            weights = 1 / (np.abs(scale * predicted - truth) + 1e-8)
            scale = (weights * predicted * truth).sum() / (weights * predicted**2).sum()
        return float(scale), 0.0
    if alignment == "scale_shift_l1":
        return _least_absolute(predicted, truth)
    if alignment == "lad2":
        return _lad2(predicted, truth)
    raise InputError(
        f"unknown depth alignment '{alignment}': choose one of {', '.join(ALIGNMENTS)}"
    )


def depth_errors(
    predicted: Float[np.ndarray, "*batch h w"],
    truth: Float[np.ndarray, "..."],
    *,
    alignment: str | tuple[float, float] = "median",
    max_depth: float = float("inf"),
    clip: float = float("inf"),
    region: Bool[np.ndarray, "..."] | None = None,
) -> DepthErrors:
    """Errors over all pixels where 0 < truth < max_depth and there is a prediction.

    Args:
        predicted: depth, 0 or NaN where there is none; any scale.
        truth: depth, 0 or NaN where it is unknown; of the same shape.
        alignment: see `align_depth`, or a (scale, shift) that was found before.
        max_depth: truth at or beyond it is left out.
        clip: largest value of the aligned prediction (video-depth protocols).
        region: compare only where it is True.

    Raises:
        InputError: arrays of different shapes, an unknown alignment, or no pixel to compare.
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted depth {predicted.shape} and true depth {truth.shape} differ in shape"
        )
    valid = (truth > 0) & (truth < max_depth)
    if region is not None:
        valid &= region
    both = valid & (predicted > 0) & np.isfinite(predicted)
    p, t = predicted[both].astype(np.float64), truth[both].astype(np.float64)
    scale, shift = align_depth(p, t, alignment) if isinstance(alignment, str) else alignment
    if len(t) == 0:
        raise InputError("no pixel has both a true and a predicted depth: nothing to compare")
    p = np.clip(scale * p + shift, _MIN_DEPTH, clip)
    error = p - t
    ratio = np.maximum(p / t, t / p)
    return DepthErrors(
        abs_rel=float((np.abs(error) / t).mean()),
        sq_rel=float((error**2 / t).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        log_rmse=float(np.sqrt((np.log(p / t) ** 2).mean())),
        delta1=float((ratio < 1.25).mean()),
        delta2=float((ratio < 1.25**2).mean()),
        delta3=float((ratio < 1.25**3).mean()),
        valid_pixels=len(t),
        coverage=len(t) / int(valid.sum()),
    )


def relative_error(
    predicted: Float[np.ndarray, "n h w"], truth: Float[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n h w"]:
    """|p / t - 1| of every pixel after one median scale; NaN where either is unknown (0).

    Raises InputError if no pixel is known in both.
    """
    known = (predicted > 0) & (truth > 0)
    scale, _ = align_depth(predicted[known], truth[known], "median")
    error = np.abs(scale * predicted / np.where(known, truth, 1) - 1)
    return np.where(known, error, np.nan)


def mean_depth_errors(sequences: Sequence[DepthErrors]) -> DepthErrors:
    """Mean over sequences, weighted by their valid pixels (SPEC 11).

    Raises:
        InputError: no sequences.
    """
    if not sequences:
        raise InputError("no sequences to average")
    weights = np.array([s.valid_pixels for s in sequences], dtype=np.float64)
    means = {
        f.name: float(np.average([getattr(s, f.name) for s in sequences], weights=weights))
        for f in fields(DepthErrors)
        if f.name != "valid_pixels"
    }
    return DepthErrors(valid_pixels=int(weights.sum()), **means)


def resize_depth(
    depth: Float[np.ndarray, "n h w"], size_hw: tuple[int, int]
) -> Float[np.ndarray, "n H W"]:
    """Prediction resized to the ground truth by cubic interpolation (video-depth protocols)."""
    import cv2

    wh = (size_hw[1], size_hw[0])
    return np.stack(
        [cv2.resize(np.asarray(d, np.float32), wh, interpolation=cv2.INTER_CUBIC) for d in depth]
    )


def _lower_median(values: Float[np.ndarray, " k"]) -> float:
    """Median; of an even number of values the smaller middle one, as in the published protocol."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])


def _least_squares(p: Float[np.ndarray, " k"], t: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Scale and shift of least squared error."""
    variance = ((p - p.mean()) ** 2).sum()
    if variance <= 1e-18 * (p**2).sum():  # constant prediction: the shift is undetermined
        return float(t.mean() / p.mean()), 0.0
    scale = ((p - p.mean()) * (t - t.mean())).sum() / variance
    return float(scale), float(t.mean() - scale * p.mean())


def _lad2(p: Float[np.ndarray, " k"], t: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Scale and shift after `LAD2_STEPS` steps of Adam (Kingma and Ba 2015, algorithm 1) on the
    mean absolute error. The published stop on a small change of the error is not known here.

    The sign of a large error can't change within `LAD2_BLOCK` steps: it is summed once a block.
    """
    x, first, second = np.array([_lower_median(t) / _lower_median(p), 0.0]), 0.0, 0.0
    decay, decay_of_squares = ADAM_BETAS
    longest = LAD2_RATE * (1 - decay) / np.sqrt(1 - decay_of_squares)  # section 2.1 there
    for step in range(LAD2_STEPS):
        if step % LAD2_BLOCK == 0:
            error = x[0] * p + x[1] - t
            far = np.abs(error) > LAD2_BLOCK * longest * (p + 1)
            sign = np.sign(error[far])
            constant = np.array([sign @ p[far], sign.sum()])
            near_p, near_t = p[~far], t[~far]
        sign = np.sign(x[0] * near_p + x[1] - near_t)
        gradient = (constant + np.array([sign @ near_p, sign.sum()])) / len(p)
        first = decay * first + (1 - decay) * gradient
        second = decay_of_squares * second + (1 - decay_of_squares) * gradient**2
        mean = first / (1 - decay ** (step + 1))
        spread = np.sqrt(second / (1 - decay_of_squares ** (step + 1)))
        x = x - LAD2_RATE * mean / (spread + ADAM_EPS)
    return float(x[0]), float(x[1])


def _least_absolute(p: Float[np.ndarray, " k"], t: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Scale and shift of least absolute error.

    For a given scale the optimal shift is a median. The error is then convex in the scale.
    """
    from scipy.optimize import minimize_scalar

    centre, _ = _least_squares(p, t)

    def error(scale: float) -> float:
        residual = t - scale * p
        return float(np.abs(residual - np.median(residual)).sum())

    radius = max(abs(centre), float(np.median(t) / np.median(p)))
    found = minimize_scalar(
        error, bounds=(centre - 2 * radius, centre + 2 * radius), options={"xatol": 1e-7 * radius}
    )
    return float(found.x), float(np.median(t - found.x * p))
