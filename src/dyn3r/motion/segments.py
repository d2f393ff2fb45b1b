"""Smoothing of the dynamic map over clusters of similar encoder tokens.

A moving object has similar tokens in all frames, so its values become equal in all of them.
Source: Easi3R, feature clustering; SPEC 4, step 4.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.motion.attention import per_frame


def cluster_tokens(
    tokens: Float[np.ndarray, "n t dim"] | Tensor,
    grid_hw: tuple[int, int],
    *,
    clusters: int = 64,
    seed: int = 42,
) -> Int[np.ndarray, "n gh gw"]:
    """Cluster index of every token, by k-means over the encoder tokens of all frames together.

    One k-means++ start with a fixed seed, as in the published program. Fewer tokens than
    `clusters`: one cluster each. Raises InputError if a token is not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = _rows_float32(tokens)
    if not np.isfinite(rows).all():
        raise InputError("the encoder tokens are not finite; try a higher precision")
    with warnings.catch_warnings():
        # repeated frames have fewer distinct tokens than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(min(clusters, len(rows)), random_state=seed, n_init=1, copy_x=False)
        labels = kmeans.fit_predict(rows)
    return labels.reshape(-1, *grid_hw).astype(np.int64)


def _rows_float32(tokens: np.ndarray | Tensor) -> Float[np.ndarray, "rows dim"]:
    """Copy of the tokens, one a row, because k-means centres them in place."""
    if isinstance(tokens, Tensor):
        tokens = tokens.detach().to("cpu", torch.float32, copy=True).numpy()
        return np.ascontiguousarray(tokens).reshape(-1, tokens.shape[-1])
    return np.array(tokens, dtype=np.float32, order="C").reshape(-1, tokens.shape[-1])


def cluster_means(
    dynamic_map: Float[np.ndarray, "n gh gw"],
    clusters: Int[np.ndarray, "n gh gw"],
    informed: Bool[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "n gh gw"]:
    """Dynamic map in which every token has the mean of its cluster, min-max normalised per frame.

    Only the `informed` frames contribute to the means; a cluster that occurs in other frames only
    is 0.
    """
    weight = np.ones(dynamic_map.shape, np.float64)
    if informed is not None:
        weight *= informed[:, None, None]
    labels = clusters.ravel()
    totals = np.bincount(labels, weights=(weight * dynamic_map).ravel())
    counts = np.bincount(labels, weights=weight.ravel())
    means = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 0)
    return per_frame(means[clusters].astype(np.float32))
