"""Signals that end a command: what is temporary is removed, and the exit code says so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_PLAIN = (signal.SIG_DFL, signal.default_int_handler)


class EndedBySignal(KeyboardInterrupt):
    """The process was asked to end; `args[0]` is the number of the signal."""


@contextmanager
def ending_signals() -> Iterator[list[int]]:
    """Raise EndedBySignal on Ctrl-C, SIGTERM and SIGHUP, unless they are ignored or handled.

    Yields the list of the signals that came. A library may turn the exception into one of its own.
    """
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise EndedBySignal(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] in _PLAIN]
    for number in ours:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, before[number])


def exit_code(came: list[int]) -> int:
    """128 + the number of the signal, as shells have it; 130 for Ctrl-C."""
    return 128 + (came[0] if came else signal.SIGINT)
