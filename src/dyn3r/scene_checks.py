"""What a Scene must hold, checked when it is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from dyn3r.errors import InputError

if TYPE_CHECKING:
    from dyn3r.scene import Scene


def coerce_fields(scene: Scene) -> None:
    """Bring numbers to the documented types (float64 depth is welcome, it is just rounded)."""
    wanted = {
        "depth": np.float32,
        "confidence": np.float32,
        "K": np.float64,
        "T_world_camera": np.float64,
        "times_s": np.float64,
        "uncertainty": np.float32,
        "frame_quality": np.float64,
        "dynamic_map": np.float32,
    }
    for name, dtype in wanted.items():
        value = getattr(scene, name)
        if value is not None:
            try:
                with np.errstate(over="ignore"):  # becomes infinite, which check_fields refuses
                    object.__setattr__(scene, name, np.asarray(value, dtype=dtype))
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} of a scene must be an array of numbers") from error
    object.__setattr__(scene, "names", tuple(scene.names))
    object.__setattr__(scene, "fps", float(scene.fps))


def check_fields(scene: Scene) -> None:
    """Raise InputError, with one line for a person, at the first field that does not fit."""
    images = scene.images
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            f"images of a scene must be uint8 (n,h,w,3), not {images.dtype} {images.shape}"
        )
    n, h, w = images.shape[:3]
    _check_shapes(scene, n, h, w)
    if scene.dynamic.dtype != np.bool_:
        raise InputError(f"dynamic of a scene must be bool, not {scene.dynamic.dtype}")
    for name in ("depth", "confidence", "uncertainty", "frame_quality", "dynamic_map"):
        value = getattr(scene, name)
        if value is not None and not (np.isfinite(value).all() and (value >= 0).all()):
            raise InputError(f"{name} of a scene must be finite and not negative")
    if not np.isfinite(scene.times_s).all() or not np.isfinite(scene.fps) or scene.fps < 0:
        raise InputError("times_s and fps of a scene must be finite, and fps not negative")
    if not all(isinstance(name, str) for name in scene.names):
        raise InputError("names of a scene must be strings")
    _check_cameras(scene)
    try:
        json.dumps(scene.metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata of a scene must be what JSON can hold: {error}") from error


def _check_shapes(scene: Scene, n: int, h: int, w: int) -> None:
    wanted: dict[str, tuple[int, ...]] = {
        "depth": (n, h, w),
        "confidence": (n, h, w),
        "dynamic": (n, h, w),
        "uncertainty": (n, h, w),
        "K": (n, 3, 3),
        "T_world_camera": (n, 4, 4),
        "times_s": (n,),
        "frame_quality": (n,),
    }
    for name, shape in wanted.items():
        value = getattr(scene, name)
        if value is not None and value.shape != shape:
            raise InputError(f"{name} of a scene must have the shape {shape}, not {value.shape}")
    if len(scene.names) != n:
        raise InputError(f"a scene of {n} frames needs {n} names, not {len(scene.names)}")
    grid = scene.dynamic_map
    if grid is not None and (grid.ndim != 3 or len(grid) != n or 0 in grid.shape):
        raise InputError(f"dynamic_map of a scene must be ({n},gh,gw), not {grid.shape}")
    if tuple(scene.mapping.size_hw) != (h, w):
        raise InputError(
            f"the mapping is for frames of {scene.mapping.size_hw}, but the images are {(h, w)}"
        )


def _check_cameras(scene: Scene) -> None:
    K, T = scene.K, scene.T_world_camera
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
