"""`dyn3r batch --resume`: scenes of other options are made again, and one line says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli.batch_resume import KEY, record, remade, scenes_to_remake
from dyn3r.cli.run import Run
from dyn3r.errors import InputError
from dyn3r.motion.options import MotionOptions
from dyn3r.network.checkpoints.locate import LocatedModel
from dyn3r.network.options import InferenceOptions
from dyn3r.scene.file import read_metadata
from dyn3r.types import Clip, FrameMapping
from tests.evaluation.scene_of_clip import scene_of

WEIGHTS = "a" * 64


@pytest.fixture
def made(tmp_path: Path) -> Run:
    """A run whose scene is there, with the record of its options."""
    run = Run(Path("cat.mp4"), tmp_path / "cat", model="compact", size=64)
    save(run, {KEY: record(run, WEIGHTS)})
    return run


def save(run: Run, metadata: dict) -> None:
    mapping = FrameMapping((48, 64), (48, 64), (0, 0), (48, 64))
    images = np.zeros((1, 48, 64, 3), np.uint8)
    clip = Clip(images, mapping, ("0",), np.zeros(1), "cat", 24.0)
    scene_of(clip, metadata=metadata).save(run.output, overwrite=True)


def reason(run: Run, weights: str = WEIGHTS) -> str | None:
    return scenes_to_remake({"cat": run}, weights).get("cat")


def test_the_same_options_keep_a_scene(made: Run) -> None:
    assert reason(made) is None
    other = replace(made, device="cuda", overwrite=True, no_pictures=True, source=Path("x/cat.mp4"),
                    inference=InferenceOptions(memory_gb=9.0, spill_folder="x"))  # fmt: skip
    assert reason(other) is None
    assert reason(replace(made, model="copy/of/compact")) is None  # the same weights


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: replace(run, size=96), "size was 64, is 96"),
        (lambda run: replace(run, method="dust3r", fps=5.0),
         "method was auto, is dust3r, fps was 0.0, is 5.0"),
        (lambda run: replace(run, motion=MotionOptions(cue="none")),
         "motion.cue was auto, is none"),
        (lambda run: replace(run, size=96, fps=1.0, num_frames=9, pairs="complete",
                             alignment=AlignmentOptions(window=50)),
         "pairs was auto, is complete, fps was 0.0, is 1.0, num_frames was None, is 9, 2 more"),
        (lambda run: replace(run, save_masks=True), "it has no masks"),
    ],
)  # fmt: skip
def test_other_options_are_named(made: Run, change: Callable[[Run], Run], why: str) -> None:
    assert reason(change(made)) == why


def test_other_weights(made: Run) -> None:
    assert reason(made, "b" * 64) == "other weights"
    assert reason(replace(made, model="mine"), "b" * 64) == "model was compact"


def test_scenes_that_tell_nothing(made: Run) -> None:
    save(made, {"plan": "none"})
    assert reason(made) == "its options are not recorded"
    (made.output / "scene.dyn3r").write_bytes(b"PK, but cut")
    assert reason(made) == "its file is damaged"
    (made.output / "scene.dyn3r").unlink()
    assert reason(made) is None  # it is missing, and that is said elsewhere


def test_an_option_of_another_version_is_not_compared(made: Run) -> None:
    before = record(made, WEIGHTS) | {"motion.gone": 1}
    del before["alignment.window"]
    save(made, {KEY: before})
    assert reason(made) is None


def test_one_line_for_all() -> None:
    line = remade({"a": "size was 64, is 96", "b": "it has no masks", "c": "size was 64, is 96"})
    assert line == "made again: a, c (size was 64, is 96); b (it has no masks)"


def test_metadata_is_read_without_the_frames(made: Run) -> None:
    assert read_metadata(made.output)[KEY]["size"] == 64
    with pytest.raises(InputError, match=r"holds no scene\.dyn3r"):
        read_metadata(made.output.parent)


def test_checksum_of_a_folder_of_weights(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_bytes(b"2")
    folder = LocatedModel("m", tmp_path)
    first = folder.sha256()
    assert len(first) == 64
    (tmp_path / "config.json").write_bytes(b"3")
    assert folder.sha256() != first
    alone = LocatedModel("m", tmp_path / "a.safetensors").sha256()
    assert alone == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
