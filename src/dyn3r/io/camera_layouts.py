"""Readers of camera files: nerfstudio, COLMAP, TUM, KITTI, NumPy.

Cameras are brought to our axes and pixels (docs/conventions.md): camera to world, x right, y down,
z forward, integer pixel centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.archives import open_arrays
from dyn3r.io.numbers import FOCAL_PX, LARGEST_SIDE_PX, checked_number
from dyn3r.io.regular_files import check_regular, read_json, read_text

_MAX_BYTES = 256_000_000
_MAX_FRAMES = 1_000_000
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
    check_regular(source)
    if source.stat().st_size > _MAX_BYTES:
        raise InputError(f"{source} is too large for a file of cameras")
    readers = {".json": _nerfstudio, ".npz": _npz}
    return readers.get(source.suffix.lower(), _text)(source)


def _npz(source: Path) -> CameraList:
    with open_arrays(source) as arrays:
        poses = [name for name in ("T_world_camera", "cam2world") if name in arrays]
        T = _shaped(arrays.read(poses[0]), (4, 4), source) if poses else None
        K = arrays.read("K") if "K" in arrays else None
        names = [str(name) for name in arrays.read("names").ravel()] if "names" in arrays else []
    if T is None and K is None:
        raise InputError(f"{source} has neither T_world_camera (or cam2world) nor K")
    if K is not None:
        K = _shaped(K[None] if K.ndim == 2 else K, (3, 3), source)
        if len(K) == 1 and T is not None:
            K = np.repeat(K, len(T), axis=0)
        if T is not None and len(K) != len(T):
            raise InputError(f"{source} has {len(T)} cameras and {len(K)} K")
    count = len(T if T is not None else K)  # type: ignore[arg-type]
    if names and len(names) != count:
        raise InputError(f"{source} has {count} cameras and {len(names)} names")
    return CameraList(T, K, stems=[Path(name).stem for name in names])


def _text(source: Path) -> CameraList:
    text = read_text(source).splitlines()
    lines = [line.split("#")[0].replace(",", " ").split() for line in text]
    widths = {len(line) for line in lines if line}
    if widths not in ({8}, {12}):
        raise InputError(f"{source} is no camera path: TUM has 8 numbers a line, KITTI has 12")
    try:
        table = np.array([line for line in lines if line], dtype=np.float64)
    except ValueError:
        raise InputError(
            f"{source} is no camera path: it holds words that are no numbers"
        ) from None
    if not np.isfinite(table).all():
        raise InputError(f"{source} holds numbers that are not finite")
    T = np.tile(np.eye(4), (len(table), 1, 1))
    if widths == {12}:
        T[:, :3] = table.reshape(-1, 3, 4)
        return CameraList(T)
    from scipy.spatial.transform import Rotation

    length = np.linalg.norm(table[:, 4:].clip(-1e3, 1e3), axis=1)
    if not ((length > 1e-3) & (length < 1e3)).all():
        raise InputError(f"{source} has a quaternion that is no rotation (its length is not 1)")
    T[:, :3, 3] = table[:, 1:4]
    T[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    return CameraList(T, times_s=table[:, 0])


def _nerfstudio(source: Path) -> CameraList:
    content = read_json(source)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{source} lists no frames")
    if len(frames) > _MAX_FRAMES:
        raise InputError(f"{source} lists {len(frames)} frames: more than dyn3r reads")
    T = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
    if T.shape[1:] == (3, 4):
        T = np.concatenate([T, np.tile([[[0.0, 0, 0, 1]]], (len(T), 1, 1))], axis=1)
    T = _shaped(T, (4, 4), source)
    shared = {key: value for key, value in content.items() if key != "frames"}
    lenses = [{**shared, **frame} for frame in frames]
    K = np.stack([_nerfstudio_K(lens) for lens in lenses])
    stems = [Path(frame["file_path"]).stem for frame in frames]
    sizes = np.array([_nerfstudio_size(lens) for lens in lenses])
    return CameraList(T @ _OPENCV_FROM_OPENGL, K, sizes, stems)


def _nerfstudio_K(lens: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics; integers are pixel corners in the file. NaN without a focal length."""
    low, high = FOCAL_PX
    if "fl_x" in lens:
        f = checked_number(lens["fl_x"], "fl_x", low=low, high=high)
    elif "camera_angle_x" in lens and "w" in lens:
        angle = checked_number(lens["camera_angle_x"], "camera_angle_x", low=1e-3, high=3.14)
        f = _nerfstudio_size(lens)[0] / 2 / math.tan(angle / 2)
    else:
        return np.full((3, 3), np.nan)
    fy = checked_number(lens.get("fl_y", f), "fl_y", low=low, high=high)
    cx, cy = (
        checked_number(lens[name], name, low=-high, high=high) if name in lens else length / 2
        for name, length in zip(("cx", "cy"), _nerfstudio_size(lens))
    )
    return np.array([[f, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def _nerfstudio_size(lens: dict[str, Any]) -> tuple[float, float]:
    """Width and height; NaN where the file has none."""
    w, h = (
        checked_number(lens[name], name, low=1, high=LARGEST_SIDE_PX) if name in lens else math.nan
        for name in ("w", "h")
    )
    return w, h


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
