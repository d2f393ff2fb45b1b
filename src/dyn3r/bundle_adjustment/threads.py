"""Thread count of PyTorch for programs that run bundle adjustment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def single_threaded() -> Iterator[None]:
    """Context in which PyTorch computes on one thread; the former number is restored after it.

    The operations of bundle adjustment are many and small, and take twice as long on several
    threads. The thread count of PyTorch belongs to the process, and there is none per call. So the
    library does not change it: the program that owns the process (the pipeline, a script) enters
    this context around `bundle_adjust`. Sums on several threads may differ in the last digits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def process_settings(stage: str) -> AbstractContextManager[None]:
    """One thread for the stage of bundle adjustment; for `RunContext.around` of programs."""
    return single_threaded() if stage == "bundle adjustment" else nullcontext()
