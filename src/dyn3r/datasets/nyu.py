"""NYU-v2, the 654 validation pictures (Silberman 2012): single pictures with dense depth.

Layouts (docs/design/DATASETS.md, 2.6): `val/official/%05d.h5`, HDF5 with `rgb` uint8 (3,H,W) and
`depth` float32 (H,W) in metres; or prepared, `val/nyu_images/%05d.png` and
`val/nyu_depths/%05d.npy`. The numbering has gaps, and nothing says where the cameras were.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from dyn3r.datasets.files import image_files, listing, per_file, read_npy, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.images import first_line, natural_key

MAX_SIDE = 8192
"""Larger arrays in a file are refused unread."""


def sequences(root: Path) -> list[Sequence]:
    """Every picture, as a sequence of one frame. `root` is `val` or the folder that holds it.

    The HDF5 files go first; they need h5py.

    Raises:
        InputError: neither layout; pictures and depths that do not match.
        MissingExtraError: the files are HDF5 and h5py is not installed.
    """
    for base in (root, root / "val"):
        raw = base / "official"
        files = sorted(raw.glob("*.h5"), key=natural_key) if raw.is_dir() else []
        if files:
            _h5py(files[0])
            return [_single(f, per_file([f], _h5_rgb), per_file([f], _h5_depth)) for f in files]
        if (base / "nyu_images").is_dir():
            return _prepared(base)
    raise InputError(
        f"{root} is not NYU-v2: expected official/*.h5, or nyu_images/*.png and nyu_depths/*.npy, "
        f"found {listing(root)}"
    )


def _single(
    file: Path, image: Callable[[int], np.ndarray], depth: Callable[[int], np.ndarray]
) -> Sequence:
    return Sequence(name=file.stem, frame_names=(file.stem,), image=image, depth=depth)


def _prepared(base: Path) -> list[Sequence]:
    images, folder = image_files(base / "nyu_images"), base / "nyu_depths"
    depths = sorted(folder.glob("*.npy"), key=natural_key) if folder.is_dir() else []
    if [f.stem for f in images] != [f.stem for f in depths]:
        raise InputError(
            f"{base}: {len(images)} pictures of nyu_images do not match {len(depths)} .npy files "
            f"of nyu_depths by name"
        )
    return [
        _single(image, per_file([image], read_rgb), per_file([depth], _npy_depth))
        for image, depth in zip(images, depths)
    ]


def _h5_rgb(file: Path) -> UInt8[np.ndarray, "h w 3"]:
    array = _h5_array(file, "rgb")
    if array.ndim != 3 or len(array) != 3 or array.dtype != np.uint8:
        raise InputError(f"{file}: rgb is {array.dtype} {array.shape}, expected uint8 (3, H, W)")
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _h5_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    return _depth(_h5_array(file, "depth"), file)


def _npy_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    return _depth(read_npy(file), file)


def _depth(array: np.ndarray, file: Path) -> Float32[np.ndarray, "h w"]:
    """Metres, with 0 for what is not a positive number."""
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{file}: depth is {array.dtype} {array.shape}, expected float32 (H, W)")
    return np.where(np.isfinite(array) & (array > 0), array, 0).astype(np.float32)


def _h5_array(file: Path, key: str) -> Shaped[np.ndarray, "..."]:
    h5py = _h5py(file)
    try:
        with h5py.File(file, "r") as content:
            item = content.get(key)
            if not isinstance(item, h5py.Dataset):
                raise InputError(f"{file} has no array '{key}', found {', '.join(content)}")
            if item.ndim > 3 or max(item.shape, default=0) > MAX_SIDE:
                raise InputError(f"{file}: '{key}' of shape {item.shape} is no picture")
            return np.asarray(item[()])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def _h5py(file: Path) -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", f"reading {file}") from None
    return h5py
