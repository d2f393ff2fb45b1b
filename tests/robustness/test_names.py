"""Names that are no UTF-8, too long, or command the terminal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dyn3r.cli.main import main
from dyn3r.export import export
from dyn3r.io.text import printable, storable, storable_json
from dyn3r.scene import Scene
from tests.factories import tiny_scene

LATIN = os.fsdecode(b"caf\xe9")


def test_text_for_files_and_terminals() -> None:
    assert storable("é 中") == "é 中"
    assert storable(LATIN) == "caf\\udce9"
    assert storable_json({LATIN: [LATIN, 1, {"a": (LATIN,)}]}) == {
        "caf\\udce9": ["caf\\udce9", 1, {"a": ["caf\\udce9"]}]
    }
    assert printable("é\x1b[2J\n\u202e") == "é\\x1b[2J\\n\\u202e"


@pytest.fixture
def odd_frames(good_frames: Path, tmp_path: Path) -> Path:
    """A folder and images whose names are no UTF-8."""
    folder = tmp_path / LATIN
    try:
        shutil.copytree(good_frames, folder)
        for file in list(folder.iterdir()):
            file.rename(folder / f"{LATIN}{file.name}")
    except OSError:
        pytest.skip("this file system has Unicode names only")
    return folder


@pytest.mark.parametrize("command", ["run", "stream"])
def test_a_whole_run_with_names_that_are_no_utf8(
    command: str, odd_frames: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{LATIN}"
    words = [command, str(odd_frames), "-o", str(out), "--model", str(tiny_model), "--size", "64"]
    fast = ["--alignment.iterations", "2"] if command == "run" else []
    assert main([*words, *fast, "--save-masks"]) == 0
    scene = Scene.load(out)
    assert scene.names[0] == "caf\\udce9frame_0.png"
    assert main(["info", str(out)]) == 0
    words = ["export", str(out), "--to", "nerfstudio", "-o", str(tmp_path / "n")]
    assert main([*words, "--source", str(odd_frames), "-q"]) == 0
    assert len(json.loads((tmp_path / "n" / "transforms.json").read_text())["frames"]) == 3


@pytest.mark.parametrize("format", ["depth", "masks", "nerfstudio", "official"])
def test_exports_with_names_as_long_as_files_can_have(format: str, tmp_path: Path) -> None:
    names = tuple(f"{'中' * 83}{t}.png" for t in range(4))
    export(tiny_scene(names=names), format, tmp_path / "out")
    longest = max(len(os.fsencode(p.name)) for p in (tmp_path / "out").rglob("*"))
    assert longest <= 255


def test_a_name_does_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a\x1b]0;x\x07\nb.png", "b", "c", "d")
    scene = tiny_scene(names=names, metadata={"source": "x\ny\x1b[2J", "unit": "m\n"})
    scene.save(tmp_path / "scene.dyn3r")
    assert main(["info", str(tmp_path)]) == 0
    assert main(["info", str(tmp_path / "no\nsuch\x1b[2J")]) == 1
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert len(shown.err.splitlines()) == 1
    assert "x\\ny\\x1b[2J" in shown.out


def test_options_are_checked_before_anything_is_computed(
    good_frames: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(good_frames), "-o", str(tmp_path / "o"), "--model", str(tiny_model)]
    for option in (
        ["--inference.memory-gb", "inf"],
        ["--inference.memory-gb", "nan"],
        ["--alignment.flow-weight", "inf"],
        ["--known.fov", "nan"],
        ["--start", "1e300"],
        ["--fps", "inf"],
        ["--num-frames", "99999999999999999999"],
        ["--size", "0"],
    ):
        assert main([*words, "-q", *option]) == 1, option
        (line,) = capsys.readouterr().err.splitlines()
        assert "must be" in line or "lies between" in line
    assert not list(tmp_path.iterdir())
