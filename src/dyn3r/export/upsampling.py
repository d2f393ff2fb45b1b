"""Depth and masks at source resolution, with edges where the source picture has them.

Joint bilateral upsampling (Kopf, Cohen, Lischinski, Uyttendaele 2007) with a vote instead of a
mean across depth edges: a source pixel weighs the 5x5 prepared pixels around it by distance and by
likeness of colour, and continues the surface of each along its slope; where they then lie on two
surfaces the heavier side wins, and only its inverse depths are averaged. So no surface is invented
between foreground and background. A 3x3 median removes single stray pixels. It sharpens what is
there: it knows no detail that the prepared depth does not have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dyn3r.types import FrameMapping

_RADIUS = 2  # prepared pixels
_SIGMA_PIXELS = 1.0  # of a prepared pixel: the distance that counts as near
_SIGMA_COLOUR = 12.0  # of 255: a difference that noise and compression may make
_FLOOR = 1e-4  # weight of a wholly different colour: something must be chosen everywhere
_ONE_SURFACE = 1.05  # ratio of depths within 5x5 pixels that may be one slanted surface
_MOST_CHANGE = 0.2  # of an inverse depth that continuing a surface may make
_BAND_ROWS = 32  # source rows at a time: bounds the memory


class Upsampled(NamedTuple):
    """Maps of one frame at source resolution."""

    depth: Float32[np.ndarray, "source_h source_w"]
    """0 where unknown: the nearest prepared pixel is, or outside the crop window."""
    dynamic: Bool[np.ndarray, "source_h source_w"]
    """False outside the crop window."""


def upsample_guided(
    depth: Float32[np.ndarray, "h w"],
    dynamic: Bool[np.ndarray, "h w"],
    prepared: UInt8[np.ndarray, "h w 3"],
    picture: UInt8[np.ndarray, "source_h source_w 3"],
    mapping: FrameMapping,
) -> Upsampled:
    """Depth and mask of a frame at the resolution of `picture`, which is its source picture."""
    import cv2

    source_h, source_w = mapping.source_hw
    assert picture.shape[:2] == (source_h, source_w)
    u, v = source_grid(mapping)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    slopes = slopes_of(inverse)
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
        weights, picks = _weights(guide, picture[band, left:right], u[left:right], v[band])
        moving = dynamic[picks]
        out.dynamic[band, left:right] = (weights * moving).sum(0) > 0.5 * weights.sum(0)
        here = _continued(inverse, slopes, picks, u[left:right], v[band])
        out.depth[band, left:right] = _vote(weights, here)
    window = np.s_[rows[0] : rows[-1] + 1, left:right]
    out.depth[window] = cv2.medianBlur(np.ascontiguousarray(out.depth[window]), 3)
    moving = np.ascontiguousarray(out.dynamic[window], np.uint8)
    out.dynamic[window] = cv2.medianBlur(moving, 3) > 0
    nearest_known = depth[nearest(v[rows], depth.shape[0])][:, nearest(u[columns], depth.shape[1])]
    out.depth[window][nearest_known <= 0] = 0
    return out


def slopes_of(
    inverse: Float32[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Change of the inverse depth per pixel (along v, along u): the smaller of the differences to
    the two neighbours, 0 where these disagree in sign; so the slope of a surface up to its rim."""
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
    """Prepared coordinates (u of every source column, v of every source row)."""
    size = max(mapping.source_hw)
    uv = mapping.from_source(np.stack([np.arange(size)] * 2, axis=-1).astype(float))
    return uv[: mapping.source_hw[1], 0], uv[: mapping.source_hw[0], 1]


def inside(coordinate: np.ndarray, size: int) -> np.ndarray:
    """True where the nearest prepared pixel is in the crop window."""
    return (np.rint(coordinate) >= 0) & (np.rint(coordinate) < size)


def nearest(coordinate: np.ndarray, size: int) -> np.ndarray:
    """Index of the nearest prepared pixel."""
    return np.clip(np.rint(coordinate).astype(int), 0, size - 1)


def _weights(
    guide: np.ndarray, picture: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Weights (25, rows, columns) of the prepared pixels around, and their indices."""
    height, width = guide.shape[1:]
    steps = np.arange(-_RADIUS, _RADIUS + 1)
    near_row = nearest(v, height)[None] + steps[:, None]
    near_column = nearest(u, width)[None] + steps[:, None]

    def closeness(near: np.ndarray, coordinate: np.ndarray, size: int) -> np.ndarray:
        weight = np.exp(-((near - coordinate) ** 2) / (2 * _SIGMA_PIXELS**2))
        return np.where((near >= 0) & (near < size), weight, 0.0).astype(np.float32)

    row_weight, column_weight = closeness(near_row, v, height), closeness(near_column, u, width)
    near_row, near_column = np.clip(near_row, 0, height - 1), np.clip(near_column, 0, width - 1)
    wanted = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
    weights = np.empty((len(steps) ** 2, *picture.shape[:2]), np.float32)
    for k, (i, j) in enumerate(np.ndindex(len(steps), len(steps))):
        off = guide[:, near_row[i]][:, :, near_column[j]] - wanted
        off *= off
        like = np.exp((off[0] + off[1] + off[2]) * np.float32(-0.5 / _SIGMA_COLOUR**2))
        like += np.float32(_FLOOR)
        weights[k] = like * row_weight[i][:, None] * column_weight[j]
    index = np.arange(len(steps))
    pick_rows = near_row[np.repeat(index, len(steps))][:, :, None]
    pick_columns = near_column[np.tile(index, len(steps))][:, None, :]
    return weights, np.broadcast_arrays(pick_rows, pick_columns)  # type: ignore[return-value]


def _continued(
    inverse: np.ndarray,
    slopes: tuple[np.ndarray, np.ndarray],
    picks: tuple[np.ndarray, np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """Inverse depths (25, rows, columns) that the surfaces around have at the source pixels.

    A plane's inverse depth is linear in the picture, so on a plane all 25 agree.
    """
    here = inverse[picks]
    to_row = (v.astype(np.float32)[:, None] - picks[0]).astype(np.float32)
    to_column = (u.astype(np.float32) - picks[1]).astype(np.float32)
    change = slopes[0][picks] * to_row + slopes[1][picks] * to_column
    return here + np.clip(change, -_MOST_CHANGE * here, _MOST_CHANGE * here)


def _vote(weights: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Depth (rows, columns): the mean of the inverse depths on the side with most weight."""
    shape = weights.shape[1:]
    inverse = inverse.reshape(len(inverse), -1)
    weights = weights.reshape(len(weights), -1) * (inverse > 0)
    torn = np.arange(weights.shape[1])
    for _ in range(3):
        w, values = weights[:, torn], inverse[:, torn]
        near = np.where(w > 0, values, np.float32(0)).max(axis=0)
        far = np.where(w > 0, values, np.float32(np.inf)).min(axis=0)
        still = (near > far * _ONE_SURFACE) & np.isfinite(far)
        torn, w, is_near = torn[still], w[:, still], (values > 0.5 * (near + far))[:, still]
        if len(torn) == 0:
            break
        near_wins = (w * is_near).sum(axis=0) > (w * ~is_near).sum(axis=0)
        weights[:, torn] = np.where(is_near == near_wins, w, np.float32(0))
    total, mean = weights.sum(axis=0), (weights * inverse).sum(axis=0)
    return np.divide(total, mean, out=np.zeros_like(total), where=mean > 0).reshape(shape)
