"""Arrays in memory-mapped files."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from typing import IO, Any

import numpy as np

from dyn3r.errors import InputError

_BLOCK = 1 << 20


def allocate(shape: tuple[int, ...], dtype: np.dtype, folder: str | None, what: str) -> np.ndarray:
    """Allocate an array in memory (folder == "") or in an unnamed temporary file that it owns.

    The file's blocks are reserved: a write to a mapped page that finds the disk full would end the
    process (SIGBUS). `folder` None: the system's folder for temporary files. `what`: noun for
    messages. Raises InputError if there is no room.
    """
    if folder == "" or math.prod(shape) == 0:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file, math.prod(shape) * dtype.itemsize)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as problem:
        raise InputError(
            f"no room for {what} of {math.prod(shape) * dtype.itemsize / 1e9:.1f} GB in "
            f"{folder or tempfile.gettempdir()}: {problem.strerror}; set spill_folder"
        ) from None


def _reserve(file: IO[bytes], size: int) -> None:
    """Allocate `size` bytes of a file on the disk. Raises OSError if there is no room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _BLOCK):  # macOS
        file.write(bytes(min(_BLOCK, size - start)))
    file.flush()


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
