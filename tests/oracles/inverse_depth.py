"""Inverse depth of the predictions in NumPy, pair by pair."""

from __future__ import annotations

import numpy as np

from dyn3r.types import PairPredictions


def mean_inverse_depth(
    predictions: PairPredictions, num_frames: int, size_hw: tuple[int, int]
) -> np.ndarray:
    assert predictions.points1 is not None
    assert predictions.conf1 is not None
    out = np.empty((num_frames, *size_hw), np.float32)
    for t, inverse in enumerate(out):
        total, weights = np.zeros(size_hw), np.zeros(size_hw)
        for row in np.flatnonzero(predictions.edges[:, 0] == t):
            depth = predictions.points1[row, ..., 2].astype(np.float32)
            depth = np.nan_to_num(depth, nan=1e-6).clip(1e-6)
            confidence = predictions.conf1[row].astype(np.float32)
            weight = np.nan_to_num(np.log(confidence.clip(1.0))) + 1e-3
            total += weight * np.log(depth / np.median(depth))
            weights += weight
        inverse[:] = np.exp(-total / np.maximum(weights, 1e-9)).clip(0.02, 5.0)
    return out
