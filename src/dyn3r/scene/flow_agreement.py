"""How well measured flow agrees with the static scene that was found, pair by pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from dyn3r.flow.fields import neighbouring_rows, sampled_on
from dyn3r.flow.noise import flow_variance_px2
from dyn3r.geometry.reprojection import pixel_maps, static_flow
from dyn3r.io.devices import float64_device
from dyn3r.types import FlowFields, Geometry

AGREES = 3.0
"""Largest difference in standard errors of flow that agrees."""
STRIDE = 2
"""Every second row and column is compared. Source: run time."""


class FlowAgreement(NamedTuple):
    """Comparison of measured flow with that of a static scene, a row per directed pair."""

    edges: Int[np.ndarray, "m 2"]
    """Frames of each pair, neighbours: the flow of others is less certain."""
    visible: Float[np.ndarray, " m"]
    """Share of all pixels whose point the other frame shows, as flow says."""
    static: Float[np.ndarray, " m"]
    """Share of the visible static pixels whose flow agrees; NaN without any."""


def flow_agreement(
    geometry: Geometry, masks: Bool[np.ndarray, "n h w"], flow: FlowFields, device: str = "cpu"
) -> FlowAgreement:
    """Compare the flow of neighbouring frames with the one that depth and cameras induce.

    On `device`, in double precision; shares of the pairs come back.
    """
    device = float64_device(device)
    rows, found = neighbouring_rows(flow.edges), []
    rows = rows[np.argsort(flow.edges[rows, 0], kind="stable")]
    for i in np.unique(flow.edges[rows, 0]).tolist():
        some = rows[flow.edges[rows, 0] == i]
        P = pixel_maps(geometry.K, geometry.T_world_camera, i, flow.edges[some, 1], device)
        here = (i, slice(None, None, STRIDE), slice(None, None, STRIDE))
        depth, dynamic = (
            torch.from_numpy(np.ascontiguousarray(x[here])).to(device)
            for x in (geometry.depth, masks)
        )
        measured, seen = sampled_on(device, flow, some, STRIDE)
        off = static_flow(P, depth.double(), STRIDE).sub_(measured)
        agrees = off.square_().sum(1) < AGREES**2 * flow_variance_px2(*measured.unbind(1))
        judged = seen & (depth > 0) & ~dynamic
        static = (agrees & judged).sum((1, 2)) / judged.sum((1, 2))  # NaN for none
        found.append(torch.stack([seen.double().mean((1, 2)), static]))
    if not found:
        return FlowAgreement(flow.edges[rows], np.zeros(0), np.zeros(0))
    shares = torch.cat(found, 1).cpu().numpy()
    order = np.argsort(rows)
    return FlowAgreement(flow.edges[rows[order]], *shares[:, order])
