"""Choice of the pairs of frames of a data set by their distance in time (DATASETS.md, 3.0)."""

from __future__ import annotations

from collections.abc import Sequence as List

import numpy as np
from jaxtyping import Int

STRIDES = tuple(range(1, 10))
"""Distances in frames of the two views of a pair."""
THINNING_SEED = 125
"""The pairs of a set are chosen once, the same for all runs."""

Pairs = Int[np.ndarray, "k 4"]
"""Rows (sequence, frame, sequence, frame) of indices."""


def starts(length: int, stride: int, *, step: int, published_range: bool) -> range:
    """First frames of the pairs of one stride of a sequence of `length` frames.

    step: between first frames. published_range: end at `length - 2 stride`, by which the published
    loaders lose the last `stride - 1` possible ones.
    """
    end = length - 2 * stride + 1 if published_range else length - stride
    return range(0, max(0, end), step)


def pairs_by_stride(
    lengths: List[int], *, step: int = 1, published_range: bool = False, thin: bool = True
) -> Pairs:
    """Pairs (i, i + stride) within sequences of `lengths` frames, for all `STRIDES`.

    thin: keep fewer pairs of short strides, by a fixed choice. Stride k then has the weight
    1 + (k - 1) / 8 relative to the longest stride that occurs.
    """
    by_stride = [
        _pairs_of_stride(lengths, stride, step=step, published_range=published_range)
        for stride in STRIDES
    ]
    rows = [pairs for pairs in by_stride if len(pairs)]
    if not rows:
        return np.zeros((0, 4), dtype=np.int32)
    if thin:
        rng = np.random.default_rng(THINNING_SEED)
        longest = len(rows)  # strides without pairs are the longest ones
        wanted = [
            round(len(rows[-1]) * _weight(stride) / _weight(longest))
            for stride in range(1, longest + 1)
        ]
        rows = [
            chosen[np.sort(rng.permutation(len(chosen))[:count])]
            for chosen, count in zip(rows, wanted)
        ]
    return np.concatenate(rows)


def _pairs_of_stride(lengths: List[int], stride: int, *, step: int, published_range: bool) -> Pairs:
    """Rows of all sequences for one stride."""
    first = [
        np.array(starts(length, stride, step=step, published_range=published_range), dtype=np.int32)
        for length in lengths
    ]
    sequence = np.repeat(np.arange(len(lengths), dtype=np.int32), [len(f) for f in first])
    frame = np.concatenate([np.zeros(0, dtype=np.int32), *first])
    return np.stack([sequence, frame, sequence, frame + np.int32(stride)], axis=1)


def _weight(stride: int) -> float:
    """Weight of the stride, 1 to 2 ("linear_1_2")."""
    return 1 + (stride - 1) / (len(STRIDES) - 1)
