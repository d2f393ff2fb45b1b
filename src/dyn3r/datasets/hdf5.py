"""Arrays of HDF5 files (the extra `hdf5`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Shaped

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.images import first_line

MAX_SIDE = 8192
"""Larger arrays in a file are refused unread."""
BROKEN = (OSError, LookupError, ValueError, RuntimeError, NotImplementedError, AttributeError)
"""What h5py raises for damaged files."""


def read_h5(file: Path, key: str, row: int | None = None) -> Shaped[np.ndarray, "..."]:
    """An array of an HDF5 file, or one row of its first axis.

    Raises:
        InputError: no such array, no picture, a damaged file.
        MissingExtraError: h5py is not installed.
    """
    h5py = h5py_for(file)
    try:
        with h5py.File(file, "r") as content:
            item = content.get(key)
            if not isinstance(item, h5py.Dataset):
                raise InputError(f"{file} has no array '{key}', found {', '.join(content)}")
            if item.ndim > 3 + (row is not None) or max(item.shape, default=0) > MAX_SIDE:
                raise InputError(f"{file}: '{key}' of shape {item.shape} is no picture")
            return np.asarray(item[() if row is None else row])
    except BROKEN as error:
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def h5py_for(file: Path) -> ModuleType:
    """h5py, for reading `file`. Raises MissingExtraError if it is not installed."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", f"reading {file}") from None
    return h5py
