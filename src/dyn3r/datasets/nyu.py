"""NYU-v2 (Silberman 2012): single pictures with dense depth; published are 654 of the 1449.

Layouts (docs/design/DATASETS.md, 2.6), the first that is found counts: `val/official/%05d.h5`, HDF5
with `rgb` uint8 (3,H,W) and `depth` float32 (H,W) in metres; prepared, `val/nyu_images/%05d.png`
and `val/nyu_depths/%05d.npy`; the authors' archive `nyu_depth_v2_labeled.mat`, MATLAB 7.3 (HDF5
with axes reversed) with `images` uint8 (N,3,W,H) and `depths` float32 (N,W,H), and `splits.mat`
with `testNdxs`, the numbers (from 1) of the 654. The numbering has gaps, and nothing says where the
cameras were.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from dyn3r.datasets.files import image_files, listing, numeric, per_file, read_npy, read_rgb
from dyn3r.datasets.hdf5 import BROKEN, h5py_for, read_h5
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.images import first_line, natural_key

LABELLED, SPLITS, TEST = "nyu_depth_v2_labeled.mat", "splits.mat", "testNdxs"


def sequences(root: Path) -> list[Sequence]:
    """Every picture, as a sequence of one frame. `root` is `val` or the folder that holds it.

    HDF5 needs h5py. Of the authors' archive, pictures are those of `splits.mat`, or all without it;
    the names are their numbers, as in the other layouts.

    Raises:
        InputError: no layout; pictures and depths that do not match; damaged archives.
        MissingExtraError: the files are HDF5 and h5py is not installed.
    """
    for base in (root, root / "val"):
        raw = base / "official"
        files = sorted(raw.glob("*.h5"), key=natural_key) if raw.is_dir() else []
        if files:
            h5py_for(files[0])
            return [
                _single(f.stem, per_file([f], _h5_rgb), per_file([f], _h5_depth)) for f in files
            ]
        if (base / "nyu_images").is_dir():
            return _prepared(base)
        if (base / LABELLED).is_file():
            return _labelled(base / LABELLED)
    raise InputError(
        f"{root} is not NYU-v2: expected official/*.h5, nyu_images/*.png and nyu_depths/*.npy, or "
        f"{LABELLED}, found {listing(root)}"
    )


def _single(
    name: str, image: Callable[[int], np.ndarray], depth: Callable[[int], np.ndarray]
) -> Sequence:
    return Sequence(name=name, frame_names=(name,), image=image, depth=depth)


def _prepared(base: Path) -> list[Sequence]:
    images, folder = image_files(base / "nyu_images"), base / "nyu_depths"
    depths = sorted(folder.glob("*.npy"), key=natural_key) if folder.is_dir() else []
    if [f.stem for f in images] != [f.stem for f in depths]:
        raise InputError(
            f"{base}: {len(images)} pictures of nyu_images do not match {len(depths)} .npy files "
            f"of nyu_depths by name"
        )
    return [
        _single(image.stem, per_file([image], read_rgb), per_file([depth], _npy_depth))
        for image, depth in zip(images, depths)
    ]


def _labelled(file: Path) -> list[Sequence]:
    """The pictures of the authors' archive, read one at a time."""
    h5py = h5py_for(file)
    try:
        with h5py.File(file, "r") as content:
            shapes = {key: content[key].shape for key in ("images", "depths") if key in content}
    except BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    n, w, h = (*shapes.get("depths", ()), 0, 0, 0)[:3]
    if n == 0 or shapes != {"images": (n, 3, w, h), "depths": (n, w, h)}:
        raise InputError(f"{file}: expected images (N,3,W,H) and depths (N,W,H), found {shapes}")
    splits = file.parent / SPLITS
    numbers = _test_numbers(splits, n) if splits.is_file() else list(range(1, n + 1))
    return [
        _single(
            f"{k:05d}", partial(_labelled_rgb, file, k - 1), partial(_labelled_depth, file, k - 1)
        )
        for k in numbers
    ]


def _test_numbers(file: Path, count: int) -> list[int]:
    """Numbers of the test pictures, from 1, sorted."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file, variable_names=[TEST])
    except (*BROKEN, TypeError, MatReadError) as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error
    numbers = numeric(np.ravel(content.get(TEST, np.zeros(0))), file)
    if len(numbers) == 0 or numbers.min() < 1 or numbers.max() > count:
        raise InputError(f"{file}: expected {TEST}, numbers from 1 to {count}")
    return sorted(int(k) for k in numbers)


def _labelled_rgb(file: Path, row: int, _frame: int) -> UInt8[np.ndarray, "h w 3"]:
    array = read_h5(file, "images", row)
    if array.dtype != np.uint8:
        raise InputError(f"{file}: images are {array.dtype}, expected uint8")
    return np.ascontiguousarray(array.transpose(2, 1, 0))


def _labelled_depth(file: Path, row: int, _frame: int) -> Float32[np.ndarray, "h w"]:
    return _depth(read_h5(file, "depths", row).T, file)


def _h5_rgb(file: Path) -> UInt8[np.ndarray, "h w 3"]:
    array = read_h5(file, "rgb")
    if array.ndim != 3 or len(array) != 3 or array.dtype != np.uint8:
        raise InputError(f"{file}: rgb is {array.dtype} {array.shape}, expected uint8 (3, H, W)")
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _h5_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    return _depth(read_h5(file, "depth"), file)


def _npy_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    return _depth(read_npy(file), file)


def _depth(array: np.ndarray, file: Path) -> Float32[np.ndarray, "h w"]:
    """Metres, with 0 for what is not a positive number."""
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{file}: depth is {array.dtype} {array.shape}, expected float32 (H, W)")
    return np.where(np.isfinite(array) & (array > 0), array, 0).astype(np.float32)
