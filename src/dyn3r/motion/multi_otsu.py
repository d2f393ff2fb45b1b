"""Pixel masks from the dynamic map: upsampling and the automatic threshold.

Source: Easi3R, "dynamic object segmentation"; SPEC 4, step 5.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

_BINS = 256


def upsample(
    maps: Float[np.ndarray, "n gh gw"], size_hw: tuple[int, int]
) -> Float[np.ndarray, "n h w"]:
    """Token maps at the size of the frames, bilinear (align_corners False)."""
    grid = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None]
    return F.interpolate(grid, size_hw, mode="bilinear", align_corners=False)[:, 0].numpy()


def last_otsu_threshold(values: Float[np.ndarray, "..."]) -> float:
    """Threshold above which a pixel is dynamic, over all frames at once.

    Multi-Otsu on a histogram of 256 bins for 2, 3 and 4 classes. The score of a class count is the
    variance of its class means over sqrt(classes); the last threshold of the best is returned.
    Infinity if all values are equal.
    """
    from skimage.exposure import histogram
    from skimage.filters import threshold_multiotsu

    flat = np.asarray(values).reshape(-1)
    if flat.size == 0 or flat.min() == flat.max():
        return math.inf
    counts, centres = histogram(flat, nbins=_BINS, normalize=True)
    best_score, best = -math.inf, math.inf
    for classes in (2, 3, 4):
        if np.count_nonzero(counts) < classes:
            break
        thresholds = threshold_multiotsu(  # type: ignore[no-untyped-call]
            classes=classes, hist=(counts, centres)
        )
        means = _class_means(flat, thresholds)
        score = float(np.var(means) / math.sqrt(classes))
        if score > best_score:
            best_score, best = score, float(thresholds[-1])
    return best


def _class_means(flat: np.ndarray, thresholds: np.ndarray) -> Float[np.ndarray, " classes"]:
    """Means of the pixels between the thresholds.

    From sums of the values at or above each threshold, in blocks: without a label image.
    """
    levels = [-math.inf, *thresholds, math.inf]
    totals, counts = np.zeros(len(levels)), np.zeros(len(levels))
    for start in range(0, flat.size, 1 << 20):
        block = flat[start : start + (1 << 20)]
        for index, level in enumerate(levels[:-1]):
            above = block >= level
            counts[index] += np.count_nonzero(above)
            totals[index] += np.sum(block, where=above, dtype=np.float64)
    sizes, sums = -np.diff(counts), -np.diff(totals)
    return (sums / np.maximum(sizes, 1))[sizes > 0]
