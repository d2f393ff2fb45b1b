"""Arrays in memory-mapped files."""

from __future__ import annotations

import math
import mmap
import tempfile
from typing import Any

import numpy as np

from dyn3r.errors import InputError


def allocate(shape: tuple[int, ...], dtype: np.dtype, folder: str | None, what: str) -> np.ndarray:
    """Allocate an array in memory (folder == "") or in an unnamed temporary file that it owns.

    `folder` None: the system's folder for temporary files. `what`: noun for messages. Raises
    InputError if there is no room.
    """
    if folder == "" or math.prod(shape) == 0:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as problem:
        raise InputError(
            f"no room for {what} of {math.prod(shape) * dtype.itemsize / 1e9:.1f} GB in "
            f"{folder or tempfile.gettempdir()}: {problem.strerror}; set spill_folder"
        ) from None


def release_pages(array: np.ndarray) -> None:
    """Release the resident pages of a memory-mapped array; other arrays are not changed.

    Pages are written back first and read again when they are used.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap) and owner.mode == "c":
            return  # private changes live in the pages themselves
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
