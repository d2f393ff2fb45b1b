"""`dyn3r eval`: a perfect and a wrong scene, where the numbers go, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyn3r.assets.demo import demo_clip_folder
from dyn3r.cli.eval import Eval
from dyn3r.errors import InputError, OutputError
from dyn3r.evaluation.evaluate import read_truth
from dyn3r.io.clip import read_clip
from dyn3r.scene import Scene

DEMO = demo_clip_folder()


@pytest.fixture(scope="module")
def perfect() -> Scene:
    """The truth of the bundled clip's first frames, as a scene."""
    clip = read_clip(DEMO / "frames", size=64, num_frames=5)
    truth = read_truth(DEMO, clip.mapping, clip.names)
    return Scene(
        images=clip.images, depth=truth.depth, confidence=np.ones_like(truth.depth),
        dynamic=truth.dynamic, K=truth.K, T_world_camera=truth.T_world_camera,
        mapping=clip.mapping, names=clip.names, times_s=clip.times_s, fps=clip.fps,
        metadata={"source": "demo", "dyn3r_version": "0"},
    )  # fmt: skip


def test_a_perfect_scene(perfect: Scene, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    perfect.save(tmp_path / "scene.dyn3r")
    for _ in range(2):  # the second time the file is brought up to date
        Eval(tmp_path, truth=DEMO)()
    printed = capsys.readouterr().out
    assert "motion masks: J" in printed
    assert "5 frames against ground truth" in printed
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["source"] == "demo"
    assert written["evaluation"]["scene"]["masks"]["j_mean"] == 1
    # the scene file stores depth with a relative error of about 1e-3
    assert written["evaluation"]["scene"]["depth"]["abs_rel"] < 2e-3
    assert written["evaluation"]["scene"]["trajectory"]["ate"] < 1e-6


def test_wrong_masks_show(perfect: Scene, tmp_path: Path) -> None:
    file = tmp_path / "other.dyn3r"
    replace(perfect, dynamic=~perfect.dynamic).save(file)
    Eval(file, truth=DEMO)()
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["evaluation"]["scene"]["masks"]["j_mean"] == 0


def test_a_named_file_is_not_replaced_unasked(perfect: Scene, tmp_path: Path) -> None:
    perfect.save(tmp_path / "scene.dyn3r")
    target = tmp_path / "numbers.json"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        Eval(tmp_path, truth=DEMO, json=target)()
    assert target.read_text() == "mine"
    Eval(tmp_path, truth=DEMO, json=target, overwrite=True)()
    assert "evaluation" in json.loads(target.read_text())
    assert not (tmp_path / "evaluation.json").exists()


def test_no_scene_and_no_truth(perfect: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Eval(tmp_path / "missing", truth=DEMO)()
    perfect.save(tmp_path / "scene.dyn3r")
    with pytest.raises(InputError, match=r"depth\.npz"):
        Eval(tmp_path, truth=tmp_path)()
    assert not (tmp_path / "evaluation.json").exists()


def test_truth_of_another_clip_is_refused(perfect: Scene, tmp_path: Path) -> None:
    """Its frames have the same names and the same size, and show something else."""
    noise = np.random.default_rng(0).integers(0, 256, perfect.images.shape, np.uint8)
    replace(perfect, images=noise).save(tmp_path / "scene.dyn3r")
    with pytest.raises(InputError, match="shows another picture"):
        Eval(tmp_path, truth=DEMO)()
    assert not (tmp_path / "evaluation.json").exists()
    with pytest.raises(InputError, match="does not exist"):
        Eval(tmp_path, truth=tmp_path / "nowhere")()
