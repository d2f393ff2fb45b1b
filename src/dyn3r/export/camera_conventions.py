"""Camera conventions of other programs: axes, pixel centres, quaternions, upright worlds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from dyn3r.io.camera_list import OPENCV_FROM_OPENGL
from dyn3r.scene import Scene
from dyn3r.scene.upright import find_up, horizontal_axes

OPENGL_FROM_OPENCV = OPENCV_FROM_OPENGL  # its own inverse


def quaternions_wxyz(T: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4"]:
    """Unit quaternions of the rotations, w first and not negative."""
    from scipy.spatial.transform import Rotation

    xyzw = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    wxyz = np.roll(xyzw, 1, axis=1)
    positive: np.ndarray = np.where(wxyz[:, :1] < 0, -wxyz, wxyz)
    return positive


def continuous_quaternions(quat: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """The same rotations with signs so that neighbours interpolate along the shorter arc."""
    flips = np.sign((quat[1:] * quat[:-1]).sum(axis=1))
    signs = np.concatenate([[1.0], np.cumprod(np.where(flips == 0, 1.0, flips))])
    continuous: np.ndarray = quat * signs[:, None]
    return continuous


def K_at_pixel_corners(K: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """K for programs with integers at pixel *corners* (COLMAP, nerfstudio): c + 0.5."""
    out = np.array(K, dtype=np.float64)
    out[:, :2, 2] += 0.5
    return out


def is_K_constant(K: Float[np.ndarray, "n 3 3"]) -> bool:
    """True if all frames have the same K, to a millionth of the focal length."""
    return bool(np.abs(K - K[0]).max() <= 1e-6 * K[0, 0, 0])


def y_up(scene: Scene) -> Float[np.ndarray, "4 4"]:
    """Rigid map from the scene's world to a world with y up, x right and -z ahead (glTF, USD).

    Right and ahead are those of the first camera. The ground lies at y = 0, or the lowest camera
    does if no ground was found.
    """
    up = find_up(scene)
    right, ahead = horizontal_axes(scene, up.up_world)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, up.up_world, -ahead])
    heights = scene.T_world_camera[:, :3, 3] @ up.up_world
    T[1, 3] = -(heights.min() if up.ground_height is None else up.ground_height)
    return T


def z_up(scene: Scene) -> Float[np.ndarray, "4 4"]:
    """Rigid map from the scene's world to a world with z up, x right and y ahead (nerfstudio).

    The ground lies at z = 0, as at y = 0 in `y_up`.
    """
    z_up_from_y_up = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    T: np.ndarray = z_up_from_y_up @ y_up(scene)
    return T


def transform_points(
    T: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "k 3"]
) -> Float32[np.ndarray, "k 3"]:
    """Points mapped by T."""
    moved: np.ndarray = points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    return moved.astype(np.float32)
