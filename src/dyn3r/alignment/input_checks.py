"""Checks of the inputs of the alignment."""

from __future__ import annotations

import numpy as np

from dyn3r.errors import InputError
from dyn3r.types import FlowFields, PairPredictions, Priors


def check_inputs(
    predictions: PairPredictions,
    dynamic: np.ndarray | None,
    flow: FlowFields | None,
    priors: Priors,
) -> None:
    """Raise InputError with a one-line message at the first input that does not fit."""
    height, width = predictions.size_hw
    m, n = len(predictions.edges), predictions.num_frames
    if m == 0 or n == 0:
        raise InputError("alignment needs at least one pair of frames")
    edges = np.asarray(predictions.edges)
    if edges.shape != (m, 2) or edges.min() < 0 or edges.max() >= n:
        raise InputError(f"edges must have shape (m, 2) and name frames 0..{n - 1}")
    arrays = {
        "points1": (predictions.points1, (m, height, width, 3)),
        "points2": (predictions.points2, (m, height, width, 3)),
        "conf1": (predictions.conf1, (m, height, width)),
        "conf2": (predictions.conf2, (m, height, width)),
        "dynamic": (dynamic, (n, height, width)),
        "flow": (None if flow is None else flow.flow[0], (height, width, 2)),
        "priors.K": (priors.K, (n, 3, 3)),
        "priors.T_world_camera": (priors.T_world_camera, (n, 4, 4)),
        "priors.depth": (priors.depth, (n, height, width)),
    }
    optional = {"dynamic", "flow", "priors.K", "priors.T_world_camera", "priors.depth"}
    for name, (array, shape) in arrays.items():
        if array is None and name in optional:
            continue
        if array is None or tuple(array.shape) != shape:
            got = "none" if array is None else str(tuple(array.shape))
            raise InputError(f"alignment needs {name} of shape {shape}, got {got}")
    if flow is not None and len(flow.edges) and (flow.edges.min() < 0 or flow.edges.max() >= n):
        raise InputError(f"flow edges must name frames 0..{n - 1}")
