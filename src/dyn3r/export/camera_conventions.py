"""From our cameras to other programs': inverse transforms, other axes, other pixel centres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dyn3r.scene import Scene
from dyn3r.scene.upright import find_up, horizontal_axes

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes x right, y down, z forward <-> x right, y up, z backward (its own inverse)."""


def invert_rigid(T: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """Camera-to-world -> world-to-camera, and back."""
    out = np.tile(np.eye(4), (len(T), 1, 1))
    R_transposed = T[:, :3, :3].transpose(0, 2, 1)
    out[:, :3, :3] = R_transposed
    out[:, :3, 3] = -(R_transposed @ T[:, :3, 3:])[..., 0]
    return out


def quaternions_wxyz(T: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4"]:
    """Unit quaternions of the rotations, w first and never negative."""
    from scipy.spatial.transform import Rotation

    xyzw = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    wxyz = np.roll(xyzw, 1, axis=1)
    return np.where(wxyz[:, :1] < 0, -wxyz, wxyz)


def continuous(quat: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Signs chosen so that neighbours interpolate along the short way."""
    flips = np.sign((quat[1:] * quat[:-1]).sum(axis=1))
    signs = np.concatenate([[1.0], np.cumprod(np.where(flips == 0, 1.0, flips))])
    return quat * signs[:, None]


def corner_K(K: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """K for programs in which integers are pixel *corners* (COLMAP, nerfstudio): c + 0.5."""
    out = np.array(K, dtype=np.float64)
    out[:, :2, 2] += 0.5
    return out


def y_up(scene: Scene) -> Float[np.ndarray, "4 4"]:
    """World -> the same world with y up, x right, -z ahead as the first camera sees it (glTF, USD).

    Rigid. The ground, where one was found, lies at y = 0 (else the lowest camera does).
    """
    up = find_up(scene)
    right, ahead = horizontal_axes(scene, up.up_world)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, up.up_world, -ahead])
    heights = scene.T_world_camera[:, :3, 3] @ up.up_world
    T[1, 3] = -(heights.min() if up.ground_height is None else up.ground_height)
    return T


def z_up(scene: Scene) -> Float[np.ndarray, "4 4"]:
    """World -> the same world with z up, x right, y ahead (nerfstudio). Rigid; ground at z = 0."""
    return np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ y_up(scene)


def move(T: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "k 3"]) -> np.ndarray:
    """Points (k, 3) through T, as float32."""
    return (points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]).astype(np.float32)


def one_K(K: Float[np.ndarray, "n 3 3"]) -> bool:
    """True if all frames share one K (to a millionth of the focal length)."""
    return bool(np.abs(K - K[0]).max() <= 1e-6 * K[0, 0, 0])
