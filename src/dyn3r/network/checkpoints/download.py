"""One file over HTTP: resumed where it broke off, checked, moved into place when it is right."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dyn3r.errors import CheckpointError
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)

_BLOCK = 4 << 20


def checked_fetch(
    address: str,
    target: Path,
    *,
    label: str,
    size: int | None = None,
    checksums: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> None:
    """Fetch `address` to `target` unless the right content lies there already.

    label: what it is, for people. size: bytes, where known; a server that sends more is cut off.
    checksums: what must hold, each the SHA-256 in hexadecimal digits (or its leading 8 or more), or
    40 digits, git's SHA-1 of a blob (what the hub states for small files); other texts are ignored.
    The transfer runs through huggingface_hub's HTTP client, with its proxy settings and retries.

    Raises CheckpointError for content that is not the published one (it is thrown away) and for a
    full disk; network errors are passed on, and leave what came so far for the next try.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.dyn3r.part")
    if target.is_file():
        if not (wrong := _wrong_checksum(target, checksums, label, progress)):
            part.unlink(missing_ok=True)
            return
        logger.warning("%s on this machine is damaged (%s); it is fetched again", label, wrong)
    _transfer(address, part, label, size, headers or {}, progress)
    if wrong := _wrong_checksum(part, checksums, label, progress):
        part.unlink()
        raise CheckpointError(
            f"{label} is not the published file ({wrong}); it was thrown away: try again, or "
            "another source"
        )
    os.replace(part, target)


def file_name_problem(value: str | None) -> str:
    """Why a server's word is no name for a file of ours; empty if it is one."""
    if not value:
        return "it names no version"
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", value):
        return f"it names the version {value!r:.40}"
    return ""


def _transfer(
    address: str,
    part: Path,
    label: str,
    size: int | None,
    headers: Mapping[str, str],
    progress: Progress,
) -> None:
    with open(part, "r+b" if part.exists() else "w+b") as file, _no_foreign_bars():
        have = file.seek(0, os.SEEK_END)
        if size is None or have > size:  # without a size nobody can tell where to go on
            have = file.seek(0)
            file.truncate()
        free = shutil.disk_usage(part.parent).free
        if size is not None and size - have > free:
            raise CheckpointError(
                f"{label} needs {(size - have) / 1e9:.1f} GB more, {part.parent} has only "
                f"{free / 1e9:.1f} GB left"
            )
        counted = _Counted(file, label, size, progress)
        try:
            try:
                _receive(address, counted, headers)
            except _TooLong:
                if not have:
                    raise
                file.seek(0)  # it was asked for the rest and sent everything
                file.truncate()
                _receive(address, counted, headers)
        except _TooLong:
            file.truncate(0)
            raise CheckpointError(
                f"{label}: the server sends more than the {size} bytes it announced; nothing was "
                "kept: try again, or another source"
            ) from None
        file.flush()
        os.fsync(file.fileno())


def _receive(address: str, file: _Counted, headers: Mapping[str, str]) -> None:
    """Everything behind the file's end, over as many connections as it takes while some comes."""
    from huggingface_hub.file_download import http_get

    while True:
        have = file.seek(0, os.SEEK_END)
        if have:
            logger.info("%s: going on after %d bytes", file.label, have)
        received: Any = file
        try:
            http_get(
                address,
                received,
                resume_size=have,
                headers=dict(headers),
                expected_size=file.size,
            )
            return
        except network_errors() as problem:
            if file.tell() <= have or getattr(problem, "response", None) is not None:
                raise
            logger.warning("%s: the connection broke (%s)", file.label, type(problem).__name__)


def network_errors() -> tuple[type[BaseException], ...]:
    """Errors of requests, httpx or httpx2, whichever this version of huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    base = HfHubHTTPError.__bases__[0]
    return tuple(
        kind
        for kind in base.__mro__
        if kind.__module__ == base.__module__ and issubclass(kind, Exception)
    )


class _TooLong(Exception):
    """More bytes arrive than were announced."""


class _Counted:
    """A file that reports how much is in it, in megabytes, and takes no more than it should."""

    def __init__(self, file: BinaryIO, label: str, size: int | None, progress: Progress) -> None:
        self.file, self.label, self.size, self.progress = file, label, size, progress
        self.report()

    def write(self, chunk: bytes) -> int:
        if self.size is not None and self.file.tell() + len(chunk) > self.size:
            raise _TooLong
        written = self.file.write(chunk)
        self.report()
        return written

    def report(self) -> None:
        if self.size is not None:
            total = max(1, -(-self.size // 1_000_000))
            done = total if self.file.tell() >= self.size else self.file.tell() // 1_000_000
            self.progress(f"{self.label} (MB)", done, total)

    def __getattr__(self, name: str) -> Any:  # tell, seek, truncate, name
        return getattr(self.file, name)


def _wrong_checksum(path: Path, checksums: Sequence[str], label: str, progress: Progress) -> str:
    """What does not hold; empty if everything that is known does."""
    wanted = [c.lower() for c in checksums if re.fullmatch(r"[0-9a-fA-F]{8,64}", c)]
    if not wanted:
        logger.info("%s: no checksum is known", label)
        return ""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    total, done = max(1, -(-size // 1_000_000)), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            if any(len(digits) == 40 for digits in wanted):
                git.update(block)
            done += len(block)
            progress(f"checking {label} (MB)", total if done >= size else done // 1_000_000, total)
    for digits in wanted:
        found = git.hexdigest() if len(digits) == 40 else sha256.hexdigest()
        if not found.startswith(digits):
            return f"checksum {found[:12]}... instead of {digits[:12]}..."
    return ""


@contextmanager
def _no_foreign_bars() -> Iterator[None]:
    """Without huggingface_hub's own progress bars: ours stand for them."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    group = "huggingface_hub.http_get"
    if are_progress_bars_disabled(group):
        yield
        return
    disable_progress_bars(group)
    try:
        yield
    finally:
        enable_progress_bars(group)
