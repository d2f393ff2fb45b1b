"""Texts from outside, made safe for files and for the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any


def storable(text: str) -> str:
    """Text that UTF-8 can hold.

    File names that are no UTF-8, and damaged JSON, have lone surrogates; each becomes its escape.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def storable_json(value: Any) -> Any:
    """Copy of a value for JSON with all its texts storable; values that JSON lacks stay."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {
            storable(key) if isinstance(key, str) else key: storable_json(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [storable_json(item) for item in value]
    return value


def counted(count: int, noun: str) -> str:
    """Number and noun: 1 frame, 2 frames."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def named_frames(frames: Sequence[int]) -> str:
    """Frames of a sentence by their numbers: frame 3, frames 3, 5, or 12 frames (3 to 40)."""
    if len(frames) > 8:
        return f"{len(frames)} frames ({frames[0]} to {frames[-1]})"
    return ("frame " if len(frames) == 1 else "frames ") + ", ".join(str(t) for t in frames)


def printable(text: str) -> str:
    """One line for a terminal: control characters become their escapes.

    A file name may hold line ends, and sequences that command a terminal.
    """
    return "".join(
        char if not unicodedata.category(char).startswith("C") else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
