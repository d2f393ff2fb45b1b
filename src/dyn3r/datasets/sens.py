"""ScanNet's .sens recordings: an index of the frames, and one frame at a time.

Little-endian (docs/design/DATASETS.md, 2.7): version 4, sensor name, four 4x4 matrices, codecs,
sizes, depth shift, number of frames; then each frame with its pose, sizes and encoded pictures.
Every size is checked before it is used, so that a damaged file costs no memory.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Float32, UInt8

from dyn3r.datasets.encoded import decode_rgb
from dyn3r.errors import InputError

VERSION = 4
MAX_SIDE, MAX_NAME = 4096, 4096
"""Pixels of a side, bytes of the sensor's name."""
COLOR_CODECS = (1, 2)
"""PNG and JPEG."""
RAW, ZLIB = 0, 1
"""Codecs of depth, 16-bit values."""
_START = struct.Struct("<IQ")
_HEADER = struct.Struct("<64f2i4IfQ")
_FRAME = struct.Struct("<16f4Q")


@dataclass(frozen=True)
class SensFile:
    """Content of a recording, but for its pictures."""

    file: Path
    K: Float[np.ndarray, "3 3"]
    """Of the colour camera."""
    color_hw: tuple[int, int]
    depth_hw: tuple[int, int]
    depth_codec: int
    depth_shift: float
    """Values per metre."""
    poses: Float[np.ndarray, "n 4 4"]
    """Camera to world as stored: -inf where tracking was lost."""
    places: tuple[tuple[int, int, int], ...]
    """Per frame: offset of the pictures in the file, bytes of colour, bytes of depth."""

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB of a frame."""
        offset, color_bytes, _ = self.places[index]
        data = self._read(offset, color_bytes, index)
        return decode_rgb(data, f"{self.file}, frame {index}", self.color_hw)

    def depth(self, index: int) -> Float32[np.ndarray, "hd wd"]:
        """Metres along the optical axis, 0 where unknown."""
        offset, color_bytes, depth_bytes = self.places[index]
        data = self._read(offset + color_bytes, depth_bytes, index)
        size = 2 * self.depth_hw[0] * self.depth_hw[1]
        if self.depth_codec == ZLIB:
            try:
                data = zlib.decompressobj().decompress(data, size + 1)
            except zlib.error as error:
                raise InputError(f"{self.file}, frame {index}: damaged depth: {error}") from error
        if len(data) != size:
            raise InputError(
                f"{self.file}, frame {index}: depth does not fill "
                f"{self.depth_hw[1]}x{self.depth_hw[0]} pixels of 16 bits"
            )
        values = np.frombuffer(data, "<u2").reshape(self.depth_hw)
        return (values / self.depth_shift).astype(np.float32)

    def _read(self, offset: int, count: int, index: int) -> bytes:
        try:
            with self.file.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(count)
        except OSError as error:
            raise InputError(f"{self.file} cannot be read: {error.strerror}") from error
        if len(data) != count:
            raise InputError(f"{self.file} ends within frame {index}")
        return data


def open_sens(file: Path) -> SensFile:
    """Read the header and the place of every frame.

    Raises:
        InputError: missing, truncated, of another version or codec, or with impossible sizes.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            return _index(stream, file)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _index(stream: BinaryIO, file: Path) -> SensFile:
    version, name_bytes = _unpack(stream, _START, file, "header")
    if version != VERSION or name_bytes > MAX_NAME:
        raise InputError(
            f"{file} is no .sens file of version {VERSION}: found version {version} and a sensor "
            f"name of {name_bytes} bytes"
        )
    stream.seek(name_bytes, os.SEEK_CUR)
    *head, depth_shift, count = _unpack(stream, _HEADER, file, "header")
    color_codec, depth_codec, wc, hc, wd, hd = head[64:]
    if color_codec not in COLOR_CODECS or depth_codec not in (RAW, ZLIB):
        raise InputError(
            f"{file} has colour codec {color_codec} and depth codec {depth_codec}, expected "
            f"PNG or JPEG (1, 2) and raw or zlib (0, 1)"
        )
    if not all(0 < side <= MAX_SIDE for side in (wc, hc, wd, hd)):
        raise InputError(f"{file} has pictures of {wc}x{hc} and depth of {wd}x{hd} pixels")
    if not (np.isfinite(depth_shift) and depth_shift > 0):
        raise InputError(f"{file} has a depth shift of {depth_shift}, expected 1000 or alike")
    largest = (_largest_bytes(wc, hc), _largest_bytes(wd, hd))
    poses, places = _frames(stream, count, largest, file)
    return SensFile(
        file=file,
        K=np.array(head[:16], dtype=np.float64).reshape(4, 4)[:3, :3],
        color_hw=(hc, wc),
        depth_hw=(hd, wd),
        depth_codec=depth_codec,
        depth_shift=depth_shift,
        poses=poses,
        places=places,
    )


def _frames(
    stream: BinaryIO, count: int, largest: tuple[int, int], file: Path
) -> tuple[Float[np.ndarray, "n 4 4"], tuple[tuple[int, int, int], ...]]:
    end = os.fstat(stream.fileno()).st_size
    if not 0 < count <= (end - stream.tell()) // _FRAME.size:
        raise InputError(f"{file} announces {count} frames, which its {end} bytes cannot hold")
    poses = np.empty((count, 16))
    places = []
    for k in range(count):
        *pose, _, _, color, depth = _unpack(stream, _FRAME, file, f"frame {k}")
        offset = stream.tell()
        if not (0 < color <= largest[0] and 0 < depth <= largest[1]):
            raise InputError(f"{file}, frame {k}: {color} bytes of colour and {depth} of depth")
        if color + depth > end - offset:
            raise InputError(f"{file} ends within frame {k} of {count}")
        poses[k] = pose
        places.append((offset, color, depth))
        stream.seek(color + depth, os.SEEK_CUR)
    return poses.reshape(count, 4, 4), tuple(places)


def _unpack(stream: BinaryIO, layout: struct.Struct, file: Path, what: str) -> tuple[Any, ...]:
    data = stream.read(layout.size)
    if len(data) != layout.size:
        raise InputError(f"{file} ends within the {what}")
    return layout.unpack(data)


def _largest_bytes(width: int, height: int) -> int:
    """More than any encoder needs for a picture."""
    return 4 * width * height + 65536
