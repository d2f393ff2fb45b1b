"""Freed memory goes back to the system, before every stage."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED = """
import numpy as np
from dyn3r.types import RunContext

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

small = [np.ones(100_000, np.uint8) for _ in range(2000)]  # too small for pages of their own
kept = small[::20]
del small
before = resident_mb()
with RunContext().stage("next"):
    after = resident_mb()
print(before - after, all(bool((x == 1).all()) for x in kept))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no such call")
def test_a_stage_begins_without_what_was_freed() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    returned_mb, intact = done.stdout.split()
    assert float(returned_mb) > 100  # of 190
    assert intact == "True"


def test_other_systems_have_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from dyn3r.types import free_memory

    monkeypatch.setattr(free_memory.sys, "platform", "darwin")
    free_memory._malloc_trim.cache_clear()
    free_memory.return_free_memory()
    assert free_memory._malloc_trim() is None
    free_memory._malloc_trim.cache_clear()
