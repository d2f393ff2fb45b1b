"""Flow measurements at samples, with the covariance of the flow."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from dyn3r.bundle_adjustment.problem import Measurements
from dyn3r.flow.noise import flow_covariance_px2, whitening_of
from dyn3r.geometry.warping import round_trip_error_px
from dyn3r.types import FlowFields

MIN_VISIBLE_SHARE = 0.2
"""Share of its pixels that a pair must see of each other. Source: flow between frames of different
clips passes the round-trip test on at most 0.207 of the pixels (288 pairs; 99 %: 0.199)."""
INDEPENDENT_SHARE = 0.25
"""Weight of a measurement: neighbouring measurements are correlated. Source: chosen on the
synthetic world against 1 and 1/16."""


def regular_grid(size_hw: tuple[int, int], samples: int) -> Int[np.ndarray, "k 2"]:
    """Pixels (u, v) of a regular grid of about `samples` samples."""
    stride = max(1, round(math.sqrt(size_hw[0] * size_hw[1] / samples)))
    half = stride // 2
    v, u = np.mgrid[half : size_hw[0] : stride, half : size_hw[1] : stride]
    return np.stack([u, v], -1).reshape(-1, 2)


def flow_measurements(
    flow: FlowFields,
    image: UInt8[np.ndarray, "h w 3"],
    i: int,
    uv: Int[np.ndarray, "k 2"],
    dynamic: Bool[np.ndarray, "n h w"] | None,
    noise_inflation: float = 1.0,
) -> Measurements | None:
    """Measurements of the samples `uv` of frame i, whose image is given; None without flow.

    Pairs that hardly see the same place are left out. Samples that are not visible, or `dynamic` in
    either frame, have weight 0. The covariance is that of the flow; for flow that states none
    `dyn3r.flow.noise.flow_covariance_px2`. Standard errors are multiplied by `noise_inflation`.
    """
    rows = np.flatnonzero(flow.edges[:, 0] == i)
    if flow.visible is not None:
        shares = [np.asarray(flow.visible[row]).mean() for row in rows]
        rows = rows[np.array(shares, float) >= MIN_VISIBLE_SHARE]
    if not len(rows):
        return None
    frames = flow.edges[rows, 1]
    forward = np.asarray(flow.flow[rows], np.float32)[:, uv[:, 1], uv[:, 0]]
    weight = np.where(np.isfinite(forward).all(-1), INDEPENDENT_SHARE, 0.0)
    forward = np.where(weight[..., None] > 0, forward, 0.0)
    target = uv + forward
    if flow.visible is not None:
        weight *= np.asarray(flow.visible[rows])[:, uv[:, 1], uv[:, 0]]
    if dynamic is not None:
        weight *= ~_is_dynamic(dynamic, i, frames, uv, target)
    if flow.whitening is not None:
        whiten = whitening_matrix(np.asarray(flow.whitening[rows])[:, uv[:, 1], uv[:, 0]])
    else:
        trips = np.stack([_round_trip(flow, i, int(j), f, uv) for f, j in zip(forward, frames)])
        covariance = flow_covariance_px2(torch.from_numpy(image), uv, trips)
        whiten = _matrix(whitening_of(*covariance))
    return Measurements(
        source=torch.full((len(rows),), i),
        target=torch.from_numpy(frames.astype(np.int64)),
        uv=torch.from_numpy(target.astype(np.float32)),
        whiten=torch.from_numpy((whiten / noise_inflation).astype(np.float32)),
        weight=torch.from_numpy(weight.astype(np.float32)),
    )


def whitening_matrix(stated: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2 2"]:
    """W = [[e^a, 0], [c e^b, e^b]] from (a, b, c); see `FlowFields.whitening`."""
    a, b, c = np.moveaxis(stated.astype(np.float32), -1, 0)
    out = np.zeros((*a.shape, 2, 2), np.float32)
    out[..., 0, 0], out[..., 1, 0], out[..., 1, 1] = np.exp(a), c * np.exp(b), np.exp(b)
    return out


def _round_trip(
    flow: FlowFields, i: int, j: int, forward: Float[np.ndarray, "k 2"], uv: np.ndarray
) -> Float[np.ndarray, " k"]:
    """Round-trip error in pixels; 0 if the reverse flow was not measured."""
    rows = np.flatnonzero((flow.edges == (j, i)).all(1))
    if not len(rows):
        return np.zeros(len(uv), np.float32)
    return round_trip_error_px(forward, flow.flow[rows[0]], uv)


def _is_dynamic(
    dynamic: np.ndarray, i: int, frames: np.ndarray, uv: np.ndarray, target: np.ndarray
) -> Bool[np.ndarray, "m k"]:
    """Whether a sample, or its position in the other frame, is dynamic."""
    h, w = dynamic.shape[1:]
    u = target[..., 0].round().astype(int).clip(0, w - 1)
    v = target[..., 1].round().astype(int).clip(0, h - 1)
    return np.asarray(dynamic[i, uv[:, 1], uv[:, 0]][None] | dynamic[frames[:, None], v, u])


def _matrix(W: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Float[np.ndarray, "m k 2 2"]:
    """Upper triangular matrices as one array."""
    out = np.zeros((*W[0].shape, 2, 2))
    out[..., 0, 0], out[..., 0, 1], out[..., 1, 1] = W
    return out


def dilate_masks(masks: Bool[np.ndarray, "n h w"], margin: float) -> Bool[np.ndarray, "n h w"]:
    """Masks dilated by `margin`, a share of the long side of the frame.

    A frame keeps its mask if dilation would remove more than half of its static pixels.
    """
    import cv2

    radius = round(margin * max(masks.shape[1:]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    out = masks.copy()
    for mask, result in zip(masks, out):
        dilated = cv2.dilate(mask.astype(np.uint8), disc) > 0
        if (~dilated).sum() >= 0.5 * (~mask).sum():
            result[:] = dilated
    return out
