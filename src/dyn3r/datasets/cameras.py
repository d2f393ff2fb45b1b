"""Cameras that several data sets store alike: checks, inverses, and the prepared camera JSON.

Every function raises InputError, in one line that names the source, for values that are no camera.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.files import read_json
from dyn3r.errors import InputError

ROTATION_TOLERANCE = 0.01
"""Largest entry of R R^T - 1 of a rotation; files keep six decimals or more."""


def known_poses(T: Float[np.ndarray, "n 4 4"], source: Path) -> Float[np.ndarray, "n 4 4"]:
    """Rigid transforms, either direction; one with an infinity or NaN becomes NaN throughout."""
    T = T.astype(np.float64)
    lost = ~np.isfinite(T).all(axis=(1, 2))
    T[lost] = np.nan
    R = T[~lost, :3, :3].clip(-2, 2)  # so that products of damaged values stay finite
    rigid = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < ROTATION_TOLERANCE
    rigid &= (np.linalg.det(R) > 0) & (T[~lost, 3] == [0, 0, 0, 1]).all(axis=1)
    if not rigid.all():
        row = np.flatnonzero(~lost)[np.argmin(rigid)]
        raise InputError(
            f"{source}: pose {row} is no rotation and translation: {T[row].round(3).tolist()}"
        )
    return T


def inverse_poses(T: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """Transforms of the other direction; rows of NaN stay."""
    out = np.full_like(T, np.nan)
    known = np.isfinite(T).all(axis=(1, 2))
    out[known] = np.linalg.inv(T[known])
    return out


def known_K(K: Float[np.ndarray, "n 3 3"], source: Path) -> Float[np.ndarray, "n 3 3"]:
    """Intrinsics with finite values and positive focal lengths."""
    K = K.astype(np.float64)
    if not np.isfinite(K).all() or (K[:, 0, 0] <= 0).any() or (K[:, 1, 1] <= 0).any():
        raise InputError(f"{source} has intrinsics that are infinite or without a focal length")
    return K


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """Intrinsics without skew, pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def lost_notes(T: Float[np.ndarray, "n 4 4"]) -> tuple[str, ...]:
    """A note on frames without pose, if there are any."""
    lost = int((~np.isfinite(T).all(axis=(1, 2))).sum())
    return (f"{lost} of {len(T)} frames have no pose",) if lost else ()


def json_array(content: Any, key: str, shape: tuple[int, ...], file: Path) -> np.ndarray:
    """The array of numbers `key` of the content of a JSON file, float64."""
    try:
        array = np.array(content[key], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise InputError(f"{file} has no numbers '{key}' of shape {shape}") from None
    if array.shape != shape:
        raise InputError(f"{file}: '{key}' has the shape {array.shape}, expected {shape}")
    return array


def read_prepared_cameras(
    files: list[Path],
) -> tuple[Float[np.ndarray, "n 4 4"], Float[np.ndarray, "n 3 3"]]:
    """Camera-to-world transforms and K of files `{"w2c": 4x4, "K": 3x3}`, one a frame.

    The form that the published preparation of ADT and iPhone writes (docs/design/DATASETS.md, 2.8
    and 2.9).
    """
    T, K = [], []
    for file in files:
        content = read_json(file)
        T.append(known_poses(json_array(content, "w2c", (4, 4), file)[None], file)[0])
        K.append(known_K(json_array(content, "K", (3, 3), file)[None], file)[0])
    return inverse_poses(np.stack(T)), np.stack(K)
