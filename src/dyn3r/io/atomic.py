"""Atomic writing: results are written completely or not at all.

A file is written to a staging folder beside its target, flushed to the disk, and moved into place,
so a crash, a full disk or Ctrl-C never leaves half a result under the result's name. An existing
result is only replaced when the caller says so, and only regular files are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from dyn3r.errors import OutputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.staging import (
    carry_over,
    check_replaceable,
    exchange,
    is_staging,
    staging_folder,
)

logger = logging.getLogger(__name__)

_MOST_LINKS = 20_000  # a folder with more files is no result: those of a result are replaced in it


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path for `path`; what was written there becomes `path` on success.

    The temporary file has the target's name, in a staging folder beside it. Missing parent folders
    are made. If the block raises, everything temporary is removed and `path` is untouched.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or is anything else than a regular
            file, or it can't be written.
    """
    target = checked_path(path, "the file to write")
    check_writable(target, overwrite=overwrite)
    key = secrets.token_hex(8)
    with _as_output_error(target), staging_folder(target.parent, key, target) as folder:
        part = folder / target.name
        yield part
        _sync(part)
        if overwrite:
            check_writable(target, overwrite=True)
            os.replace(part, target)
        else:
            _move_without_replacing(part, target)
        _sync_folder(target.parent)


def nothing_is_stale(name: str) -> bool:  # noqa: ARG001 (a predicate)
    """Whether a file of an old result is left out of the new one: none is."""
    return False


@contextmanager
def atomic_folder(
    path: str | Path,
    *,
    overwrite: bool = False,
    is_stale: Callable[[str], bool] = nothing_is_stale,
) -> Iterator[Path]:
    """Yield a temporary folder; what was written in it appears in `path` on success.

    `path` appears, or changes, in one step. With `overwrite` and a folder that has files in it, new
    files replace the old ones of their names. Other files stay, except those that `is_stale` names
    (by their path in the folder): parts of an old result that do not belong to the new one. Where
    the system can't exchange folders, and where `path` is a mount point, the working folder, of
    another user or holds more than 20 000 files, the files are replaced one by one.

    The folder is locked from the beginning: a second process that would write to it is refused.

    Raises:
        OutputError: `path` is not an empty folder and `overwrite` is False, another process writes
            to it, or it can't be written.
    """
    target = checked_path(path, "the folder to write")
    check_output_folder(target, overwrite=overwrite)
    place = Path(os.path.realpath(target))
    inside = place.is_dir() and _is_fixed(place)
    key = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    parent = place if inside else place.parent
    with _as_output_error(target), staging_folder(parent, key, target) as part:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _sync(file)
        if not overwrite:
            check_output_folder(target)
        _put_in_place(part, place, is_stale, inside=inside)
        _sync_folder(place.parent)


def check_writable(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if `path` exists and `overwrite` is False, or is no regular file."""
    target = checked_path(path, "the file to write")
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {target}: it is a device, pipe or socket, not a file")
    if not overwrite and os.path.lexists(target):
        raise OutputError(
            f"{target} exists already: choose another name or allow overwriting (--overwrite)"
        )


def check_output_folder(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if results cannot be written to `path`. Call it before the work begins.

    A folder that is missing or empty is fine; one with files in it needs `overwrite`.
    """
    target = Path(path)
    if os.path.lexists(target) and not target.is_dir():
        raise OutputError(f"cannot write into {target}: it is not a folder")
    with _as_output_error(target):
        if target.is_dir():
            if not overwrite and not all(is_staging(name) for name in os.listdir(target)):
                raise OutputError(
                    f"{target} is not empty: choose another folder, or overwrite (--overwrite)"
                )
            place = target
        else:
            place = next(p for p in target.absolute().parents if os.path.lexists(p))
        if not place.is_dir():
            raise OutputError(f"cannot make the folder {target}: {place} is not a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write into {target}: no permission to write in {place}")


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write `content` to `path` atomically. Raises OutputError as `atomic_file` does."""
    with atomic_file(path, overwrite=overwrite) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 with plain newlines, atomically. Raises OutputError.

    What UTF-8 can't hold (file names in other encodings) is written as its escape.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)


def write_json(path: str | Path, value: Any, *, overwrite: bool = False) -> None:
    """Write `value` as indented JSON (no NaN or infinity), atomically. Raises OutputError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", overwrite=overwrite)


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        name = str(error.filename or "")
        elsewhere = name and name != str(target) and not any(map(is_staging, Path(name).parts))
        where = f" ({name})" if elsewhere else ""
        raise OutputError(f"cannot write {target}: {reason}{where}") from error


def _sync(path: Path) -> None:
    # "r+" because some systems refuse to flush a file that was opened for reading only.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Makes the move itself durable where folders can be opened (not on Windows).
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_without_replacing(part: Path, target: Path) -> None:
    # A hard link fails if the name is taken, so two writers can't both win; file systems without
    # hard links get the check followed by the move.
    try:
        os.link(part, target)
    except FileExistsError:
        raise OutputError(f"{target} appeared while it was being written: not replaced") from None
    except OSError:
        check_writable(target)
        os.replace(part, target)


def _is_fixed(folder: Path) -> bool:
    """Whether a folder can't be exchanged, is not ours, or is somebody's working folder."""
    here = Path(os.path.realpath(os.curdir))
    movable = os.access(folder.parent, os.W_OK | os.X_OK) and not os.path.ismount(folder)
    owned = folder.stat().st_uid == os.geteuid()
    return not (movable and owned) or folder == here or folder in here.parents


def _put_in_place(
    part: Path, target: Path, is_stale: Callable[[str], bool], *, inside: bool
) -> None:
    """Move the content of the folder `part` to `target`; `inside`: the target itself stays."""
    if not inside and not (target.is_dir() and any(target.iterdir())):
        os.rename(part, target)
        return
    for new in part.rglob("*"):
        old = target / new.relative_to(part)
        if os.path.lexists(old):
            check_replaceable(old, by=new)
    others = sum(1 for _ in islice(target.rglob("*"), _MOST_LINKS + 1))
    try:
        if not inside and others <= _MOST_LINKS:
            carry_over(target, part, is_stale)
            exchange(part, target)
            carry_over(part, target, is_stale)  # what has appeared meanwhile
            return
    except OSError as problem:  # no links, or no exchange, on this file system
        logger.debug("%s: files are replaced one by one (%s)", target, problem)
    _merge(part, target, is_stale)


def _merge(part: Path, target: Path, is_stale: Callable[[str], bool]) -> None:
    """Replace files one by one."""
    fresh = {source.relative_to(part) for source in part.rglob("*")}
    for source in sorted(part.rglob("*")):
        place = target / source.relative_to(part)
        if source.is_dir() and not source.is_symlink():
            place.mkdir(exist_ok=True)
        else:
            os.replace(source, place)
    for old in sorted(target.rglob("*")):
        name = old.relative_to(target)
        if name not in fresh and is_stale(name.as_posix()) and old.is_file():
            old.unlink()
