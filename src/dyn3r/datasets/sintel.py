"""MPI Sintel (Butler 2012): a rendered film with depth, cameras and optical flow.

Layout (docs/design/DATASETS.md, 2.2): `training/{clean,final}/SEQ/frame_%04d.png` from 0001, and
any of `depth/SEQ/*.dpt`, `camdata_left/SEQ/*.cam`, `flow/SEQ/*.flo` and, prepared by MonST3R,
`dynamic_label_perfect/SEQ/*.png` (pixels whose flow is not that of the camera). Without the latter,
masks are made by its rule from flow, depth and cameras. All files are little-endian and start with
the float 202021.25.
"""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from dyn3r.datasets.files import image_files, listing, per_file, read_index_png, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.images import first_line, visible_files

Rendering = Literal["clean", "final"]
TAG = 202021.25
MOVES_PX = 0.1
"""Difference from a static scene's flow above which a pixel moves. Source: DATASETS.md, 2.2."""
CAM_BYTES = 4 + 9 * 8 + 12 * 8


def sequences(root: Path, *, rendering: Rendering = "final") -> list[Sequence]:
    """Every sequence of a rendering, with the truth that its folders hold.

    The unit of depth and cameras is stated nowhere. The last frame has no flow and so no mask:
    reading it raises InputError.

    Raises:
        InputError: another layout; truth files that do not fit the pictures; damaged cameras.
    """
    base = root / "training" if (root / "training").is_dir() else root
    folder = base / rendering
    found = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not found:
        where = folder if folder.is_dir() else base
        raise InputError(
            f"{root} is not Sintel: expected training/{rendering}/SEQUENCE/frame_0001.png, "
            f"found {listing(where)}"
        )
    return [_sequence(base, pictures) for pictures in found]


def _sequence(base: Path, pictures: Path) -> Sequence:
    images = image_files(pictures)
    names = [f.stem for f in images]
    name = pictures.name
    depth = _truth(base / "depth" / name, ".dpt", names)
    cameras = _truth(base / "camdata_left" / name, ".cam", names)
    masks = _truth(base / "dynamic_label_perfect" / name, ".png", names, last=False)
    read = [read_cam(f) for f in cameras or []]
    K, T = (np.stack(values) for values in zip(*read)) if read else (None, None)
    mask = partial(_label, masks) if masks else None
    if mask is None and depth is not None and K is not None and T is not None:
        flow = _truth(base / "flow" / name, ".flo", names, last=False)
        mask = partial(_moving, flow, depth, K, T) if flow else None
    return Sequence(
        name=name,
        frame_names=tuple(names),
        image=per_file(images, read_rgb),
        depth=None if depth is None else per_file(depth, _depth),
        mask=mask,
        T_world_camera=T,
        K=K,
        unit="arbitrary",
        mask_kind="moves",
    )


def _truth(folder: Path, suffix: str, names: list[str], *, last: bool = True) -> list[Path] | None:
    """Truth files of the pictures `names`, None for no folder; without `last`, all but the last."""
    if not folder.is_dir():
        return None
    files = sorted(f for f in visible_files(folder) if f.suffix == suffix)
    found = [f.stem for f in files]
    if found != names and (last or found != names[:-1]):
        count = str(len(names)) if last else f"{len(names) - 1} or {len(names)}"
        raise InputError(
            f"{folder}: expected {count} files {names[0]}{suffix} to {names[-1]}{suffix} like the "
            f"pictures, found {len(files)}: {listing(folder)}"
        )
    return files


def _depth(file: Path) -> Float32[np.ndarray, "h w"]:
    depth = read_dpt(file)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _label(files: list[Path], index: int) -> Bool[np.ndarray, "h w"]:
    return read_index_png(_before_last(files, index)) > 0


def _moving(
    flow: list[Path],
    depth: list[Path],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    index: int,
) -> Bool[np.ndarray, "h w"]:
    """Pixels of known depth whose true flow is not that of the moving camera alone."""
    import torch

    from dyn3r.geometry.induced_flow import induced_flow

    true, z = read_flo(_before_last(flow, index)), _depth(depth[index])
    if true.shape[:2] != z.shape:
        raise InputError(f"{flow[index]} is {true.shape[:2]}, but its depth is {z.shape}")
    here, there = (
        [torch.from_numpy(array[i]) for array in (K, T_world_camera)] for i in (index, index + 1)
    )
    static = induced_flow(torch.from_numpy(z.astype(np.float64)), *here, *there).numpy()
    apart: np.ndarray = np.linalg.norm(true - static, axis=-1)
    return (z > 0) & (apart > MOVES_PX)


def _before_last(files: list[Path], index: int) -> Path:
    if index >= len(files):
        raise InputError(
            f"{files[0].parent}: the last frame has no moving mask, since no flow starts there"
        )
    return files[index]


def read_dpt(file: Path) -> Float32[np.ndarray, "h w"]:
    """Depth along the optical axis of a .dpt file, as stored.

    Raises:
        InputError: missing, another tag, or a size that does not fit.
    """
    return _tagged_array(file, channels=1)[..., 0]


def read_flo(file: Path) -> Float32[np.ndarray, "h w 2"]:
    """Optical flow (u, v) in pixels to the next frame of a .flo file.

    Raises:
        InputError: missing, another tag, or a size that does not fit.
    """
    return _tagged_array(file, channels=2)


def read_cam(file: Path) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
    """K and the camera-to-world transform of a .cam file, which stores world to camera.

    Raises:
        InputError: missing, another tag or size, or no camera.
    """
    data = _tagged_bytes(file, CAM_BYTES)
    if len(data) != CAM_BYTES:
        raise InputError(f"{file}: expected {CAM_BYTES} bytes, found {len(data)}")
    values = np.frombuffer(data, "<f8", offset=4)
    K, T_camera_world = values[:9].reshape(3, 3).copy(), np.eye(4)
    T_camera_world[:3] = values[9:].reshape(3, 4)
    R = T_camera_world[:3, :3]
    if not np.isfinite(values).all() or np.abs(R @ R.T - np.eye(3)).max() > 1e-3:
        raise InputError(f"{file}: expected K and a rotation, found other numbers")
    return K, np.linalg.inv(T_camera_world)


def _tagged_array(file: Path, channels: int) -> Float32[np.ndarray, "h w c"]:
    """Pixels after a tag, an int32 width and an int32 height."""
    data = _tagged_bytes(file, 12)
    width, height = struct.unpack_from("<ii", data, 4)
    expected = 12 + 4 * channels * width * height
    if min(width, height) < 1 or len(data) != expected:
        raise InputError(
            f"{file}: expected {expected} bytes for {width}x{height} pixels, found {len(data)}"
        )
    pixels = np.frombuffer(data, "<f4", offset=12).astype(np.float32)
    return pixels.reshape(height, width, channels)


def _tagged_bytes(file: Path, least: int) -> bytes:
    """The bytes of a file that starts with the tag and has at least `least` bytes."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    if len(data) < least:
        raise InputError(f"{file}: expected at least {least} bytes, found {len(data)}")
    tag = struct.unpack_from("<f", data)[0]
    if tag != TAG:
        raise InputError(f"{file}: expected the tag {TAG} at its start, found {tag:.6g}")
    return data
