"""Which rows of a file belong to which frames: by name, number, time or order.

Rows are cameras, masks or images. Every way to read their names, numbers and times is tried. If two
ways fit equally well and differ, the file is refused: a camera of the wrong frame is worse than
none. docs/known-cameras.md has the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.io.images import IMAGE_SUFFIXES, natural_key
from dyn3r.io.text import counted, storable

ASSOCIATION_S = 0.02
"""Largest distance of absolute time stamps. Source: the TUM RGB-D benchmark's own association."""
MAX_NAME_BYTES = 200
"""Bytes of a file name that we write, without suffix; file systems allow 255 in all."""
_FIRST_UNIX_S = 1e8  # larger stamps are absolute: 1973
_TICKS = (1e18, 1e9), (1e15, 1e6), (1e12, 1e3)  # (largest stamps, of so many ticks a second)
_ORDER_OF_TIMES = "by order, as its times are not the clip's"
_INVENTED = re.compile(r"frame_[0-9]{6,}")  # names of a video's frames: clip.frame_name


@dataclass(frozen=True)
class Rows:
    """What a file says about its rows."""

    count: int
    names: Sequence[str] = ()
    """Image file of each row; empty: the file has none."""
    stamps: Float[np.ndarray, " k"] | None = None
    """Number or time of each row, as in the file; None: it has none."""


class Match(NamedTuple):
    """Rows of frames."""

    rows: list[int | None]
    """Row of each frame; None: it has none."""
    how: str
    """`by name`, `by number`, ..."""
    is_shifted: bool = False
    """True if the numbers of rows and frames count from different values."""

    @property
    def is_doubtful(self) -> bool:
        """True if the way to match should be checked by a person."""
        return self.is_shifted or self.how == _ORDER_OF_TIMES

    @property
    def found(self) -> int:
        """Number of frames with a row."""
        return sum(row is not None for row in self.rows)

    def __str__(self) -> str:
        return f"{self.found} of {len(self.rows)} frames, {self.how}"


def match_rows(
    rows: Rows,
    names: Sequence[str],
    times_s: Float[np.ndarray, " n"] | None,
    source: Path,
    *,
    every_frame: bool = False,
) -> Match:
    """Find the row of each frame.

    Args:
        rows: names, numbers or times of the rows.
        names: names of the frames, as in `Clip.names`.
        times_s: seconds of the frames since the start of their source.
        source: the file, for messages.
        every_frame: every frame needs a row; names without numbers then count by their order.

    Raises:
        InputError: no row belongs to a frame, or two ways to match them fit and differ.
    """
    readings = [m for m in _readings(rows, names, times_s, source) if m.found]
    _check_names(readings, rows.count, source)
    if every_frame:
        readings += _by_order(rows, names)
        partial = max(readings, key=lambda reading: reading.found, default=None)
        readings = [reading for reading in readings if reading.found == len(names)]
        if partial is not None and not readings:
            raise _incomplete(partial, names, source)
    if not readings:
        raise InputError(
            f"{source} holds {counted(rows.count, 'frame')} where the clip has {len(names)}, "
            "and they can't be matched by name, number, time or order "
            f"(the clip's first frame is {names[0]}{_example(rows)})"
        )
    match = _decide(readings, rows.count, source)
    if match.how != "by name" and 2 * match.found < len(names) and 2 * _used(match) < rows.count:
        raise InputError(
            f"{source}: only {match.found} of the clip's {len(names)} frames have one of its "
            f"{rows.count} entries ({match.how}): is it of other frames?"
        )
    return match


def _readings(
    rows: Rows, names: Sequence[str], times_s: np.ndarray | None, source: Path
) -> list[Match]:
    """All ways to match, the most explicit first."""
    if rows.stamps is not None:
        return _by_stamp(rows, names, times_s, source)
    if not rows.names:
        order = Match(list(range(rows.count)), "by order")
        return [order] if rows.count == len(names) else []
    exact = _by_name(rows.names, names, source)
    if exact.found and not _INVENTED.fullmatch(names[0]):
        # files have names of their own; only a whole match of shifted numbers contradicts them
        numbered = [m for m in _by_number(rows, names) if m.is_shifted]
        others = [m for m in numbered if _is_complete(m, rows.count)]
        return [exact, *others]
    return [exact, *_by_number(rows, names)]


def _check_names(readings: list[Match], count: int, source: Path) -> None:
    """Raise InputError where some names are equal, but all entries fit in another way."""
    if readings and readings[0].how == "by name" and not _is_complete(readings[0], count):
        for other in readings[1:]:
            if _is_complete(other, count):
                raise _ambiguous(readings[0], other, source)


def _decide(readings: list[Match], count: int, source: Path) -> Match:
    """The reading that explains most. Raises InputError if two that differ are as good."""
    different = [m for k, m in enumerate(readings) if m.rows not in [o.rows for o in readings[:k]]]
    tests: list[Callable[[Match], bool]] = [
        lambda m: _is_complete(m, count), lambda m: _used(m) == count,
    ]  # fmt: skip
    if not any(m.is_shifted for m in different):
        tests.append(lambda m: m.found == len(m.rows))
    for test in tests:
        passed = [m for m in different if test(m)]
        if len(passed) == 1:
            return passed[0]
        different = passed or different
        if passed:
            break
    if len(different) > 1:
        raise _ambiguous(different[0], different[1], source)
    return different[0]


def _ambiguous(
    first: Match,
    second: Match,
    source: Path,
    advice: str = "Take the images that it was made from as the source, or give it their names",
) -> InputError:
    return InputError(f"{source} fits the clip in two ways: {first} and {second}. {advice}")


def _incomplete(match: Match, names: Sequence[str], source: Path) -> InputError:
    first = names[match.rows.index(None)]
    return InputError(
        f"{source} has nothing for {len(names) - match.found} of the clip's {len(names)} frames: "
        f"the first is {first} ({match.how})"
    )


def _used(match: Match) -> int:
    return len({row for row in match.rows if row is not None})


def _is_complete(match: Match, count: int) -> bool:
    return match.found == len(match.rows) and _used(match) == count


def _example(rows: Rows) -> str:
    if rows.names:
        return f", the file's is {storable(rows.names[0])}"
    return f", the file's is at {rows.stamps[0]:.10g}" if rows.stamps is not None else ""


def _by_name(row_names: Sequence[str], names: Sequence[str], source: Path) -> Match:
    """Equal file names; else equal without suffix; else equal as our exports write them."""
    keys: tuple[Callable[[Sequence[str]], list[str]], ...] = (
        lambda all_names: [base_name(name) for name in all_names],
        lambda all_names: [bare_stem(name) for name in all_names],
        safe_stems,
    )
    best = Match([None] * len(names), "by name")
    for key in keys:
        of_rows, of_frames = key([storable(name) for name in row_names]), key(names)
        row_of = {name: k for k, name in enumerate(of_rows)}
        match = Match([row_of.get(name) for name in of_frames], "by name")
        if match.found > best.found:
            best, count_of = match, Counter(of_rows)
            repeated = [name for name in of_frames if count_of[name] > 1]
            if repeated:
                raise InputError(f"{source} has several entries for the frame {repeated[0]}")
    return best


def _by_number(rows: Rows, names: Sequence[str]) -> list[Match]:
    """Equal numbers, numbers that count from another first value, places in the clip."""
    if rows.stamps is not None:
        numbers: list[int | None] = [round(stamp) for stamp in rows.stamps.tolist()]
    else:
        numbers = [last_number(bare_stem(name)) for name in rows.names]
    row_of = {number: k for k, number in enumerate(numbers) if number is not None}
    return _numbered(row_of, names) if len(row_of) == rows.count else []


def _by_order(rows: Rows, names: Sequence[str]) -> list[Match]:
    """The order of as many different names, where their numbers say little."""
    if rows.count != len(names) or len(set(rows.names)) < rows.count:
        return []
    numbers = {last_number(bare_stem(name)) for name in rows.names}
    own = [last_number(bare_stem(name)) for name in names]
    if 2 * sum(number in numbers for number in own) >= len(names) and None not in numbers:
        return []
    order = sorted(range(rows.count), key=lambda k: natural_key(Path(base_name(rows.names[k]))))
    return [Match([*order], "by order")]


def _numbered(row_of: dict[int, int], names: Sequence[str]) -> list[Match]:
    """Readings of distinct numbers of rows."""
    of_frames = [last_number(bare_stem(name)) for name in names]
    invented = _INVENTED.fullmatch(names[0]) is not None
    out = [Match([row_of.get(f) if f is not None else None for f in of_frames], "by number")]
    shifts = []
    if 0 not in row_of and (invented or 0 in of_frames):
        shifts.append((1, "by number, counted from 1 in the file"))
    if 0 in row_of and 0 not in of_frames and 1 in of_frames and not invented:
        shifts.append((-1, "by number, counted from 0 in the file"))
    for shift, how in shifts:
        shifted = [None if f is None else row_of.get(f + shift) for f in of_frames]
        out.append(Match(shifted, how, is_shifted=True))
    for first in (0, 1) if _used(out[0]) < len(row_of) else ():
        if all(first <= number < first + len(names) for number in row_of):
            placed = [row_of.get(first + place) for place in range(len(names))]
            out.append(Match(placed, f"by place in the clip, counted from {first}"))
    return out


def _by_stamp(
    rows: Rows, names: Sequence[str], times_s: np.ndarray | None, source: Path
) -> list[Match]:
    """Time stamps in the names; else seconds since the start, numbers; else order."""
    assert rows.stamps is not None
    stamps, absolute = rows.stamps, [_stamp_in(name) for name in names]
    if np.median(stamps) >= _FIRST_UNIX_S and None not in absolute:
        wanted = np.array([_seconds(stamp) for stamp in absolute if stamp is not None])
        seconds = np.array([_seconds(stamp) for stamp in stamps.tolist()])
        return [Match(_nearest(seconds, wanted, ASSOCIATION_S), "by time stamp of the images")]
    assert times_s is not None
    reach = 0.5 * float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    by_time = Match(_nearest(stamps, times_s, max(reach * 0.999, 1e-4)), "by time")
    whole = (stamps == np.rint(stamps)).all() and np.abs(stamps).max() < _FIRST_UNIX_S
    out = [by_time, *(_by_number(rows, names) if whole else [])]
    if rows.count != len(names) or not (np.diff(stamps) > 0).all():
        return out
    order = Match(list(range(rows.count)), _ORDER_OF_TIMES)
    if not any(match.found for match in out):
        return [order]
    # times of images in a folder are their numbers divided by a rate that may be a guess
    if not (whole or _INVENTED.fullmatch(names[0]) or _is_complete(by_time, rows.count)):
        raise _ambiguous(by_time, order, source, "Give the rate of the images with --fps")
    return out


def _nearest(stamps: np.ndarray, wanted: np.ndarray, reach: float) -> list[int | None]:
    """Row of the nearest stamp, or None if it is farther than `reach`."""
    order = np.argsort(stamps, kind="stable")
    after = np.searchsorted(stamps[order], wanted).clip(1, max(len(order) - 1, 1))
    pairs = np.stack([order[after - 1], order[after.clip(0, len(order) - 1)]])
    gaps = np.abs(stamps[pairs] - wanted)
    rows = pairs[gaps.argmin(axis=0), np.arange(len(wanted))]
    return [int(k) if gap <= reach else None for k, gap in zip(rows, gaps.min(axis=0))]


def _stamp_in(name: str) -> float | None:
    """The absolute time stamp that is a file's name."""
    stem = bare_stem(name)
    is_stamp = re.fullmatch(r"[0-9]{9,19}(\.[0-9]+)?", stem)
    return float(stem) if is_stamp and float(stem) >= _FIRST_UNIX_S else None


def _seconds(stamp: float) -> float:
    """An absolute stamp in s, ms, us or ns as seconds."""
    for least, ticks in _TICKS:
        if stamp >= least:
            return stamp / ticks
    return stamp


def base_name(name: str) -> str:
    """Last part of a path of any system."""
    return re.split(r"[/\\]", name)[-1]


def bare_stem(name: str) -> str:
    """File name without folders and without suffixes of images (`a.jpg.png` of COLMAP's masks)."""
    stem = base_name(name)
    while True:
        rest, dot, suffix = stem.rpartition(".")
        if not (dot and rest and f".{suffix.lower()}" in IMAGE_SUFFIXES):
            return stem
        stem = rest


def last_number(name: str) -> int | None:
    """The last whole number in a name."""
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[-1]) if numbers else None


def safe_stems(names: Sequence[str]) -> list[str]:
    """One file name without suffix per name: safe on every system, and unique.

    Folders are dropped. Every character except letters, digits, dot, minus and underscore becomes
    an underscore (a name in COLMAP's text files ends at a space). Names that would then be equal
    get the number of their frame.
    """
    stems = [_safe(bare_stem(name)) for name in names]
    counts = Counter(stem.casefold() for stem in stems)
    numbered = [
        f"{stem}_{t:06d}" if counts[stem.casefold()] > 1 else stem for t, stem in enumerate(stems)
    ]
    if len({stem.casefold() for stem in numbered}) < len(numbered):  # a name ends in such a number
        return [f"frame_{t:06d}" for t in range(len(names))]
    return numbered


def _safe(stem: str) -> str:
    safe = re.sub(r"[^\w.\-]", "_", stem).strip(".")
    return safe.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "frame"
