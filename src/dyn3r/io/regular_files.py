"""Files given by a user, opened in one place: regular files only, text and JSON with limits.

A pipe would block for ever, and opening a device may act on it.
"""

from __future__ import annotations

import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from dyn3r.errors import InputError

MAX_TEXT_BYTES = 256_000_000
"""Largest text file that is read."""
_MAX_DIGITS = 18
"""Digits of a whole number in JSON; longer ones exceed 64 bits."""


def check_regular(path: Path) -> None:
    """Raise InputError unless `path` is a regular file, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # no permission; a name with a NUL in it
        raise InputError(f"{path} cannot be read: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is a device, pipe or socket, not a file")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises InputError for anything else."""
    check_regular(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from None


def read_text(path: Path, *, limit: int = MAX_TEXT_BYTES) -> str:
    """Text of a UTF-8 file of at most `limit` bytes. Raises InputError."""
    with open_regular(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {_reason(error)}") from None
    if len(content) > limit:
        raise InputError(f"{path} has more than {limit / 1e6:g} MB: it is too large for its kind")
    try:
        return content.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read as text: it is no UTF-8") from None


def read_json(path: Path, *, limit: int = MAX_TEXT_BYTES) -> Any:
    """Value of a JSON file. Raises InputError, also for whole numbers beyond 64 bits."""
    try:
        return json.loads(read_text(path, limit=limit), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else _reason(error)
        raise InputError(f"{path} is not JSON: {reason}") from None


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:120]
