"""Depth and masks at source resolution, with edges aligned to the source image.

Joint bilateral upsampling (Kopf, Cohen, Lischinski, Uyttendaele 2007) with a vote instead of a mean
across depth edges. A source pixel weighs the 5x5 prepared pixels around it by distance and by
colour difference, and extrapolates the inverse depth of each along its slope. If the extrapolated
depths lie on two surfaces, the one with the larger total weight wins, and only its inverse depths
are averaged; so no depth between foreground and background appears. A 3x3 median removes single
outliers. The result has no detail that the prepared depth lacks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dyn3r.types import FrameMapping

_RADIUS = 2  # prepared pixels
_SIGMA_PX = 1.0  # standard deviation of the distance weight, prepared pixels
_SIGMA_COLOR = 12.0  # standard deviation of the colour weight, of 255: noise and compression
_MIN_COLOR_WEIGHT = 1e-4  # weight of an entirely different colour, so that no pixel stays empty
_SURFACE_RATIO = 1.05  # largest ratio of depths within 5x5 pixels of one slanted surface
_MAX_EXTRAPOLATION = 0.2  # largest relative change of an inverse depth by extrapolation
_BAND_ROWS = 32  # source rows per step; bounds the memory


class Upsampled(NamedTuple):
    """Maps of one frame at source resolution."""

    depth: Float32[np.ndarray, "source_h source_w"]
    """0 where the nearest prepared pixel is unknown, and outside the crop window."""
    dynamic: Bool[np.ndarray, "source_h source_w"]
    """False outside the crop window."""


def upsample_guided(
    depth: Float32[np.ndarray, "h w"],
    dynamic: Bool[np.ndarray, "h w"],
    prepared: UInt8[np.ndarray, "h w 3"],
    source: UInt8[np.ndarray, "source_h source_w 3"],
    mapping: FrameMapping,
) -> Upsampled:
    """Depth and mask of a frame at the resolution of its source image `source`."""
    import cv2

    source_h, source_w = mapping.source_hw
    assert source.shape[:2] == (source_h, source_w)
    u, v = source_grid(mapping)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    slopes = inverse_depth_slopes(inverse)
    out = Upsampled(
        np.zeros((source_h, source_w), np.float32), np.zeros((source_h, source_w), bool)
    )
    rows = np.flatnonzero(inside(v, depth.shape[0]))
    columns = np.flatnonzero(inside(u, depth.shape[1]))
    if len(rows) == 0 or len(columns) == 0:
        return out
    guide = np.ascontiguousarray(prepared.transpose(2, 0, 1), np.float32)
    left, right = columns[0], columns[-1] + 1
    for top in range(rows[0], rows[-1] + 1, _BAND_ROWS):
        band = slice(top, min(top + _BAND_ROWS, rows[-1] + 1))
        weights, picks = _weights(guide, source[band, left:right], u[left:right], v[band])
        moving = dynamic[picks]
        out.dynamic[band, left:right] = (weights * moving).sum(0) > 0.5 * weights.sum(0)
        extrapolated = _extrapolate(inverse, slopes, picks, u[left:right], v[band])
        out.depth[band, left:right] = _vote(weights, extrapolated)
    window = np.s_[rows[0] : rows[-1] + 1, left:right]
    out.depth[window] = cv2.medianBlur(np.ascontiguousarray(out.depth[window]), 3)
    moving = np.ascontiguousarray(out.dynamic[window], np.uint8)
    out.dynamic[window] = cv2.medianBlur(moving, 3) > 0
    nearest_known = depth[nearest(v[rows], depth.shape[0])][:, nearest(u[columns], depth.shape[1])]
    out.depth[window][nearest_known <= 0] = 0
    return out


def inverse_depth_slopes(
    inverse: Float32[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Slopes of the inverse depth per pixel, along v and along u.

    The slope is the smaller of the differences to the two neighbours, or 0 if these differ in sign.
    This is the slope of a surface up to its boundary.
    """
    slopes = []
    for axis in (0, 1):
        along = np.moveaxis(inverse, axis, 0)
        step = np.where((along[1:] > 0) & (along[:-1] > 0), along[1:] - along[:-1], 0.0)
        before = np.concatenate([step[:1], step]) if len(step) else np.zeros_like(along)
        after = np.concatenate([step, step[-1:]]) if len(step) else np.zeros_like(along)
        smaller = np.where(np.abs(before) < np.abs(after), before, after)
        slope = np.where(before * after > 0, smaller, 0.0).astype(np.float32)
        slopes.append(np.moveaxis(slope, 0, axis))
    return slopes[0], slopes[1]


def source_grid(mapping: FrameMapping) -> tuple[np.ndarray, np.ndarray]:
    """Prepared coordinates: u of every source column, v of every source row."""
    size = max(mapping.source_hw)
    uv = mapping.from_source(np.stack([np.arange(size)] * 2, axis=-1).astype(float))
    return uv[: mapping.source_hw[1], 0], uv[: mapping.source_hw[0], 1]


def inside(coordinate: np.ndarray, size: int) -> np.ndarray:
    """True where the nearest prepared pixel is inside the crop window."""
    mask: np.ndarray = (np.rint(coordinate) >= 0) & (np.rint(coordinate) < size)
    return mask


def nearest(coordinate: np.ndarray, size: int) -> np.ndarray:
    """Index of the nearest prepared pixel."""
    index: np.ndarray = np.clip(np.rint(coordinate).astype(int), 0, size - 1)
    return index


def _weights(
    guide: np.ndarray, source: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Weights (25, rows, columns) of the 5x5 prepared pixels around, and their indices."""
    height, width = guide.shape[1:]
    steps = np.arange(-_RADIUS, _RADIUS + 1)
    near_row = nearest(v, height)[None] + steps[:, None]
    near_column = nearest(u, width)[None] + steps[:, None]

    def distance_weight(near: np.ndarray, coordinate: np.ndarray, size: int) -> np.ndarray:
        weight = np.exp(-((near - coordinate) ** 2) / (2 * _SIGMA_PX**2))
        return np.where((near >= 0) & (near < size), weight, 0.0).astype(np.float32)

    row_weight, column_weight = (
        distance_weight(near_row, v, height),
        distance_weight(near_column, u, width),
    )
    near_row, near_column = np.clip(near_row, 0, height - 1), np.clip(near_column, 0, width - 1)
    target = np.ascontiguousarray(source.transpose(2, 0, 1), np.float32)
    weights = np.empty((len(steps) ** 2, *source.shape[:2]), np.float32)
    for k, (i, j) in enumerate(np.ndindex(len(steps), len(steps))):
        difference = guide[:, near_row[i]][:, :, near_column[j]] - target
        difference *= difference
        squared = difference[0] + difference[1] + difference[2]
        color_weight = np.exp(squared * np.float32(-0.5 / _SIGMA_COLOR**2))
        color_weight += np.float32(_MIN_COLOR_WEIGHT)
        weights[k] = color_weight * row_weight[i][:, None] * column_weight[j]
    index = np.arange(len(steps))
    pick_rows = near_row[np.repeat(index, len(steps))][:, :, None]
    pick_columns = near_column[np.tile(index, len(steps))][:, None, :]
    return weights, np.broadcast_arrays(pick_rows, pick_columns)  # type: ignore[return-value]


def _extrapolate(
    inverse: np.ndarray,
    slopes: tuple[np.ndarray, np.ndarray],
    picks: tuple[np.ndarray, np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """Inverse depths (25, rows, columns) of the surfaces around, extrapolated to the source pixels.

    The inverse depth of a plane is linear in image coordinates, so on a plane all 25 agree.
    """
    here = inverse[picks]
    to_row = (v.astype(np.float32)[:, None] - picks[0]).astype(np.float32)
    to_column = (u.astype(np.float32) - picks[1]).astype(np.float32)
    change = slopes[0][picks] * to_row + slopes[1][picks] * to_column
    limit = _MAX_EXTRAPOLATION * here
    extrapolated: np.ndarray = here + np.clip(change, -limit, limit)
    return extrapolated


def _vote(weights: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Depth (rows, columns): mean of the inverse depths on the surface of largest weight."""
    shape = weights.shape[1:]
    inverse = inverse.reshape(len(inverse), -1)
    weights = weights.reshape(len(weights), -1) * (inverse > 0)
    split = np.arange(weights.shape[1])  # pixels with depths on two surfaces
    for _ in range(3):
        w, values = weights[:, split], inverse[:, split]
        near = np.where(w > 0, values, np.float32(0)).max(axis=0)
        far = np.where(w > 0, values, np.float32(np.inf)).min(axis=0)
        remain = (near > far * _SURFACE_RATIO) & np.isfinite(far)
        split, w, is_near = split[remain], w[:, remain], (values > 0.5 * (near + far))[:, remain]
        if len(split) == 0:
            break
        near_wins = (w * is_near).sum(axis=0) > (w * ~is_near).sum(axis=0)
        weights[:, split] = np.where(is_near == near_wins, w, np.float32(0))
    total, mean = weights.sum(axis=0), (weights * inverse).sum(axis=0)
    depth: np.ndarray = np.divide(total, mean, out=np.zeros_like(total), where=mean > 0)
    return depth.reshape(shape)
