"""Arrays in memory-mapped files."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def release_pages(array: np.ndarray) -> None:
    """Hand back the resident pages of the file behind a memory-mapped array; else do nothing.

    Nothing is lost: a page is read again (or written back first) when it is needed.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap) and owner.mode == "c":
            return  # private changes live in the pages themselves
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
