"""`dyn3r batch`: many videos, failures that do not stop the others, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli.batch import Batch, find_sources
from dyn3r.cli.main import main
from dyn3r.errors import Dyn3rError, InputError, OutputError
from dyn3r.motion.options import MotionOptions
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.scene import Scene
from tests.factories import tiny_network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_network(file, tiny_network(), {})
    return file


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders of two images, and one whose second image is damaged."""
    folder = tmp_path / "clips"
    random = np.random.default_rng(0)
    for name in ("a", "b", "damaged"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            image = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
    (folder / "damaged" / "1.png").write_bytes(b"nothing")
    return folder


def batch(sources: Path, output: Path, checkpoint: Path, **changes: object) -> Batch:
    fast = {"alignment": AlignmentOptions(pixels=64, iterations=2)}
    given = {"size": 64, "no_pictures": True, "motion": MotionOptions(cue="none"), **fast}
    return Batch(sources, output, model=str(checkpoint), **{**given, **changes})  # type: ignore[arg-type]


def test_keeping_and_replacing_scenes_exclude_each_other(tmp_path: Path) -> None:
    both = batch(tmp_path, tmp_path / "out", tmp_path / "none", resume=True, overwrite=True)
    with pytest.raises(InputError, match="--resume keeps the scenes in OUT, --overwrite replaces"):
        both()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_is_named_and_does_not_stop_the_others(
    clips: Path, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, jobs: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Dyn3rError, match=r"1 of 3 failed: damaged \(--resume runs them again\)"):
        batch(clips, out, checkpoint, jobs=jobs)()
    assert [len(Scene.load(out / name)) for name in ("a", "b")] == [2, 2]
    assert not (out / "damaged").exists()
    report = {v["name"]: v for v in json.loads((out / "batch.json").read_text())["videos"]}
    assert report["a"]["status"] == report["b"]["status"] == "ok"
    assert "1.png cannot be read as an image" in report["damaged"]["error"]
    assert len((out / "batch.md").read_text().splitlines()) == 5
    assert "damaged: failed: " in capsys.readouterr().err

    # the fault is mended, and only that source is run
    (clips / "damaged" / "1.png").write_bytes((clips / "damaged" / "0.png").read_bytes())
    before = (out / "a" / "scene.dyn3r").stat().st_mtime_ns
    batch(clips, out, checkpoint, jobs=jobs, resume=True)()
    assert (out / "a" / "scene.dyn3r").stat().st_mtime_ns == before
    assert len(Scene.load(out / "damaged")) == 2
    said = capsys.readouterr()
    assert "3 of 3 done" in said.out
    assert "made again" not in said.err
    batch(clips, out, checkpoint, jobs=jobs, resume=True, size=96)()
    assert "made again: a, b, damaged (size was 64, is 96)" in capsys.readouterr().err
    assert Scene.load(out / "a").size_hw == (64, 96)
    with pytest.raises(OutputError, match="is not empty"):
        batch(clips, out, checkpoint)()


def test_a_list_names_sources_relative_to_itself(clips: Path) -> None:
    (clips / "list.txt").write_text("# mine\na\n\n../clips/b\na\n")
    found = find_sources(clips / "list.txt")
    assert found == {"a": clips / "a", "b": clips / "../clips/b", "a_2": clips / "a"}


def test_a_folder_gives_videos_and_folders_of_images(clips: Path) -> None:
    (clips / "c.MP4").touch()
    (clips / "notes.txt").touch()
    (clips / ".hidden.mp4").touch()
    (clips / "empty").mkdir()
    assert list(find_sources(clips)) == ["a", "b", "c", "damaged"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("# nothing\n", "names no source"), (b"\xff\xfe\xff", "as text")],
)
def test_lists_that_are_none(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        find_sources(file)


def test_a_folder_of_images_is_one_clip(clips: Path) -> None:
    with pytest.raises(InputError, match="for one folder of images use dyn3r run"):
        find_sources(clips / "a")


def test_an_unknown_model_stops_before_the_work(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["batch", str(clips), "-o", str(out), "--model", "nope"]) == 1
    assert capsys.readouterr().err.startswith("dyn3r: no model or file named 'nope'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 100}, "the frame size must be a multiple of 16"),
        ({"pairs": "some"}, "some"),
        ({"jobs": 0}, "jobs must be 1 or more"),
    ],
)
def test_options_that_fit_no_video_stop_before_the_work(
    clips: Path, tmp_path: Path, checkpoint: Path, changes: dict, said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=said):
        batch(clips, out, checkpoint, **changes)()
    assert not out.exists()


def test_an_interrupted_video_goes_on_at_its_last_window(
    clips: Path, tmp_path: Path, checkpoint: Path
) -> None:
    out = tmp_path / "out"
    (out / "good.windows").mkdir(parents=True)
    resumed = batch(clips, out, checkpoint, resume=True)
    assert resumed.run_of("good", clips).resume == out / "good"
    assert resumed.run_of("other", clips).resume is None
    assert batch(clips, out, checkpoint).run_of("good", clips).resume is None
