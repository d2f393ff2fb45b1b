"""Arguments of the library's functions, checked in one place: wrong types are typed errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dyn3r.errors import InputError


def checked_path(value: Any, name: str) -> Path:
    """The value as a path. Raises InputError unless it is a text or a path."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise InputError(f"{name} must be a path, not {type(value).__name__}")
    if "\0" in os.fspath(value):
        raise InputError(f"{name} must be a path, and these have no NUL characters")
    return Path(value)


def check_type(value: Any, kind: type, name: str) -> None:
    """Raise InputError unless the value is of this type."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}")
