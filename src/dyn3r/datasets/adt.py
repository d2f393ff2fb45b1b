"""Aria Digital Twin clips of TAPVid-3D (Pan 2023, Koppula 2024): egocentric videos, camera paths.

Layouts (docs/design/DATASETS.md, 2.9): `NAME.npz` with `images_jpeg_bytes`, `fx_fy_cx_cy` and, in
some releases, `extrinsics_w2c`; prepared `NAME/rgb/%06d.png` with `NAME/camera/%06d.json`, or the
same below `NAME/prepare_all_stride5`.
"""

from __future__ import annotations

import zipfile
import zlib
from functools import lru_cache, partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.lib.format as formats
from jaxtyping import Float, Shaped, UInt8

from dyn3r.datasets.cameras import (
    inverse_poses,
    known_K,
    known_poses,
    lost_notes,
    pinhole,
    read_prepared_cameras,
)
from dyn3r.datasets.encoded import decode_rgb
from dyn3r.datasets.files import image_files, listing, per_file, read_npz, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.images import first_line, natural_key, visible_files

CLIPS = (
    "Apartment_release_decoration_seq138_5", "Apartment_release_multiskeleton_party_seq117_4",
    "Apartment_release_multiskeleton_party_seq121_1",
    "Apartment_release_multiskeleton_party_seq121_2", "Apartment_release_multiuser_cook_seq118_8",
    "Apartment_release_multiuser_cook_seq144_4", "Apartment_release_work_seq140_1",
    "Lite_release_recognition_BirdHouseToy_seq030_6",
)  # fmt: skip
"""The clips of the published table, of 300 frames each. Source: DATASETS.md, 2.9."""

PICTURES, LENS, PATH = "images_jpeg_bytes", "fx_fy_cx_cy", "extrinsics_w2c"
STRIDE_FOLDER, STRIDE = "prepare_all_stride5", 5
FPS = 30.0
MAX_BYTES = 1 << 30
"""Larger arrays of pictures are refused unread; a clip has some 30 MB."""

# What damaged archives raise, be it in zipfile, zlib, NumPy or its parser of headers.
_BROKEN = (OSError, ValueError, EOFError, LookupError, TypeError, RuntimeError, SyntaxError,
           MemoryError, zipfile.BadZipFile, zlib.error, TokenError)  # fmt: skip


def sequences(root: Path) -> list[Sequence]:
    """Every clip, not only `CLIPS`. There is no depth, and no camera path where a .npz has none.

    A clip that is there as .npz and as prepared folder is read from the .npz, unless its pictures
    are pickled, which is never unpacked.

    Raises:
        InputError: no clip, pickled pictures, folders whose counts differ, damaged files.
    """
    out = {p.name: _prepared(p) for p in _folders(root)}
    for file in _archives(root):
        count = _count(file)
        if count is not None:
            out[file.stem] = _from_npz(file, count)
        elif file.stem not in out:
            raise InputError(
                f"{file}: {PICTURES} holds pickled objects, which are not read for safety; "
                f"use the prepared layout {file.stem}/{{rgb,camera}}"
            )
    if not out:
        raise InputError(
            f"{root} is not ADT: expected NAME.npz with {PICTURES}, NAME/{{rgb,camera}} or "
            f"NAME/{STRIDE_FOLDER}/{{rgb,camera}}, found {listing(root)}"
        )
    return [out[name] for name in sorted(out)]


def _archives(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return [f for f in visible_files(root) if f.suffix == ".npz" and PICTURES in _keys(f)]


def _folders(root: Path) -> list[Path]:
    """Folders with anything of a prepared clip."""
    names = ("camera", STRIDE_FOLDER)
    children = [p for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    return [p for p in children if any((p / name).is_dir() for name in names)]


def _prepared(clip: Path) -> Sequence:
    whole = (clip / "camera").is_dir() and (clip / "rgb").is_dir()
    folder = clip if whole or not (clip / STRIDE_FOLDER).is_dir() else clip / STRIDE_FOLDER
    images = image_files(folder / "rgb")
    cameras = sorted((folder / "camera").glob("*.json"), key=natural_key)
    if [f.stem for f in images] != [f.stem for f in cameras]:
        raise InputError(
            f"{folder}: {len(images)} pictures of rgb do not match {len(cameras)} .json files of "
            f"camera by name"
        )
    T, K = read_prepared_cameras(cameras)
    return Sequence(
        name=clip.name,
        frame_names=tuple(f.stem for f in images),
        image=per_file(images, read_rgb),
        T_world_camera=T,
        K=K,
        fps=FPS if folder == clip else FPS / STRIDE,
        prepared_for=None if folder == clip else "easi3r/adt",
        notes=lost_notes(T),
    )


def _from_npz(file: Path, count: int) -> Sequence:
    lens = _numbers(file, LENS)
    if lens.shape != (4,):
        raise InputError(f"{file}: {LENS} has the shape {lens.shape}, expected (4,)")
    T = _camera_path(file, count) if PATH in _keys(file) else None
    return Sequence(
        name=file.stem,
        frame_names=tuple(f"{i:06d}" for i in range(count)),
        image=partial(_picture, file),
        T_world_camera=T,
        K=known_K(np.tile(pinhole(*lens.tolist()), (count, 1, 1)), file),
        fps=FPS,
        notes=(f"the file has no camera path ({PATH})",) if T is None else lost_notes(T),
    )


def _camera_path(file: Path, count: int) -> Float[np.ndarray, "n 4 4"]:
    w2c = _numbers(file, PATH)
    if w2c.shape != (count, 4, 4):
        raise InputError(f"{file}: {PATH} has the shape {w2c.shape}, expected {(count, 4, 4)}")
    return inverse_poses(known_poses(w2c.astype(np.float64), file))


def _numbers(file: Path, key: str) -> Shaped[np.ndarray, "..."]:
    try:
        return read_npz(file, key)
    except _BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def _picture(file: Path, index: int) -> UInt8[np.ndarray, "h w 3"]:
    return decode_rgb(bytes(_pictures(file)[index]), f"{file}, frame {index}")


@lru_cache(maxsize=1)
def _pictures(file: Path) -> Shaped[np.ndarray, " n"]:
    """The encoded pictures of a file, which is kept until another one is read."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[PICTURES]
    except _BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def _keys(file: Path) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {Path(name).stem for name in archive.namelist()}
    except _BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def _count(file: Path) -> int | None:
    """Number of pictures by the array's header; None if they are pickled objects."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{PICTURES}.npy") as stream:
            v1 = formats.read_magic(stream) == (1, 0)
            header = formats.read_array_header_1_0 if v1 else formats.read_array_header_2_0
            shape, _, dtype = header(stream)
    except _BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    if dtype.hasobject:
        return None
    if len(shape) != 1 or dtype.kind != "S" or not 0 < shape[0] * dtype.itemsize <= MAX_BYTES:
        raise InputError(f"{file}: {PICTURES} is {dtype} {shape}, expected byte strings (T,)")
    return shape[0]
