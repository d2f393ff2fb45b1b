"""A full disk: one line, exit code 1, nothing half-written. Needs permission to mount a tmpfs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.cli.main import main
from dyn3r.errors import InputError
from dyn3r.io.memory_map import allocate
from dyn3r.network.checkpoints.reader import save_network
from tests.factories import tiny_network, tiny_scene

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MIB}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, *, free: int) -> None:
    """Leave `free` bytes."""
    stat = os.statvfs(disk)
    (disk / "filling").write_bytes(bytes(stat.f_bavail * stat.f_frsize - free))


def test_spilled_arrays_reserve_their_space(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(_: int, start: int, size: int) -> None:
        asked.append((start, size))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(InputError, match="no room for flow"):
        allocate((100, 50), np.dtype(np.float32), None, "flow")
    assert asked == [(0, 20_000)]


def test_an_array_larger_than_the_disk_is_refused(small_disk: Path) -> None:
    code = (
        "import numpy as np, sys\n"
        "from dyn3r.io.memory_map import allocate\n"
        "allocate((1 << 20, 4), np.dtype('f4'), sys.argv[1], 'flow')[:] = 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, small_disk], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1  # not killed by SIGBUS
    assert "InputError: no room for flow" in done.stderr
    assert not list(small_disk.iterdir())


@pytest.mark.slow
def test_a_run_without_room_for_its_predictions(small_disk: Path, tmp_path: Path) -> None:
    save_network(tmp_path / "tiny.safetensors", tiny_network(), {})
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for t in range(4):
        image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(image).save(frames / f"{t}.png")
    done = subprocess.run(
        [sys.executable, "-m", "dyn3r", "run", frames, "-o", tmp_path / "out", "--model",
         tmp_path / "tiny.safetensors", "--size", "160", "--inference.memory-gb", "1e-6", "-q"],
        capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(small_disk)},
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no room for" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "frames", "tiny.safetensors"]


@pytest.mark.parametrize("format", ["rerun", "usd", "glb", "ply", "colmap", "official", "video"])
def test_an_export_without_room(
    format: str, small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_scene(6, 96, 144).save(tmp_path / "scene.dyn3r")
    suffix = {"rerun": ".rrd", "usd": ".usdc", "glb": ".glb", "ply": ".ply", "video": ".mp4"}
    target = small_disk / f"out{suffix.get(format, '')}"
    fill(small_disk, free=4096)
    assert main(["export", str(tmp_path), "--to", format, "-o", str(target), "-q"]) == 1
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("dyn3r: ")]
    assert "cannot write" in line
    assert [p.name for p in small_disk.iterdir()] == ["filling"]


def test_a_conversion_without_room(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_network(tmp_path / "tiny.safetensors", tiny_network(), {})
    fill(small_disk, free=4096)
    source, target = str(tmp_path / "tiny.safetensors"), str(small_disk / "out.safetensors")
    assert main(["models", "convert", source, target, "-q"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write" in line
    assert "No space left" in line
    assert [p.name for p in small_disk.iterdir()] == ["filling"]
