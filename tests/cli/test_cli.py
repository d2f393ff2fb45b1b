"""The command line as a user meets it: what it writes, what it says, how it fails."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dyn3r.cli.main import main
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.scene import Scene
from tests.factories import tiny_network
from tests.videos import write_video


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_network(path, tiny_network(), {"licence": "Apache-2.0", "steps": "0"})
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in (10, 9, 2):
        image = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"frame_{index}.png")
    return folder


FAST = ("--alignment.pixels", 64, "--alignment.iterations", 2)
"""Options that shorten a run; cameras don't matter here."""


def run(*arguments: object) -> int:
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:  # wrong usage
        return int(stop.code or 0)


def test_run_info_and_rerun(checkpoint, pictures, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run("run", pictures, "-o", out, "--model", checkpoint, *FAST) == 0
    said = capsys.readouterr()
    assert f"dyn3r view {out}" in said.out
    assert "first pass" in said.err
    names = {file.name for file in out.iterdir()}
    assert names == {"scene.dyn3r", "overview.mp4", "contact_sheet.png", "camera_path.png"}
    scene = Scene.load(out)
    assert scene.names == ("frame_2.png", "frame_9.png", "frame_10.png")
    assert scene.metadata["model"]["licence"] == "Apache-2.0"
    with av.open(str(out / "overview.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3
    assert run("info", out) == 0
    assert "frames" in capsys.readouterr().out
    # a second run into the same folder destroys nothing unless asked
    before = (out / "scene.dyn3r").read_bytes()
    assert run("run", pictures, "-o", out, "--model", checkpoint) == 1
    assert "overwrit" in capsys.readouterr().err
    assert (out / "scene.dyn3r").read_bytes() == before
    again = ("--overwrite", "--num-frames", 2, "-q", *FAST)
    assert run("run", pictures, "-o", out, "--model", checkpoint, *again) == 0
    assert len(Scene.load(out)) == 2


@pytest.mark.slow
def test_quiet_says_nothing_and_video_options_act(checkpoint, tmp_path, capsys) -> None:
    video = write_video(tmp_path / "clip.mp4")
    arguments = ("run", video, "-o", tmp_path / "out", "--model", checkpoint, "--quiet")
    arguments += ("--fps", 5, "--pairs", "complete", "--motion.cue", "none", "--no-pictures", *FAST)
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ""
    scene = Scene.load(tmp_path / "out")
    assert len(scene) == 3
    assert not scene.dynamic.any()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["scene.dyn3r"]


@pytest.mark.slow
def test_masks_from_a_folder(checkpoint, pictures, tmp_path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for picture in pictures.iterdir():
        mask = np.zeros((48, 64), np.uint8)
        mask[8:24, 16:40] = 255
        Image.fromarray(mask).save(masks / picture.name)
    out = tmp_path / "out"
    known = ("--known.masks", masks, "-q", *FAST)
    assert run("run", pictures, "-o", out, "--model", checkpoint, *known) == 0
    assert Scene.load(out).dynamic[:, 8:24, 16:40].all()
    assert Scene.load(out).dynamic.sum() == 3 * 16 * 24


def test_info_of_a_checkpoint(checkpoint, capsys) -> None:
    assert run("info", checkpoint) == 0
    said = capsys.readouterr().out
    assert "2 blocks of 32" in said
    assert "Apache-2.0" in said


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("evil-was-here",))


def bad_source(kind: str, folder: Path) -> Path:
    """A source that can't work."""
    place = folder / "source"
    if kind == "missing":
        return place
    if kind in ("text.mp4", "truncated.mp4", "empty.mp4"):
        place = folder / kind
        text = b"this is no video\n" * 50
        if kind == "truncated.mp4":
            text = write_video(folder / "whole.mp4").read_bytes()[:400]
        place.write_bytes(b"" if kind == "empty.mp4" else text)
        return place
    place.mkdir()
    if kind == "unreadable":
        for index in range(3):
            Image.new("RGB", (64, 48)).save(place / f"{index}.png")
        (place / "1.png").write_bytes(b"\x89PNG but not really")
    if kind == "sliver":
        Image.new("RGB", (4000, 8)).save(place / "0.png")
    if kind == "no pictures":
        (place / "notes.txt").write_text("hello")
    return place


SOURCES = ["missing", "text.mp4", "truncated.mp4", "empty.mp4", "empty folder", "no pictures"]
SOURCES += ["unreadable", "sliver"]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_bad_source_is_one_line_and_exit_code_1(kind, checkpoint, tmp_path, capsys) -> None:
    source, out = bad_source(kind, tmp_path), tmp_path / "out"
    assert run("run", source, "-o", out, "--model", checkpoint, "--quiet") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not out.exists()
    assert not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize("kind", ["missing", "text", "pickle", "truncated", "folder"])
def test_a_bad_checkpoint_is_one_line_and_exit_code_1(
    kind, checkpoint, pictures, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model.pth"
    if kind == "text":
        model.write_text("not a checkpoint")
    elif kind == "pickle":
        model.write_bytes(pickle.dumps({"model": Evil()}))
    elif kind == "truncated":
        model.write_bytes(checkpoint.read_bytes()[:5000])
    elif kind == "folder":
        model.mkdir()
    assert run("run", pictures, "-o", tmp_path / "out", "--model", model, "--quiet") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "evil-was-here").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_picture_is_a_scene_of_one_frame(checkpoint, pictures, tmp_path) -> None:
    out = tmp_path / "out"
    assert run("run", pictures / "frame_2.png", "-o", out, "--model", checkpoint, "-q") == 0
    assert len(Scene.load(out)) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--pairs", "swin"),
        ("--pairs", "oneref-9"),
        ("--motion.refine", "polish"),
        ("--known.masks", "no-such-folder"),
        ("--known.fov", "300"),
        ("--resume", "no-such-folder"),
        ("--alignment.window", "1"),
        ("--device", "warp"),
        ("--size", "100"),
        ("--num-frames", "0"),
        ("--fps", "-1"),
        ("--inference.memory-gb", "0"),
    ],
)
def test_a_bad_option_value_is_one_line(options, checkpoint, pictures, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run("run", pictures, "-o", out, "--model", checkpoint, "-q", *options) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not out.exists()


def test_wrong_usage_is_exit_code_2(capsys) -> None:
    assert run("run") == 2
    assert run("no-such-command") == 2
    assert run("run", "x", "-o", "y", "--precision", "float8") == 2
    capsys.readouterr()


def test_output_that_cannot_be_written(checkpoint, pictures, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run("run", pictures, "-o", out, "--model", checkpoint, "--quiet") == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_a_scene_that_is_not_one(tmp_path, capsys) -> None:
    (tmp_path / "scene.dyn3r").write_bytes(b"PK\x03\x04 nonsense")
    assert run("info", tmp_path) == 1
    assert run("view", tmp_path) == 1
    assert run("view", tmp_path / "nothing") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


def test_it_runs_as_a_module() -> None:
    said = subprocess.check_output([sys.executable, "-m", "dyn3r", "--version"], text=True)
    assert said.startswith("dyn3r ")


def test_errors_of_the_system_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "scene.npz")

    monkeypatch.setattr("dyn3r.cli.models.Models.__call__", full)
    assert main(["models"]) == 1
    assert capsys.readouterr().err == "dyn3r: No space left on device (scene.npz)\n"
