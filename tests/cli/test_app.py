"""The app without a browser: queue, progress, uploads, masks, files, work of a user."""

from __future__ import annotations

import io
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dyn3r.alignment.options import AlignmentOptions
from dyn3r.assets.examples import example_clips
from dyn3r.cli.app import App
from dyn3r.cli.app.downloads import DOWNLOADS, make_download
from dyn3r.cli.app.jobs import Job, JobQueue
from dyn3r.cli.app.mask_editing import (
    component,
    follow_all,
    paint,
    propagate,
    segments,
    toggle,
)
from dyn3r.cli.app.models import ModelShelf, models_on_this_machine
from dyn3r.cli.app.option_controls import option_controls
from dyn3r.cli.app.page import AppPage
from dyn3r.cli.app.requests import Request, reconstruct_request
from dyn3r.cli.app.uploads import (
    Limits,
    Source,
    accept_upload,
    describe_source,
    holds_cameras,
    limit_uploads,
)
from dyn3r.cli.app.work import Reconstructor, Work
from dyn3r.cli.overall import PREVIEW, Overall
from dyn3r.cli.watch import RunWatcher
from dyn3r.errors import InputError
from dyn3r.network.model import Model, prepare_model
from dyn3r.options import RefinementOptions
from dyn3r.scene import Scene
from dyn3r.types import no_progress
from dyn3r.viewer.tiles import Tiles
from tests.factories import tiny_network, tiny_scene
from tests.videos import write_video


@pytest.fixture(autouse=True)
def quick_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dyn3r.alignment.align.DEFAULT_PIXELS", 64)
    monkeypatch.setattr("dyn3r.alignment.gauss_newton.MAX_ITERATIONS", 3)


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


# --- progress and queue ---------------------------------------------------------------------------


def test_a_job_shows_the_whole_and_never_goes_back():
    shown: list[tuple[str, float]] = []

    def work(progress):
        progress("loading the model", 0, 1)
        overall = Overall(progress, without=(PREVIEW,))
        for stage, done in (("reading frames", 1), ("reading frames", 3), ("writing results", 2)):
            overall(stage, done, 3)
        progress("a stage", 1, 1)

    job = Job(work, lambda job: shown.append((job.stage, job.share)))
    job.run()
    stages, shares = zip(*shown)
    assert list(shares) == sorted(shares)
    assert "loading the model" in stages
    assert "reading frames" in {stage.split(",")[0] for stage in stages}
    assert "a stage" not in stages  # it is a part of one
    assert 0 < shares[3] < 0.05
    assert 0.9 < shares[-2] < 1
    assert shares[-1] == 1


def run_all(*tasks) -> list[Job]:
    queue = JobQueue()
    ended = threading.Semaphore(0)
    jobs = [Job(task, lambda job: job.is_over and ended.release()) for task in tasks]
    for job in jobs:
        queue.submit(job)
    for _ in jobs:
        assert ended.acquire(timeout=10)
    queue.stop()
    return jobs


def test_failures_are_one_line_and_do_not_stop_the_queue(caplog):
    def refuse(_):
        raise InputError("the clip has one frame")

    def crash(_):
        raise ZeroDivisionError("secret")

    jobs = run_all(refuse, crash, lambda progress: progress("first pass", 1, 1))
    assert [job.state for job in jobs] == ["failed", "failed", "finished"]
    assert jobs[0].error == "the clip has one frame"
    assert "secret" not in jobs[1].error
    assert "a job of the app failed" in caplog.text
    assert jobs[2].share == 1


def test_a_second_job_waits_and_both_can_be_cancelled():
    started, go_on = threading.Event(), threading.Event()

    def work(progress):
        started.set()
        go_on.wait(10)
        progress("first pass", 1, 2)
        pytest.fail("it was cancelled")

    ended = threading.Semaphore(0)
    queue = JobQueue()
    first, second, third = (
        Job(work, lambda job: job.is_over and ended.release()) for _ in range(3)
    )
    for job in (first, second, third):
        queue.submit(job)
    assert started.wait(10)
    assert [job.state for job in (first, second, third)] == ["running", "waiting", "waiting"]
    assert (second.ahead, third.ahead) == (1, 2)
    second.cancel()
    assert second.state == "cancelled"
    first.cancel()
    go_on.set()
    third.cancel()
    for _ in range(3):
        assert ended.acquire(timeout=10)
    assert {job.state for job in (first, second, third)} == {"cancelled"}
    queue.stop()


# --- uploads --------------------------------------------------------------------------------------


def test_the_content_says_what_an_upload_is(tmp_path):
    video = write_video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "in").mkdir()
    source = accept_upload(tmp_path / "in", "../../etc/holiday.txt", video, Limits())
    assert (source.name, source.num_frames, source.fps) == ("holiday.txt", 6, 10)
    assert source.path.parent == tmp_path / "in"


def images_zip(folder: str = "") -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for t in range(3):
                with io.BytesIO() as image:
                    Image.new("RGB", (64, 48), (t, 0, 0)).save(image, format="PNG")
                    archive.writestr(f"{folder}{t}.png", image.getvalue())
        return file.getvalue()


@pytest.mark.parametrize("inner", ["", "frames/", "holiday/day 1/frames/"])
def test_a_zip_of_images_is_a_clip(tmp_path, inner):
    source = accept_upload(tmp_path, "frames.zip", images_zip(inner), Limits())
    assert (source.num_frames, source.fps) == (3, 0)


@pytest.mark.parametrize(
    ("content", "limits", "message"),
    [
        (b"#!/bin/sh\nrm -rf /\n", Limits(), "cannot be read as a video"),
        (b"#EXTM3U\nfile:///etc/passwd\n", Limits(), "cannot be read as a video"),
        (b"PK\x05\x06" + 18 * b"\0", Limits(), "is empty"),
        (b"x" * 11, Limits(max_bytes=10), "larger than 0 MB"),
    ],
)
def test_other_uploads_are_refused_without_a_path_of_this_machine(
    tmp_path, content, limits, message
):
    with pytest.raises(InputError, match=message) as refused:
        accept_upload(tmp_path, "clip.mp4", content, limits)
    assert str(tmp_path) not in str(refused.value)


def test_long_videos_are_refused(tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=30).read_bytes()
    with pytest.raises(InputError, match="longer than"):
        accept_upload(tmp_path, "a.mp4", video, Limits(max_seconds=1.0))


def test_uploads_that_announce_or_send_too_much_are_dropped():
    import asyncio

    handlers, states, said = {}, {"a": {"transferred_bytes": 5}, "b": {"transferred_bytes": 50}}, []
    interface = SimpleNamespace(register_handler=lambda kind, act: handlers.update({kind: act}))
    gui = SimpleNamespace(_websock_interface=interface, _current_file_upload_states=states)
    limit_uploads(SimpleNamespace(gui=gui), Limits(max_bytes=10), said.append)
    start, part = handlers.values()
    asyncio.run(part(0, SimpleNamespace(transfer_uuid="a")))
    asyncio.run(start(0, SimpleNamespace(transfer_uuid="a", size_bytes=10)))
    assert set(states) == {"a", "b"}
    asyncio.run(part(0, SimpleNamespace(transfer_uuid="b")))
    asyncio.run(start(0, SimpleNamespace(transfer_uuid="a", size_bytes=11)))
    assert states == {}
    assert len(said) == 2


def test_three_examples_are_bundled():
    sources = [describe_source(path, name) for name, path in example_clips().items()]
    assert [source.num_frames for source in sources] == [24, 24, 24]


# --- requests -------------------------------------------------------------------------------------


def test_the_frames_of_a_video_are_spread_over_all_of_it():
    request = Request(Source(Path("a.mp4"), "a.mp4", 900, 30.0), num_frames=48)
    assert (request.step, request.kept) == (19, 48)
    assert request.plan(2.5) == "48 of 900 frames, about 2 min"
    images = Request(Source(Path("frames"), "frames", 900, 0.0), num_frames=48)
    assert (images.step, images.kept) == (1, 48)
    few = Request(Source(Path("a.mp4"), "a.mp4", 6, 30.0), size=112)
    assert few.plan(2.0) == "6 of 6 frames, about 10 s"


def test_a_request_gives_a_rough_scene_and_a_final_one(tmp_path, model):
    source = describe_source(write_video(tmp_path / "a.mp4", frames=8), "cat.mp4")
    request = Request(source, num_frames=4, size=64, fov_deg=60.0)
    rough: list[Scene] = []
    tiles: list[Tiles] = []
    scene = reconstruct_request(request, model, no_progress, RunWatcher(rough.append, tiles.append))
    assert {len(s) for s in (*rough, scene)} == {4}
    assert len(rough) >= 2  # feed-forward, first alignment
    assert [t.masks is None for t in tiles[:4]] == [True] * 4  # depth, frame by frame
    assert tiles[-1].masks is not None
    np.testing.assert_allclose(scene.times_s, [0, 0.2, 0.4, 0.6])
    np.testing.assert_allclose(2 * np.arctan(32 / scene.K[0, 0, 0]), np.radians(60), rtol=1e-6)
    assert scene.metadata["source"] == "cat.mp4"
    masks = np.zeros(scene.dynamic.shape, bool)
    masks[:, 5:20, 5:20] = True
    again = reconstruct_request(
        Request(source, num_frames=4, size=64, masks=masks), model, no_progress,
        RunWatcher(rough.append, tiles.append),
    )  # fmt: skip
    np.testing.assert_array_equal(again.dynamic, masks)
    np.testing.assert_array_equal(tiles[-1].masks, masks)


def trajectory(frames: int) -> str:
    """A camera that moves to the right, as TUM has it: time, position, quaternion."""
    return "".join(f"{t} {0.1 * t} 0 0 0 0 0 1\n" for t in range(frames))


def test_known_cameras_are_kept_and_bad_ones_are_refused_without_a_path(tmp_path, model):
    work = Work(Reconstructor(model), tmp_path)
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    wall = rng.integers(0, 255, (48, 80, 3), dtype=np.uint8)
    for t in range(3):
        Image.fromarray(wall[:, 2 * t : 2 * t + 64]).save(frames / f"{t}.png")
    work.set_source(describe_source(frames, "frames"))
    work.set_cameras("../poses.TXT", trajectory(3).encode())
    request = Request(work.source, size=64, cameras=work.cameras)
    watcher = RunWatcher(lambda _: None, lambda _: None)
    scene = reconstruct_request(request, model, no_progress, watcher)
    steps = np.diff(scene.T_world_camera[:, :3, 3], axis=0)
    np.testing.assert_allclose(steps, [[0.1, 0, 0]] * 2, atol=1e-6)
    work.set_cameras("poses.txt", b"no numbers")
    with pytest.raises(InputError) as refused:
        reconstruct_request(request, model, no_progress, watcher)
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(InputError, match="known cameras come as"):
        work.set_cameras("poses.pkl", b"")
    work.set_source(describe_source(frames, "again"))
    assert work.cameras is None
    work.reconstructor.queue.stop()


@pytest.mark.parametrize("masks", [True, False])
def test_a_zip_of_a_colmap_model_gives_known_cameras(tmp_path, model, masks):
    work = Work(Reconstructor(model), tmp_path)
    scene = tiny_scene(n=3)
    frames = tmp_path / "frames"
    frames.mkdir()
    for name, image in zip(scene.names, scene.images):
        source = Image.fromarray(image).resize(scene.mapping.source_hw[::-1])
        source.save(frames / f"{name}.png")
    name, content = make_download("COLMAP", scene, None, no_progress)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {m: archive.read(m) for m in archive.namelist() if not m.endswith("/")}
    with io.BytesIO() as file:  # with its masks, which are images, it must be chosen as cameras
        with zipfile.ZipFile(file, "w") as archive:
            for member, data in members.items():
                if masks or not member.endswith(".png"):
                    archive.writestr(member, data)
        content = file.getvalue()
    assert holds_cameras(name, content) == (not masks)
    work.set_source(describe_source(frames, "frames"))
    work.set_cameras(name, content)
    assert work.cameras.is_relative_to(work.folder)
    request = Request(work.source, size=64, cameras=work.cameras)
    watcher = RunWatcher(lambda _: None, lambda _: None)
    found = reconstruct_request(request, model, no_progress, watcher)
    np.testing.assert_allclose(found.T_world_camera, scene.T_world_camera, atol=1e-6)


def test_archives_without_cameras_are_refused_without_a_path(tmp_path, model):
    work = Work(Reconstructor(model), tmp_path)
    work.set_source(describe_source(write_video(tmp_path / "a.mp4"), "a"))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("notes/a.md", "no cameras")
        content = file.getvalue()
    assert not holds_cameras("a.zip", content)
    assert not holds_cameras("a.zip", b"PK no archive")
    assert not holds_cameras("a.mp4", content)
    assert holds_cameras("a.json", b"{}")
    with pytest.raises(InputError, match="the archive") as damaged:
        work.set_cameras("a.zip", content[:-30])
    work.set_cameras("a.zip", content)
    request = Request(work.source, size=64, cameras=work.cameras)
    watcher = RunWatcher(lambda _: None, lambda _: None)
    with pytest.raises(InputError, match="holds no cameras") as nothing:
        reconstruct_request(request, model, no_progress, watcher)
    assert str(tmp_path) not in f"{damaged.value}{nothing.value}"


def test_models_are_loaded_when_asked_for_and_no_others(model):
    loaded: list[str] = []

    def load(name, _progress):
        loaded.append(name)
        return model

    shelf = ModelShelf(model, ["tiny", "large"], load)
    assert shelf.names == ("tiny", "large")
    assert shelf.get("", no_progress) is model
    assert loaded == []
    for _ in range(2):
        shelf.get("large", no_progress)
    assert loaded == ["large"]
    with pytest.raises(InputError, match="not offered"):
        shelf.get("/etc/passwd", no_progress)
    assert "compact" in models_on_this_machine()


# --- masks ----------------------------------------------------------------------------------------


def object_scene() -> Scene:
    """A red square that moves 3 pixels a frame before a grey wall; nothing is masked."""
    n, h, w = 5, 64, 96
    rng = np.random.default_rng(0)
    images = np.tile(rng.integers(100, 130, (h, w, 1), dtype=np.uint8), (n, 1, 1, 3))
    depth = np.full((n, h, w), 4.0)
    for t in range(n):
        square = (t, slice(20, 44), slice(20 + 3 * t, 44 + 3 * t))
        images[square] = rng.integers(0, 40, (24, 24, 3), dtype=np.uint8) if t == 0 else (
            images[0, 20:44, 20:44]
        )  # fmt: skip
        images[(*square, 0)] = 230
        depth[square] = 2.0
    return tiny_scene(n=n, h=h, w=w, images=images, depth=depth, dynamic=np.zeros((n, h, w), bool))


def overlap(mask: np.ndarray, t: int) -> float:
    """Intersection over union with the square of frame t."""
    truth = np.zeros_like(mask)
    truth[20:44, 20 + 3 * t : 44 + 3 * t] = True
    return float((mask & truth).sum() / (mask | truth).sum())


def test_a_click_adds_the_object_in_all_frames_and_another_one_removes_it():
    scene = object_scene()
    pixel = 30 * 96 + 32
    here = toggle(scene, 1, pixel, whole_clip=False)
    assert overlap(here[1], 1) > 0.65
    assert not here[[0, 2, 3, 4]].any()
    everywhere = toggle(scene, 1, pixel, whole_clip=True)
    assert min(overlap(everywhere[t], t) for t in range(5)) > 0.6
    masked = tiny_scene(n=5, h=64, w=96, images=scene.images, depth=scene.depth, dynamic=everywhere)
    removed = toggle(masked, 3, pixel, whole_clip=True)
    assert removed.sum() < 0.1 * everywhere.sum()


def test_a_brush_paints_one_frame_and_propagation_takes_it_along():
    scene = object_scene()
    before = scene.dynamic
    painted = paint(before, 2, [32 * 96 + 38], 9, add=True)
    assert 240 < painted[2].sum() < 270  # the area of a disc
    assert not painted[[0, 1, 3, 4]].any()
    assert not before.any()
    here = replace(scene, dynamic=painted)
    everywhere = propagate(here, 2, before)
    columns = [np.nonzero(mask)[1].mean() for mask in everywhere]
    np.testing.assert_allclose(np.diff(columns), 3, atol=1)  # as the object moves
    # taking a part away again changes the other frames, too
    less = paint(everywhere, 2, [32 * 96 + 38], 5, add=False)
    assert less[2].sum() < painted[2].sum() - 60
    rest = propagate(replace(scene, dynamic=less), 2, everywhere)
    assert (rest.sum(axis=(1, 2)) < everywhere.sum(axis=(1, 2)) - 40).all()
    np.testing.assert_array_equal(propagate(here, 0, before), painted)  # nothing changed there


def test_a_stroke_paints_along_its_path():
    before = np.zeros((2, 40, 90), bool)
    stroke = paint(before, 1, [10 * 90 + 10, 10 * 90 + 70, 30 * 90 + 70], 3, add=True)
    assert stroke[1, 10, 7:74].all()  # straight from one point of the mouse to the next
    assert stroke[1, 10:34, 70].all()
    assert not stroke[1, 20, 10:60].any()
    assert not stroke[0].any()
    assert 550 < stroke[1].sum() < 620  # 7 pixels wide, 80 long, with round ends


class FakeTracker:
    """Knows the square of `object_scene`."""

    def object_at(self, images, t, row, column):
        del t, row, column
        return (images[..., 0] == 230) & (images[..., 1] < 50)

    def follow(self, images, t, mask):
        return np.stack([np.roll(mask, 3 * (s - t), axis=1) for s in range(len(images))])


def test_a_tracker_finds_and_follows_objects_in_place_of_flow():
    scene, pixel, tracker = object_scene(), 30 * 96 + 32, FakeTracker()
    found = toggle(scene, 1, pixel, whole_clip=True, tracker=tracker)
    assert [overlap(found[t], t) for t in range(5)] == [1] * 5
    here = toggle(scene, 1, pixel, whole_clip=False, tracker=tracker)
    np.testing.assert_array_equal(here.any(axis=(1, 2)), [False, True, False, False, False])
    masked = replace(scene, dynamic=found)
    assert not toggle(masked, 3, pixel, whole_clip=True, tracker=tracker).any()
    painted = paint(scene.dynamic, 2, [32 * 96 + 38], 5, add=True)
    carried = propagate(replace(scene, dynamic=painted), 2, scene.dynamic, tracker)
    np.testing.assert_array_equal(carried[4], np.roll(painted[2], 6, axis=1))


def test_segments_follow_depth_where_colours_are_equal():
    scene = object_scene()
    grey = tiny_scene(n=5, h=64, w=96, images=np.full_like(scene.images, 90), depth=scene.depth)
    labels = segments(grey, 0)
    inner = labels[24:40, 24:40]
    assert len(np.unique(inner)) == 1
    assert labels[5, 5] != inner[0, 0]
    nothing = tiny_scene(n=5, h=64, w=96, depth=np.zeros((5, 64, 96)))
    assert segments(nothing, 0).shape == (64, 96)


def test_components_and_objects_that_leave():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[5:7, 5:7] = True
    assert np.argwhere(component(mask, 6, 6)).min() == 5
    scene = object_scene()
    gone = scene.images.copy()
    gone[3:] = np.random.default_rng(1).integers(0, 255, gone[3:].shape, dtype=np.uint8)
    changed = tiny_scene(n=5, h=64, w=96, images=gone)
    square = np.zeros((64, 96), bool)
    square[20:44, 20:44] = True
    assert set(follow_all(changed, 0, square)) >= {0, 1, 2}


# --- options and files ----------------------------------------------------------------------------


class FakeGui:
    """The part of viser's `GuiApi` that the options use."""

    def __init__(self) -> None:
        self.controls: dict[str, SimpleNamespace] = {}

    def __getattr__(self, _):
        def add(label, options=(), initial_value=None):
            control = SimpleNamespace(value=initial_value, options=options)
            control.on_update = lambda act: setattr(control, "act", act)
            self.controls[label] = control
            return control

        return add


def test_controls_are_generated_from_the_options():
    gui, changes = FakeGui(), []
    read = option_controls(gui, RefinementOptions(), lambda: changes.append(1))
    assert read() == RefinementOptions()
    assert gui.controls["bundle adjustment"].options == ("auto", "on", "off")
    gui.controls["bundle adjustment"].value = "off"
    gui.controls["ground correction"].value = False
    gui.controls["ground correction"].act(None)
    assert read() == RefinementOptions(bundle_adjustment=False, ground_correction=False)
    assert changes == [1]
    read = option_controls(FakeGui(), AlignmentOptions(), lambda: None)
    assert read() == AlignmentOptions()


def test_downloads_open_again(tmp_path):
    scene = tiny_scene()
    name, content = make_download("scene", scene, None, no_progress)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(Scene.load(tmp_path / name).images, scene.images)
    name, content = make_download("GLB", scene, None, no_progress)
    assert (name, content[:4]) == ("scene.glb", b"glTF")
    name, content = make_download("nerfstudio", scene, None, no_progress)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert "nerfstudio/transforms.json" in archive.namelist()
    assert set(DOWNLOADS) >= {"PLY", "COLMAP", "USD", "rerun", "page", "film"}


# --- the work of a user ---------------------------------------------------------------------------


class FakePage:
    def __init__(self) -> None:
        self.news: list[str] = []
        self.tiles = 0
        self.over = threading.Event()

    def source_changed(self) -> None:
        self.news.append("source")

    def job_changed(self, job: Job) -> None:
        if job.is_over:
            self.news.append(job.state)
            self.over.set()

    def tiles_changed(self) -> None:
        self.tiles += 1

    def scene_changed(self, *, is_new: bool) -> None:
        self.news.append("new scene" if is_new else "scene")

    def masks_changed(self) -> None:
        self.news.append("masks")


def test_the_work_of_a_user(tmp_path, model):
    reconstructor = Reconstructor(model)
    work, other = Work(reconstructor, tmp_path), Work(reconstructor, tmp_path)
    assert work.folder != other.folder
    page = FakePage()
    work.pages.add(page)
    video = write_video(tmp_path / "a.mp4").read_bytes()
    work.set_source(accept_upload(work.new_folder(), "a.mp4", video, Limits()))
    work.start(Request(work.source, num_frames=3, size=64))
    assert page.over.wait(60)
    assert page.news[0] == "source"
    assert set(page.news[1:-1]) == {"new scene"}  # the rough ones and the final one
    assert page.news[-1] == "finished"
    assert page.tiles > 3
    assert work.is_final
    assert other.scene is None
    before = work.scene.dynamic.copy()
    work.set_masks(before, ~before)
    work.undo_masks()
    work.undo_masks()  # nothing is left to undo
    np.testing.assert_array_equal(work.scene.dynamic, before)
    masks = np.zeros_like(before)
    masks[:, 10:20, 10:30] = True
    work.set_masks(before, masks)
    page.over.clear()
    page.news.clear()
    work.run_again(work.scene.dynamic)
    assert page.over.wait(60)
    np.testing.assert_array_equal(work.scene.dynamic, masks)
    assert page.news == ["scene", "finished"]  # the scene stays until the next one is final
    work.remove()
    assert not work.folder.exists()
    reconstructor.queue.stop()


def test_cancelling_keeps_the_rough_scene(tmp_path, model):
    reconstructor = Reconstructor(model)
    work, page = Work(reconstructor, tmp_path), FakePage()
    work.pages.add(page)
    page.scene_changed = lambda *, is_new: work.cancel()
    work.set_source(describe_source(write_video(tmp_path / "a.mp4"), "a"))
    work.start(Request(work.source, num_frames=3, size=64))
    assert page.over.wait(60)
    assert page.news[-1] == "cancelled"
    assert work.scene is not None
    assert not work.is_final
    reconstructor.queue.stop()


def test_a_page_that_has_left_does_not_end_the_job(tmp_path, model, caplog):
    reconstructor = Reconstructor(model)
    work, page, gone = Work(reconstructor, tmp_path), FakePage(), FakePage()
    gone.scene_changed = None  # calling it fails
    work.pages |= {page, gone}
    work.set_source(describe_source(write_video(tmp_path / "a.mp4"), "a"))
    work.start(Request(work.source, num_frames=3, size=64))
    assert page.over.wait(60)
    assert work.job.state == "finished"
    assert "could not be updated" in caplog.text
    reconstructor.queue.stop()


def test_the_command_prints_an_address_and_removes_its_folder(monkeypatch, capsys, model):
    opened: list[AppPage] = []
    monkeypatch.setattr("dyn3r.cli.app.load_models", lambda *_: (model, None))
    monkeypatch.setattr(AppPage, "wait", lambda page: opened.append(page))
    App(port=0, no_browser=True, share_on_lan=True, quiet=True)()
    (page,) = opened
    assert "/?token=" in capsys.readouterr().out
    assert page.stopped
    assert not page._folder.exists()
    with pytest.raises(InputError, match="max-upload-mb"):
        App(max_upload_mb=0)()
