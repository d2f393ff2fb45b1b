"""Chunked reading of arrays that may be memory-mapped files.

Pages of a mapped file that were read count as memory of the process until the system reclaims
them. Under a memory limit this is too late, so they are released after every read. The data stay in
the file cache of the system as long as there is room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dyn3r.io.memory_map import release_pages

READ_BYTES = 32_000_000
"""Bytes of an array that are read before its pages are released. Source: run time."""


def read_part(array: np.ndarray, rows: Any, *rest: Any) -> np.ndarray:
    """Copy of `array[rows, *rest]` in memory; pages of a mapped file are released."""
    part = np.array(array[(rows, *rest)])
    release_pages(array)
    return part


def row_chunks(array: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis of at most READ_BYTES each, at least one row."""
    step = max(1, READ_BYTES // max(1, array.nbytes // max(1, len(array))))
    for first in range(0, len(array), step):
        yield slice(first, min(first + step, len(array)))
