"""Checks of the fields of a Scene."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.numbers import FOCAL_PX, LARGEST_LENGTH, LARGEST_TIME_S, checked_number
from dyn3r.io.text import counted, storable, storable_json
from dyn3r.types import FrameMapping

REQUIRED = ("depth", "confidence", "K", "T_world_camera", "times_s")
MAX_FPS = 1e6
"""Largest rate of a scene; cameras for fast motion reach 1e5."""
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
        if out[name] is not None or name in REQUIRED:
            try:
                with np.errstate(over="ignore"):  # becomes infinite, which _check refuses
                    out[name] = np.asarray(out[name], dtype=dtype)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} of a scene must be an array of numbers") from error
    fps = checked_number(out["fps"], "fps of a scene", low=0, high=MAX_FPS)
    if out["ground_height"] is not None:
        limit = LARGEST_LENGTH
        checked_number(out["ground_height"], "ground_height of a scene", low=-limit, high=limit)
    if not isinstance(out["names"], (list, tuple)):
        raise InputError("names of a scene must be a list of strings")
    names = tuple(storable(n) if isinstance(n, str) else n for n in out["names"])
    try:
        metadata = storable_json(out["metadata"])
    except RecursionError:
        raise InputError("metadata of a scene is nested too deep") from None
    return {**out, "names": names, "fps": fps, "metadata": metadata}


def _check(fields: Fields) -> None:
    """Raise InputError for the first field that does not fit."""
    images = fields["images"]
    for name in ("images", "dynamic", "dynamic_probability"):
        optional = name == "dynamic_probability" and fields[name] is None
        if not optional and not isinstance(fields[name], np.ndarray):
            raise InputError(
                f"{name} of a scene must be an array, not {type(fields[name]).__name__}"
            )
    if not isinstance(fields["mapping"], FrameMapping):
        raise InputError("mapping of a scene must be a FrameMapping")
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            f"images of a scene must be uint8 (n,h,w,3), not {images.dtype} {images.shape}"
        )
    n, h, w = images.shape[:3]
    _check_mapping(fields["mapping"], n, (h, w))
    _check_maps(fields, n, h, w)
    for name, kind in (("dynamic", np.bool_), ("dynamic_probability", np.uint8)):
        value = fields[name]
        if value is not None and value.dtype != kind:
            raise InputError(f"{name} of a scene must be {np.dtype(kind)}, not {value.dtype}")
    for name in ("depth", "confidence", "sigma_log_depth", "dynamic_map"):
        value = fields[name]
        if value is not None and not (np.isfinite(value).all() and (value >= 0).all()):
            raise InputError(f"{name} of a scene must be finite and not negative")
    check_frames(fields, n)


def _check_mapping(mapping: FrameMapping, n: int, size_hw: tuple[int, int]) -> None:
    """Raise InputError for lenses and mappings of single frames that do not fit n frames."""
    frames = counted(n, "frame")
    if len(mapping.frame_lenses) not in (0, n):
        raise InputError(f"a scene of {frames} needs {n} lenses, if each frame has its own")
    own = mapping.frame_mappings
    if len(own) not in (0, n) or any(each.size_hw != size_hw for each in own):
        raise InputError(f"a scene of {frames} needs {n} mappings, if its images differ in size")


def check_frames(fields: Fields, n: int) -> None:
    """Raise InputError for cameras, times, names or metadata that do not fit n frames.

    These are all fields but the images and maps, which take the memory.
    """
    wanted: dict[str, tuple[int, ...]] = {
        "K": (n, 3, 3), "T_world_camera": (n, 4, 4), "times_s": (n,), "frame_quality": (n,),
        "up_world": (3,),
    }  # fmt: skip
    _check_shapes(fields, wanted)
    names, fps, quality = fields["names"], fields["fps"], fields.get("frame_quality")
    if len(names) != n or not all(isinstance(name, str) for name in names):
        raise InputError(f"a scene of {counted(n, 'frame')} needs {n} names, which are strings")
    if not (np.abs(fields["times_s"]) <= LARGEST_TIME_S).all() or not 0 <= fps <= MAX_FPS:
        raise InputError("times_s and fps of a scene must be finite, and fps not negative")
    if quality is not None and not (np.isfinite(quality).all() and (quality >= 0).all()):
        raise InputError("frame_quality of a scene must be finite and not negative")
    _check_cameras(fields)
    up, ground = fields.get("up_world"), fields.get("ground_height")
    if up is not None and not abs(np.linalg.norm(up) - 1) < 1e-6:
        raise InputError("up_world of a scene must be a unit vector")
    if ground is not None and not abs(ground) <= LARGEST_LENGTH:
        raise InputError("ground_height of a scene must be finite")
    _check_metadata(fields["metadata"])


def _check_metadata(metadata: Any) -> None:
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata of a scene must be valid JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError("metadata of a scene must be a dictionary")


def _check_maps(fields: Fields, n: int, h: int, w: int) -> None:
    maps = ("depth", "confidence", "dynamic", "sigma_log_depth", "dynamic_probability")
    _check_shapes(fields, dict.fromkeys(maps, (n, h, w)))
    grid = fields["dynamic_map"]
    if grid is not None and (grid.ndim != 3 or len(grid) != n or 0 in grid.shape):
        raise InputError(f"dynamic_map of a scene must be ({n},gh,gw), not {grid.shape}")
    if tuple(fields["mapping"].size_hw) != (h, w):
        raise InputError(
            f"the mapping is for frames of {fields['mapping'].size_hw}, but the images are {(h, w)}"
        )


def _check_shapes(fields: Fields, wanted: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in wanted.items():
        value = fields.get(name)
        if value is not None and value.shape != shape:
            raise InputError(f"{name} of a scene must have the shape {shape}, not {value.shape}")


def _check_cameras(fields: Fields) -> None:
    K, T = fields["K"], fields["T_world_camera"]
    if not np.isfinite(K).all() or not np.isfinite(T).all():
        raise InputError("K and T_world_camera of a scene must be finite")
    upper = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    focal = np.stack([K[:, 0, 0], K[:, 1, 1]])
    if ((focal < FOCAL_PX[0]) | (focal > FOCAL_PX[1])).any():
        raise InputError(
            f"K of a scene must have fx, fy > 0, in {FOCAL_PX[0]:g}..{FOCAL_PX[1]:g} pixels"
        )
    if (np.abs(K[:, upper]) > 1e-6 * focal.max()).any() or np.abs(K).max() > FOCAL_PX[1]:
        raise InputError("K of a scene must be [[fx,0,cx],[0,fy,cy],[0,0,1]] with fx, fy > 0")
    if np.abs(K[:, 2, 2] - 1).max() > 1e-9:
        raise InputError("K of a scene must have 1 in its last entry")
    if np.abs(T[:, :3, 3]).max() > LARGEST_LENGTH:
        raise InputError(f"cameras of a scene must lie within {LARGEST_LENGTH:g} of the origin")
    R = T[:, :3, :3].clip(-2, 2)
    off = np.abs(R.transpose(0, 2, 1) @ R - np.eye(3)).max(axis=(1, 2))
    bad = (off > 1e-3) | (np.linalg.det(R) < 0)
    bad |= np.abs(T[:, 3] - [0, 0, 0, 1]).max(axis=1) > 1e-9
    if bad.any():
        raise InputError(
            f"T_world_camera of frame {int(np.flatnonzero(bad)[0])} is no rigid transform "
            "(a rotation without mirror or scale, a translation, last row 0 0 0 1)"
        )
