"""Memory that was freed: it goes back to the operating system, and few threads keep their own.

The C library (glibc) hands out memory from *arenas*, by default up to eight for each core, so that
threads do not wait for each other. What is freed in one is not used by threads of another.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

ARENA_MAX = -8
"""`M_ARENA_MAX` of mallopt(3)."""


def return_free_memory() -> None:
    """Return the freed memory of the C library to the system, where it has a call for that (glibc).

    Without it, freed arrays of a stage stay with the process between arrays that are still in use,
    and the next stage, whose arrays have other sizes, adds to them. It takes milliseconds.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def limit_arenas(count: int) -> None:
    """Let the C library make at most `count` arenas from now on, where it has them (glibc).

    For programs that own their process, before their threads start. As many as there are threads
    that compute are enough: with two threads, 86 frames of 224x112 take 8 to 10 % less memory
    and no more time (docs/experiments.md). MALLOC_ARENA_MAX in the environment is left as it is.
    """
    choose = _of_glibc("mallopt")
    if choose is not None and "MALLOC_ARENA_MAX" not in os.environ:
        choose(ARENA_MAX, max(1, count))


@cache
def _of_glibc(name: str) -> Any:
    """A function of glibc; None where the C library has no such function."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
