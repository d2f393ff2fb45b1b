"""Points as they travel to a browser: 9 bytes each, without a loss that could be seen.

Coordinates are sent as half floats (11 significant bits) relative to the centre of the camera that
saw the points, in units of the scene's median depth. A half float's error is at most 2^-11 of the
coordinate, so it grows with the distance from that camera as the footprint of its pixels does
(1/f of the depth, f around 400 pixels): a fifth of a pixel at most, near and far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Float32, UInt8

_FURTHEST = 60000.0
"""Half floats end at 65504; what lies further out (in median depths) is put there."""


class Packed(NamedTuple):
    """A cloud ready to be sent: `points * unit + origin` are the world points."""

    points: Float16[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]
    origin: Float[np.ndarray, " 3"]
    unit: float

    @property
    def world(self) -> Float32[np.ndarray, "k 3"]:
        """What the browser makes of it, in world coordinates."""
        return (self.points.astype(np.float64) * self.unit + self.origin).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of points and colours on the wire."""
        return int(self.points.nbytes + self.colors.nbytes)


def pack(
    points_world: Float[np.ndarray, "k 3"],
    colors: UInt8[np.ndarray, "k 3"],
    origin: Float[np.ndarray, " 3"],
    unit: float,
) -> Packed:
    """World points relative to `origin` (a camera centre) in units of `unit`, as half floats.

    Browsers get no empty buffers: a cloud without points is one point far out of sight.
    """
    assert unit > 0
    if len(points_world) == 0:
        far = np.full((1, 3), _FURTHEST, np.float16)
        return Packed(far, np.zeros((1, 3), np.uint8), np.asarray(origin, np.float64), unit)
    relative = (points_world.astype(np.float64) - origin) / unit
    half = np.clip(relative, -_FURTHEST, _FURTHEST).astype(np.float16)
    return Packed(half, np.ascontiguousarray(colors), np.asarray(origin, np.float64), unit)


def add_cloud(
    scene_api: Any, name: str, cloud: Packed, *, point_size: float, visible: bool = True
) -> Any:
    """A viser node for the cloud; `point_size` is in world units."""
    return scene_api.add_point_cloud(
        name,
        cloud.points,
        cloud.colors,
        point_size=point_size / cloud.unit,
        point_shape="circle",
        point_shading="flat",
        precision="float16",
        scale=cloud.unit,
        position=cloud.origin,
        visible=visible,
    )


def quat_wxyz(R: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 4"]:
    """Unit quaternion of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(R).as_quat(), 1)
