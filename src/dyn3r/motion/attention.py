"""Statistics of the cross-attention scores over the pairs of a frame, and the dynamic map.

Letters in shapes as in `dyn3r.types`: n frames, m directed pairs, gh gw the patch grid, c layers x
heads. Source: Easi3R, "disentangling motion from attention"; SPEC 4, steps 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.errors import InputError

EPSILON = 1e-6
"""Added to every denominator of a min-max normalisation (SPEC 4)."""


@dataclass(frozen=True)
class ScoreStatistics:
    """Mean and deviation of the scores of one decoder stack over the pairs of each frame."""

    mean: Float[np.ndarray, "n gh gw c"]
    """Mean over the frame's pairs; 0 for a frame without pairs."""
    deviation: Float[np.ndarray, "n gh gw c"]
    """Unbiased standard deviation over the frame's pairs; 0 where there are fewer than two."""
    num_pairs: Int[np.ndarray, " n"]
    """Number of pairs that score the frame."""


def score_statistics(
    scores: Float[np.ndarray, "m gh gw c"] | Tensor,
    frames: Int[np.ndarray, " m"],
    num_frames: int,
) -> ScoreStatistics:
    """Mean and deviation per frame, by Welford's running update in float32.

    Every score is read once, in order, so the scores may be a memory-mapped file in half precision.
    `frames[k]` is the frame whose tokens row k scores: j for view 1, i for view 2 of a pair (i, j).

    Raises InputError if a score is not finite.
    """
    shape = (num_frames, *(int(s) for s in scores.shape[1:]))
    mean = np.zeros(shape, np.float32)
    squares = np.zeros(shape, np.float32)
    count = np.zeros(num_frames, np.int64)
    for row, t in enumerate(frames):
        score = _replace_sink(_as_float32(scores[row]))
        if not np.isfinite(score).all():
            raise InputError(
                f"the attention scores of pair {row} are not finite; try a higher precision"
            )
        count[t] += 1
        step = score - mean[t]
        mean[t] += step / np.float32(count[t])
        squares[t] += step * (score - mean[t])
    degrees = np.maximum(count - 1, 1).astype(np.float32)
    squares /= degrees[:, None, None, None]
    return ScoreStatistics(mean, np.sqrt(squares, out=squares), count)


def _as_float32(row: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(row, Tensor):
        return row.detach().to("cpu", torch.float32, copy=True).numpy()
    return np.array(row, dtype=np.float32)


def _replace_sink(score: Float[np.ndarray, "gh gw c"]) -> Float[np.ndarray, "gh gw c"]:
    """Scores with the attention sink, token (0, 0), replaced by the mean of its neighbours."""
    rows, cols = score.shape[:2]
    neighbours = [score[at] for at in ((0, 1), (1, 0)) if at[0] < rows and at[1] < cols]
    if neighbours:
        score[0, 0] = np.mean(neighbours, axis=0)
    return score


def minmax(values: np.ndarray, axis: tuple[int, ...] | None = None) -> np.ndarray:
    """Min-max normalisation (x - min) / (max - min + EPSILON) over `axis`, or over everything."""
    if values.size == 0:
        return values
    low = values.min(axis=axis, keepdims=True)
    high = values.max(axis=axis, keepdims=True)
    return (values - low) / (high - low + np.float32(EPSILON))


def per_frame(maps: Float[np.ndarray, "n gh gw"]) -> Float[np.ndarray, "n gh gw"]:
    """Min-max normalisation of every frame on its own."""
    return minmax(maps, axis=(1, 2))


def fuse_channels(
    values: Float[np.ndarray, "n gh gw c"], valid: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n gh gw"]:
    """Statistic without channels, 0..1 over the clip; 0 in frames that are not `valid`.

    Min-max over all frames and channels, mean over channels, min-max over all frames; only the
    `valid` frames take part. Source: SPEC 4, step 2.
    """
    fused = np.zeros(values.shape[:3], np.float32)
    kept = values if valid.all() else values[valid]
    fused[valid] = minmax(minmax(kept).mean(axis=-1))
    return fused


@dataclass(frozen=True)
class DynamicEvidence:
    """Dynamic map with the statistics it was computed from."""

    fused: dict[str, Float[np.ndarray, "n gh gw"]]
    """mu1, sd1, mu2, sd2, each 0..1 over the clip."""
    dynamic_map: Float[np.ndarray, "n gh gw"]
    """0..1 per frame."""
    informed: Bool[np.ndarray, " n"]
    """False for frames with too few pairs, whose map is 0."""
    means_only: bool
    """True if no frame has two pairs, so that only the means are used."""


def dynamic_evidence(
    view1: ScoreStatistics, view2: ScoreStatistics, *, inherit: bool = True
) -> DynamicEvidence:
    """Dynamic map (1 - mu1) * sd1 * mu2 * (1 - sd2), min-max normalised per frame (SPEC 4, step 3).

    Frames without pairs take no part in the normalisations and are 0. With `inherit`, frames with
    fewer than two pairs, whose deviation is 0, are not informed. If no frame is informed (two
    frames, or one reference frame paired with every other), the means alone are used:
    (1 - mu1) * mu2, where a factor without any pair counts as 1.
    """
    some1, some2 = view1.num_pairs > 0, view2.num_pairs > 0
    informed = (view1.num_pairs > 1) & some2 if inherit else some1 & some2
    means_only = inherit and not informed.any()
    fused = {
        "mu1": fuse_channels(view1.mean, some1),
        "sd1": fuse_channels(view1.deviation, some1),
        "mu2": fuse_channels(view2.mean, some2),
        "sd2": fuse_channels(view2.deviation, some2),
    }
    if means_only:
        informed = some1 | some2
        mu2 = np.where(some2[:, None, None], fused["mu2"], np.float32(1))
        product = (1 - fused["mu1"]) * mu2
    else:
        product = (1 - fused["mu1"]) * fused["sd1"] * fused["mu2"] * (1 - fused["sd2"])
    product[~informed] = 0
    return DynamicEvidence(fused, per_frame(product), informed, means_only)


def relative_deviation(view1: ScoreStatistics) -> Float[np.ndarray, "n gh gw"]:
    """Variation of a token's view-1 scores between the pairs, relative to that between tokens.

    sqrt(mean_c sd1^2 / mean_c v_c), where v_c is the variance of channel c's mean over all tokens
    of all frames: 1 means that another partner frame changes the score as much as another token
    does. Independent of the scale and offset of the scores. 0 if the scores have no variance.
    """
    mean = view1.mean[view1.num_pairs > 0]
    spread = float(mean.var(axis=(0, 1, 2)).mean()) if mean.size else 0.0
    if not spread > 0:
        return np.zeros(view1.mean.shape[:3], np.float32)
    return np.sqrt(np.square(view1.deviation).mean(axis=-1) / np.float32(spread))
