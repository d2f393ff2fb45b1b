"""Cameras of programs that record with a phone: Polycam and Record3D; other programs are named.

Both have the axes of ARKit, which are OpenGL's: x right, y up, z backward; camera to world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.camera_list import OPENCV_FROM_OPENGL, CameraList, rigid, shaped, unit_quaternions
from dyn3r.io.images import natural_key
from dyn3r.io.numbers import FOCAL_PX, LARGEST_LENGTH, LARGEST_SIDE_PX, checked_number
from dyn3r.io.regular_files import read_json

_MAX_FILES = 100_000
_OTHERS = {
    "odometry.csv": "Stray Scanner",
    "*.traj": "ARKitScenes",
    "frame_00000.json": "ARKit (3D Scanner App)",
    "*.xml": "Agisoft Metashape",
    "reconstruction.json": "OpenSfM",
    "poses_bounds.npy": "LLFF",
    "bundle.out": "Bundler",
    "*.fbx": "a 3D program (FBX)",
    "*.abc": "a 3D program (Alembic)",
    "*.r3d": "Record3D that is packed (unpack it as a zip archive, and give its metadata)",
}


def polycam_folder(source: Path) -> Path | None:
    """The folder of cameras in a Polycam recording: after its adjustment, else before."""
    for folder in (source / "keyframes", source):
        for name in ("corrected_cameras", "cameras"):
            if (folder / name).is_dir() and any((folder / name).glob("*.json")):
                return folder / name
    return None


def read_polycam(folder: Path) -> CameraList:
    """Read `cameras/` or `corrected_cameras/` of a Polycam recording: one JSON file per image.

    Intrinsics are taken with integers at pixel corners, as nerfstudio reads them.

    Raises InputError for damaged files.
    """
    files = sorted(folder.glob("*.json"), key=natural_key)[:_MAX_FILES]
    T, K = np.tile(np.eye(4), (len(files), 1, 1)), np.zeros((len(files), 3, 3))
    sizes = []
    for k, file in enumerate(files):
        camera = read_json(file)
        if not isinstance(camera, dict) or "t_00" not in camera:
            raise InputError(f"{file} is no camera of Polycam")
        names = [f"t_{row}{column}" for row in range(3) for column in range(4)]
        T[k, :3] = np.reshape([_length(camera[name], name) for name in names], (3, 4))
        fx, fy, cx, cy = (
            checked_number(camera[name], name, low=-FOCAL_PX[1], high=FOCAL_PX[1])
            for name in ("fx", "fy", "cx", "cy")
        )
        K[k] = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
        sizes.append([
            checked_number(camera[name], name, low=1, high=LARGEST_SIDE_PX)
            for name in ("width", "height")
        ])  # fmt: skip
    names = [file.stem for file in files]
    return CameraList(T @ OPENCV_FROM_OPENGL, K, np.array(sizes), names, remark="Polycam")


def _length(value: Any, name: str) -> float:
    return checked_number(value, name, low=-LARGEST_LENGTH, high=LARGEST_LENGTH)


def read_record3d(content: dict[str, Any], source: Path) -> CameraList:
    """Read `metadata.json` of a Record3D recording; its images are 0.jpg, 1.jpg, ...

    `poses` are qx qy qz qw tx ty tz, `K` is written column by column. Raises InputError for others.
    """
    poses = np.array(content["poses"], dtype=np.float64)
    if poses.ndim != 2 or poses.shape[1] != 7 or not len(poses) or not np.isfinite(poses).all():
        raise InputError(f"{source} is no metadata of Record3D: poses must be lists of 7 numbers")
    T = rigid(unit_quaternions(poses[:, :4], source), poses[:, 4:])
    K = shaped(np.array(content["K"], dtype=np.float64).reshape(1, 3, 3), (3, 3), source)
    K = np.swapaxes(K, 1, 2).copy()
    K[:, :2, 2] -= 0.5
    size = [checked_number(content[name], name, low=1, high=LARGEST_SIDE_PX) for name in ("w", "h")]
    return CameraList(
        T @ OPENCV_FROM_OPENGL, np.repeat(K, len(T), axis=0), np.tile(size, (len(T), 1)),
        [str(k) for k in range(len(T))], remark="Record3D",
    )  # fmt: skip


def check_other_programs(source: Path) -> None:
    """Raise InputError, with its name, for files of a program whose cameras are not read.

    `source` is a file, or a folder that has one.
    """
    for pattern, program in _OTHERS.items():
        if source.match(pattern) or (source.is_dir() and any(source.glob(pattern))):
            raise not_read(source, f"a recording of {program}")


def not_read(source: Path, what: str) -> InputError:
    """The error for cameras of a program that dyn3r does not read."""
    return InputError(
        f"{source} is {what}, whose cameras are not read: convert them to transforms.json, for "
        "example with ns-process-data of nerfstudio"
    )
