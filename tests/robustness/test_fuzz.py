"""Seeded fuzzing of everything that is read: an error of ours, or a valid value; nothing else.

More rounds: DYN3R_FUZZ=20000 python -m pytest tests/robustness/test_fuzz.py
"""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets.files import read_npz
from dyn3r.errors import Dyn3rError
from dyn3r.export import export
from dyn3r.io.clip import clip_from_images
from dyn3r.io.mask_files import read_masks
from dyn3r.network.checkpoints.reader import load_network
from dyn3r.scene import Scene, summarise
from dyn3r.scene.known_cameras import read_cameras
from dyn3r.types import Clip
from tests.factories import tiny_scene
from tests.robustness.bad_files import lens, masks, npz, poses, transforms, zipped

ROUNDS = int(os.environ.get("DYN3R_FUZZ", "60"))
Target = Callable[[Path, Clip], object]
NUMBERS = (b"0", b"-1", b"1e300", b"1e400", b"NaN", b"null", b"[]", b"{}", b'"a"', b"9" * 400)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four random faults."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(out) + 1)
        end = min(len(out), start + rng.choice((1, 4, 50, 2000)))
        kind = rng.randrange(6)
        if kind == 0 and start < len(out):
            out[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[start:end]
        elif kind == 2:
            out[start:start] = out[start:end]
        elif kind == 3:
            out[start:end] = bytes(rng.choice((0, 255)) for _ in range(end - start))
        elif kind == 4:
            out[start:end] = rng.randbytes(end - start)
        else:
            out = out[: max(1, start)]
    return bytes(out)


def mutated_text(content: bytes, rng: random.Random) -> bytes:
    """JSON or text with numbers replaced; every second time also damaged as bytes."""
    words = content.split(b" ")
    for _ in range(rng.randint(1, 3)):
        k = rng.randrange(len(words))
        tail = b"," if words[k].endswith(b",") else b""
        words[k] = rng.choice(NUMBERS) + tail
    out = b" ".join(words)
    return mutated(out, rng) if rng.random() < 0.5 else out


def mutated_zip(content: bytes, rng: random.Random) -> bytes:
    """A whole archive with one damaged member, or damaged as bytes."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(["scene.json"] * (len(members) // 2) + sorted(members))
    if name not in members:
        return mutated(content, rng)
    change = mutated_text if name.endswith(".json") else mutated
    return zipped({**members, name: change(members[name], rng)})


def scene_target(path: Path, _: Clip) -> None:
    scene = Scene.load(path)
    assert summarise(scene)
    for format, name in (("glb", "a.glb"), ("ply", "a.ply")):
        export(scene, format, path.with_name(name), overwrite=True)


def cameras_target(path: Path, clip: Clip) -> None:
    known = read_cameras(path, clip)
    for values in (known.K, known.T_world_camera):
        assert values is None or not np.isinf(values).any()


def scene_bytes() -> bytes:
    stream = io.BytesIO()
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"dyn3r-fuzz-{os.getpid()}.dyn3r"
    try:
        tiny_scene(3).save(path, overwrite=True)
        stream.write(path.read_bytes())
    finally:
        path.unlink(missing_ok=True)
    return stream.getvalue()


TUM = b"".join(b"%g 0 0 0 0 0 0 1\n" % (t / 10) for t in range(3))
TARGETS: dict[str, tuple[str, Callable[[bytes, random.Random], bytes], Target]] = {
    "scene": ("a.dyn3r", mutated_zip, scene_target),
    "cameras npz": ("a.npz", mutated_zip, cameras_target),
    "cameras json": ("a.json", mutated_text, cameras_target),
    "cameras text": ("a.txt", mutated_text, cameras_target),
    "masks": ("a.npz", mutated_zip, lambda path, clip: read_masks(path, clip)),
    "truth": ("a.npz", mutated_zip, lambda path, _: read_npz(path, "depth")),
    "checkpoint": ("a.safetensors", mutated, lambda path, _: load_network(path)),
}


def good(kind: str, tiny_model: Path) -> bytes:
    contents: dict[str, Callable[[], bytes]] = {
        "scene": scene_bytes,
        "cameras npz": lambda: npz(T_world_camera=poses(), K=lens(), names=["a", "b", "c"]),
        "cameras json": transforms,
        "cameras text": lambda: TUM,
        "masks": lambda: npz(mask=masks()),
        "truth": lambda: npz(depth=np.ones((3, 48, 64), np.float32)),
        "checkpoint": lambda: tiny_model.read_bytes(),
    }
    return contents[kind]()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.filterwarnings("error")
def test_only_errors_of_ours(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    name, mutate, target = TARGETS[kind]
    images = np.zeros((3, 48, 64, 3), np.uint8)
    clip = clip_from_images(images, size=64, fps=10, names=["a", "b", "c"])
    content, rng = good(kind, tiny_model), random.Random(kind)
    refused = 0
    for round in range(ROUNDS):
        path = tmp_path / name
        path.write_bytes(mutate(content, rng))
        try:
            target(path, clip)
        except Dyn3rError as error:
            refused += "\n" not in str(error) and len(str(error)) < 700
        except Exception as error:
            (tmp_path / "kept").write_bytes(path.read_bytes())
            raise AssertionError(f"round {round}: {error!r:.300}, see {tmp_path}/kept") from error
    assert refused > ROUNDS // 3
