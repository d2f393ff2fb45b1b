"""`dyn3r run`: the options that choose models, pictures and modes, beyond tests/test_cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dyn3r.streaming
import dyn3r.viewer
from dyn3r.cli.run import Run
from dyn3r.errors import InputError
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.network.initialise import initialise
from dyn3r.scene import Scene
from tests.factories import tiny_network


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    other = tiny_network()
    initialise(other, seed=5)
    save_network(folder / "tiny.safetensors", tiny_network(), {})
    save_network(folder / "other.safetensors", other, {})
    return folder / "tiny.safetensors", folder / "other.safetensors"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A textured wall that slides past, and a square that moves on its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    wall = np.random.default_rng(0).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    for t in range(4):
        image = wall[:, 4 * t : 4 * t + 128].copy()
        image[20:50, 10 * t : 10 * t + 30] = (200, 30, 30)
        Image.fromarray(image).save(folder / f"frame_{t}.png")
    return folder


def test_motion_model(checkpoints, pictures: Path, tmp_path: Path) -> None:
    model, other = map(str, checkpoints)
    plain = {"pictures": False, "quiet": True}
    Run(pictures, tmp_path / "both", model=model, motion_model=other, **plain)()
    Run(pictures, tmp_path / "alone", model=other, **plain)()
    both, alone = Scene.load(tmp_path / "both"), Scene.load(tmp_path / "alone")
    np.testing.assert_array_equal(both.dynamic, alone.dynamic)
    assert both.metadata["motion_model"]["name"] == other
    assert both.metadata["model"]["name"] == model
    assert not np.array_equal(both.depth, alone.depth)


@pytest.mark.parametrize("motion", ["none", "."])
def test_motion_model_without_looking_for_motion(
    motion: str, checkpoints, pictures: Path, tmp_path: Path
) -> None:
    model, other = map(str, checkpoints)
    run = Run(pictures, tmp_path / "out", model=model, motion_model=other, motion=motion)
    with pytest.raises(InputError, match="--motion-model"):
        run()
    assert not (tmp_path / "out").exists()


def test_explain_writes_pictures_beside_the_results(checkpoints, pictures, tmp_path) -> None:
    out = tmp_path / "out"
    Run(pictures, out, model=str(checkpoints[0]), explain=True, quiet=True, pictures=False)()
    assert {file.name for file in out.iterdir()} == {"scene.dyn3r", "explain"}
    names = {file.name for file in (out / "explain").iterdir()}
    assert names == {f"frame_000{t}.png" for t in range(4)} | {"explanation.mp4", "reasons.txt"}
    # a second run replaces them
    (out / "explain" / "reasons.txt").write_text("old")
    again = Run(pictures, out, model=str(checkpoints[0]), explain=True, quiet=True, overwrite=True)
    again()
    assert "attention" in (out / "explain" / "reasons.txt").read_text()
    assert (out / "overview.mp4").exists()


def feedforward_run(source: Path, out: Path, checkpoints, **options: Any) -> Run:
    return Run(source, out, model=str(checkpoints[0]), mode="stream_scene", **options)


def test_feedforward_writes_every_frame_and_the_scene(
    checkpoints, pictures, tmp_path, capsys
) -> None:
    out = tmp_path / "out"
    feedforward_run(pictures, out, checkpoints)()
    assert f"dyn3r view {out}" in capsys.readouterr().out
    names = {"scene.dyn3r", "overview.mp4", "contact_sheet.png", "camera_path.png", "frames"}
    assert {file.name for file in out.iterdir()} == names
    scene = Scene.load(out)
    assert scene.metadata["mode"] == "stream_scene"
    assert scene.names == tuple(f"frame_{t}.png" for t in range(4))
    for t in range(4):
        with np.load(out / "frames" / f"00000{t}.npz") as frame:
            np.testing.assert_array_equal(frame["image"], scene.images[t])
            np.testing.assert_allclose(frame["depth"], scene.depth[t], rtol=2e-3)
            np.testing.assert_allclose(frame["T_world_camera"], scene.T_world_camera[t])
            assert str(frame["name"]) == scene.names[t]
    # a shorter run into the same folder leaves none of the old frames
    feedforward_run(pictures, out, checkpoints, overwrite=True, num_frames=2, quiet=True)()
    assert {file.name for file in (out / "frames").iterdir()} == {"000000.npz", "000001.npz"}
    assert len(Scene.load(out)) == 2


def test_a_stopped_feedforward_run_keeps_what_came(
    checkpoints, pictures, tmp_path, monkeypatch, capsys
) -> None:
    whole = dyn3r.streaming.stream_scene

    def until_ctrl_c(*arguments: Any):
        for result in whole(*arguments):
            if result.index == 2:
                # frame 1 is on the disk before frame 2 comes
                assert (tmp_path / "out" / "frames" / "000001.npz").exists()
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(dyn3r.streaming, "stream_scene", until_ctrl_c)
    feedforward_run(pictures, tmp_path / "out", checkpoints, pictures=False)()
    assert "stopped after 2 frames" in capsys.readouterr().out
    assert len(Scene.load(tmp_path / "out")) == 2


class FakeViewer:
    """Notes what it is told."""

    def __init__(self, host: str = "127.0.0.1", port: int = 8080) -> None:
        self.said: list[Any] = [port]
        self.url = f"http://{host}:{port}"
        FakeViewer.last = self

    def add_frame(self, time_s, image, depth, K, T_world_camera, dynamic, confidence) -> None:
        self.said.append((time_s, image.shape, float(image.max()), depth.shape, dynamic.dtype))

    def finish(self) -> None:
        self.said.append("finish")

    def wait(self) -> None:
        self.said.append("wait")

    def stop(self) -> None:
        self.said.append("stop")


def test_live_shows_the_frames_as_they_come(
    checkpoints, pictures, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(dyn3r.viewer, "LiveViewer", FakeViewer)
    feedforward_run(pictures, tmp_path / "out", checkpoints, live=True, port=1234)()
    said = FakeViewer.last.said
    assert said[0] == 1234
    assert said[-3:] == ["finish", "wait", "stop"]
    assert [frame[0] for frame in said[1:5]] == [t / 24 for t in range(4)]
    assert all(f[1:] == ((3, 48, 64), f[2], (48, 64), np.dtype(bool)) for f in said[1:5])
    assert all(0.5 < f[2] <= 1 for f in said[1:5])
    assert "http://127.0.0.1:1234" in capsys.readouterr().out
    # the page closes where the run fails, and nothing is left
    broken = feedforward_run(tmp_path / "nothing", tmp_path / "o", checkpoints, live=True)
    with pytest.raises(InputError, match="does not exist"):
        broken()
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"motion": "attention"}, {"motion": "both"}, {"motion": "."}, {"graph": "complete"},
        {"explain": True}, {"motion_model": "x"}, {"continue_from": Path()}, {"solver": "adam"},
        {"bundle": "on"}, {"mover_depth": "ground"}, {"stereo": "off"},
    ],
)  # fmt: skip
def test_what_feedforward_leaves_out_is_refused(options, checkpoints, pictures, tmp_path) -> None:
    with pytest.raises(InputError, match="--mode stream_scene"):
        feedforward_run(pictures, tmp_path / "out", checkpoints, **options)()
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together(checkpoints, pictures, tmp_path) -> None:
    with pytest.raises(InputError, match="--save-masks"):
        Run(
            pictures, tmp_path / "out", model=str(checkpoints[0]), save_masks=True,
            motion="none", continue_from=tmp_path,
        )()  # fmt: skip
    with pytest.raises(InputError, match="--live needs"):
        Run(pictures, tmp_path / "out", model=str(checkpoints[0]), live=True)()


def test_refined_masks_at_source_resolution_can_be_given_back(
    checkpoints, pictures, tmp_path
) -> None:
    plain = {"model": str(checkpoints[0]), "pictures": False, "quiet": True}
    Run(pictures, tmp_path / "a", refine="edges", save_masks=True, **plain)()
    first = Scene.load(tmp_path / "a")
    assert "refined by edges" in " ".join(first.metadata["notes"])
    masks = sorted((tmp_path / "a" / "masks").iterdir())
    assert [file.name for file in masks] == [f"frame_{t}.png" for t in range(4)]
    with Image.open(masks[0]) as mask:
        assert mask.size == (128, 96)  # the source; the prepared frames have 64x48
    Run(pictures, tmp_path / "b", motion=str(tmp_path / "a" / "masks"), **plain)()
    second = Scene.load(tmp_path / "b")
    both = (first.dynamic & second.dynamic).sum() / (first.dynamic | second.dynamic).sum()
    assert both > 0.8  # guided by the source pictures, so not the same to the pixel
    with pytest.raises(InputError, match="choose none, edges"):
        Run(pictures, tmp_path / "c", refine="polish", **plain)()
    assert not (tmp_path / "c").exists()


def test_known_cameras_hold(checkpoints, pictures: Path, tmp_path: Path) -> None:
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, 0, 3] = 0.1 * np.arange(4)
    K = np.array([[100.0, 0, 60], [0, 100, 45], [0, 0, 1]])
    np.savez(tmp_path / "known.npz", T_world_camera=T, K=K)
    plain = {"model": str(checkpoints[0]), "motion": "none", "pictures": False, "quiet": True}
    Run(pictures, tmp_path / "a", cameras=tmp_path / "known.npz", **plain)()
    scene = Scene.load(tmp_path / "a")
    np.testing.assert_allclose(scene.T_world_camera, T, atol=1e-12)
    np.testing.assert_allclose(scene.K_source(), np.tile(K, (4, 1, 1)), rtol=1e-6)
    assert scene.metadata["options"]["alignment"]["priors"]["T_world_camera"] == "given"
    Run(pictures, tmp_path / "b", fov=90, **plain)()
    scene = Scene.load(tmp_path / "b")
    np.testing.assert_allclose(scene.K_source()[:, 0, 0], 64, rtol=1e-6)
    with pytest.raises(InputError, match="what --fov says"):
        Run(pictures, tmp_path / "c", cameras=tmp_path / "known.npz", fov=60, **plain)()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("motion", ["none", "flow"])
def test_the_flow_term_moves_cameras(
    motion: str, checkpoints, pictures: Path, tmp_path: Path
) -> None:
    plain = {"model": str(checkpoints[0]), "motion": motion, "pictures": False, "quiet": True}
    Run(pictures, tmp_path / "with", **plain)()
    Run(pictures, tmp_path / "without", flow_term=False, **plain)()
    found, other = Scene.load(tmp_path / "with"), Scene.load(tmp_path / "without")
    assert found.metadata["objective"]["flow"] > 0
    assert other.metadata["objective"]["flow"] == 0


@pytest.mark.parametrize("stereo", ["on", "off"])
def test_depth_is_drawn_from_all_frames_if_asked(
    stereo: str, checkpoints, pictures: Path, tmp_path: Path
) -> None:
    Run(
        pictures, tmp_path / "out", model=str(checkpoints[0]), motion="none", bundle="on",
        stereo=stereo, pictures=False, quiet=True,
    )()  # fmt: skip
    about = Scene.load(tmp_path / "out").metadata
    assert about["options"]["stereo"] == (stereo == "on")
    assert ("multi-view depth" in about["seconds"]) == (stereo == "on")
    assert "bundle adjustment" in about["seconds"]


def test_going_on_from_an_earlier_result(checkpoints, pictures: Path, tmp_path: Path) -> None:
    plain = {"model": str(checkpoints[0]), "motion": "none", "pictures": False, "quiet": True}
    last = pictures / "frame_3.png"
    last.rename(tmp_path / "frame_3.png")
    Run(pictures, tmp_path / "first", **plain)()
    (tmp_path / "frame_3.png").rename(last)
    Run(pictures, tmp_path / "second", continue_from=tmp_path / "first", **plain)()
    first, second = Scene.load(tmp_path / "first"), Scene.load(tmp_path / "second")
    assert len(first) == 3
    assert len(second) == 4
    np.testing.assert_array_equal(second.depth[:3], first.depth)
    np.testing.assert_array_equal(second.T_world_camera[:3], first.T_world_camera)
    with pytest.raises(InputError, match="can't be combined"):
        Run(pictures, tmp_path / "x", continue_from=tmp_path / "first", fov=60, **plain)()
