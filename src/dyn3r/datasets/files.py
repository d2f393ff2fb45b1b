"""Files that several data sets share: pictures, depth, TUM trajectories, JSON, folders.

Every function raises InputError, in one line that names the file, for a file that is missing,
damaged or of another kind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

from dyn3r.errors import InputError
from dyn3r.io.archives import open_arrays, read_array
from dyn3r.io.images import images_in, open_image, to_rgb
from dyn3r.io.regular_files import read_json, read_text

__all__ = [
    "image_files",
    "listing",
    "npz_names",
    "numeric",
    "per_file",
    "poses_from_quaternions",
    "read_depth_png",
    "read_index_png",
    "read_json",
    "read_lines",
    "read_npy",
    "read_npz",
    "read_rgb",
    "read_table",
]


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order (2 before 10)."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist")
    files = images_in(folder)
    if not files:
        raise InputError(f"{folder} has no pictures, found {listing(folder)}")
    return files


def listing(folder: Path) -> str:
    """The first entries of a folder, for an error message."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(p.name for p in folder.iterdir())
    if not names:
        return "an empty folder"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def read_rgb(file: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An 8-bit RGB picture."""
    return np.asarray(to_rgb(open_image(file)))


def read_index_png(file: Path) -> UInt8[np.ndarray, "h w"]:
    """The numbers of a palette or grey picture; never its colours."""
    image = open_image(file)
    if image.mode not in ("P", "L", "1"):
        raise InputError(f"{file} is a picture of mode {image.mode}, expected a palette or grey")
    return np.asarray(image).astype(np.uint8)


def read_depth_png(file: Path, per_unit: float) -> Float32[np.ndarray, "h w"]:
    """A 16-bit depth picture whose values are `per_unit` per unit of length; 0 stays 0."""
    image = open_image(file)
    if not image.mode.startswith("I"):
        raise InputError(f"{file} is a picture of mode {image.mode}, expected 16-bit depth")
    return (np.asarray(image).astype(np.float64) / per_unit).astype(np.float32)


def read_npz(file: Path, key: str) -> Shaped[np.ndarray, "..."]:
    """One array of numbers of an .npz file."""
    with open_arrays(file) as arrays:
        return numeric(arrays.read(key), file)


def npz_names(file: Path) -> tuple[str, ...]:
    """Names of the arrays of an .npz file."""
    with open_arrays(file) as arrays:
        return tuple(arrays.names)


def read_npy(file: Path) -> Shaped[np.ndarray, "..."]:
    """An array of numbers of an .npy file."""
    return numeric(read_array(file), file)


def numeric(array: np.ndarray, file: Path) -> np.ndarray:
    """The array, if it holds numbers."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise InputError(f"{file} must hold numbers")
    return array


def read_table(file: Path, columns: int) -> Float[np.ndarray, "k c"]:
    """Rows of `columns` numbers of a text file; lines that start with # are comments."""
    rows = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            row = [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != columns:
            raise InputError(
                f"{file}, line {number}: expected {columns} numbers, found {line.strip()[:60]!r}"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{file} has no rows of {columns} numbers")
    return np.array(rows)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file."""
    return read_text(file).splitlines()


def poses_from_quaternions(
    translation: Float[np.ndarray, "k 3"], xyzw: Float[np.ndarray, "k 4"], file: Path
) -> Float[np.ndarray, "k 4 4"]:
    """Transforms of translations and quaternions (x, y, z, w), as TUM files have them."""
    from scipy.spatial.transform import Rotation

    if (np.linalg.norm(xyzw, axis=1) < 1e-6).any():
        raise InputError(f"{file} has a quaternion of length 0")
    T = np.tile(np.eye(4), (len(xyzw), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(xyzw).as_matrix()
    T[:, :3, 3] = translation
    return T


def per_file(files: list[Path], read: Callable[[Path], np.ndarray]) -> Callable[[int], np.ndarray]:
    """A reader of one frame by its index."""
    return lambda index: read(files[index])
