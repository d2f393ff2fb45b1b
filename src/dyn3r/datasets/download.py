"""Download of open data sets: resumable, checked, unpacked safely, at most once.

    ROOT/archives/NAME/FILE          an archive as downloaded
    ROOT/archives/NAME/FILE.sha256   its checksum, in the format of sha256sum
    ROOT/NAME/...                    the data set
    ROOT/NAME/.FILE.unpacked         the checksum of the archive whose files are here

The addresses could not be reached from the machine on which dyn3r is developed, and the checksums
are not known. Where the catalogue has none, that of the first download is recorded and must hold
whenever the archive is resumed, downloaded again or checked (trust on first use). An archive that
was put in its place by hand is treated as a first download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dyn3r.datasets.catalogue import Archive, CatalogueEntry
from dyn3r.errors import DownloadError, InputError
from dyn3r.io.atomic import write_text
from dyn3r.io.download import (
    UNCOMPRESSED,
    Expected,
    announced_size,
    checked_fetch,
    file_sha256,
    network_errors,
)
from dyn3r.io.unpack import unpack
from dyn3r.types import Progress, no_progress

LARGEST_ARCHIVE = 100_000_000_000
"""Bytes of an archive whose size is not known beforehand; the largest one known has 15 GB."""


def get(entry: CatalogueEntry, root: Path, *, progress: Progress = no_progress) -> Path:
    """Download and unpack an open data set below `root`, and return its folder.

    What is there already is not fetched again: archives are checked, and unpacked if their files
    are not in the folder. An archive may be deleted once it is unpacked. A run that was interrupted
    goes on at the byte where its download stopped, or at the archive that it unpacked.

    Raises:
        InputError: the data set is not open; an archive that is damaged or hostile.
        DownloadError: no connection, an error of the server, another length or checksum than known.
        OutputError: `root` can't be written.
    """
    if not entry.is_open:
        why = f"it needs {entry.agreement}" if entry.agreement else "it has to be fetched by hand"
        raise InputError(f"{entry.name} is not downloaded by dyn3r: {why}; see {entry.page}")
    folder, archives = root / entry.name, root / "archives" / entry.name
    archives.mkdir(parents=True, exist_ok=True)
    with _locked(archives / ".lock"):
        for archive in entry.archives:
            path, done = archives / archive.file_name, folder / f".{archive.file_name}.unpacked"
            if done.is_file() and not path.exists():
                continue
            checksum = _fetch(entry, archive, path, progress)
            if _recorded_checksum(done) != checksum:
                _unpack(entry, path, folder, progress)
                _record_checksum(done, checksum, path.name)
    return folder


def steps_by_hand(entry: CatalogueEntry, root: Path) -> list[str]:
    """List what a person has to do for this data set, with its folder below `root`."""
    return [step.replace("FOLDER", str(root / entry.name)) for step in entry.by_hand]


def _fetch(entry: CatalogueEntry, archive: Archive, path: Path, progress: Progress) -> str:
    """Download an archive, or check the one that is there; return its checksum."""
    label, record = f"{entry.name}: {path.name}", path.with_name(f"{path.name}.sha256")
    known = archive.sha256 or _recorded_checksum(record)
    if not path.is_file() or known:
        hint = "" if archive.sha256 or not known else f" (the first download's is in {record})"
        with _clear_errors(entry, archive, path, hint):
            size = archive.bytes if path.is_file() else _checked_size(archive)
            checked_fetch(
                archive.url,
                path,
                Expected(archive.bytes or LARGEST_ARCHIVE, size, [known] if known else []),
                label=label,
                headers=UNCOMPRESSED,
                progress=progress,
            )
    _check_length(archive, path)
    checksum = known or file_sha256(path, label=label, progress=progress)
    if not record.is_file():
        _record_checksum(record, checksum, path.name)
    return checksum


def _checked_size(archive: Archive) -> int | None:
    """Ask the server for the length. Raises DownloadError if it is not the one known."""
    size = announced_size(archive.url)
    if archive.bytes is not None and size not in (None, archive.bytes):
        raise DownloadError(
            f"{archive.url} has {size} bytes, expected {archive.bytes}: it is not the archive that "
            "dyn3r knows"
        )
    return archive.bytes if size is None else size


def _check_length(archive: Archive, path: Path) -> None:
    size = path.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        raise DownloadError(
            f"{path} has {size} bytes, expected {archive.bytes}: delete it and try again"
        )


def _unpack(entry: CatalogueEntry, path: Path, folder: Path, progress: Progress) -> None:
    try:
        unpack(path, folder, label=f"{entry.name}: {path.name}", progress=progress)
    except InputError as problem:
        raise InputError(
            f"{problem}; to download it again, delete it and {path.name}.sha256"
        ) from None


def _recorded_checksum(record: Path) -> str:
    """Read the checksum in a record; empty if there is none. Raises InputError for other text."""
    if not record.is_file():
        return ""
    with open(record, encoding="utf-8", errors="replace") as file:
        text = file.read(100)
    if not (found := re.match(r"[0-9a-f]{64}(?= )", text)):
        raise InputError(f"{record} holds no checksum: delete it and try again")
    return found[0]


def _record_checksum(record: Path, checksum: str, name: str) -> None:
    write_text(record, f"{checksum}  {name}\n", overwrite=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two runs from writing the same files."""
    from huggingface_hub import utils

    tools: Any = utils  # it does not declare its exports
    with tools.WeakFileLock(path):
        yield


@contextmanager
def _clear_errors(entry: CatalogueEntry, archive: Archive, path: Path, hint: str) -> Iterator[None]:
    """Convert errors of the network and the disk to DownloadError with one line."""
    errors: tuple[type[BaseException], ...] = (*network_errors(), OSError)
    try:
        yield
    except DownloadError as problem:
        raise DownloadError(f"{problem}{hint}; see {entry.page}") from None
    except errors as problem:
        raise DownloadError(f"{entry.name}: {_reason(archive, path, problem)}") from None


def _reason(archive: Archive, path: Path, problem: BaseException) -> str:
    """Explain an error of the network or the disk, and its remedy."""
    by_hand = f"download {archive.url} by hand to {path}"
    if not isinstance(problem, network_errors()):
        reason = getattr(problem, "strerror", None) or str(problem).partition("\n")[0][:240]
        return f"{path.name} could not be downloaded: {reason}; try again"
    status = getattr(getattr(problem, "response", None), "status_code", None)
    server = urlsplit(archive.url).netloc
    if status is None:
        return f"no connection to {server} ({type(problem).__name__}); try again, or {by_hand}"
    return f"{server} answers with error {status} for {path.name}; try again later, or {by_hand}"
