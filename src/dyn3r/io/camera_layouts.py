"""Readers of camera files: nerfstudio, COLMAP, TUM, KITTI, NumPy, and folders of other programs.

Cameras are brought to our axes and pixels (docs/conventions.md): camera to world, x right, y down,
z forward, integer pixel centres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.archives import open_arrays
from dyn3r.io.camera_list import OPENCV_FROM_OPENGL, CameraList, QuaternionOrder, shaped
from dyn3r.io.camera_paths import read_path
from dyn3r.io.images import open_image
from dyn3r.io.lens_models import LARGEST_COEFFICIENT, check_model, lens_of
from dyn3r.io.numbers import FOCAL_PX, LARGEST_SIDE_PX, checked_number
from dyn3r.io.phone_cameras import (
    check_other_programs,
    not_read,
    polycam_folder,
    read_polycam,
    read_record3d,
)
from dyn3r.io.regular_files import check_regular, read_json, read_text
from dyn3r.io.text import counted
from dyn3r.types import Lens

_MAX_BYTES = 256_000_000
_MAX_FRAMES = 1_000_000
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_PINHOLE_PARAMS = ("f", "fx", "fy", "cx", "cy")


def read_camera_list(
    source: Path, source_wh: tuple[int, int], quaternion: QuaternionOrder = "auto"
) -> CameraList:
    """Read a file or folder of any layout that `dyn3r.io.camera_files.read_camera_file` lists.

    `source_wh`: width and height of the source, for files that give none. Raises InputError for a
    missing file and an unknown layout, MissingExtraError for a COLMAP model without pycolmap. A
    damaged file raises what its parser raises.
    """
    if source.is_dir():
        return _folder(source, source_wh, quaternion)
    check_regular(source)
    if source.stat().st_size > _MAX_BYTES:
        raise InputError(f"{source} is too large for a file of cameras")
    suffix = source.suffix.lower()
    check_other_programs(source)
    if suffix == ".json" or source.name == "metadata":  # of Record3D
        return _json(source, source_wh)
    return _npz(source) if suffix == ".npz" else read_path(source, quaternion)


def _folder(source: Path, source_wh: tuple[int, int], quaternion: QuaternionOrder) -> CameraList:
    if (source / "transforms.json").is_file():
        return _json(source / "transforms.json", source_wh)
    for folder in (source, source / "sparse" / "0", source / "sparse"):
        if any((folder / f"images{end}").is_file() for end in (".txt", ".bin")):
            return _colmap(folder)
    if polycam := polycam_folder(source):
        return read_polycam(polycam)
    if (source / "pred_traj.txt").is_file():
        return _official(source, quaternion)
    if (source / "groundtruth.txt").is_file():
        return read_path(source / "groundtruth.txt", quaternion)
    for name in ("metadata.json", "metadata"):
        if (source / name).is_file():
            return _json(source / name, source_wh)
    check_other_programs(source)
    raise InputError(
        f"{source} holds no cameras: transforms.json, a COLMAP model, a TUM or Polycam folder, "
        "or a dyn3r scene"
    )


def _official(folder: Path, quaternion: QuaternionOrder) -> CameraList:
    """Path and intrinsics of our format `official`, and of MonST3R: K of its own images."""
    path = read_path(folder / "pred_traj.txt", quaternion)
    intrinsics, image = folder / "pred_intrinsics.txt", folder / "frame_0000.png"
    if not (intrinsics.is_file() and image.is_file()):
        return path
    rows = [line.split() for line in read_text(intrinsics).splitlines() if line.strip()]
    K = shaped(np.array(rows, dtype=np.float64).reshape(-1, 3, 3), (3, 3), intrinsics)
    if len(K) != len(path):
        raise InputError(f"{folder} has {counted(len(path), 'camera')} and {len(K)} intrinsics")
    sizes = np.tile(np.array(open_image(image).size, dtype=np.float64), (len(K), 1))
    return replace(path, K=K, sizes_wh=sizes)


def _npz(source: Path) -> CameraList:
    with open_arrays(source) as arrays:
        poses = [name for name in ("T_world_camera", "cam2world") if name in arrays]
        T = shaped(arrays.read(poses[0]), (4, 4), source) if poses else None
        K = arrays.read("K") if "K" in arrays else None
        names = [str(name) for name in arrays.read("names").ravel()] if "names" in arrays else []
        for name in set(arrays.names) & {"D", "dist", "dist_coeffs", "distortion"}:
            if np.any(arrays.read(name)):
                raise InputError(
                    f"{source} has lens distortion ({name}), which is read from transforms.json "
                    "and COLMAP models only"
                )
    if T is None and K is None:
        raise InputError(f"{source} has neither T_world_camera (or cam2world) nor K")
    if K is not None:
        K = shaped(K[None] if K.ndim == 2 else K, (3, 3), source)
        if len(K) == 1 and T is not None:
            K = np.repeat(K, len(T), axis=0)
        if T is not None and len(K) != len(T):
            raise InputError(f"{source} has {counted(len(T), 'camera')} and {len(K)} K")
    count = len(T if T is not None else K)  # type: ignore[arg-type]
    if names and len(names) != count:
        raise InputError(
            f"{source} has {counted(count, 'camera')} and {counted(len(names), 'name')}"
        )
    return CameraList(T, K, names=names)


def _json(source: Path, source_wh: tuple[int, int]) -> CameraList:
    content = read_json(source)
    if isinstance(content, dict):
        if "poses" in content and "frames" not in content:
            return read_record3d(content, source)
        if "cameraPoseARFrame" in content:
            raise not_read(source, "a camera file of ARKit (3D Scanner App)")
        if "t_00" in content:
            raise InputError(f"{source} is one camera of Polycam: give the folder of all")
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{source} lists no frames")
    if len(frames) > _MAX_FRAMES:
        raise InputError(f"{source} lists {len(frames)} frames: more than dyn3r reads")
    T = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
    if T.shape[1:] == (3, 4):
        T = np.concatenate([T, np.tile([[[0.0, 0, 0, 1]]], (len(T), 1, 1))], axis=1)
    T = shaped(T, (4, 4), source)
    shared = {key: value for key, value in content.items() if key != "frames"}
    cameras = [{**shared, **frame} for frame in frames]
    sizes = np.array([_nerfstudio_size(camera, source_wh) for camera in cameras])
    K = np.stack([_nerfstudio_K(camera, size) for camera, size in zip(cameras, sizes)])
    lenses = [_nerfstudio_lens(camera, k) for camera, k in zip(cameras, K)]
    names = [frame["file_path"] for frame in frames]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{source} has a file_path that is no text")
    return CameraList(T @ OPENCV_FROM_OPENGL, K, sizes, names, lenses=lenses)


def _nerfstudio_K(
    camera: Mapping[str, Any], size_wh: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "3 3"]:
    """Intrinsics; integers are pixel corners in the file. NaN without a focal length."""
    low, high = FOCAL_PX
    focal = [math.nan, math.nan]
    for axis, (name, angle) in enumerate((("fl_x", "camera_angle_x"), ("fl_y", "camera_angle_y"))):
        if name in camera:
            focal[axis] = checked_number(camera[name], name, low=low, high=high)
        elif angle in camera:
            radians = checked_number(camera[angle], angle, low=1e-3, high=3.14)
            focal[axis] = size_wh[axis] / 2 / math.tan(radians / 2)
    fx, fy = focal[0], focal[0] if math.isnan(focal[1]) else focal[1]
    cx, cy = (
        checked_number(camera[name], name, low=-high, high=high) if name in camera else length / 2
        for name, length in zip(("cx", "cy"), size_wh.tolist())
    )
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def _nerfstudio_size(camera: Mapping[str, Any], source_wh: tuple[int, int]) -> tuple[float, float]:
    """Width and height; those of the source where the file has none."""
    w, h = (
        checked_number(camera[name], name, low=1, high=LARGEST_SIDE_PX)
        if name in camera
        else float(length)
        for name, length in zip(("w", "h"), source_wh)
    )
    return w, h


def _nerfstudio_lens(camera: Mapping[str, Any], K: Float[np.ndarray, "3 3"]) -> Lens | None:
    model = camera.get("camera_model", "OPENCV")
    if not isinstance(model, str):
        raise InputError("camera_model must be a text")
    if camera.get("is_fisheye"):
        model = "OPENCV_FISHEYE"
    listed = camera.get("distortion_params", [])
    if not isinstance(listed, list) or len(listed) not in (0, 4, 6):
        raise InputError("distortion_params must be k1, k2, k3, k4, p1, p2")
    values: dict[str, Any] = dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), listed))
    values |= {key: camera[key] for key in _COEFFICIENTS if key in camera}
    checked = {
        key: checked_number(value, key, low=-LARGEST_COEFFICIENT, high=LARGEST_COEFFICIENT)
        for key, value in values.items()
    }
    return lens_of(model, checked, K)


def _colmap(folder: Path) -> CameraList:
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("pycolmap", "colmap", "reading a COLMAP model") from None
    try:
        model = pycolmap.Reconstruction(str(folder))
    except Exception as problem:
        raise InputError(f"{folder} is no COLMAP model: {problem!s:.100}") from None
    T, K, sizes, names, lenses = [], [], [], [], []
    for image in model.images.values():
        if not image.has_pose:
            continue
        matrix = np.eye(4)
        matrix[:3] = image.cam_from_world().inverse().matrix()
        T.append(matrix)
        sizes.append((image.camera.width, image.camera.height))
        names.append(image.name)
        lenses.append(_colmap_lens(image.camera))
        K.append(_colmap_K(image.camera))
    if not T:
        raise InputError(f"{folder} has no registered images")
    wh = np.array(sizes, dtype=np.float64)
    return CameraList(np.stack(T), np.stack(K), wh, names, lenses=lenses)


def _colmap_K(camera: Any) -> Float[np.ndarray, "3 3"]:
    K = np.array(camera.calibration_matrix())
    K[:2, 2] -= 0.5  # integers are pixel corners in the file
    return K


def _colmap_lens(camera: Any) -> Lens | None:
    model = str(camera.model.name)
    params = dict(zip(camera.params_info.replace(" ", "").split(","), camera.params.tolist()))
    others = {key: value for key, value in params.items() if key not in _PINHOLE_PARAMS}
    check_model(model)  # before K is read, which some models do not have
    return lens_of(model, others, _colmap_K(camera), rational=model == "FULL_OPENCV")
