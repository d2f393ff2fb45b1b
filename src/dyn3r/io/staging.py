"""Staging folders: results are written there, beside their target, before they are moved.

A staging folder is called `.dyn3r-KEY.part` and is locked while its process works. One whose
process was killed is not locked any more. It is removed when the same parent folder is written to
the next time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dyn3r.errors import OutputError

_START, _END, _LOCK = ".dyn3r-", ".part", "lock"
_NEW_S = 60.0
"""Age in seconds below which a staging folder without a lock file may be just being made."""


@contextmanager
def staging_folder(parent: Path, key: str, target: Path) -> Iterator[Path]:
    """Yield an empty folder in a locked staging folder in `parent`; it is removed at the end.

    Missing parent folders are made, and removed again if nothing was put into them. Of two
    processes with the same key the second one is refused; `target` is for its message.

    Raises:
        OutputError: another process holds the staging folder.
        OSError: it cannot be made.
    """
    made = _make_folders(parent)
    place = parent / f"{_START}{key}{_END}"
    try:
        _remove_abandoned(parent)
        lock = _locked(place, target)
        try:
            content = place / "content"
            shutil.rmtree(content, ignore_errors=True)  # of a killed process
            content.mkdir()
            yield content
        finally:
            _remove(place)
            os.close(lock)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_staging(name: str) -> bool:
    """Whether a file name is that of a staging folder."""
    return name.startswith(_START) and name.endswith(_END)


def exchange(first: Path, second: Path) -> None:
    """Exchange two folders of one file system in one step. Raises OSError where that can't be."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, 2)  # RENAME_SWAP
        else:
            failed = library.renameat2(-100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def carry_over(old: Path, new: Path, is_stale: Callable[[str], bool], *, below: str = "") -> None:
    """Link the files of the folder `old` that `new` lacks into `new`, with their subfolders.

    `is_stale` says which are left out, by their path relative to `old`. Staging folders are left
    out. Raises OutputError where a file would replace a folder, a folder a file, or anything a
    device or pipe; OSError where files can't be linked.
    """
    for entry in _entries(old):
        name, place = f"{below}{entry.name}", new / entry.name
        if is_staging(entry.name):
            continue
        stays = not is_stale(name) and not os.path.lexists(place)
        if not stays:
            check_replaceable(Path(entry.path), by=place)
        if entry.is_dir(follow_symlinks=False):
            if not os.path.lexists(place):
                place.mkdir()
                shutil.copystat(entry.path, place)
            carry_over(Path(entry.path), place, is_stale, below=f"{name}/")
        elif stays:
            os.link(entry.path, place, follow_symlinks=False)


def check_replaceable(old: Path, *, by: Path) -> None:
    """Raise OutputError unless `old` may be replaced by `by`: like by like, no special files."""
    folder = old.is_dir() and not old.is_symlink()
    if not (folder or old.is_file() or old.is_symlink()):
        raise OutputError(f"{old} is no regular file: it is not replaced")
    if os.path.lexists(by) and folder != by.is_dir():
        kind = "a folder" if folder else "a file"
        raise OutputError(f"cannot write {old}: {kind} of that name is there")


def _remove(place: Path) -> None:
    """Remove a staging folder, also where Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(place, ignore_errors=True)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were missing, the outermost first."""
    missing = [p for p in (folder, *folder.parents) if not os.path.lexists(p)][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _locked(place: Path, target: Path) -> int:
    """Make and lock a staging folder; returns the descriptor that holds the lock."""
    while True:
        place.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            if not _try_lock(lock):
                os.close(lock)
                raise OutputError(f"another dyn3r is writing {target}: wait until it has ended")
            if _is_file(lock, place / _LOCK):
                return lock
            os.close(lock)


def _try_lock(descriptor: int) -> bool:
    """Lock a file; False if another process has. File systems without locks say True."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_abandoned(parent: Path) -> None:
    """Remove staging folders of processes that were killed."""
    for entry in _entries(parent):
        if not is_staging(entry.name):
            continue
        place = Path(entry.path)
        with contextlib.suppress(OSError):
            if not (place / _LOCK).exists():
                if time.time() - place.stat().st_mtime > _NEW_S:
                    shutil.rmtree(place, ignore_errors=True)
                continue
            lock = os.open(place / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)
