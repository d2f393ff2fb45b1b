"""Software rendering of surfaces: quads with a depth buffer, without a graphics card.

Each quad is sampled on a grid as fine as the pixels that it covers (micropolygons, as in Reyes;
Cook et al. 1987), and the samples are drawn as points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

_MAX_SAMPLES = 32
"""Largest number of samples along a side; larger quads are split."""
_MAX_SPLITS = 7
_BITS = 5  # of a sample's row and of its column in a key
EMPTY = np.iinfo(np.int64).max


class Layer(NamedTuple):
    """Image with depth."""

    depth: Float32[np.ndarray, "h w"]
    """Along the optical axis; infinite where nothing was drawn."""
    rgb: UInt8[np.ndarray, "h w 3"]
    """Colours."""

    def over(self, other: Layer) -> Layer:
        """The nearer of two layers at every pixel; of equal ones this one."""
        mine = self.depth <= other.depth
        return Layer(
            np.where(mine, self.depth, other.depth), np.where(mine[..., None], self.rgb, other.rgb)
        )


class Mesh(NamedTuple):
    """Coloured quads."""

    points: Float32[np.ndarray, "k 3"]
    """World coordinates."""
    colors: UInt8[np.ndarray, "k 3"]
    """sRGB."""
    quads: Int[np.ndarray, "m 4"]
    """Indices of points, around the quad."""


def joined(meshes: list[Mesh]) -> Mesh:
    """One mesh of several."""
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    return Mesh(
        np.concatenate([np.zeros((0, 3), np.float32), *(mesh.points for mesh in meshes)]),
        np.concatenate([np.zeros((0, 3), np.uint8), *(mesh.colors for mesh in meshes)]),
        np.concatenate(
            [np.zeros((0, 4), np.int64), *(m.quads + start for m, start in zip(meshes, starts))]
        ),
    )


def render_mesh(
    mesh: Mesh,
    *,
    T_world_camera: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size_hw: tuple[int, int],
    near: float,
) -> Layer:
    """Image of the quads; colours are interpolated. Quads nearer than `near` are left out."""
    R, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    camera = ((mesh.points - centre) @ R).astype(np.float32)
    z = camera[:, 2]
    safe = np.maximum(z, near)
    u = (K[0, 0] * camera[:, 0] / safe + K[0, 2]).astype(np.float32)
    v = (K[1, 1] * camera[:, 1] / safe + K[1, 2]).astype(np.float32)
    corners = np.stack([u, v, z], axis=-1)[mesh.quads]
    index = np.flatnonzero(_visible(corners, size_hw, near))
    patches = Patches(
        corners[index], index, np.zeros((len(index), 2), np.float32),
        np.ones(len(index), np.float32),
    )  # fmt: skip
    for _ in range(_MAX_SPLITS):
        large = patches.extent > _MAX_SAMPLES - 1
        if not large.any():
            break
        parts = patches.part(large).split()
        parts = parts.part(_visible(parts.corners, size_hw, near))
        patches = Patches(*(np.concatenate(p) for p in zip(patches.part(~large), parts)))
    counts = np.clip(np.ceil(patches.extent) + 1, 1, _MAX_SAMPLES).astype(np.int64)
    keys = _sample(patches.corners, counts, size_hw)
    return _resolved(keys, mesh, patches, counts, size_hw)


class Patches(NamedTuple):
    """Quads, or parts of them, in the image."""

    corners: Float32[np.ndarray, "m 4 3"]
    """Column and row in pixels, and depth, around the patch."""
    quad: Int[np.ndarray, " m"]
    """The quad that each is a part of."""
    origin: Float32[np.ndarray, "m 2"]
    """Where the patch begins along the first and the second side of the quad, 0..1."""
    size: Float32[np.ndarray, " m"]
    """Its share of both sides."""

    @property
    def extent(self) -> Float32[np.ndarray, " m"]:
        """Larger side of the box around each, in pixels."""
        box: np.ndarray = np.ptp(self.corners[..., :2], axis=1).max(axis=-1, initial=0)
        return box

    def part(self, chosen: Bool[np.ndarray, " m"]) -> Patches:
        """Some of the patches."""
        return Patches(*(field[chosen] for field in self))

    def split(self) -> Patches:
        """Four patches in place of each."""
        a, b, c, d = (self.corners[:, k] for k in range(4))
        ab, bc, cd, da = (a + b) / 2, (b + c) / 2, (c + d) / 2, (d + a) / 2
        middle = (ab + cd) / 2
        corners = [(a, ab, middle, da), (ab, b, bc, middle), (middle, bc, c, cd),
                   (da, middle, cd, d)]  # fmt: skip
        places = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) / 2
        return Patches(
            np.concatenate([np.stack(part, axis=1) for part in corners]),
            np.tile(self.quad, 4),
            np.concatenate([self.origin + self.size[:, None] * place for place in places]),
            np.tile(self.size / 2, 4),
        )


def _visible(
    corners: Float32[np.ndarray, "m 4 3"], size_hw: tuple[int, int], near: float
) -> Bool[np.ndarray, " m"]:
    """Patches before the camera whose box meets the image."""
    h, w = size_hw
    low, high = corners.min(axis=1), corners.max(axis=1)
    inside = (high[:, 0] > -1) & (low[:, 0] < w) & (high[:, 1] > -1) & (low[:, 1] < h)
    return (low[:, 2] > near) & inside


def _sample(
    corners: Float32[np.ndarray, "m 4 3"], counts: Int[np.ndarray, " m"], size_hw: tuple[int, int]
) -> Int[np.ndarray, " hw"]:
    """Depth, quad and sample of the nearest sample of every pixel in one number, row-major."""
    h, w = size_hw
    nearest = np.full(h * w, EMPTY)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        a, b, c, d = (corners[rows, k] for k in range(4))
        for i in range(count):
            share = np.float32((i + 0.5) / count)
            left, right = a + share * (b - a), d + share * (c - d)
            for j in range(count):
                sample = left + np.float32((j + 0.5) / count) * (right - left)
                x, y, z = np.ascontiguousarray(sample.T)
                column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
                # positive floats sort as their bits do
                key = z.view(np.int32).astype(np.int64) << 32
                key |= (rows << (2 * _BITS)) | (i << _BITS) | j
                np.minimum.at(nearest, (row * w + column)[inside], key[inside])
    return nearest


def _resolved(
    keys: Int[np.ndarray, " hw"],
    mesh: Mesh,
    patches: Patches,
    counts: Int[np.ndarray, " m"],
    size_hw: tuple[int, int],
) -> Layer:
    """Depth and colours of the samples that won."""
    depth = np.full(len(keys), np.inf, np.float32)
    rgb = np.zeros((len(keys), 3), np.uint8)
    hit = np.flatnonzero(keys != EMPTY)
    key = keys[hit]
    depth[hit] = (key >> 32).astype(np.int32).view(np.float32)
    low = key & 0xFFFFFFFF
    row = low >> (2 * _BITS)
    mask = (1 << _BITS) - 1
    samples = np.stack([(low >> _BITS) & mask, low & mask], axis=-1) + 0.5
    share = patches.origin[row] + patches.size[row, None] * samples / counts[row, None]
    s, t = share.astype(np.float32).T[..., None]
    quad = patches.quad[row]
    a, b, c, d = (mesh.colors[mesh.quads[quad, k]].astype(np.float32) for k in range(4))
    mixed = (1 - t) * (a + s * (b - a)) + t * (d + s * (c - d))
    rgb[hit] = np.rint(mixed).astype(np.uint8)
    return Layer(depth.reshape(size_hw), rgb.reshape(*size_hw, 3))
