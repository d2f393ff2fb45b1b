"""Agreement of flow with the static scene in arrays, pair by pair."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool

from dyn3r.flow.fields import neighbouring_rows
from dyn3r.flow.noise import flow_variance_px2
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.scene.flow_agreement import AGREES, STRIDE, FlowAgreement
from dyn3r.types import FlowFields, Geometry


def flow_agreement(
    geometry: Geometry, masks: Bool[np.ndarray, "n h w"], flow: FlowFields
) -> FlowAgreement:
    """Compare the flow of neighbouring frames with the one that depth and cameras induce."""
    rows = neighbouring_rows(flow.edges)
    K, T, depth = (
        torch.from_numpy(np.asarray(x, np.float64))
        for x in (geometry.K, geometry.T_world_camera, geometry.depth)
    )
    visible, static = np.zeros(len(rows)), np.full(len(rows), np.nan)
    for k, row in enumerate(rows):
        i, j = (int(frame) for frame in flow.edges[row])
        here = (slice(None, None, STRIDE),) * 2
        induced = induced_flow(depth[i], K[i], T[i], K[j], T[j], stride=STRIDE).numpy()
        measured = np.asarray(flow.flow[row], np.float32)[here]
        away = np.linalg.norm(induced - measured, axis=-1)
        agrees = away**2 < AGREES**2 * flow_variance_px2(measured[..., 0], measured[..., 1])
        seen = np.ones(agrees.shape, bool)
        if flow.visible is not None:
            seen = np.asarray(flow.visible[row])[here]
        visible[k] = seen.mean()
        judged = seen & (geometry.depth[i][here] > 0) & ~masks[i][here]
        if judged.any():
            static[k] = agrees[judged].mean()
    return FlowAgreement(flow.edges[rows], visible, static)
