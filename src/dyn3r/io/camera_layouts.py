"""Readers of camera files: nerfstudio, COLMAP, TUM, KITTI, NumPy.

Cameras are brought to our axes and pixels (docs/conventions.md): camera to world, x right, y down,
z forward, integer pixel centres.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError, MissingExtraError

_MAX_BYTES = 256_000_000
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class CameraList:
    """Cameras in the order of a file; NaN for values that it does not give."""

    T_world_camera: Float[np.ndarray, "k 4 4"] | None
    """Camera to world."""
    K: Float[np.ndarray, "k 3 3"] | None = None
    """Intrinsics in pixels of the images that the file is about."""
    sizes_wh: Float[np.ndarray, "k 2"] | None = None
    """Width and height of those images; None or NaN: those of the source."""
    stems: Sequence[str] = ()
    """Names of the images without suffixes; empty: rows in the order of the frames."""
    times_s: Float[np.ndarray, " k"] | None = None
    """Seconds since the start of the source."""


def read_camera_list(source: Path) -> CameraList:
    """Read a file or folder of any layout that `dyn3r.io.camera_files.read_camera_file` lists.

    Raises InputError for a missing file and an unknown layout, MissingExtraError for a COLMAP model
    without pycolmap. A damaged file raises what its parser raises.
    """
    if source.is_dir():
        if (source / "transforms.json").is_file():
            return _nerfstudio(source / "transforms.json")
        for folder in (source, source / "sparse" / "0", source / "sparse"):
            if any((folder / f"images{end}").is_file() for end in (".txt", ".bin")):
                return _colmap(folder)
        raise InputError(
            f"{source} holds no cameras: transforms.json, a COLMAP model or a dyn3r scene"
        )
    if not source.is_file():
        raise InputError(f"{source} does not exist")
    if source.stat().st_size > _MAX_BYTES:
        raise InputError(f"{source} is too large for a file of cameras")
    readers = {".json": _nerfstudio, ".npz": _npz}
    return readers.get(source.suffix.lower(), _text)(source)


def _npz(source: Path) -> CameraList:
    with np.load(source, allow_pickle=False) as arrays:
        T = next((arrays[name] for name in ("T_world_camera", "cam2world") if name in arrays), None)
        K = arrays.get("K")
        names = [str(name) for name in arrays.get("names", ())]
    if T is None and K is None:
        raise InputError(f"{source} has neither T_world_camera (or cam2world) nor K")
    if T is not None:
        T = _shaped(T, (4, 4), source)
    if K is not None:
        K = _shaped(K[None] if K.ndim == 2 else K, (3, 3), source)
        if len(K) == 1 and T is not None:
            K = np.repeat(K, len(T), axis=0)
        if T is not None and len(K) != len(T):
            raise InputError(f"{source} has {len(T)} cameras and {len(K)} K")
    return CameraList(T, K, stems=[Path(name).stem for name in names])


def _text(source: Path) -> CameraList:
    text = source.read_text().splitlines()
    lines = [line.split("#")[0].replace(",", " ").split() for line in text]
    widths = {len(line) for line in lines if line}
    if widths == {8}:
        from scipy.spatial.transform import Rotation

        table = np.array([line for line in lines if line], dtype=np.float64)
        T = np.tile(np.eye(4), (len(table), 1, 1))
        T[:, :3, 3] = table[:, 1:4]
        T[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
        return CameraList(T, times_s=table[:, 0])
    if widths == {12}:
        table = np.array([line for line in lines if line], dtype=np.float64)
        T = np.tile(np.eye(4), (len(table), 1, 1))
        T[:, :3] = table.reshape(-1, 3, 4)
        return CameraList(T)
    raise InputError(f"{source} is no camera path: TUM has 8 numbers a line, KITTI has 12")


def _nerfstudio(source: Path) -> CameraList:
    content = json.loads(source.read_text())
    frames = content["frames"]
    if not frames:
        raise InputError(f"{source} lists no frames")
    T = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
    if T.shape[1:] == (3, 4):
        T = np.concatenate([T, np.tile([[[0.0, 0, 0, 1]]], (len(T), 1, 1))], axis=1)
    K = np.stack([_nerfstudio_K({**content, **frame}) for frame in frames])
    stems = [Path(frame["file_path"]).stem for frame in frames]
    sizes = np.array([_nerfstudio_size({**content, **frame}) for frame in frames])
    return CameraList(_shaped(T, (4, 4), source) @ _OPENCV_FROM_OPENGL, K, sizes, stems)


def _nerfstudio_K(lens: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics; integers are pixel corners in the file. NaN without a focal length."""
    if "fl_x" in lens:
        f = float(lens["fl_x"])
    elif "camera_angle_x" in lens and "w" in lens:
        f = float(lens["w"]) / 2 / math.tan(float(lens["camera_angle_x"]) / 2)
    else:
        return np.full((3, 3), np.nan)
    cx, cy = (
        float(lens[name]) if name in lens else length / 2
        for name, length in zip(("cx", "cy"), _nerfstudio_size(lens))
    )
    return np.array([[f, 0, cx - 0.5], [0, float(lens.get("fl_y", f)), cy - 0.5], [0, 0, 1]])


def _nerfstudio_size(lens: dict[str, Any]) -> tuple[float, float]:
    return float(lens.get("w", math.nan)), float(lens.get("h", math.nan))


def _colmap(folder: Path) -> CameraList:
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("pycolmap", "colmap", "reading a COLMAP model") from None
    try:
        model = pycolmap.Reconstruction(str(folder))
    except Exception as problem:
        raise InputError(f"{folder} is no COLMAP model: {problem!s:.100}") from None
    T, K, sizes, stems = [], [], [], []
    for image in model.images.values():
        if not image.has_pose:
            continue
        matrix = np.eye(4)
        matrix[:3] = image.cam_from_world().inverse().matrix()
        intrinsics = np.array(image.camera.calibration_matrix())
        intrinsics[:2, 2] -= 0.5  # integers are pixel corners in the file
        T.append(matrix)
        K.append(intrinsics)
        sizes.append((image.camera.width, image.camera.height))
        stems.append(Path(image.name).stem)
    if not T:
        raise InputError(f"{folder} has no registered images")
    return CameraList(np.stack(T), np.stack(K), np.array(sizes, dtype=np.float64), stems)


def _shaped(array: np.ndarray, tail: tuple[int, int], source: Path) -> np.ndarray:
    """The array as float64. Raises InputError unless its shape is (k, *tail)."""
    if array.ndim != 3 or array.shape[1:] != tail or not len(array):
        raise InputError(f"{source}: cameras of shape {array.shape}, expected (k, {tail[0]}, ...)")
    return array.astype(np.float64)
