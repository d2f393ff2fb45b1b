"""Cameras of a COLMAP model from its pair of files cameras.bin and images.bin, without pycolmap.

Little-endian (docs/design/DATASETS.md, 2.8). COLMAP stores world to camera, quaternions w first,
and has integers at pixel corners; `read_colmap_pair` returns our conventions. pycolmap, which
`dyn3r.io.camera_layouts` uses, refuses models without points.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.cameras import inverse_poses, known_K, known_poses, pinhole
from dyn3r.datasets.files import poses_from_quaternions
from dyn3r.errors import InputError

MODELS = {0: (3, 1), 1: (4, 2), 2: (4, 1), 3: (5, 1), 4: (8, 2)}
"""Numbers of parameters and of focal lengths of SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL and
OPENCV; what follows the principal point is distortion."""
MAX_NAME, MAX_QUATERNION = 1024, 1e6
"""Bytes of a name; entries of a quaternion, which COLMAP writes with length 1."""
_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_OBSERVATION_BYTES = 24


class ColmapCameras(NamedTuple):
    """Cameras in the order of the file."""

    stems: list[str]
    """Names of the images without suffixes."""
    T_world_camera: Float[np.ndarray, "k 4 4"]
    """Camera to world."""
    K: Float[np.ndarray, "k 3 3"]
    """Intrinsics, pixels, integers at pixel centres."""
    distorted: bool
    """Whether a lens has distortion, which K leaves out."""


def read_colmap_pair(folder: Path) -> ColmapCameras:
    """Read `folder/{cameras,images}.bin`.

    Raises:
        InputError: a file is missing, truncated or not of this kind.
    """
    lenses = _read(folder / "cameras.bin", _lens)
    rows = _read(folder / "images.bin", _image)
    K_of = {camera: K for camera, K, _ in lenses}
    unknown = {camera for *_, camera, _ in rows} - set(K_of)
    if unknown:
        raise InputError(f"{folder / 'images.bin'} names cameras that cameras.bin lacks: {unknown}")
    T = _poses(np.array([numbers for numbers, _, _ in rows]), folder / "images.bin")
    return ColmapCameras(
        stems=[Path(name).stem for *_, name in rows],
        T_world_camera=inverse_poses(T),
        K=np.stack([K_of[camera] for _, camera, _ in rows]),
        distorted=any(distorted for *_, distorted in lenses),
    )


def _poses(table: Float[np.ndarray, "k 7"], file: Path) -> Float[np.ndarray, "k 4 4"]:
    """World to camera, from rows of a quaternion (w, x, y, z) and a translation."""
    if not np.isfinite(table).all() or (np.abs(table[:, :4]) > MAX_QUATERNION).any():
        raise InputError(f"{file} has a pose that is not finite")
    return known_poses(poses_from_quaternions(table[:, 4:], table[:, [1, 2, 3, 0]], file), file)


def _read(file: Path, item: Any) -> list[Any]:
    """Every item of a file, which starts with their number."""
    try:
        with file.open("rb") as stream:
            (count,) = _unpack(stream, _COUNT, file)
            if not 0 < count <= os.fstat(stream.fileno()).st_size:
                raise InputError(f"{file} announces {count} entries")
            return [item(stream, file) for _ in range(count)]
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _lens(stream: BinaryIO, file: Path) -> tuple[int, Float[np.ndarray, "3 3"], bool]:
    """Number, intrinsics, and whether there is distortion."""
    number, model, _, _ = _unpack(stream, _CAMERA, file)
    if model not in MODELS:
        raise InputError(f"{file} has a camera of model {model}, expected one of {list(MODELS)}")
    count, focals = MODELS[model]
    params = _unpack(stream, struct.Struct(f"<{count}d"), file)
    cx, cy, *distortion = params[focals:]
    K = pinhole(params[0], params[focals - 1], cx - 0.5, cy - 0.5)
    return number, known_K(K[None], file)[0], any(distortion)


def _image(stream: BinaryIO, file: Path) -> tuple[list[float], int, str]:
    """Quaternion (w, x, y, z) and translation, number of the camera, name."""
    _, *numbers, camera = _unpack(stream, _IMAGE, file)
    start = stream.tell()
    name, end, _ = stream.read(MAX_NAME).partition(b"\0")
    if not end:
        raise InputError(f"{file} has a name without an end")
    stream.seek(start + len(name) + 1)
    (observations,) = _unpack(stream, _COUNT, file)
    here, size = stream.tell(), os.fstat(stream.fileno()).st_size
    if observations * _OBSERVATION_BYTES > size - here:
        raise InputError(f"{file} is truncated")
    stream.seek(here + observations * _OBSERVATION_BYTES)
    return numbers, camera, name.decode("utf-8", "replace")


def _unpack(stream: BinaryIO, layout: struct.Struct, file: Path) -> tuple[Any, ...]:
    data = stream.read(layout.size)
    if len(data) != layout.size:
        raise InputError(f"{file} is truncated")
    return layout.unpack(data)
