"""Memory that was freed goes back to the operating system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def return_free_memory() -> None:
    """Return the freed memory of the C library to the system, where it has a call for that (glibc).

    Without it, freed arrays of a stage stay with the process between arrays that are still in use,
    and the next stage, whose arrays have other sizes, adds to them. It takes milliseconds.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's `malloc_trim`; None where the C library has no such function."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
