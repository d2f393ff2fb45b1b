"""Results are replaced as a whole or not at all, and what was computed is not lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

import dyn3r.scene.pictures
from dyn3r.cli.main import main
from dyn3r.errors import OutputError
from dyn3r.io.atomic import atomic_folder
from dyn3r.scene import Scene
from tests.factories import tiny_scene
from tests.robustness.snapshot import snapshot

FAST = ["--size", "64", "-q"]


@pytest.fixture
def broken_frames(good_frames: Path, tmp_path: Path) -> Path:
    """A clip whose frame size changes after three frames."""
    folder = tmp_path / "broken"
    shutil.copytree(good_frames, folder)
    Image.new("RGB", (80, 48)).save(folder / "frame_3.png")
    return folder


def old_stream(frames: Path, model: Path, out: Path) -> None:
    command = ["stream", str(frames), "-o", str(out), "--model", str(model), "--no-pictures", *FAST]
    assert main(command) == 0
    for name in ("overview.mp4", "notes.txt"):
        (out / name).write_text("old")


def test_a_stream_that_fails_midway_leaves_the_old_result(
    good_frames: Path, broken_frames: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    old_stream(good_frames, tiny_model, out)
    before = snapshot(out)
    command = ["stream", str(broken_frames), "-o", str(out), "--model", str(tiny_model), *FAST]
    assert main([*command, "--overwrite"]) == 1
    assert snapshot(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "out"]


def test_a_stream_that_fails_midway_leaves_no_new_folder(
    broken_frames: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a" / "out"
    command = ["stream", str(broken_frames), "-o", str(out), "--model", str(tiny_model), *FAST]
    assert main(command) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_a_new_result_has_nothing_of_the_old_one(
    good_frames: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out, two = tmp_path / "out", tmp_path / "two"
    old_stream(good_frames, tiny_model, out)
    shutil.copytree(good_frames, two)
    (two / "frame_2.png").unlink()
    command = ["stream", str(two), "-o", str(out), "--model", str(tiny_model), "--no-pictures"]
    assert main([*command, "--overwrite", *FAST]) == 0
    assert sorted(p.name for p in (out / "frames").iterdir()) == ["000000.npz", "000001.npz"]
    assert sorted(p.name for p in out.iterdir()) == ["frames", "notes.txt", "scene.dyn3r"]
    assert len(Scene.load(out)) == 2


@pytest.fixture
def run_tiny_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dyn3r run` computes the same scene at once, whatever the source."""
    monkeypatch.setattr("dyn3r.pipeline.reconstruct", lambda *_, **__: tiny_scene())


@pytest.mark.usefixtures("run_tiny_scene")
def test_the_scene_survives_a_picture_that_fails(
    good_frames: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    out = tmp_path / "out"
    out.mkdir()
    for name in ("overview.mp4", "scene.dyn3r", "mine.txt"):
        (out / name).write_text("old")
    monkeypatch.setattr(dyn3r.scene.pictures, "write_overview_video", fail)
    command = ["run", str(good_frames), "-o", str(out), "--model", str(tiny_model), *FAST]
    assert main([*command, "--overwrite"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dyn3r: {out / 'scene.dyn3r'} was written, but overview.mp4 could not")
    names = ["camera_path.png", "contact_sheet.png", "mine.txt", "scene.dyn3r"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert len(Scene.load(out)) == 4


@pytest.mark.usefixtures("run_tiny_scene")
def test_results_do_not_go_among_the_images_of_the_source(
    good_frames: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("run", "stream"):
        before = snapshot(good_frames)
        words = [command, str(good_frames), "-o", str(good_frames), "--model", str(tiny_model)]
        assert main([*words, *FAST, "--overwrite"]) == 1
        assert "is the source" in capsys.readouterr().err
        assert snapshot(good_frames) == before
    shutil.copytree(good_frames, tmp_path / "frames")
    video = tmp_path / "frames" / "overview.mp4"
    video.write_text("a video")
    words = ["run", str(video), "-o", str(tmp_path / "frames"), "--model", str(tiny_model)]
    assert main([*words, *FAST, "--overwrite"]) == 1
    assert "would be replaced" in capsys.readouterr().err


@pytest.mark.usefixtures("run_tiny_scene")
def test_a_second_run_to_the_same_place_is_refused(
    good_frames: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as first:
        words = ["run", str(good_frames), "-o", str(out), "--model", str(tiny_model), *FAST]
        assert main(words) == 1
        assert main([*words, "--overwrite"]) == 1
        (first / "x").write_text("first")
    refused = capsys.readouterr().err.splitlines()
    assert refused == [f"dyn3r: another dyn3r is writing {out}: wait until it has ended"] * 2
    assert snapshot(tmp_path) == {"out": None, "out/x": b"first"}


def test_devices_and_pipes_are_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    tiny_scene().save(tmp_path / "scene.dyn3r")
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    scene = str(tmp_path)
    for words in (
        ["eval", scene, "--truth", scene, "--json", str(pipe)],
        ["eval", scene, "--truth", scene, "--json", os.devnull],
        ["models", "convert", str(tiny_model), str(pipe)],
    ):
        assert main([*words, "--overwrite"]) == 1
        assert "device, pipe or socket" in capsys.readouterr().err
    assert pipe.is_fifo()
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_cleans_up(
    number: signal.Signals,
    good_frames: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def end(*_: object, **__: object) -> None:
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
        os.kill(os.getpid(), number)

    monkeypatch.setattr("dyn3r.pipeline.reconstruct", end)
    words = ["run", str(good_frames), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]
    assert main([*words, *FAST]) == 128 + number
    assert capsys.readouterr().err.splitlines() == ["dyn3r: stopped"]
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) == signal.SIG_DFL
