"""Software rendering of points as discs: images without a browser or a graphics card."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dyn3r.viewer.raster import EMPTY, Layer

_MAX_RADIUS_PX = 8


class Discs(NamedTuple):
    """Coloured discs that face the camera."""

    points: Float32[np.ndarray, "k 3"]
    """World coordinates."""
    colors: UInt8[np.ndarray, "k 3"]
    """sRGB."""
    radii: Float32[np.ndarray, " k"]
    """World units."""

    @classmethod
    def joined(cls, parts: list[Discs]) -> Discs:
        """The discs of all parts."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts)))


def render_discs(
    discs: Discs,
    *,
    T_world_camera: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size_hw: tuple[int, int],
) -> Layer:
    """Image of the discs with a depth buffer; they are at most 8 pixels in radius.

    The nearest disc of each pixel wins by the depth of its centre, the first of several at one
    depth. Points closer than their radius to the camera are left out.
    """
    keys = _nearest_keys(discs, T_world_camera, K, size_hw)
    hit = keys != EMPTY
    depth = np.full(len(keys), np.inf, np.float32)
    depth[hit] = (keys[hit] >> 32).astype(np.int32).view(np.float32)
    rgb = np.zeros((len(keys), 3), np.uint8)
    rgb[hit] = discs.colors[keys[hit] & 0xFFFFFFFF]
    return Layer(depth.reshape(size_hw), rgb.reshape(*size_hw, 3))


def _nearest_keys(
    discs: Discs,
    T_world_camera: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size_hw: tuple[int, int],
) -> Int[np.ndarray, " hw"]:
    """Depth and index of the nearest disc of each pixel in one number; see `render_discs`."""
    h, w = size_hw
    R, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    camera = ((discs.points - centre) @ R).astype(np.float32)
    radii = discs.radii
    index = np.flatnonzero(camera[:, 2] > np.maximum(radii, 1e-12))
    x, y, z = camera[index].T
    u = np.rint(K[0, 0] * x / z + K[0, 2])
    v = np.rint(K[1, 1] * y / z + K[1, 2])
    size = np.clip(np.rint(K[1, 1] * radii[index] / z - 0.5), 0, _MAX_RADIUS_PX)
    seen = (u >= -size) & (u < w + size) & (v >= -size) & (v < h + size)
    column, row, size = (a[seen].astype(np.int64) for a in (u, v, size))
    return _disc_keys(row, column, size, z[seen], index[seen], size_hw)


def _disc_keys(
    row: Int[np.ndarray, " k"],
    column: Int[np.ndarray, " k"],
    radius_px: Int[np.ndarray, " k"],
    depth: Float[np.ndarray, " k"],
    index: Int[np.ndarray, " k"],
    size_hw: tuple[int, int],
) -> Int[np.ndarray, " hw"]:
    """Key of the nearest disc of each pixel, row-major; `EMPTY` where there is none."""
    h, w = size_hw
    # Positive floats sort as their bits do. Depth and index share one number, so the minimum over
    # a pixel is the nearest point, and the lowest index of several at one depth.
    key = (depth.view(np.int32).astype(np.int64) << 32) | index
    nearest = np.full(h * w, EMPTY)
    for r in np.unique(radius_px):
        of_size = np.flatnonzero(radius_px == r)
        for dy, dx in _disc(int(r)):
            i, j = row[of_size] + dy, column[of_size] + dx
            inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
            np.minimum.at(nearest, (i * w + j)[inside], key[of_size[inside]])
    return nearest


def _disc(r: int) -> list[tuple[int, int]]:
    """Pixel offsets (dy, dx) within a disc of radius r."""
    span = range(-r, r + 1)
    return [(dy, dx) for dy in span for dx in span if dy * dy + dx * dx <= (r + 0.3) ** 2]
