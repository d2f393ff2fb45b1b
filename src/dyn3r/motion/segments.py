"""Smooth the dynamic map over things: tokens that look alike get one value.

Source: Easi3R, feature clustering; SPEC section 4, step 4. It ties a moving thing together across
frames, because the encoder gives it similar tokens wherever it is.
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
    """k-means over the encoder tokens of all frames together; the cluster of every token.

    One k-means++ start with a fixed seed, as in the published program. Fewer clusters are used
    where there are fewer tokens. Raises InputError if a token is not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = _rows_float32(tokens)
    if not np.isfinite(rows).all():
        raise InputError("the encoder tokens are not finite; try a higher precision")
    with warnings.catch_warnings():
        # Frames that repeat have fewer distinct tokens than clusters; that is no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(min(clusters, len(rows)), random_state=seed, n_init=1, copy_x=False)
        labels = kmeans.fit_predict(rows)
    return labels.reshape(-1, *grid_hw).astype(np.int64)


def _rows_float32(tokens: np.ndarray | Tensor) -> Float[np.ndarray, "rows dim"]:
    """A copy of our own, because k-means centres it in place."""
    if isinstance(tokens, Tensor):
        tokens = tokens.detach().to("cpu", torch.float32, copy=True).numpy()
        return np.ascontiguousarray(tokens).reshape(-1, tokens.shape[-1])
    return np.array(tokens, dtype=np.float32, order="C").reshape(-1, tokens.shape[-1])


def refine_by_clusters(
    dynamic_map: Float[np.ndarray, "n gh gw"],
    clusters: Int[np.ndarray, "n gh gw"],
    informed: Bool[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "n gh gw"]:
    """Every token takes its cluster's mean dynamic value; then min-max per frame.

    Frames that are not `informed` add nothing to the means but take them; a cluster that occurs in
    such frames only is 0.
    """
    weight = np.ones(dynamic_map.shape, np.float64)
    if informed is not None:
        weight *= informed[:, None, None]
    labels = clusters.ravel()
    totals = np.bincount(labels, weights=(weight * dynamic_map).ravel())
    counts = np.bincount(labels, weights=weight.ravel())
    means = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 0)
    return per_frame(means[clusters].astype(np.float32))
