"""Archives given by a user, opened in one place: .npz and .npy of NumPy, and zip.

What an archive declares is checked before memory is allocated: sizes against the file, the kind of
numbers, and all bytes together against a budget. Objects of Python are never read.
"""

from __future__ import annotations

import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from dyn3r.errors import InputError
from dyn3r.io.regular_files import open_regular

EXPANSION = 300
"""Most bytes in memory per byte of an archive. Masks, which compress best, stay below 200."""
ALLOWANCE = 256 << 20
"""Bytes that any archive may unpack to, since empty maps compress further."""
_MAX_MEMBERS = 200_000
_MAX_HEADER = 10_000  # bytes of the header of an array; NumPy's own limit
_BLOCK = 1 << 24

DAMAGE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    RuntimeError, struct.error, tokenize.TokenError, SyntaxError, TypeError, LookupError,
    ArithmeticError, MemoryError, AttributeError,
)  # fmt: skip
"""Errors that the readers of zip and NumPy raise for damaged files (found by flipping bytes)."""


def check_budget(path: Path, needed: int, archive_bytes: int) -> None:
    """Raise InputError if `needed` bytes are more than such an archive can hold."""
    if needed > max(ALLOWANCE, EXPANSION * archive_bytes):
        raise InputError(
            f"{path} declares {needed / 1e9:.1f} GB, which a file of {archive_bytes / 1e6:.3g} MB "
            "does not hold"
        )


@contextmanager
def open_zip(path: Path, kind: str = "zip archive") -> Iterator[zipfile.ZipFile]:
    """Open a zip archive; `kind` is what it is, for messages.

    Raises:
        InputError: no regular file, no zip, encrypted, compressed in an unusual way, or with a
            directory of implausible size.
    """
    with open_regular(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGE as error:
            raise InputError(f"{path} is no {kind}, or its end is missing") from error
        with archive:
            entries = archive.infolist()
            if len(entries) > _MAX_MEMBERS:
                raise InputError(f"{path} has {len(entries)} members: more than dyn3r reads")
            plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            for entry in entries:
                if entry.flag_bits & 1 or entry.compress_type not in plain:
                    raise InputError(f"{path} is encrypted or packed in an unusual way")
            yield archive


@dataclass(frozen=True)
class ArrayHeader:
    """What an array is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayFile:
    """Arrays of an .npz file; made by `open_arrays`. Every method raises InputError."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        """Check the directory of the archive."""
        self._archive, self._path, self._used = archive, path, 0
        self._size = path.stat().st_size
        self.names = [
            entry.filename.removesuffix(".npy")
            for entry in archive.infolist()
            if entry.filename.endswith(".npy")
        ]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def header(self, name: str) -> ArrayHeader:
        """Shape and type of an array."""
        with self._reading(name) as stream:
            return _header(stream, self._path)

    def read(self, name: str) -> Shaped[np.ndarray, "..."]:
        """An array of numbers or texts."""
        with self._reading(name) as stream:
            header = _header(stream, self._path)
            self._used += header.nbytes
            check_budget(self._path, self._used, self._size)
            return _content(stream, header)

    @contextmanager
    def _reading(self, name: str) -> Iterator[BufferedIOBase]:
        if name not in self.names:
            found = ", ".join(self.names)[:80] or "none"
            raise InputError(f"{self._path} has no array '{name}', found {found}")
        with _damage_named(self._path, name), self._archive.open(f"{name}.npy") as stream:
            assert isinstance(stream, BufferedIOBase)
            yield stream


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open an .npz file. Raises InputError as `open_zip` does."""
    with open_zip(path) as archive:
        yield ArrayFile(archive, path)


def read_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Array of an .npy file. Raises InputError."""
    with open_regular(path) as file, _damage_named(path, "the array"):
        header = _header(file, path)
        if header.nbytes > path.stat().st_size:
            raise ValueError("it ends early")
        return _content(file, header)


def _header(stream: BufferedIOBase, path: Path) -> ArrayHeader:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its format {version[0]}.{version[1]} is not supported")
    shape, fortran, dtype = readers[version](stream, max_header_size=_MAX_HEADER)
    if dtype.kind not in "buifUS" or dtype.itemsize == 0:
        raise InputError(f"{path} must hold numbers, not {str(dtype)[:40]}")
    if any(isinstance(n, bool) or not 0 <= n < 2**40 for n in shape):
        raise ValueError("its shape is not possible")
    return ArrayHeader(tuple(int(n) for n in shape), dtype, bool(fortran))


def _content(stream: BufferedIOBase, header: ArrayHeader) -> np.ndarray:
    """The array after its header; the whole stream is read, so that its checksum is checked."""
    flat = np.empty(math.prod(header.shape), header.dtype)
    room, done = memoryview(flat.view(np.uint8).data), 0
    while done < len(room):
        block = stream.read(min(_BLOCK, len(room) - done))
        if not block:
            raise EOFError("it ends early")
        room[done : done + len(block)] = block
        done += len(block)
    if stream.read(1):
        raise ValueError("it is longer than its header says")
    if header.dtype.kind == "U":
        points = flat.view(np.dtype(np.uint32).newbyteorder(header.dtype.byteorder))
        if (points > sys.maxunicode).any():
            raise ValueError("it holds what are no characters")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


@contextmanager
def _damage_named(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
        raise InputError(f"{path} cannot be read: {name[:40]}: {reason}") from error
