"""Cameras of a file, in our axes and pixels, before they are matched with frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.types import Lens

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes x right, y up, z backward <-> x right, y down, z forward (its own inverse)."""

QuaternionOrder = Literal["auto", "xyzw", "wxyz"]
"""Order of the quaternions in a path of eight numbers a line."""


@dataclass(frozen=True)
class CameraList:
    """Cameras in the order of a file; NaN for values that it does not give."""

    T_world_camera: Float[np.ndarray, "k 4 4"] | None
    """Camera to world."""
    K: Float[np.ndarray, "k 3 3"] | None = None
    """Intrinsics in pixels of the images that the file is about."""
    sizes_wh: Float[np.ndarray, "k 2"] | None = None
    """Width and height of those images; None or NaN: those of the source."""
    names: Sequence[str] = ()
    """Image files of the rows; empty: the file has none."""
    stamps: Float[np.ndarray, " k"] | None = None
    """Times or numbers of the rows, as in the file."""
    lenses: Sequence[Lens | None] = ()
    """Distortion of the rows, in pixels of the images that the file is about; empty: none."""
    T_w_first: Float[np.ndarray, "k 4 4"] | None = None
    """`T_world_camera` if the quaternions of the file have w first; None: their order is known."""
    remark: str = ""
    """How the file was understood, for people."""

    def __len__(self) -> int:
        given = self.T_world_camera if self.T_world_camera is not None else self.K
        assert given is not None
        return len(given)


def shaped(array: np.ndarray, tail: tuple[int, int], source: Path) -> np.ndarray:
    """The array as float64. Raises InputError unless its shape is (k, *tail)."""
    if (
        array.ndim != 3
        or array.shape[1:] != tail
        or not len(array)
        or array.dtype.kind not in "iuf"
    ):
        raise InputError(f"{source}: cameras of shape {array.shape}, expected (k, {tail[0]}, ...)")
    out = array.astype(np.float64)
    if np.isinf(out).any():
        raise InputError(f"{source} holds numbers that are infinite")
    return out


def unit_quaternions(values: Float[np.ndarray, "k 4"], source: Path) -> Float[np.ndarray, "k 4"]:
    """Quaternions of length 1. Raises InputError for those that are far from any rotation."""
    length = np.linalg.norm(values.clip(-1e3, 1e3), axis=1, keepdims=True)
    if not ((length > 1e-3) & (length < 1e3)).all():
        raise InputError(f"{source} has a quaternion that is no rotation (its length is not 1)")
    unit: np.ndarray = values / length
    return unit


def rigid(
    xyzw: Float[np.ndarray, "k 4"], translation: Float[np.ndarray, "k 3"]
) -> Float[np.ndarray, "k 4 4"]:
    """Transforms of unit quaternions (w last) and translations."""
    from scipy.spatial.transform import Rotation

    T = np.tile(np.eye(4), (len(xyzw), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(xyzw).as_matrix()
    T[:, :3, 3] = translation
    return T
