"""Scene files and checkpoints with one fault each."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.factories import tiny_scene
from tests.robustness.bad_files import bad_crc, encrypted, png, zipped

Header = dict[str, Any]


def members(folder: Path) -> dict[str, bytes]:
    """Content of a good scene file, by member."""
    path = tiny_scene(3).save(folder / "good.dyn3r", overwrite=True)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(good: dict[str, bytes], **changes: Any) -> bytes:
    header = json.loads(good["scene.json"]) | changes
    text = json.dumps(header).encode()
    return zipped({**good, "scene.json": text}, zipfile.ZIP_STORED)


def raw_header(good: dict[str, bytes], text: bytes) -> bytes:
    return zipped({**good, "scene.json": text})


def bad_scenes(folder: Path) -> dict[str, bytes]:
    """Name of the fault -> content of the file."""
    good = members(folder)
    header: Header = json.loads(good["scene.json"])
    whole = zipped(good, zipfile.ZIP_STORED)
    mapping, K, T = header["mapping"], np.array(header["K"]), np.array(header["T_world_camera"])

    def times(factor: float) -> list[float]:
        return [factor * (1 + t) for t in range(3)]

    def focal(f: float) -> list[Any]:
        out = K.copy()
        out[:, 0, 0] = out[:, 1, 1] = f
        return out.tolist()

    faults: dict[str, Header] = {
        "format": {"format": "other"},
        "newer": {"version": 99},
        "version is a text": {"version": "2"},
        "no frames": {"frames": 0},
        "a million frames": {"frames": 10**6},
        "frames is a list": {"frames": [3]},
        "huge frames": {"size_hw": [65536, 65536]},
        "negative size": {"size_hw": [-32, 48]},
        "other size": {"size_hw": [16, 48]},
        "huge source": {"mapping": {**mapping, "source_hw": [65536, 65536]}},
        "source of 0": {"mapping": {**mapping, "source_hw": [0, 0]}},
        "no mapping": {"mapping": None},
        "mapping is a list": {"mapping": [1, 2]},
        "focal length 1e-300": {"K": focal(1e-300)},
        "focal length 1e300": {"K": focal(1e300)},
        "focal length 0": {"K": focal(0)},
        "K of texts": {"K": "abc"},
        "K is short": {"K": header["K"][:2]},
        "times 1e300": {"times_s": times(1e300)},
        "times NaN": {"times_s": times(float("nan"))},
        "times are texts": {"times_s": ["a", "b", "c"]},
        "fps NaN": {"fps": float("nan")},
        "fps is a list": {"fps": [10]},
        "fps negative": {"fps": -1},
        "fps 1e300": {"fps": 1e300},
        "pose far away": {"T_world_camera": (T * 1e300).tolist()},
        "pose singular": {"T_world_camera": (T * 0).tolist()},
        "names are numbers": {"names": [1, 2, 3]},
        "fewer names": {"names": ["a"]},
        "metadata is a number": {"metadata": 3},
        "metadata is a list": {"metadata": [[1, 2]]},
        "up is long": {"up_world": [0, 5, 0]},
        "up has two numbers": {"up_world": [0, 1]},
        "ground is a text": {"ground_height": "a"},
        "no maps": {"maps": []},
        "maps is a number": {"maps": 3},
        "precision": {"precision": "double"},
        "exponents": {"exponents": {"depth": [9**9] * 3, "confidence": [0] * 3}},
        "quality": {"frame_quality": [float("inf")] * 3},
    }
    deep = b'{"a":' * 50_000
    digits = good["scene.json"].replace(b'"fps": 10.0', b'"fps": ' + b"9" * 400)
    lacking = {name: content for name, content in good.items() if name != "depth/000001.png"}
    return {
        **{name: changed(good, **fault) for name, fault in faults.items()},
        "empty": b"",
        "text": b"hello",
        "cut off": whole[: len(whole) // 2],
        "cut at the end": whole[:-10],
        "bad checksum": bad_crc(whole),
        "encrypted": encrypted(whole),
        "another zip": zipped({"a.txt": b"hello"}),
        "no image": zipped(lacking),
        "header no JSON": raw_header(good, b"{"),
        "header nested": raw_header(good, deep),
        "header of zeros": raw_header(good, b"[" + b"0," * 20_000_000 + b"0]"),
        "number of 400 digits": raw_header(good, digits),
        "image of another size": zipped({**good, "images/000001.png": png((48, 40))}),
        "image is a text": zipped({**good, "images/000001.png": b"hello"}),
        "mask is RGB": zipped({**good, "dynamic/000001.png": png((48, 32))}),
        "small file of huge frames": many_pixels(header),
    }


def many_pixels(header: Header) -> bytes:
    """Black frames of 4096x4096 pixels: more than 1 GB in memory from a small file."""
    stream = io.BytesIO()
    from PIL import Image

    def encoded(mode: str) -> bytes:
        out = io.BytesIO()
        Image.new(mode, (4096, 4096)).save(out, "PNG", compress_level=1)
        return out.getvalue()

    n, size = 6, [4096, 4096]
    mapping = {"source_hw": size, "resized_hw": size, "crop_xy": [0, 0]}
    changes = {
        "frames": n, "size_hw": size, "mapping": mapping, "names": ["a"] * n,
        "times_s": [0.0] * n, "K": header["K"][:1] * n, "frame_quality": None,
        "T_world_camera": header["T_world_camera"][:1] * n,
        "exponents": {"depth": [0] * n, "confidence": [0] * n},
    }  # fmt: skip
    images = {mode: encoded(mode) for mode in ("RGB", "1", "I;16")}
    kinds = {"images": "RGB", "dynamic": "1", "depth": "I;16", "confidence": "I;16"}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode in kinds.items():
            for t in range(n):
                archive.writestr(f"{name}/{t:06d}.png", images[mode])
        archive.writestr("scene.json", json.dumps(header | changes))
    return stream.getvalue()


def bad_checkpoints(good: bytes) -> dict[str, bytes]:
    """Name of the fault -> content of a .safetensors file."""
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    data = good[8 + length :]

    def packed(changed: Header) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + data

    first = next(name for name in header if name != "__metadata__")
    config = json.loads(header["__metadata__"]["dyn3r_config"])

    def configured(**changes: Any) -> bytes:
        text = json.dumps(config | changes)
        return packed({**header, "__metadata__": {**header["__metadata__"], "dyn3r_config": text}})

    return {
        "empty": b"",
        "text": b"hello, I am no checkpoint",
        "pickle": b"\x80\x04}\x94.",
        "zip": zipped({"a/data.pkl": b"\x80\x02}."}, zipfile.ZIP_STORED),
        "cut off": good[: len(good) // 2],
        "header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
        "header no JSON": (10).to_bytes(8, "little") + b"{aaaaaaaaa",
        "no configuration": packed({k: v for k, v in header.items() if k != "__metadata__"}),
        "huge network": configured(enc_embed_dim=10**9),
        "negative network": configured(enc_depth=-1),
        "configuration of another type": configured(enc_depth="two"),
        "unknown head": configured(head="other"),
        "missing weight": packed({k: v for k, v in header.items() if k != first}),
        "weight of another type": packed({**header, first: {**header[first], "dtype": "X9"}}),
    }
