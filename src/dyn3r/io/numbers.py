"""Numbers given by a user, checked in one place: of the right type, finite, in their range."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dyn3r.errors import InputError

FOCAL_PX = (1e-2, 1e7)
"""Focal lengths in pixels that cameras can have: beyond, single precision fails."""
LARGEST_LENGTH = 1e12
"""Largest coordinate of a camera, in the unit of a scene or file."""
LARGEST_TIME_S = 1e11
"""Largest time stamp in seconds; clocks count from 1970."""
LARGEST_SIDE_PX = 1 << 16
"""Largest side of an image in pixels."""


def checked_number(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf
) -> float:
    """The value as float. Raises InputError unless it is a finite number in low..high."""
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    try:
        number = float(value) if good else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        raise InputError(f"{name} must be a number{_range(low, high)}, not {_shown(value)}")
    return number


def checked_whole(value: Any, name: str, *, low: int, high: int) -> int:
    """The value as int. Raises InputError unless it is a whole number in low..high."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        raise InputError(f"{name} must be a whole number{_range(low, high)}, not {_shown(value)}")
    return int(value)


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" of {low:g} or more"
    return f" from {_plain(low)} to {_plain(high)}"


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.40}"
    except ValueError:  # a whole number of thousands of digits
        return "one of thousands of digits"


def check_finite(options: Any, name: str = "") -> None:
    """Raise InputError for a float of a dataclass of options, however deep, that is not finite."""
    if isinstance(options, (float, np.floating)) and not math.isfinite(options):
        raise InputError(f"{name} must be a finite number, not {options}")
    if is_dataclass(options) and not isinstance(options, type):
        for field in fields(options):
            inner = f"{name}.{field.name}" if name else field.name
            check_finite(getattr(options, field.name), inner)
    elif isinstance(options, (tuple, list)):
        for item in options:
            check_finite(item, name)
