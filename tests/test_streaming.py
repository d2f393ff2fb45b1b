"""Frame-by-frame mode, against a scene with known cameras and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dyn3r
from dyn3r import streaming
from dyn3r.errors import GeometryError, InputError
from dyn3r.io.frame_stream import stream_frames
from dyn3r.io.stream_preparation import LEAD_FRAMES, frames_of_stream
from dyn3r.network.model import Model, prepare_model
from dyn3r.streaming import StreamOptions, scene_from_frames, stream_scene
from dyn3r.types import PairPredictions, Tokens
from tests.factories import tiny_network
from tests.shots import black, shot
from tests.videos import write_video

H, W, F = 48, 64, 60.0
K = np.array([[F, 0, W / 2], [0, F, H / 2], [0, 0, 1]])


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


def camera(t: int) -> np.ndarray:
    """Frame t's camera in the world: it turns, and goes right and ahead."""
    angle = 0.03 * t
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T[:3, 3] = [0.1 * t, 0.0, 0.05 * t]
    return T


def known_depth(t: int) -> np.ndarray:
    """Bumpy, and another one in every frame."""
    v, u = np.mgrid[:H, :W]
    return (4 + np.sin(u / 9 + t) + np.cos(v / 7)).astype(np.float32)


def in_camera(t: int) -> np.ndarray:
    v, u = np.mgrid[:H, :W]
    rays = np.stack([(u - W / 2) / F, (v - H / 2) / F, np.ones((H, W))], -1)
    return known_depth(t)[..., None] * rays


class KnownWorld:
    """Stands in for the network: perfect pointmaps, every pair in a scale of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
        wall = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
        self.images = np.tile(wall, (frames, 1, 1, 1))
        self.images[:, 0, 0, 0] = np.arange(frames)  # a frame's number is its first pixel
        self.pairs: list[tuple[int, int]] = []
        monkeypatch.setattr(streaming, "encode_frames", self.encode)
        monkeypatch.setattr(streaming, "predict_pairs", self.predict)

    def encode(self, model: Model, images: np.ndarray) -> Tokens:
        import torch

        return Tokens(torch.zeros(len(images), 12, 1), (3, 4))

    def predict(self, model, images, edges, *, tokens, scores) -> PairPredictions:
        i, j = (int(images[k, 0, 0, 0]) for k in edges[0])
        self.pairs.append((i, j))
        scale = 1 + 0.3 * len(self.pairs)
        T = np.linalg.inv(camera(i)) @ camera(j)
        points2 = in_camera(j) @ T[:3, :3].T + T[:3, 3]
        ones = np.full((1, H, W), 2.0, np.float32)
        points1 = scale * in_camera(i)[None]
        return PairPredictions(edges, 2, points1, ones, scale * points2[None], ones)


@pytest.mark.parametrize("reference", ["first", "middle"])
def test_perfect_pointmaps_give_the_true_cameras(
    reference: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = KnownWorld(monkeypatch, 6)
    clip = dyn3r.clip_from_images(world.images, size=64)
    options = StreamOptions(reference=reference)  # type: ignore[arg-type]
    results = list(stream_scene(clip, model, options))
    start = 0 if reference == "first" else 3
    assert {i for i, _ in world.pairs} == {start}
    # the world's unit is that of the reference's points, the first pair's: 1.3 times ours
    for t, result in enumerate(results):
        T = np.linalg.inv(camera(start)) @ camera(t)
        assert result.index == t
        np.testing.assert_allclose(result.T_world_camera[:3, :3], T[:3, :3], atol=1e-4)
        np.testing.assert_allclose(result.T_world_camera[:3, 3], 1.3 * T[:3, 3], atol=1e-3)
        np.testing.assert_allclose(result.depth, 1.3 * known_depth(t), rtol=1e-3)
        np.testing.assert_allclose(result.K, K, rtol=1e-3)
        assert result.quality > 0.99
    scene = scene_from_frames(results, fps=clip.fps)
    assert scene.names == clip.names
    np.testing.assert_array_equal(scene.frame_quality, [r.quality for r in results])


def test_a_frame_comes_out_before_the_one_after_the_next_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, read = KnownWorld(monkeypatch, 12), []

    def frames() -> Iterator[np.ndarray]:
        for t, image in enumerate(world.images):
            read.append(t)
            yield image

    for t, result in enumerate(stream_scene(frames(), model)):
        assert result.index == t
        assert len(read) == max(LEAD_FRAMES, t + 1)


def test_a_lost_frame_keeps_the_camera_before_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = KnownWorld(monkeypatch, 4)
    perfect = world.predict

    def broken(model, images, edges, **others) -> PairPredictions:
        seen = perfect(model, images, edges, **others)
        if images[1, 0, 0, 0] == 2:
            noise = np.random.default_rng(0).normal(size=(1, H, W, 3))
            seen = replace(seen, points2=noise)
        return seen

    monkeypatch.setattr(streaming, "predict_pairs", broken)
    results = list(stream_scene(dyn3r.clip_from_images(world.images, size=64), model))
    assert [r.quality > 0 for r in results] == [True, True, False, True]
    np.testing.assert_array_equal(results[2].T_world_camera, results[1].T_world_camera)
    metadata = streaming.stream_metadata(model, "x", StreamOptions(), results)
    assert "lost frames: 1, the first is frame_000002" in metadata["notes"][1]


def test_a_reference_without_depth_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = KnownWorld(monkeypatch, 2)
    monkeypatch.setattr(
        streaming, "predict_pairs",
        lambda *a, **k: replace(world.predict(*a, **k), points1=-np.ones((1, H, W, 3))),
    )  # fmt: skip
    with pytest.raises(GeometryError, match="no depth"):
        next(stream_scene(world.images, model))


def sliding_square() -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of a wall that slides to the left and a square that moves to the right; its masks."""
    random = np.random.default_rng(0)

    def texture(cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        noise = Image.fromarray(random.integers(0, 256, (*cells, 3), dtype=np.uint8))
        return np.asarray(noise.resize(size, Image.Resampling.BICUBIC))

    wall, square = texture((20, 36), (288, 160)), texture((10, 10), (64, 64))
    images, truth = [], np.zeros((5, 160, 256), bool)
    for t in range(5):
        image, left = wall[:, t : t + 256].copy(), 20 + 5 * t
        image[50:114, left : left + 64] = square
        truth[t, 50:114, left : left + 64] = True
        images.append(image)
    return images, truth


@pytest.mark.slow
@pytest.mark.parametrize("back", [(1,), (1, 3)])
def test_motion_is_masked_from_the_first_frame_on(
    model: Model, back: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, truth = sliding_square()
    # the depth of an untrained network is noise: constant depth instead
    monkeypatch.setattr(streaming, "_inverse", lambda depth: np.ones(depth.shape))
    monkeypatch.setattr(streaming, "FLOW_BACK", back)
    results = list(stream_scene(images, model, StreamOptions(motion="flow", size=256)))
    for result, mask in zip(results, truth):
        assert (result.dynamic & mask).sum() / (result.dynamic | mask).sum() > 0.7


def test_motion_is_read_from_flow_where_it_is_recommended_or_asked_for(model: Model) -> None:
    by_flow = replace(model, facts={"motion_cue": "flow"})
    by_both = replace(model, facts={"motion_cue": "both"})
    for options, chosen, expected in (
        (StreamOptions(), model, "none"),  # attention cannot be read here
        (StreamOptions(), by_flow, "flow"),
        (StreamOptions(), by_both, "flow"),
        (StreamOptions(motion="none"), by_flow, "none"),
        (StreamOptions(motion="flow"), model, "flow"),
    ):
        assert streaming.resolve_stream(options, chosen).motion == expected


def test_unknown_depth_is_far_away() -> None:
    depth = np.array([[2.0, 4.0], [0.0, 2.0]], np.float32)
    np.testing.assert_allclose(streaming._inverse(depth), [[1, 0.5], [0.02, 1]])
    np.testing.assert_array_equal(streaming._inverse(np.zeros((2, 2), np.float32)), np.ones((2, 2)))


def test_the_real_network_and_one_frame(model: Model) -> None:
    random = np.random.default_rng(1)
    images = list(random.integers(0, 256, (3, 70, 90, 3), dtype=np.uint8))
    results = list(stream_scene((Image.fromarray(i) for i in images), model))
    assert [r.image.shape for r in results] == [(48, 64, 3)] * 3
    assert all(np.isfinite(r.T_world_camera).all() and np.isfinite(r.depth).all() for r in results)
    (one,) = stream_scene(images[:1], model)
    assert one.quality == 1
    np.testing.assert_array_equal(one.T_world_camera, np.eye(4))


def test_what_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="whole clip"):
        stream_scene([np.zeros((H, W, 3), np.uint8)], model, StreamOptions(reference="middle"))
    with pytest.raises(InputError, match="no frames"):
        next(stream_scene([], model))
    different = [np.zeros((H, W, 3), np.uint8), np.zeros((2 * H, W, 3), np.uint8)]
    with pytest.raises(InputError, match="one size"):
        list(stream_scene(different, model))
    for name, wrong, message in (
        ("motion", "attention", "several pairs"),
        ("reference", "last", "first or middle"),
    ):
        options = StreamOptions()
        object.__setattr__(options, name, wrong)  # past the type checks of the tests
        with pytest.raises(InputError, match=message):
            options.__post_init__()
    with pytest.raises(InputError, match="no frames to make"):
        scene_from_frames([])


def test_streams_give_the_frames_of_read_clip(tmp_path: Path, model: Model) -> None:
    video = write_video(tmp_path / "clip.mp4", frames=7)
    folder = tmp_path / "folder"
    folder.mkdir()
    for k in (10, 9, 2):
        Image.fromarray(np.full((48, 64, 3), k, np.uint8)).save(folder / f"f_{k}.png")
    for source, options in (
        (video, {"fps": 5.0}), (video, {"start": 0.2, "num_frames": 2}), (folder, {"start": 0.03}),
        (folder, {"fps": 2.0}), (folder / "f_9.png", {}),
    ):  # fmt: skip
        clip = dyn3r.read_clip(source, size=64, **options)
        stream = stream_frames(source, **options)
        frames = list(streaming._prepared(stream, model, StreamOptions(size=64)))
        assert tuple(f.name for f in frames) == clip.names
        np.testing.assert_array_equal([f.time_s for f in frames], clip.times_s)
        np.testing.assert_array_equal([f.image for f in frames], clip.images)
        assert stream.fps == clip.fps
        assert frames[0].mapping == clip.mapping
    for wrong in ({"fps": -1.0}, {"start": 100.0}, {"num_frames": 0}):
        with pytest.raises(InputError):
            list(stream_frames(folder, **wrong))
    with pytest.raises(InputError, match="does not exist"):
        stream_frames(tmp_path / "nothing")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="video"):
        stream_frames(tmp_path / "text.mp4")
    with pytest.raises(InputError, match="ends before 100 s"):
        list(stream_frames(video, start=100.0))


def shots_of(frames: np.ndarray, **options) -> list[int]:
    return [f.shot for f in frames_of_stream(iter(frames), 192, **options)]


def test_a_cut_begins_another_shot_at_its_frame() -> None:
    frames = np.concatenate([shot(10, 0), black(1, 3), shot(9, 1), shot(5, 2)])
    assert shots_of(frames) == [0] * 11 + [1] * 9 + [2] * 5
    assert shots_of(frames, split_cuts=False) == [0] * 25
    *_, last = frames_of_stream(iter(frames), 192)
    (note,) = [note for note in last.report.notes if note.topic == "cuts"]
    assert note.text.startswith("2, before frame_000011 (0.458 s), frame_000020 (0.833 s)")
    assert note.warning


def test_a_frame_of_another_place_is_left_out_of_a_stream() -> None:
    frames = shot(17)
    frames[10] = shot(1, 1)[0]
    found = list(frames_of_stream(iter(frames), 192))
    assert [f.shot for f in found] == [0] * 17
    assert [f.index for f in found if not f.usable] == [10]
    assert "1 show another place" in str(found[-1].report)


def test_frames_that_are_far_apart_are_no_shots() -> None:
    frames = np.concatenate([shot(1, seed) for seed in range(12)])
    found = list(frames_of_stream(iter(frames), 192))
    assert found[-1].shot == found[3].shot
    assert "too little in common" in str(found[-1].report)


def test_bars_of_the_first_frames_are_cropped_in_a_stream(tmp_path: Path) -> None:
    frames = np.pad(shot(12), [(0, 0), (0, 0), (40, 40), (0, 0)])
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{t}.png")
    clip = dyn3r.read_clip(tmp_path, size=192)
    found = list(frames_of_stream(stream_frames(tmp_path), 192))
    assert found[0].mapping == clip.mapping
    np.testing.assert_array_equal([f.image for f in found], clip.images)
    (note,) = [note for note in found[-1].report.notes if note.topic == "borders"]
    assert note in clip.report.notes
    (kept, *_) = frames_of_stream(iter(frames), 192, crop_borders=False)
    assert kept.mapping.resized_hw == (102, 192)


def test_interlacing_and_the_shape_of_pixels_hold_in_a_stream(tmp_path: Path) -> None:
    combed = shot(9, step=12)
    combed[:, 1::2] = np.roll(combed, -6, axis=2)[:, 1::2]
    for t, frame in enumerate(combed):
        Image.fromarray(frame).save(tmp_path / f"{t}.png", dpi=(72, 96))
    clip = dyn3r.read_clip(tmp_path, size=256)
    found = list(frames_of_stream(stream_frames(tmp_path), 256))
    assert clip.mapping.one_field
    assert clip.mapping.pixel_aspect == pytest.approx(4 / 3)
    assert found[0].mapping == clip.mapping
    np.testing.assert_array_equal([f.image for f in found], clip.images)
    assert {"fields", "pixels"} <= {note.topic for note in found[-1].report.notes}


def test_every_shot_of_a_stream_has_a_reference_of_its_own(model: Model) -> None:
    frames = np.concatenate([shot(9, 0), shot(4, 1)])
    results = list(stream_scene(iter(frames), model, StreamOptions(size=192)))
    assert [r.shot for r in results] == [0] * 9 + [1] * 4
    for start in (0, 9):
        np.testing.assert_array_equal(results[start].T_world_camera, np.eye(4))
        assert results[start].quality == 1
    metadata = streaming.stream_metadata(model, "x", StreamOptions(), results)
    assert "2 shots, each in a world of its own" in metadata["notes"][-1]
    scene = scene_from_frames(results, fps=10, metadata=metadata)
    assert "cuts" in [note.topic for note in scene.report.notes]


def test_shots_of_a_clip_have_their_middle_frames_as_references(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = KnownWorld(monkeypatch, 10)
    clip = replace(dyn3r.clip_from_images(world.images, size=64), cuts=(6,))
    results = list(stream_scene(clip, model, StreamOptions(reference="middle")))
    assert {i for i, _ in world.pairs} == {3, 8}
    for reference in (3, 8):
        np.testing.assert_array_equal(results[reference].T_world_camera, np.eye(4))


@pytest.mark.parametrize("motion", ["none", "flow"])
def test_black_frames_are_no_reference_and_have_no_depth(
    model: Model, monkeypatch: pytest.MonkeyPatch, motion: str
) -> None:
    world = KnownWorld(monkeypatch, 7)
    for t in (0, 2, 4):
        world.images[t] = 0
        world.images[t, 0, 0, 0] = t
    results = list(stream_scene(iter(world.images), model, StreamOptions(motion=motion)))
    assert [r.index for r in results] == list(range(7))
    assert [r.quality > 0 for r in results] == [False, True, False, True, False, True, True]
    assert [bool(r.depth.any()) for r in results] == [r.quality > 0 for r in results]
    assert {pair[0] for pair in world.pairs} == {1}
    np.testing.assert_array_equal(results[4].T_world_camera, results[3].T_world_camera)
    metadata = streaming.stream_metadata(model, "x", StreamOptions(), results)
    assert not any("lost" in note for note in metadata["notes"])
    scene = scene_from_frames(results, fps=10, metadata=metadata)
    assert "3 of 7 have no texture" in str(scene.report)
