"""From a clip to a scene, on a tiny untrained network: the plumbing, not the quality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import dyn3r
from dyn3r.errors import InputError
from dyn3r.network.config import NetworkConfig
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.network import PointmapNetwork
from tests.factories import tiny_network


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


def clip_of(frames: int, hw: tuple[int, int] = (48, 64)) -> dyn3r.Clip:
    """A textured background that slides, and a square that moves on its own."""
    random = np.random.default_rng(0)
    wall = random.integers(0, 256, (hw[0], hw[1] + 4 * frames, 3), dtype=np.uint8)
    images = np.stack([wall[:, 2 * t : 2 * t + hw[1]] for t in range(frames)])
    for t in range(frames):
        images[t, 10:26, 4 * t : 4 * t + 16] = (200, 30, 30)
    return dyn3r.clip_from_images(images, size=max(hw), fps=10.0)


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_every_clip_length_gives_a_whole_scene(model: Model, frames: int) -> None:
    seen: list[str] = []
    scene = dyn3r.reconstruct(
        clip_of(frames), model, progress=lambda stage, done, total: seen.append(stage)
    )
    assert len(scene) == frames
    assert scene.depth.shape == (frames, 48, 64)
    assert (scene.depth > 0).all()
    assert np.isfinite(scene.T_world_camera).all()
    assert scene.metadata["model"]["name"] == "tiny"
    assert scene.metadata["notes"]
    assert "first pass" in seen
    assert "second pass" in seen


def test_portrait_and_one_pass(model: Model) -> None:
    seen: list[str] = []
    scene = dyn3r.reconstruct(
        clip_of(3, (64, 48)),
        model,
        dyn3r.Options(motion="none", graph="complete"),
        progress=lambda stage, done, total: seen.append(stage),
    )
    assert scene.size_hw == (64, 48)
    assert not scene.dynamic.any()
    assert "predicting points" in seen
    assert "first pass" not in seen
    assert scene.metadata["pairs"] == 6


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("motion", ["flow", "both"])
def test_motion_from_flow(model: Model, motion: str, frames: int) -> None:
    seen: list[str] = []
    scene = dyn3r.reconstruct(
        clip_of(frames),
        model,
        dyn3r.Options(motion=motion),  # type: ignore[arg-type]
        progress=lambda stage, done, total: seen.append(stage),
    )
    assert len(scene) == frames
    assert ("measuring flow" in seen) == (frames > 1)


def test_a_model_may_recommend_how_motion_is_found(model: Model) -> None:
    seen: list[str] = []
    recommends = replace(model, facts={"motion_cue": "flow"})
    dyn3r.reconstruct(clip_of(3), recommends, progress=lambda stage, *_: seen.append(stage))
    assert "measuring flow" in seen


def test_given_masks_are_taken_as_they_are(model: Model) -> None:
    clip = clip_of(4)
    masks = np.zeros((4, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    scene = dyn3r.reconstruct(clip, model, masks=masks)
    np.testing.assert_array_equal(scene.dynamic, masks)
    with pytest.raises(InputError, match="masks"):
        dyn3r.reconstruct(clip, model, masks=masks[:2])


def test_the_same_run_twice_gives_the_same_scene(model: Model) -> None:
    one, two = (dyn3r.reconstruct(clip_of(4), model) for _ in range(2))
    np.testing.assert_array_equal(one.depth, two.depth)
    np.testing.assert_array_equal(one.T_world_camera, two.T_world_camera)
    np.testing.assert_array_equal(one.dynamic, two.dynamic)


def test_masked_tokens_change_the_points_of_pairs_that_see_them(model: Model) -> None:
    clip, edges = clip_of(3), np.array([[0, 1], [1, 2]])
    masks = np.zeros((3, 48, 64), bool)
    masks[1, :16, :16] = True
    plain = dyn3r.predict_pairs(model, clip, edges)
    masked = dyn3r.predict_pairs(model, clip, edges, masks)
    assert np.abs(masked.points1[0] - plain.points1[0]).max() > 0  # frame 1 is view 2 here
    np.testing.assert_array_equal(masked.points1[1], plain.points1[1])  # and view 1 here


def test_black_and_identical_frames_do_not_break_it(model: Model) -> None:
    for images in (np.zeros((3, 48, 64, 3), np.uint8), np.full((3, 48, 64, 3), 90, np.uint8)):
        scene = dyn3r.reconstruct(dyn3r.clip_from_images(images, size=64), model)
        assert np.isfinite(scene.depth).all()
        assert np.isfinite(scene.T_world_camera).all()


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="masks as an argument"):
        dyn3r.Options(motion="sonar")  # type: ignore[arg-type]


def test_full_size_class_on_the_meta_device() -> None:
    """The published size has the published number of parameters (SPEC 1; about 571 M)."""
    with torch.device("meta"):
        network = PointmapNetwork(NetworkConfig())
    assert 570e6 < sum(p.numel() for p in network.parameters()) < 573e6
