"""Signals that end a command as Ctrl-C does: what is temporary is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = ("SIGTERM", "SIGHUP")


class EndedBySignal(KeyboardInterrupt):
    """The process was asked to end; `args[0]` is the number of the signal."""


@contextmanager
def ending_signals() -> Iterator[None]:
    """Raise EndedBySignal on SIGTERM and SIGHUP, unless the process ignores or handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    raise EndedBySignal(number)


def exit_code(problem: KeyboardInterrupt) -> int:
    """128 + the number of the signal, as shells have it."""
    return 128 + int(problem.args[0]) if isinstance(problem, EndedBySignal) else 130
