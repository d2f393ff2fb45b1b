"""Freed memory goes back to the system, before every stage."""

from __future__ import annotations

import os
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


ARENAS = """
import ctypes, sys, threading
from dyn3r.types.free_memory import limit_arenas

limit_arenas(int(sys.argv[1]))
held, done = threading.Barrier(9), threading.Barrier(9)

def work():
    kept = [bytearray(5000) for _ in range(10)]
    held.wait()
    done.wait()

for _ in range(8):
    threading.Thread(target=work).start()
held.wait()
ctypes.CDLL(None).malloc_info(0, ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdout"))
ctypes.CDLL(None).fflush(None)
done.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no such call")
@pytest.mark.parametrize("count", [1, 3])
def test_few_arenas(count: int) -> None:
    """As many as were asked for, however many threads there are; not if the environment decides."""
    others = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", ARENAS, str(count)]
    for environment, arenas in ((others, count), (others | {"MALLOC_ARENA_MAX": "2"}, 2)):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.count("<heap nr=") == arenas


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no such call")
def test_a_stage_begins_without_what_was_freed() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    returned_mb, intact = done.stdout.split()
    assert float(returned_mb) > 100  # of 190
    assert intact == "True"


def test_other_systems_have_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from dyn3r.types import free_memory

    monkeypatch.setattr(free_memory.sys, "platform", "darwin")
    free_memory._of_glibc.cache_clear()
    free_memory.return_free_memory()
    free_memory.limit_arenas(2)
    assert free_memory._of_glibc("malloc_trim") is None
    free_memory._of_glibc.cache_clear()
