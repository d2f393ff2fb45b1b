"""From flow to measurements: samples, where they are seen, and how surely."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dyn3r.bundle_adjustment.options import BundleOptions
from dyn3r.bundle_adjustment.problem import Measurements
from dyn3r.types import FlowFields

RADIUS = 4
"""Half the side in pixels of the patch whose texture says how surely flow is measured."""


def grid_of_samples(size_hw: tuple[int, int], samples: int) -> Int[np.ndarray, "k 2"]:
    """Pixels (u, v) on a regular grid, about so many."""
    stride = max(1, round(math.sqrt(size_hw[0] * size_hw[1] / samples)))
    half = stride // 2
    v, u = np.mgrid[half : size_hw[0] : stride, half : size_hw[1] : stride]
    return np.stack([u, v], -1).reshape(-1, 2)


def measurements_of(
    flow: FlowFields,
    image: UInt8[np.ndarray, "h w 3"],
    i: int,
    uv: Int[np.ndarray, "k 2"],
    moving: Bool[np.ndarray, "n h w"] | None,
    options: BundleOptions,
) -> Measurements | None:
    """What flow says of the samples of frame i, which is `image`; None for a frame without flow."""
    rows = np.flatnonzero(flow.edges[:, 0] == i)
    if not len(rows):
        return None
    frames = flow.edges[rows, 1]
    forward = np.asarray(flow.flow[rows], np.float32)
    seen = forward[:, uv[:, 1], uv[:, 0]]
    trust = np.where(np.isfinite(seen).all(-1), options.independence, 0.0)
    seen = np.where(trust[..., None] > 0, seen, 0.0)
    target = uv + seen
    miss = np.stack([_round_trip(f, _back(flow, i, int(j)), uv) for f, j in zip(seen, frames)])
    if flow.visible is not None:
        trust *= np.asarray(flow.visible[rows])[:, uv[:, 1], uv[:, 0]]
    if moving is not None:
        trust *= np.where(_moves(moving, i, frames, uv, target), options.moving_weight, 1.0)
    length = np.linalg.norm(seen, axis=-1)
    variance = options.noise_px**2 + (options.noise_share * length) ** 2 + miss**2
    whiten = _whiten(_texture_covariance(image, uv, options.noise_grey), variance)
    return Measurements(
        first=torch.full((len(rows),), i),
        frames=torch.from_numpy(frames.astype(np.int64)),
        target=torch.from_numpy(target.astype(np.float32)),
        whiten=torch.from_numpy(whiten.astype(np.float32)),
        weight=torch.from_numpy(trust.astype(np.float32)),
    )


def _back(flow: FlowFields, i: int, j: int) -> Float[np.ndarray, "h w 2"] | None:
    rows = np.flatnonzero((flow.edges == (j, i)).all(1))
    return flow.flow[rows[0]] if len(rows) else None


def _moves(
    moving: np.ndarray, i: int, frames: np.ndarray, uv: np.ndarray, target: np.ndarray
) -> Bool[np.ndarray, "m k"]:
    """Whether a sample, or what it is said to be in the other frame, moves."""
    h, w = moving.shape[1:]
    u = target[..., 0].round().astype(int).clip(0, w - 1)
    v = target[..., 1].round().astype(int).clip(0, h - 1)
    return moving[i, uv[:, 1], uv[:, 0]][None] | moving[frames[:, None], v, u]


def _round_trip(
    there: Float[np.ndarray, "k 2"], backward: np.ndarray | None, uv: np.ndarray
) -> Float[np.ndarray, " k"]:
    """How far from its start a sample ends that goes there and back, in pixels, at most 100."""
    import cv2

    if backward is None:
        return np.zeros(len(uv), np.float32)
    at = (uv + there).astype(np.float32)
    returned = cv2.remap(
        np.asarray(backward, np.float32), at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )[:, 0]  # fmt: skip
    distance = np.linalg.norm(there + returned, axis=-1)
    return np.fmin(distance, 100.0)  # the number, where the other is NaN


def _texture_covariance(
    image: np.ndarray, uv: np.ndarray, noise: float
) -> Float[np.ndarray, "k 2 2"]:
    """Covariance of a patch's shift where brightness is uncertain by `noise`, in square pixels.

    The inverse of the structure tensor (Lucas and Kanade 1981): large along an edge, and everywhere
    on a plain wall.
    """
    import cv2

    grey = image.astype(np.float32)
    du, dv = cv2.Scharr(grey, -1, 1, 0) / 32, cv2.Scharr(grey, -1, 0, 1) / 32
    side = (2 * RADIUS + 1, 2 * RADIUS + 1)
    tensor = np.empty((len(uv), 2, 2))
    for a, b, product in ((0, 0, du * du), (0, 1, du * dv), (1, 1, dv * dv)):
        total = cv2.boxFilter(product.mean(-1), -1, side, normalize=False)
        tensor[:, a, b] = tensor[:, b, a] = total[uv[:, 1], uv[:, 0]] / noise**2
    return np.linalg.inv(tensor + 1e-4 * np.eye(2))


def _whiten(texture: np.ndarray, variance: np.ndarray) -> Float[np.ndarray, "m k 2 2"]:
    """W with W^T W the inverse of the covariance."""
    covariance = texture[None] + variance[..., None, None] * np.eye(2)
    return np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2)


def texture_stiffness(
    image: UInt8[np.ndarray, "h w 3"], options: BundleOptions
) -> tuple[Float[Tensor, "h w-1"], Float[Tensor, "h-1 w"]]:
    """How stiffly the change of depth holds together across and down, by the picture's edges."""
    out = []
    for axis in (1, 0):
        step = np.abs(np.diff(image.astype(np.float32), axis=axis)).mean(-1)
        hold = 0.02 + 0.98 * np.exp(-step / options.edge)
        out.append(torch.from_numpy((options.smoothness * hold).astype(np.float32)))
    return out[0], out[1]


def with_margin(moving: Bool[np.ndarray, "n h w"], margin: float) -> Bool[np.ndarray, "n h w"]:
    """What moves and what lies within `margin` (a share of the long side) of it. A frame that has
    little left then, less than half of what stands still, keeps its mask."""
    import cv2

    radius = round(margin * max(moving.shape[1:]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    out = moving.copy()
    for mask, wider in zip(moving, out):
        grown = cv2.dilate(mask.astype(np.uint8), disc) > 0
        if (~grown).sum() >= 0.5 * (~mask).sum():
            wider[:] = grown
    return out
