"""Safe unpacking of downloaded archives: zip, and tar compressed with gzip.

An archive from a server is untrusted. Only plain files and folders below the target are written;
every other kind of member, and a path that leads elsewhere, is refused before anything appears in
the target. Permissions and owners in the archive are ignored.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO

from dyn3r.errors import InputError
from dyn3r.io.atomic import atomic_folder
from dyn3r.types import Progress, no_progress

EXPANSION = 10
"""Most unpacked bytes per byte of an archive; pictures and float maps stay far below."""
ALLOWANCE = 64_000_000
"""Bytes that any archive may hold besides, since small text files compress well."""
_BLOCK = 1 << 20
_LONGEST_READ = 16 << 20  # tarfile reads extended headers in one piece, however long they claim


def unpack(
    archive: Path, target: Path, *, label: str = "", progress: Progress = no_progress
) -> None:
    """Unpack `archive` into the folder `target`, completely or not at all.

    Files are unpacked to a temporary folder beside `target` and moved into place at the end.
    Existing files of the same names are replaced, others stay. label: name in progress messages.

    Raises:
        InputError: another format; damaged or encrypted; a member that is absolute, leads out of
            the folder, or is a link or a device; more data than such an archive can hold.
        OutputError: `target` can't be written.
    """
    is_zip = zipfile.is_zipfile(archive)
    stage = f"unpacking {label or archive.name} (MB)"
    with (
        atomic_folder(target, overwrite=True) as part,
        _as_input_error(archive),
        open(archive, "rb") as file,
    ):
        limit = EXPANSION * archive.stat().st_size + ALLOWANCE
        members = _zip_members(file) if is_zip else _tar_members(file, limit)
        _write_members(members, part, limit, _megabytes(file, stage, progress))


@dataclass(frozen=True)
class _Member:
    """One file or folder of an archive."""

    name: str
    size: int
    kind: str
    """file, folder, or what else it is."""
    content: Callable[[], IO[bytes] | BufferedIOBase]


class _RefusedError(Exception):
    """Content that is not unpacked; the message says why."""


def _write_members(
    members: Iterator[_Member], folder: Path, limit: int, report: Callable[[], None]
) -> None:
    total = 0
    for member in members:
        place = folder.joinpath(*_path_below(member.name))
        total += member.size
        if total > limit:
            raise _RefusedError(f"it holds more than {limit / 1e9:.1f} GB, unlike any such archive")
        if member.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
        elif member.kind != "file":
            raise _RefusedError(f"{member.name!r:.80} is {member.kind}")
        elif place == folder:
            raise _RefusedError(f"{member.name!r:.80} is no name of a file")
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_file(member, place)
        report()


def _write_file(member: _Member, place: Path) -> None:
    written = 0
    with member.content() as source, open(place, "wb") as file:
        while block := source.read(_BLOCK):
            written += file.write(block)
    if written != member.size:
        raise EOFError(f"{member.name!r:.80} is cut off")


def _path_below(name: str) -> tuple[str, ...]:
    """The parts of a path, if it stays below the folder on every system."""
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        raise _RefusedError(f"{name!r:.80} is not a relative path")
    if ".." in path.parts:
        raise _RefusedError(f"{name!r:.80} leads out of the folder")
    return path.parts


def _zip_members(file: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            content = partial(archive.open, entry)
            yield _Member(entry.filename, entry.file_size, _zip_kind(entry), content)


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in an unusual way"
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link" if mode == stat.S_IFLNK else "a special file"
    return "folder" if entry.is_dir() else "file"


def _tar_members(file: BinaryIO, limit: int) -> Iterator[_Member]:
    # headers take room besides the files: every byte that is decompressed counts
    with _BoundedGzip(file, limit + limit // 8) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                content = partial(_tar_content, archive, entry)
                yield _Member(entry.name, entry.size, _tar_kind(entry), content)
        while stream.read(_BLOCK):  # the checksum is at the end
            pass


def _tar_content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> BufferedIOBase:
    content = archive.extractfile(entry)
    assert isinstance(content, BufferedIOBase)
    return content


def _tar_kind(entry: tarfile.TarInfo) -> str:
    if entry.isfile():
        return "file"
    if entry.isdir():
        return "folder"
    return "a link" if entry.issym() or entry.islnk() else "a special file"


class _BoundedGzip(gzip.GzipFile):
    """Decompressed stream that refuses to go beyond `limit` bytes, or to read much at once."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        super().__init__(fileobj=file)
        self.limit = limit

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes. Raises _RefusedError beyond the bounds."""
        if size is None or not 0 <= size <= _LONGEST_READ:
            raise _RefusedError("it has a header of many megabytes")
        self._check(self.tell())
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position. Raises _RefusedError beyond the bounds."""
        if whence == os.SEEK_SET:  # tell() is a seek too, relative to the position
            self._check(offset)
        return super().seek(offset, whence)

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise _RefusedError("it is much larger than its files")


def _megabytes(file: BinaryIO, stage: str, progress: Progress) -> Callable[[], None]:
    """Report how far the archive was read; the end is reported when it is reached."""
    size = os.fstat(file.fileno()).st_size
    total = max(1, -(-size // 1_000_000))

    def report() -> None:
        progress(stage, min(total, file.tell() // 1_000_000), total)

    return report


@contextmanager
def _as_input_error(archive: Path) -> Iterator[None]:
    """Convert what the readers of zip and tar raise to InputError with one line."""
    damage = (
        zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError,
        NotImplementedError, ValueError, RecursionError,
    )  # fmt: skip
    try:
        yield
    except _RefusedError as problem:
        raise InputError(f"{archive} was not unpacked: {problem}") from None
    except damage as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:120]
        raise InputError(f"{archive} is damaged, or no zip or tgz archive ({reason})") from None
