"""OpenEXR images of one channel of 32-bit floats, as OpenCV writes depth.

Scan lines without compression or with zlib (ZIP, ZIPS), checked byte for byte: FFmpeg's decoder
returns zeros for the missing part of a damaged file and does not say so. Source: "OpenEXR File
Layout", openexr.com.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dyn3r.errors import InputError
from dyn3r.io.regular_files import open_regular

TAG = b"\x76\x2f\x31\x01"
MAX_BYTES, MAX_SIDE = 1 << 28, 1 << 14
SCAN_LINES = 0x4FF
"""Bits of the version of a file of scan lines: others are tiled, deep or of several parts."""
FLOAT = 2
LINES = {0: 1, 2: 1, 3: 16}
"""Lines of a block by compression: none, ZIPS, ZIP."""


def read_exr(file: Path) -> Float32[np.ndarray, "h w"]:
    """The only channel of an OpenEXR image. Raises InputError."""
    with open_regular(file) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES or data[:4] != TAG:
        raise InputError(f"{file}: expected an OpenEXR image, found {len(data)} other bytes")
    try:
        return _decode(data)
    except (ValueError, struct.error, zlib.error, LookupError, OverflowError) as problem:
        raise InputError(
            f"{file}: expected whole OpenEXR scan lines of one float channel, uncompressed or ZIP: "
            f"{problem}"
        ) from None


def _decode(data: bytes) -> Float32[np.ndarray, "h w"]:
    (version,) = struct.unpack_from("<I", data, 4)
    if version & ~SCAN_LINES:
        raise ValueError("it is tiled, deep or has several parts")
    attributes, position = _attributes(data)
    _check_channel(attributes["channels"])
    x0, y0, x1, y1 = struct.unpack("<4i", attributes["dataWindow"])
    w, h = x1 - x0 + 1, y1 - y0 + 1
    if not (0 < w <= MAX_SIDE and 0 < h <= MAX_SIDE):
        raise ValueError(f"its size is {w}x{h}")
    compression = attributes["compression"][0]
    if compression not in LINES:
        raise ValueError(f"its compression has the number {compression}")
    lines = LINES[compression]
    offsets = struct.unpack_from(f"<{-(-h // lines)}Q", data, position)
    out = np.empty((h, w), dtype=np.float32)
    for k, offset in enumerate(offsets):
        row, size = struct.unpack_from("<ii", data, offset)
        block = data[offset + 8 : offset + 8 + size]
        target = out[k * lines : (k + 1) * lines]
        if row - y0 != k * lines or size < 0 or len(block) != size:
            raise ValueError(f"the block of line {k * lines} is missing or cut off")
        if size != target.nbytes:  # blocks that would not shrink are stored as they are
            block = _inflated(block, target.nbytes)
        target[:] = np.frombuffer(block, "<f4").reshape(target.shape)
    return out


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    """Values of the header by name, and the position of the table of blocks."""
    found, position = {}, 8
    while data[position] != 0:
        name, position = _text(data, position)
        _, position = _text(data, position)
        (size,) = struct.unpack_from("<i", data, position)
        position += 4
        if size < 0 or position + size > len(data):
            raise ValueError("its header is cut off")
        found[name] = data[position : position + size]
        position += size
    return found, position + 1


def _text(data: bytes, position: int) -> tuple[str, int]:
    """A text that ends with a zero, and the position after it."""
    end = data.index(b"\0", position, position + 256)
    return data[position:end].decode("latin-1"), end + 1


def _check_channel(channels: bytes) -> None:
    """Raise ValueError unless there is one channel of floats for every pixel."""
    _, position = _text(channels, 0)
    kind, _, x_step, y_step = struct.unpack_from("<iIii", channels, position)
    if (kind, x_step, y_step) != (FLOAT, 1, 1) or channels[position + 16 :] != b"\0":
        raise ValueError("it has several channels, or one of another type")


def _inflated(block: bytes, size: int) -> bytes:
    """Bytes of a zlib block, whose order and differences are undone."""
    inflater = zlib.decompressobj()
    packed = inflater.decompress(block, size)
    if len(packed) != size or not inflater.eof or inflater.unused_data:
        raise ValueError("a block is damaged")
    # differences to the byte before, plus 128; even bytes before odd ones
    steps = np.frombuffer(packed, np.uint8).copy()
    steps[1:] -= 128
    ordered = np.cumsum(steps, dtype=np.uint8)
    out = np.empty(size, np.uint8)
    half = (size + 1) // 2
    out[::2], out[1::2] = ordered[:half], ordered[half:]
    return out.tobytes()
