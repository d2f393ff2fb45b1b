"""Checks of the fields of a Scene."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.text import storable, storable_json

Fields = Mapping[str, Any]
"""The fields of a Scene by name."""


def checked_fields(fields: Fields) -> dict[str, Any]:
    """The fields in the documented types. Raises InputError for the first that is wrong."""
    out = _coerced(fields)
    _check(out)
    return out


def _coerced(fields: Fields) -> dict[str, Any]:
    """Fields with numbers in the documented types; float64 depth is rounded."""
    out = dict(fields)
    wanted = {
        "depth": np.float32,
        "confidence": np.float32,
        "K": np.float64,
        "T_world_camera": np.float64,
        "times_s": np.float64,
        "sigma_log_depth": np.float32,
        "up_world": np.float64,
        "frame_quality": np.float64,
        "dynamic_map": np.float32,
    }
    for name, dtype in wanted.items():
        if out[name] is not None:
            try:
                with np.errstate(over="ignore"):  # becomes infinite, which _check refuses
                    out[name] = np.asarray(out[name], dtype=dtype)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} of a scene must be an array of numbers") from error
    names = tuple(storable(n) if isinstance(n, str) else n for n in out["names"])
    metadata = storable_json(out["metadata"])
    return {**out, "names": names, "fps": float(out["fps"]), "metadata": metadata}


def _check(fields: Fields) -> None:
    """Raise InputError for the first field that does not fit."""
    images = fields["images"]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            f"images of a scene must be uint8 (n,h,w,3), not {images.dtype} {images.shape}"
        )
    n, h, w = images.shape[:3]
    _check_shapes(fields, n, h, w)
    if fields["dynamic"].dtype != np.bool_:
        raise InputError(f"dynamic of a scene must be bool, not {fields['dynamic'].dtype}")
    for name in ("depth", "confidence", "sigma_log_depth", "frame_quality", "dynamic_map"):
        value = fields[name]
        if value is not None and not (np.isfinite(value).all() and (value >= 0).all()):
            raise InputError(f"{name} of a scene must be finite and not negative")
    if (
        not np.isfinite(fields["times_s"]).all()
        or not np.isfinite(fields["fps"])
        or fields["fps"] < 0
    ):
        raise InputError("times_s and fps of a scene must be finite, and fps not negative")
    if not all(isinstance(name, str) for name in fields["names"]):
        raise InputError("names of a scene must be strings")
    _check_cameras(fields)
    up, ground = fields["up_world"], fields["ground_height"]
    if up is not None and not abs(np.linalg.norm(up) - 1) < 1e-6:
        raise InputError("up_world of a scene must be a unit vector")
    if ground is not None and not np.isfinite(ground):
        raise InputError("ground_height of a scene must be finite")
    try:
        json.dumps(fields["metadata"], allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata of a scene must be valid JSON: {error}") from error


def _check_shapes(fields: Fields, n: int, h: int, w: int) -> None:
    wanted: dict[str, tuple[int, ...]] = {
        "depth": (n, h, w),
        "confidence": (n, h, w),
        "dynamic": (n, h, w),
        "sigma_log_depth": (n, h, w),
        "up_world": (3,),
        "K": (n, 3, 3),
        "T_world_camera": (n, 4, 4),
        "times_s": (n,),
        "frame_quality": (n,),
    }
    for name, shape in wanted.items():
        value = fields[name]
        if value is not None and value.shape != shape:
            raise InputError(f"{name} of a scene must have the shape {shape}, not {value.shape}")
    if len(fields["names"]) != n:
        raise InputError(f"a scene of {n} frames needs {n} names, not {len(fields['names'])}")
    grid = fields["dynamic_map"]
    if grid is not None and (grid.ndim != 3 or len(grid) != n or 0 in grid.shape):
        raise InputError(f"dynamic_map of a scene must be ({n},gh,gw), not {grid.shape}")
    if tuple(fields["mapping"].size_hw) != (h, w):
        raise InputError(
            f"the mapping is for frames of {fields['mapping'].size_hw}, but the images are {(h, w)}"
        )


def _check_cameras(fields: Fields) -> None:
    K, T = fields["K"], fields["T_world_camera"]
    if not np.isfinite(K).all() or not np.isfinite(T).all():
        raise InputError("K and T_world_camera of a scene must be finite")
    upper = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    focal = np.stack([K[:, 0, 0], K[:, 1, 1]])
    if (focal <= 0).any() or (np.abs(K[:, upper]) > 1e-6 * focal.max()).any():
        raise InputError("K of a scene must be [[fx,0,cx],[0,fy,cy],[0,0,1]] with fx, fy > 0")
    if np.abs(K[:, 2, 2] - 1).max() > 1e-9:
        raise InputError("K of a scene must have 1 in its last entry")
    R = T[:, :3, :3]
    off = np.abs(R.transpose(0, 2, 1) @ R - np.eye(3)).max(axis=(1, 2))
    bad = (off > 1e-3) | (np.linalg.det(R) < 0)
    bad |= np.abs(T[:, 3] - [0, 0, 0, 1]).max(axis=1) > 1e-9
    if bad.any():
        raise InputError(
            f"T_world_camera of frame {int(np.flatnonzero(bad)[0])} is no rigid transform "
            "(a rotation without mirror or scale, a translation, last row 0 0 0 1)"
        )
