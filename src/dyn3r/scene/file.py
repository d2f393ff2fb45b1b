"""The native file of a scene: a zip of PNG images and one JSON text (docs/scene-format.md).

It holds no code. Every size is checked against the declared one, and that against limits, before
memory is allocated.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dyn3r.errors import InputError, OutputError
from dyn3r.io.archives import check_budget, open_zip
from dyn3r.io.arguments import checked_path
from dyn3r.io.atomic import atomic_file
from dyn3r.scene.checks import check_frames
from dyn3r.scene.file_header import (
    FORMAT,
    PROBABILITY,
    VERSION,
    Fields,
    Size,
    make_header,
    maps_of,
    parse_header,
)
from dyn3r.scene.half_precision import decode_half, encode_half

FILE_NAME = "scene.dyn3r"
MAX_HEADER_BYTES = 64 * 2**20
_HEADER_BYTES, _HEADER_BYTES_A_MEMBER = 4 * 2**20, 4096  # cameras take 700 bytes a frame
MAX_FRAME_PIXELS = 64 * 2**20
MAX_SCENE_BYTES = 8 * 2**30

_LARGEST_HALF = 0x7BFF  # bit pattern of the largest finite half; above it: infinity, NaN, negative
# Errors of the zip reader for damaged archives (found by flipping bytes).
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


def scene_path(path: str | Path) -> Path:
    """File of a scene: `path` itself if it is a file or named .dyn3r, else scene.dyn3r in it."""
    path = checked_path(path, "the file of a scene")
    if (path.suffix.lower() == ".dyn3r" or path.is_file()) and not path.is_dir():
        return path
    return path / FILE_NAME


def write_fields(
    fields: Fields, path: str | Path, *, overwrite: bool, precision: Literal["half", "full"]
) -> Path:
    """Write the fields of a Scene; see `Scene.save`. Equal fields give equal bytes."""
    if precision not in ("half", "full"):
        raise OutputError(f"precision must be half or full, not {precision!r}")
    target = scene_path(path)
    header = make_header(fields, precision)
    with (
        atomic_file(target, overwrite=overwrite) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        exponents: dict[str, list[int]] = {}
        for t in range(len(fields["images"])):
            _put(archive, f"images/{t:06d}.png", _png(fields["images"][t]))
            _put(archive, f"dynamic/{t:06d}.png", _png(fields["dynamic"][t]))
            if fields[PROBABILITY] is not None:
                _put(archive, f"{PROBABILITY}/{t:06d}.png", _png(fields[PROBABILITY][t]))
            for name in maps_of(fields):
                values = fields[name][t]
                if precision == "full":
                    _put(
                        archive,
                        f"{name}/{t:06d}.f32",
                        values.astype("<f4").tobytes(),
                        compress=True,
                    )
                    continue
                halves, exponent = encode_half(values)
                _put(archive, f"{name}/{t:06d}.png", _png(halves))
                exponents.setdefault(name, []).append(exponent)
        header["exponents"] = exponents
        text = json.dumps(header, allow_nan=False, ensure_ascii=False)
        _put(archive, "scene.json", text.encode("utf-8"), compress=True)
    return target


def read_fields(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Path of the file and the fields of its Scene; see `Scene.load`."""
    with _opened(path) as reader:
        return reader.where, reader.fields()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a scene, without reading its frames. Raises InputError as `Scene.load`."""
    with _opened(path) as reader:
        metadata = reader.header().get("metadata")
        return metadata if isinstance(metadata, dict) else {}


@contextmanager
def _opened(path: str | Path) -> Iterator[_Reader]:
    """A reader of a scene's file; what goes wrong while it is read becomes an InputError."""
    target = scene_path(path)
    if not target.exists():
        missing = f"{path} holds no {FILE_NAME}" if Path(path).is_dir() else f"no scene at {path}"
        raise InputError(f"{missing}: give a .dyn3r file or the output folder of a run")
    try:
        with open_zip(target, "dyn3r scene") as archive:
            yield _Reader(archive, target)
    except _ZIP_ERRORS as error:
        raise InputError(f"{target} is no dyn3r scene, or its end is missing") from error
    except OSError as error:
        raise InputError(f"cannot read {target}: {error.strerror or error}") from error


def _put(archive: zipfile.ZipFile, name: str, content: bytes, *, compress: bool = False) -> None:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    archive.writestr(info, content)


def _png(image: np.ndarray) -> bytes:
    stream = BytesIO()
    # the default level 6 takes three times as long and saves 3 %
    Image.fromarray(image).save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


class _Reader:
    """Reader of one archive; its errors are InputErrors that name the file."""

    def __init__(self, archive: zipfile.ZipFile, where: Path) -> None:
        self.archive, self.where = archive, where
        self.members = set(archive.namelist())

    def fields(self) -> dict[str, Any]:
        header = self.header()
        try:
            fields, sizes, exponents = parse_header(header)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"its header is not valid ({str(error)[:100]})") from error
        n, (h, w) = len(fields["names"]), fields["mapping"].size_hw
        suffix = "png" if exponents else "f32"
        grey = header.get(PROBABILITY) is True
        self._check_size(n, (h, w), sizes)
        try:
            check_frames(fields, n)  # before images are decoded
        except InputError as error:
            raise self._damaged(str(error)) from None
        self._check_members(n, sizes, suffix, (PROBABILITY,) if grey else ())
        for name, size in sizes.items():
            fields[name] = np.empty((n, *size), np.float32)
            for t in range(n):
                exponent = exponents[name][t] if exponents else 0
                fields[name][t] = self._map(f"{name}/{t:06d}.{suffix}", size, exponent)
        fields["images"] = np.empty((n, h, w, 3), np.uint8)
        fields["dynamic"] = np.empty((n, h, w), np.bool_)
        for t in range(n):
            fields["images"][t] = self._image(f"images/{t:06d}.png", (h, w), "RGB")
            fields["dynamic"][t] = self._image(f"dynamic/{t:06d}.png", (h, w), "1")
        if grey:
            names = [f"{PROBABILITY}/{t:06d}.png" for t in range(n)]
            fields[PROBABILITY] = np.stack([self._image(name, (h, w), "L") for name in names])
        return fields

    def header(self) -> dict[str, Any]:
        if "scene.json" not in self.members:
            raise InputError(f"{self.where} is no dyn3r scene (a zip without scene.json)")
        limit = min(MAX_HEADER_BYTES, _HEADER_BYTES + _HEADER_BYTES_A_MEMBER * len(self.members))
        try:
            header = json.loads(self._read("scene.json", limit))
        except (ValueError, RecursionError) as error:
            raise self._damaged("its scene.json is not valid JSON") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise InputError(f"{self.where} is no dyn3r scene (scene.json says otherwise)")
        version = header.get("version")
        if not isinstance(version, int) or version < 1:
            raise self._damaged("it states no format version")
        if version > VERSION:
            raise InputError(
                f"{self.where} has scene format {version}, written by a newer dyn3r; "
                f"this one reads up to {VERSION}: update dyn3r"
            )
        return header

    def _check_size(self, n: int, size: Size, sizes: dict[str, Size]) -> None:
        floats = sum(h * w for h, w in sizes.values())
        needed = n * (5 * size[0] * size[1] + 4 * floats)
        if max(h * w for h, w in [size, *sizes.values()]) > MAX_FRAME_PIXELS or (
            needed > MAX_SCENE_BYTES
        ):
            raise InputError(
                f"{self.where} declares {n} frames of {size[1]}x{size[0]}, "
                f"{needed / 2**30:.1f} GiB in memory: more than dyn3r reads"
            )
        check_budget(self.where, needed, self.where.stat().st_size)

    def _check_members(
        self, n: int, sizes: dict[str, Size], suffix: str, more: tuple[str, ...]
    ) -> None:
        wanted = dict.fromkeys(("images", "dynamic", *more), "png") | dict.fromkeys(sizes, suffix)
        for folder, kind in wanted.items():
            for t in range(n):
                if f"{folder}/{t:06d}.{kind}" not in self.members:
                    raise self._damaged(f"{folder}/{t:06d}.{kind} is missing")

    def _read(self, name: str, limit: int) -> bytes:
        info = self.archive.getinfo(name)
        plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.file_size > limit or not plain or info.flag_bits & 1:
            raise self._damaged(f"{name} is too large or packed in an unknown way")
        try:
            return self.archive.read(info)
        except _ZIP_ERRORS as error:
            raise self._damaged(f"{name} can't be unpacked") from error

    def _map(self, name: str, size: Size, exponent: int) -> np.ndarray:
        if name.endswith(".f32"):
            content = self._read(name, 4 * size[0] * size[1])
            if len(content) != 4 * size[0] * size[1]:
                raise self._damaged(f"{name} has the wrong length")
            return np.frombuffer(content, "<f4").reshape(size)
        bits = self._image(name, size, "I;16").astype(np.uint16)
        if bits.max() > _LARGEST_HALF:
            raise self._damaged(f"{name} holds values that are no finite numbers")
        with np.errstate(over="ignore"):  # becomes infinite, which Scene refuses
            return decode_half(bits, exponent)

    def _image(self, name: str, size: Size, mode: str) -> np.ndarray:
        content = self._read(name, 16 * size[0] * size[1] + 65536)
        try:
            with Image.open(BytesIO(content), formats=["PNG"]) as image:
                if image.size == (size[1], size[0]) and image.mode == mode:
                    return np.asarray(image)
                found = f"{image.mode} {image.size[0]}x{image.size[1]}"
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise self._damaged(f"{name} is no readable PNG") from error
        raise self._damaged(f"{name} is {found}, not {mode} {size[1]}x{size[0]}")

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.where} is damaged: {why}")
