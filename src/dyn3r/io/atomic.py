"""Atomic writing: results are written completely or not at all.

A file is written under a temporary name beside its target, flushed to the disk, and moved into
place, so a crash, a full disk or Ctrl-C never leaves half a result under the result's name. An
existing result is only replaced when the caller says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dyn3r.errors import OutputError


@contextmanager
def atomic_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` on success.

    The temporary name keeps the target's suffix (writers that choose a format by suffix work) and
    starts with a dot. Missing parent folders are made. If the block raises, the temporary file is
    removed and `path` is untouched.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or is a folder, or it can't be written.
    """
    target = Path(path)
    check_writable(target, overwrite=overwrite)
    _sweep(target.parent, f".{target.stem}.", f".part{target.suffix}")
    part = target.with_name(f".{target.stem}.{_token()}.part{target.suffix}")
    try:
        with _as_output_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _sync(part)
            if overwrite:
                os.replace(part, target)
            else:
                _move_without_replacing(part, target)
            _sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; what was written in it appears in `path` on success.

    A new (or empty) `path` appears in one move. With `overwrite` and a folder that has files in
    it, each new file replaces the old one of its name in one move, and other files stay: nothing
    that we did not write is ever deleted.

    Raises:
        OutputError: `path` is not an empty folder and `overwrite` is False, or it can't be written.
    """
    target = Path(path)
    check_output_folder(target, overwrite=overwrite)
    _sweep(target.parent, f".{target.name}.", ".part")
    part = target.with_name(f".{target.name}.{_token()}.part")
    try:
        with _as_output_error(target):
            part.mkdir(parents=True)
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    _sync(file)
            _merge_folder(part, target)
            _sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_writable(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if the file `path` exists (and `overwrite` is False) or is a folder."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder")
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
            if not overwrite and any(target.iterdir()):
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
    """Write `text` as UTF-8 with plain newlines, atomically. Raises OutputError."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def write_json(path: str | Path, value: Any, *, overwrite: bool = False) -> None:
    """Write `value` as indented JSON (no NaN or infinity), atomically. Raises OutputError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", overwrite=overwrite)


def _token() -> str:
    """Part of a temporary name: machine, process, and random digits."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _sweep(folder: Path, start: str, end: str) -> None:
    """Remove temporary files and folders of this target whose process was killed.

    Only names with `_token` of this machine count, and only if no such process runs any more.
    """
    token = re.compile(rf"{re.escape(start)}{_machine()}-(\d+)-[0-9a-f]{{12}}{re.escape(end)}")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = token.fullmatch(path.name)
            if found and not _is_running(int(found.group(1))):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {target}: {reason}") from error


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


def _merge_folder(part: Path, target: Path) -> None:
    if not target.exists():
        os.replace(part, target)
        return
    for source in sorted(part.rglob("*")):
        place = target / source.relative_to(part)
        if source.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(source, place)
