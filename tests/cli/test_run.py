"""`dyn3r run` and `dyn3r stream`: what they write, beyond tests/cli/test_cli.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dyn3r.streaming
import dyn3r.viewer
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli.run import InputOptions, KnownInputs, Run
from dyn3r.cli.stream import Stream
from dyn3r.errors import InputError
from dyn3r.motion.options import MotionOptions
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model
from dyn3r.options import FlowOptions, RefinementOptions
from dyn3r.scene import Scene
from tests.factories import tiny_network
from tests.shots import shot

FAST = AlignmentOptions(pixels=64, iterations=2)
STATIC = MotionOptions(cue="none")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    other = tiny_network()
    initialise(other, seed=5)
    save_network(folder / "tiny.safetensors", tiny_network(), {})
    save_network(folder / "other.safetensors", other, {})
    return folder / "tiny.safetensors", folder / "other.safetensors"


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of images: a textured wall that slides past, and a square that moves on its own."""
    folder = tmp_path / "frames"
    folder.mkdir()
    wall = np.random.default_rng(0).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    for t in range(4):
        image = wall[:, 4 * t : 4 * t + 128].copy()
        image[20:50, 10 * t : 10 * t + 30] = (200, 30, 30)
        Image.fromarray(image).save(folder / f"frame_{t}.png")
    return folder


@pytest.fixture
def run(checkpoints, frames: Path, tmp_path: Path):
    """`run(name, **options)` runs into the folder `name` and returns the scene."""

    def run(name: str, **options: Any) -> Scene:
        plain = {"model": str(checkpoints[0]), "no_pictures": True, "quiet": True}
        Run(frames, tmp_path / name, **(plain | {"alignment": FAST} | options))()
        return Scene.load(tmp_path / name)

    return run


@pytest.mark.slow
def test_motion_model(checkpoints, run) -> None:
    model, other = map(str, checkpoints)
    both, alone = run("both", motion_model=other), run("alone", model=other)
    np.testing.assert_array_equal(both.dynamic, alone.dynamic)
    assert both.metadata["motion_model"]["name"] == other
    assert both.metadata["model"]["name"] == model
    assert not np.array_equal(both.depth, alone.depth)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no motion", "given masks"])
def test_a_motion_model_that_has_no_effect_is_refused(
    how: str, checkpoints, run, frames: Path, tmp_path: Path
) -> None:
    options = {"motion": STATIC} if how == "no motion" else {"known": KnownInputs(masks=frames)}
    with pytest.raises(InputError, match="a motion model has no effect"):
        run("out", motion_model=str(checkpoints[1]), **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_explain_writes_images_beside_the_results(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("out", explain=True)
    assert {file.name for file in out.iterdir()} == {"scene.dyn3r", "explain"}
    names = {file.name for file in (out / "explain").iterdir()}
    assert names == {f"frame_000{t}.png" for t in range(4)} | {"explanation.mp4", "reasons.txt"}
    # a second run replaces them
    (out / "explain" / "reasons.txt").write_text("old")
    run("out", explain=True, overwrite=True)
    assert "attention" in (out / "explain" / "reasons.txt").read_text()


@pytest.mark.slow
def test_refined_masks_at_source_resolution_can_be_given_back(run, tmp_path: Path) -> None:
    first = run("a", motion=MotionOptions(refine="edges"), save_masks=True)
    assert "refined by edges" in " ".join(first.metadata["notes"])
    masks = sorted((tmp_path / "a" / "masks").iterdir())
    assert [file.name for file in masks] == [f"frame_{t}.png" for t in range(4)]
    with Image.open(masks[0]) as mask:
        assert mask.size == (128, 96)  # the source; the prepared frames have 64x48
    second = run("b", known=KnownInputs(masks=tmp_path / "a" / "masks"))
    both = (first.dynamic & second.dynamic).sum() / (first.dynamic | second.dynamic).sum()
    assert both > 0.8  # guided by the source images, so not the same to the pixel
    assert second.metadata["plan"]["cue"] == "given"


@pytest.mark.slow
def test_known_cameras_are_kept(run, tmp_path: Path) -> None:
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, 0, 3] = 0.1 * np.arange(4)
    K = np.array([[100.0, 0, 60], [0, 100, 45], [0, 0, 1]])
    file = tmp_path / "known.npz"
    np.savez(file, T_world_camera=T, K=K)
    scene = run("a", motion=STATIC, known=KnownInputs(cameras=file))
    np.testing.assert_allclose(scene.T_world_camera, T, atol=1e-12)
    np.testing.assert_allclose(scene.K_source(), np.tile(K, (4, 1, 1)), rtol=1e-6)
    assert scene.metadata["plan"]["priors"]["T_world_camera"] == "given"
    scene = run("b", motion=STATIC, known=KnownInputs(fov=90.0))
    np.testing.assert_allclose(scene.K_source()[:, 0, 0], 64, rtol=1e-6)
    with pytest.raises(InputError, match=r"intrinsics that --known\.fov gives"):
        run("c", motion=STATIC, known=KnownInputs(cameras=file, fov=60.0))
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_known_cameras_may_be_initial_values(run, tmp_path: Path) -> None:
    np.savez(tmp_path / "known.npz", T_world_camera=np.tile(np.eye(4), (4, 1, 1)))
    known = KnownInputs(cameras=tmp_path / "known.npz", fixed=False)
    scene = run("a", motion=STATIC, known=known)
    assert scene.metadata["plan"]["priors"]["fix_T"] is False
    assert not np.allclose(scene.T_world_camera, np.eye(4))


@pytest.mark.slow
@pytest.mark.parametrize("cue", ["none", "flow"])
def test_the_flow_term_moves_cameras(cue: str, run) -> None:
    motion = MotionOptions(cue=cue)  # type: ignore[arg-type]
    found = run("with", motion=motion)
    other = run("without", motion=motion, flow=FlowOptions(in_alignment=False))
    assert found.metadata["objective"]["flow"] > 0
    assert other.metadata["objective"]["flow"] == 0
    assert not np.array_equal(found.T_world_camera, other.T_world_camera)


@pytest.mark.slow
@pytest.mark.parametrize("multi_view_depth", [True, False])
def test_depth_is_estimated_from_all_frames_if_asked_for(multi_view_depth: bool, run) -> None:
    wanted = RefinementOptions(bundle_adjustment=True, multi_view_depth=multi_view_depth)
    about = run("out", motion=STATIC, refinement=wanted).metadata
    assert about["plan"]["multi_view_depth"] == multi_view_depth
    assert ("multi-view depth" in about["seconds"]) == multi_view_depth
    assert "bundle adjustment" in about["seconds"]


@pytest.mark.slow
def test_resuming_an_earlier_result(run, frames: Path, tmp_path: Path) -> None:
    last = frames / "frame_3.png"
    last.rename(tmp_path / "frame_3.png")
    first = run("first", motion=STATIC)
    (tmp_path / "frame_3.png").rename(last)
    second = run("second", motion=STATIC, resume=tmp_path / "first")
    assert len(first) == 3
    assert len(second) == 4
    np.testing.assert_array_equal(second.depth[:3], first.depth)
    np.testing.assert_array_equal(second.T_world_camera[:3], first.T_world_camera)
    known = KnownInputs(fov=60.0)
    with pytest.raises(InputError, match="can't be combined"):
        run("x", resume=tmp_path / "first", known=known)


def test_options_that_do_not_go_together(run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--save-masks"):
        run("out", save_masks=True, resume=tmp_path)
    assert not (tmp_path / "out").exists()


# --- frame by frame ----------------------------------------------------------------------------


def stream(source: Path, out: Path, checkpoints, **options: Any) -> Stream:
    return Stream(source, out, model=str(checkpoints[0]), **options)


@pytest.mark.slow
def test_stream_writes_every_frame_and_the_scene(checkpoints, frames, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    stream(frames, out, checkpoints)()
    assert f"dyn3r view {out}" in capsys.readouterr().out
    names = {"scene.dyn3r", "overview.mp4", "contact_sheet.png", "camera_path.png", "frames"}
    assert {file.name for file in out.iterdir()} == names
    scene = Scene.load(out)
    assert scene.metadata["mode"] == "stream"
    assert scene.names == tuple(f"frame_{t}.png" for t in range(4))
    for t in range(4):
        with np.load(out / "frames" / f"00000{t}.npz") as frame:
            np.testing.assert_array_equal(frame["image"], scene.images[t])
            np.testing.assert_allclose(frame["depth"], scene.depth[t], rtol=2e-3)
            np.testing.assert_allclose(frame["T_world_camera"], scene.T_world_camera[t])
            assert str(frame["name"]) == scene.names[t]
    # a shorter run into the same folder leaves none of the old frames
    short = {"overwrite": True, "num_frames": 2, "quiet": True, "no_pictures": True}
    stream(frames, out, checkpoints, **short)()
    assert {file.name for file in (out / "frames").iterdir()} == {"000000.npz", "000001.npz"}
    assert len(Scene.load(out)) == 2


def test_a_stopped_stream_keeps_the_frames_so_far(
    checkpoints, frames, tmp_path, monkeypatch, capsys
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
    stream(frames, tmp_path / "out", checkpoints, no_pictures=True)()
    assert "stopped after 2 frames" in capsys.readouterr().out
    assert len(Scene.load(tmp_path / "out")) == 2


class FakeViewer:
    """Records its calls."""

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
    checkpoints, frames, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(dyn3r.viewer, "LiveViewer", FakeViewer)
    live = {"live": True, "port": 1234, "no_pictures": True}
    stream(frames, tmp_path / "out", checkpoints, **live)()
    said = FakeViewer.last.said
    assert said[0] == 1234
    assert said[-3:] == ["finish", "wait", "stop"]
    assert [frame[0] for frame in said[1:5]] == [t / 24 for t in range(4)]
    assert all(f[1:] == ((3, 48, 64), f[2], (48, 64), np.dtype(bool)) for f in said[1:5])
    assert all(0.5 < f[2] <= 1 for f in said[1:5])
    assert "http://127.0.0.1:1234" in capsys.readouterr().out


def test_the_live_page_closes_where_the_run_fails(checkpoints, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dyn3r.viewer, "LiveViewer", FakeViewer)
    (tmp_path / "text.mp4").write_text("no video")
    broken = stream(tmp_path / "nothing", tmp_path / "o", checkpoints, live=True)
    with pytest.raises(InputError, match="does not exist"):
        broken()
    unknown = Stream(tmp_path / "text.mp4", tmp_path / "o", model="no-such-model", live=True)
    with pytest.raises(InputError, match="video"):
        unknown()
    assert not (tmp_path / "o").exists()


def test_of_two_shots_the_longest_is_kept_and_the_other_is_named(
    run, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for t, image in enumerate(np.concatenate([shot(3, 0), shot(4, 1)])):
        Image.fromarray(image[:96, :128]).save(frames / f"frame_{t}.png")
    scene = run("one", motion=STATIC, quiet=False)
    assert scene.names == ("frame_3.png", "frame_4.png", "frame_5.png", "frame_6.png")
    assert "--start 0 --end 0.085" in capsys.readouterr().out
    both = run("both", motion=STATIC, input=InputOptions(split_cuts=False))
    assert len(both) == 7
    assert [note.topic for note in both.report.notes] == ["frames", "cuts"]


def test_borders_are_kept_if_asked(run, frames: Path) -> None:
    for file in frames.iterdir():
        Image.fromarray(np.pad(np.asarray(Image.open(file)), [(0, 0), (32, 32), (0, 0)])).save(file)
    assert run("cropped", motion=STATIC).mapping.crop_xy[0] > 15
    assert run("kept", motion=STATIC, input=InputOptions(keep_borders=True)).mapping.crop_xy == (
        0,
        0,
    )


def test_frames_cover_wide_images_unless_asked(run, frames: Path) -> None:
    for file in frames.iterdir():
        Image.fromarray(np.asarray(Image.open(file))[:72]).save(file)  # 16:9: 63 rows of 112
    assert run("cover", motion=STATIC, size=112).size_hw == (64, 112)
    assert run("crop", motion=STATIC, size=112, input=InputOptions(fit="crop")).size_hw == (48, 112)


def test_fit_follows_the_network_and_the_size() -> None:
    small, large = (
        Model(tiny_network(), name, torch.device("cpu"), "float32") for name in ("small", "large")
    )
    large.network.config = replace(large.network.config, image_size=512)
    assert (small.fit(), small.fit(112), large.fit(), large.fit(320)) == (
        "area", "cover", "crop", "crop",
    )  # fmt: skip
