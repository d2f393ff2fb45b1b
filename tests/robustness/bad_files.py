"""Small damaged and hostile files, made by code: name of the fault -> content."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def png(size: tuple[int, int] = (64, 48)) -> bytes:
    values = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(png())).save(stream, kind)
    return stream.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header states another size than its content has."""
    content = bytearray(png())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


IMAGES: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\n",
    "page": b"<!DOCTYPE html><html><body>404</body></html>",
    "random": np.random.default_rng(0).bytes(3000),
    "cut in the header": png()[:20],
    "cut in the data": png()[: len(png()) // 2],
    "bad checksum": flipped(png(), 30),
    "bomb": png_of_size(60_000, 60_000),
    "no pixels": png_of_size(0, 0),
    "one pixel": png((1, 1)),
    "too narrow": png((4, 400)),
    "too long": png((16, 4000)),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n",
    "GIF": image("GIF"),
    "TGA": image("TGA"),
    "JPEG cut off": image("JPEG")[:200],
    "WebP cut off": image("WEBP")[:60],
    "TIFF cut off": image("TIFF")[:40],
    "BMP of a huge size": b"BM"
    + struct.pack("<IHHIIiiHH", 10**6, 0, 0, 54, 40, 90000, 90000, 1, 24),
    "PPM of a huge size": b"P6 100000 100000 255\n" + bytes(100),
    "PPM cut off": b"P6 64 48 255\n" + bytes(100),
}

VIDEOS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\n",
    "random": np.random.default_rng(2).bytes(5000),
    "page": IMAGES["page"],
    "zip": b"PK\x03\x04" + bytes(200),
    "only a header": struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom"),
    "no index": struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    + struct.pack(">I4s", 1000, b"mdat") + bytes(992),
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "dash": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "AVI cut off": b"RIFF\xff\xff\xff\xffAVI LIST",
    "MKV cut off": b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x1f",
    "sound": b"RIFF" + struct.pack("<I", 836) + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data"
    + struct.pack("<I", 800) + bytes(800),
}  # fmt: skip


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npz_of_header(name: str, header: str, data: bytes = b"", version: int = 1) -> bytes:
    """An archive with one array whose header is this text."""
    text = header.encode("latin1")
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    content = b"\x93NUMPY" + bytes([version, 0]) + length + text + data
    return zipped({f"{name}.npy": content})


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def encrypted(content: bytes) -> bytes:
    """The archive with the flag of encryption set in both directories."""
    out = bytearray(content)
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = out.find(magic)
        out[start + place] |= 1
    return bytes(out)


def bad_crc(content: bytes) -> bytes:
    out = bytearray(content)
    start = out.find(b"PK\x01\x02")
    out[start + 16] ^= 0xFF
    local = out.find(b"PK\x03\x04")
    out[local + 14] ^= 0xFF
    return bytes(out)


class Harmless:
    """Pickles to a call that must never happen."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (open, ("/dev/null",))


def archives(key: str, array: np.ndarray) -> dict[str, bytes]:
    """Damaged archives of an array that would be accepted under the name `key`."""
    good = npz(**{key: array})
    plain = io.BytesIO()
    np.save(plain, array)
    shape = f"'shape': {array.shape}"
    order = "'fortran_order': False"
    return {
        "empty": b"",
        "text": b"hello",
        "no members": zipped({}),
        "cut off": good[: len(good) // 2],
        "cut at the end": good[:-10],
        "bad checksum": bad_crc(good),
        "encrypted": encrypted(good),
        "bzip2": zipped({f"{key}.npy": plain.getvalue()}, zipfile.ZIP_BZIP2),
        "lzma": zipped({f"{key}.npy": plain.getvalue()}, zipfile.ZIP_LZMA),
        "other arrays": npz(first=array, second=array),
        "no header": zipped({f"{key}.npy": b"\x93NUMPY"}),
        "empty member": zipped({f"{key}.npy": b""}),
        "foreign header": npz_of_header(key, "{'a': 1}\n"),
        "code in the header": npz_of_header(key, "__import__('os').getcwd()\n"),
        "nested header": npz_of_header(key, "(" * 5000),
        "future version": npz_of_header(key, "{}\n", version=9),
        "huge shape": npz_of_header(
            key, f"{{'descr': '<f8', {order}, 'shape': (100000, 100000, 100)}}\n", bytes(64)
        ),
        "overflowing shape": npz_of_header(
            key, f"{{'descr': '<f8', {order}, 'shape': (4294967296, 4294967296, 4)}}\n"
        ),
        "negative shape": npz_of_header(key, f"{{'descr': '<f8', {order}, 'shape': (-1, 4, 4)}}\n"),
        "fewer numbers": npz_of_header(key, f"{{'descr': '<f8', {order}, {shape}}}\n", bytes(8)),
        "no dimensions": npz(**{key: np.float64(3)}),
        "no rows": npz(**{key: np.zeros((0, 4, 4))}),
        "two dimensions": npz(**{key: np.zeros((4, 4))}),
        "texts": npz(**{key: np.array(["a", "b"])}),
        "objects": npz(**{key: np.array([Harmless()], dtype=object)}),
        "complex": npz(**{key: array.astype(np.complex64)}),
        "times": npz(**{key: np.zeros((3, 4, 4), "M8[s]")}),
    }


def zero_bomb(key: str) -> bytes:
    """Zeros of 1 GB in 1 MB: one compressed block, repeated."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000, 1000)}\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += 100 * (packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH))
    out = bytearray(zipped({f"{key}.npy": packed + packer.flush()}, zipfile.ZIP_STORED))
    size = struct.pack("<I", len(start) + 1_000_000_000)
    for magic, method, place in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        at = out.find(magic)
        out[at + method] = zipfile.ZIP_DEFLATED
        out[at + place : at + place + 4] = size
    return bytes(out)


def poses(n: int = 3, **changes: Any) -> np.ndarray:
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = np.arange(n)
    for place, value in changes.items():
        t, row, column = map(int, place.removeprefix("at_").split("_"))
        T[t, row, column] = value
    return T


def lens(n: int = 3, f: float = 60.0) -> np.ndarray:
    return np.tile(np.array([[f, 0, 32], [0, f, 24], [0, 0, 1.0]]), (n, 1, 1))


CAMERA_ARCHIVES: dict[str, bytes] = {
    **archives("T_world_camera", poses()),
    "more names than poses": npz(T_world_camera=poses(), names=[f"frame_{t}" for t in range(9)]),
    "names that are no characters": npz(
        T_world_camera=poses(), names=np.full(3, 0xFFFFFFFF, np.uint32).view("U1")
    ),
    "infinite pose": npz(T_world_camera=poses(at_1_0_3=np.inf)),
    "far away": npz(T_world_camera=poses(at_1_0_3=1e300)),
    "mirror": npz(T_world_camera=poses() * np.diag([-1.0, 1, 1, 1])),
    "singular": npz(T_world_camera=np.zeros((3, 4, 4))),
    "last row": npz(T_world_camera=poses(at_1_3_0=5.0)),
    "K of another length": npz(T_world_camera=poses(), K=lens(2)),
    "focal length 0": npz(K=lens(f=0.0)),
    "focal length 1e300": npz(K=lens(f=1e300)),
    "focal length 1e-300": npz(K=lens(f=1e-300)),
    "negative focal length": npz(K=lens(f=-60.0)),
    "infinite focal length": npz(K=lens(f=np.inf)),
    "K of texts": npz(K=np.full((3, 3), "a")),
}


def transforms(frame: dict[str, Any] | None = None, **top: Any) -> bytes:
    frames = [
        {"file_path": f"frame_{t}.png", "transform_matrix": poses()[t].tolist(), **(frame or {})}
        for t in range(3)
    ]
    content: dict[str, Any] = {"fl_x": 60.0, "w": 64, "h": 48, "frames": frames}
    return json.dumps(content | top).encode()


CAMERA_JSON: dict[str, bytes] = {
    "empty": b"",
    "cut off": transforms()[:-20],
    "no UTF-8": b"\xff\xfe\x00{",
    "nested 100000 deep": b"[" * 100_000,
    "nested in a frame": b'{"frames": [' + b'{"a":' * 50_000,
    "a number": b"3",
    "a list": b"[1, 2]",
    "frames are a number": b'{"frames": 3}',
    "frames are numbers": b'{"frames": [1, 2]}',
    "no frames": b'{"frames": []}',
    "no matrix": b'{"frames": [{"file_path": "frame_0.png"}]}',
    "no file": json.dumps({"frames": [{"transform_matrix": np.eye(4).tolist()}]}).encode(),
    "number of 400 digits": transforms().replace(b"60.0", b"9" * 400),
    "number of 5000 digits": transforms().replace(b"60.0", b"9" * 5000),
    "focal length 0": transforms(fl_x=0),
    "focal length NaN": transforms(fl_x=float("nan")),
    "focal length is a text": transforms(fl_x="60"),
    "focal length 1e400": transforms().replace(b"60.0", b"1e400"),
    "field of view 0": transforms(camera_angle_x=0).replace(b'"fl_x"', b'"x"'),
    "field of view 1e9": transforms(camera_angle_x=1e9).replace(b'"fl_x"', b'"x"'),
    "infinite width": transforms(w=float("inf")),
    "width 0": transforms(w=0),
    "width is a list": transforms(w=[64]),
    "matrix of texts": transforms({"transform_matrix": [["a"] * 4] * 4}),
    "ragged matrix": transforms({"transform_matrix": [[1, 0, 0], [0, 1]]}),
    "matrix 2x2": transforms({"transform_matrix": [[1, 0], [0, 1]]}),
    "matrix with NaN": transforms({"transform_matrix": [[float("inf")] * 4] * 4}),
    "file is a number": transforms({"file_path": 3}),
    "other names": transforms({"file_path": "elsewhere.png"}),
    "camera model is a number": transforms(camera_model=3),
    "camera model of 100000 letters": transforms(camera_model="A" * 100_000),
    "k1 is a text": transforms(k1="0.1"),
    "k1 1e300": transforms(k1=1e300),
    "k1 NaN": transforms(k1=float("nan")),
    "distortion too strong": transforms(k1=-1e6),
    "distortion of texts": transforms(distortion_params=["a"] * 6),
    "distortion of three numbers": transforms(distortion_params=[0.1] * 3),
    "distortion without a focal length": transforms(k1=0.1).replace(b'"fl_x"', b'"x"'),
    "Record3D: no K": b'{"poses": [[0, 0, 0, 1, 0, 0, 0]], "w": 64, "h": 48}',
    "Record3D: ragged": b'{"poses": [[0, 0, 0, 1], [1]], "w": 64, "h": 48, "K": [1]}',
    "Record3D: no rotation": b'{"poses": [[0, 0, 0, 0, 0, 0, 0]], "w": 64, "h": 48, "K": [1]}',
}

CAMERA_TEXT: dict[str, bytes] = {
    "empty": b"",
    "words": b"hello world\n",
    "three numbers": b"1 2 3\n",
    "seven numbers and a word": b"1 2 3 4 5 6 7 x\n",
    "no rotation": b"0 0 0 0 0 0 0 0\n" * 3,
    "long quaternion": b"0 0 0 0 0 0 0 1e300\n" * 3,
    "NaN": b"0 nan 0 0 0 0 0 1\n" * 3,
    "infinity": b"0 inf 0 0 0 0 0 1\n" * 3,
    "1e400": b"0 1e400 0 0 0 0 0 1\n" * 3,
    "no UTF-8": b"\xff\xfe 1 2 3\n",
    "other times": b"1e9 0 0 0 0 0 0 1\n" * 3,
    "KITTI, no rotation": b"0 0 0 0 0 0 0 0 0 0 0 0\n" * 3,
    "KITTI, other length": b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 7,
    "zeros": bytes(1000),
}


def masks(n: int = 3, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.zeros((n, *hw), np.uint8)


MASK_ARCHIVES: dict[str, bytes] = {
    **archives("mask", masks()),
    "zero bomb": zero_bomb("mask"),
    "other size": npz(mask=masks(hw=(50, 70))),
    "other length": npz(mask=masks(2)),
}
del MASK_ARCHIVES["other arrays"]  # replaced: two arrays, neither is called mask
MASK_ARCHIVES["two unknown arrays"] = npz(first=masks(), second=masks())
