"""Download of one file over HTTP: resumable, checked, moved into place when complete."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dyn3r.errors import DownloadError, Dyn3rError
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)

UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Header that asks for a file as it is, so that its length is the one announced."""
_BLOCK = 4 << 20


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is downloaded."""

    limit: int
    """Bytes that such a file has at most."""
    size: int | None = None
    """Bytes, where known; a server that sends more is cut off."""
    checksums: Sequence[str] = ()
    """All must hold. Each is a SHA-256 in hexadecimal digits (or its leading 8 or more), or the 40
    digits of git's SHA-1 of a blob (stated by the hub for small files); other texts are ignored."""
    check: Callable[[Path], None] | None = None
    """Called with the path of what was received, before it gets its name. Raises a Dyn3rError if it
    is no such file."""


def checked_fetch(
    address: str,
    target: Path,
    expected: Expected,
    *,
    label: str,
    headers: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> None:
    """Download `address` to `target` unless the right content is there already.

    label: name of the file in messages. The transfer uses huggingface_hub's HTTP client, with its
    proxy settings and retries.

    Raises DownloadError for content that is not the expected one (it is deleted) and for a full
    disk. Network errors (`network_errors`) and OSError are passed on; the part received so far is
    kept for the next try.
    """
    size, limit, checksums = expected.size, expected.limit, expected.checksums
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.dyn3r.part")
    if target.is_file():
        if not (wrong := _wrong_checksum(target, checksums, label, progress)):
            part.unlink(missing_ok=True)
            return
        logger.warning("%s on this machine is damaged (%s); downloading it again", label, wrong)
    if size is not None and size > limit:
        raise DownloadError(
            f"{label}: the server announces {size / 1e6:.0f} MB, more than such a file has "
            f"({limit / 1e6:.0f} MB)"
        )
    _transfer(address, part, label, expected, headers or {}, progress)
    if wrong := _wrong_checksum(part, checksums, label, progress):
        part.unlink()
        raise DownloadError(
            f"{label} is not the published file ({wrong}); it was deleted: try again, or another "
            "source"
        )
    if expected.check is not None:
        try:
            expected.check(part)
        except Dyn3rError as problem:
            part.unlink()
            raise DownloadError(f"{label} was deleted: {problem}") from None
    os.replace(part, target)


def announced_size(address: str) -> int | None:
    """Return the bytes that a server announces for a file; None if it does not say.

    Redirects are followed. Network errors (`network_errors`) and OSError are passed on.
    """
    from huggingface_hub import utils

    tools: Any = utils  # it does not declare its exports
    answer = tools.get_session().request("HEAD", address, headers=dict(UNCOMPRESSED), timeout=30)
    if answer.status_code in (405, 501):  # a server that answers no HEAD
        return None
    tools.hf_raise_for_status(answer)
    length = answer.headers.get("Content-Length", "")
    plain = answer.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if plain and re.fullmatch(r"[0-9]{1,18}", length) else None


def file_sha256(path: Path, *, label: str, progress: Progress = no_progress) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. OSError is passed on."""
    return _digests(path, label, progress, git=False)[0]


def file_name_problem(value: str | None) -> str:
    """Explain why a version stated by a server can't be a file name; empty if it can."""
    if not value:
        return "it names no version"
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", value):
        return f"it names the version {value!r:.40}"
    return ""


def _transfer(
    address: str,
    part: Path,
    label: str,
    expected: Expected,
    headers: Mapping[str, str],
    progress: Progress,
) -> None:
    """Complete the file `part`, from where it ends if the size is known."""
    size, limit = expected.size, expected.limit
    with open(part, "r+b" if part.exists() else "w+b") as file, _hub_bars_disabled():
        have = file.seek(0, os.SEEK_END)
        if size is None or have > size:  # without a size it can't be resumed
            have = file.seek(0)
            file.truncate()
        free = shutil.disk_usage(part.parent).free
        if size is not None and size - have > free:
            raise DownloadError(
                f"{label} needs {(size - have) / 1e9:.1f} GB more, {part.parent} has only "
                f"{free / 1e9:.1f} GB left"
            )
        counted = _SizedFile(file, label, size, limit, progress)
        try:
            try:
                _receive(address, counted, headers)
            except _TooLong:
                if not have:
                    raise
                file.seek(0)  # the server ignored the range and sent the whole file
                file.truncate()
                _receive(address, counted, headers)
        except _TooLong:
            file.truncate(0)
            most = f"{size} bytes it announced" if size is not None else f"{limit} bytes expected"
            raise DownloadError(
                f"{label}: the server sends more than the {most}; the file was deleted: try again, "
                "or another source"
            ) from None
        file.flush()
        os.fsync(file.fileno())


def _receive(address: str, file: _SizedFile, headers: Mapping[str, str]) -> None:
    """Append the rest of the file; reconnect as long as every connection brings some of it."""
    from huggingface_hub.file_download import http_get

    while True:
        have = file.seek(0, os.SEEK_END)
        if have:
            logger.info("%s: resuming after %d bytes", file.label, have)
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
    """Return the error classes of the HTTP client that huggingface_hub uses (requests, httpx)."""
    from huggingface_hub.errors import HfHubHTTPError

    base = HfHubHTTPError.__bases__[0]
    return tuple(
        kind
        for kind in base.__mro__
        if kind.__module__ == base.__module__ and issubclass(kind, Exception)
    )


class _TooLong(Exception):
    """More bytes were received than announced."""


class _SizedFile:
    """File that reports its size in megabytes and refuses more bytes than announced."""

    def __init__(
        self, file: BinaryIO, label: str, size: int | None, limit: int, progress: Progress
    ) -> None:
        """Wrap `file`, which is to hold `size` bytes; if that is not known, at most `limit`."""
        self.file, self.label, self.size, self.progress = file, label, size, progress
        self.most = limit if size is None else size
        self.report()

    def write(self, chunk: bytes) -> int:
        """Write a chunk. Raises _TooLong if the file would exceed its size."""
        if self.file.tell() + len(chunk) > self.most:
            raise _TooLong
        written = self.file.write(chunk)
        self.report()
        return written

    def report(self) -> None:
        """Report the size reached so far."""
        if self.size is not None:
            total = max(1, -(-self.size // 1_000_000))
            done = total if self.file.tell() >= self.size else self.file.tell() // 1_000_000
            self.progress(f"{self.label} (MB)", done, total)

    def __getattr__(self, name: str) -> Any:
        """Forward tell, seek, truncate and name to the file."""
        return getattr(self.file, name)


def _wrong_checksum(path: Path, checksums: Sequence[str], label: str, progress: Progress) -> str:
    """Describe the first checksum that does not hold; empty if all known ones hold."""
    wanted = [c.lower() for c in checksums if re.fullmatch(r"[0-9a-fA-F]{8,64}", c)]
    if not wanted:
        logger.info("%s: no checksum is known", label)
        return ""
    git = any(len(digits) == 40 for digits in wanted)
    sha256, blob_sha1 = _digests(path, label, progress, git=git)
    for digits in wanted:
        found = blob_sha1 if len(digits) == 40 else sha256
        if not found.startswith(digits):
            return f"checksum {found[:12]}... instead of {digits[:12]}..."
    return ""


def _digests(path: Path, label: str, progress: Progress, *, git: bool) -> tuple[str, str]:
    """Compute the SHA-256 and, if asked for, git's SHA-1 of a blob."""
    size = path.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    total, done = max(1, -(-size // 1_000_000)), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            if git:
                blob.update(block)
            done += len(block)
            progress(f"checking {label} (MB)", total if done >= size else done // 1_000_000, total)
    return sha256.hexdigest(), blob.hexdigest()


@contextmanager
def _hub_bars_disabled() -> Iterator[None]:
    """Disable huggingface_hub's own progress bars: ours replace them."""
    from huggingface_hub import utils

    bars: Any = utils  # it does not declare its exports
    group = "huggingface_hub.http_get"
    if bars.are_progress_bars_disabled(group):
        yield
        return
    bars.disable_progress_bars(group)
    try:
        yield
    finally:
        bars.enable_progress_bars(group)
