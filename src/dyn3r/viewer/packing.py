"""Compact point clouds for the browser: 9 bytes per point, error below a pixel footprint.

Coordinates are sent as half floats (11 significant bits) relative to the centre of the camera that
observed the points, in units of the scene's median depth. The error of a half float is at most
2^-11 of the coordinate. It grows with the distance from that camera as the footprint of a pixel
does (1/f of the depth, f around 400 pixels), so it is at most a fifth of a pixel at any distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8

_MAX_COORDINATE = 60000.0
"""Limit of the coordinates, in median depths; half floats end at 65504."""
POINT_RADIUS = 1.0
"""Radius of a disc in distances of neighbouring points: discs overlap, also where a surface is
twice as far away as the median."""


class PackedCloud(NamedTuple):
    """Point cloud in the wire format: `points * unit + origin` are the world points."""

    points: Float16[np.ndarray, "k 3"]
    """Coordinates relative to `origin` in units of `unit`."""
    colors: UInt8[np.ndarray, "k 3"]
    """sRGB, 0..255."""
    origin: Float[np.ndarray, " 3"]
    """Camera centre in world coordinates."""
    unit: float
    """Scene units per unit of `points`."""
    spacing: float
    """Distance of neighbouring points of a surface at their median depth, in scene units."""

    @property
    def world(self) -> Float32[np.ndarray, "k 3"]:
        """World points as the browser reconstructs them."""
        world: np.ndarray = self.points.astype(np.float64) * self.unit + self.origin
        return world.astype(np.float32)


def pack(
    points_world: Float[np.ndarray, "k 3"],
    colors: UInt8[np.ndarray, "k 3"],
    origin: Float[np.ndarray, " 3"],
    unit: float,
    spacing: float,
) -> PackedCloud:
    """World points relative to `origin` (a camera centre) in units of `unit`, as half floats.

    Browsers accept no empty buffers: an empty cloud becomes one black point at the coordinate
    limit.
    """
    assert unit > 0
    if len(points_world) == 0:
        far = np.full((1, 3), _MAX_COORDINATE, np.float16)
        colors, half = np.zeros((1, 3), np.uint8), far
    else:
        relative = (points_world.astype(np.float64) - origin) / unit
        half = np.clip(relative, -_MAX_COORDINATE, _MAX_COORDINATE).astype(np.float16)
    centre = np.asarray(origin, np.float64)
    return PackedCloud(half, np.ascontiguousarray(colors), centre, unit, spacing)


def point_size(cloud: PackedCloud, factor: float) -> float:
    """viser's size of the points of a cloud: the radius of a disc, in the unit of the cloud."""
    return factor * POINT_RADIUS * cloud.spacing / cloud.unit


def add_cloud(
    scene_api: Any, name: str, cloud: PackedCloud, *, factor: float = 1.0, visible: bool = True
) -> Any:
    """Add a viser node for the cloud and return it; `factor` scales the points."""
    return scene_api.add_point_cloud(
        name,
        cloud.points,
        cloud.colors,
        point_size=point_size(cloud, factor),
        point_shape="circle",
        point_shading="flat",
        precision="float16",
        scale=cloud.unit,
        position=cloud.origin,
        visible=visible,
    )


def quat_wxyz(R: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 4"]:
    """Unit quaternion of a rotation matrix, w first."""
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(R).as_quat(), 1)
