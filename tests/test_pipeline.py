"""From a clip to a scene, on a tiny untrained network: the plumbing, not the quality."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dyn3r
import dyn3r.motion.mask_refiner
import dyn3r.pipeline
from dyn3r.alignment import AlignmentOptions
from dyn3r.errors import InputError
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
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


def recommending(model: Model, **facts: str) -> Model:
    return replace(model, facts={**model.facts, **facts})


@pytest.mark.parametrize(
    ("options", "facts", "twice"),
    [
        ({"motion": "flow"}, {}, True),
        ({"motion": "flow"}, {"bundle": "on"}, False),
        ({"motion": "attention"}, {"bundle": "on"}, True),
        ({"motion": "flow", "bundle": False}, {"bundle": "on"}, True),
        ({"motion": "flow", "bundle": True}, {}, True),  # not measured for such a model
        ({"motion": "flow", "second_pass": True}, {"bundle": "on"}, True),
        ({"motion": "attention", "second_pass": False}, {}, False),
    ],
)
def test_a_second_pass_where_it_is_of_use(
    model: Model, options: dict[str, object], facts: dict[str, str], twice: bool
) -> None:
    seen: list[str] = []
    scene = dyn3r.reconstruct(
        clip_of(3), recommending(model, **facts), dyn3r.Options(**options),  # type: ignore[arg-type]
        progress=lambda stage, done, total: seen.append(stage),
    )  # fmt: skip
    assert ("second pass" in seen) == twice
    assert np.isfinite(scene.depth).all()
    assert ("second pass" in scene.metadata["seconds"]) == twice


def test_where_nothing_moves_one_pass_says_what_two_say(model: Model) -> None:
    still = dyn3r.clip_from_images(np.repeat(clip_of(1).images, 3, axis=0), size=64, fps=10.0)
    twice, once = (
        dyn3r.reconstruct(still, model, dyn3r.Options(motion="flow", second_pass=second))
        for second in (True, False)
    )
    assert not twice.dynamic.any()
    np.testing.assert_array_equal(once.depth, twice.depth)
    np.testing.assert_array_equal(once.T_world_camera, twice.T_world_camera)


@pytest.mark.parametrize(
    ("pixels", "bundle", "expected"), [(0, True, 384), (0, False, 0), (64, True, 64)]
)
def test_an_alignment_that_is_only_a_start_is_cheap(
    model: Model, monkeypatch: pytest.MonkeyPatch, pixels: int, bundle: bool, expected: int
) -> None:
    asked, align = [], dyn3r.pipeline.align

    def listening(*args: Any, **named: Any) -> Any:
        asked.append(named["options"].pixels)
        return align(*args, **named)

    monkeypatch.setattr(dyn3r.pipeline, "align", listening)
    options = dyn3r.Options(bundle=bundle, alignment=AlignmentOptions(pixels=pixels))
    dyn3r.reconstruct(clip_of(2), model, options)
    assert asked == [expected]


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


def other_model() -> Model:
    """Like `tiny`, with other weights: it sees other motion."""
    network = tiny_network()
    initialise(network, seed=5)
    return prepare_model(network, "other", device="cpu")


@pytest.mark.parametrize("motion", ["attention", "flow", "both"])
def test_masks_from_one_model_and_geometry_from_another(model: Model, motion: str) -> None:
    clip, other = clip_of(3), other_model()
    # (bundle adjustment judges flow once more, by the depth of the geometry model)
    options = dyn3r.Options(motion=motion, bundle=False)  # type: ignore[arg-type]
    alone = dyn3r.reconstruct(clip, other, options)
    both = dyn3r.reconstruct(clip, model, options, motion_model=other)
    np.testing.assert_array_equal(both.dynamic, alone.dynamic)
    assert both.metadata["model"]["name"] == "tiny"
    assert both.metadata["motion_model"]["name"] == "other"
    # what comes after the masks is as if they had been given
    given = dyn3r.reconstruct(clip, model, dyn3r.Options(bundle=False), masks=alone.dynamic)
    np.testing.assert_array_equal(both.depth, given.depth)
    np.testing.assert_array_equal(both.T_world_camera, given.T_world_camera)


def test_the_same_model_twice_finds_the_same_masks(model: Model) -> None:
    one = dyn3r.reconstruct(clip_of(3), model)
    two = dyn3r.reconstruct(clip_of(3), model, motion_model=model)
    np.testing.assert_array_equal(one.dynamic, two.dynamic)


def test_the_motion_model_recommends_how_motion_is_found(model: Model) -> None:
    seen: list[str] = []
    recommends = replace(model, facts={"motion_cue": "flow"})
    dyn3r.reconstruct(
        clip_of(3), model, motion_model=recommends, progress=lambda stage, *_: seen.append(stage)
    )
    assert "measuring flow" in seen


def test_a_motion_model_without_anything_to_look_for_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="of no use"):
        dyn3r.reconstruct(clip_of(2), model, dyn3r.Options(motion="none"), motion_model=model)
    masks = np.zeros((2, 48, 64), bool)
    with pytest.raises(InputError, match="of no use"):
        dyn3r.reconstruct(clip_of(2), model, masks=masks, motion_model=model)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("motion", ["attention", "flow", "both", "none"])
def test_findings_hold_both_cues_and_change_nothing(model: Model, motion: str, frames: int) -> None:
    clip, seen = clip_of(frames), []
    options = dyn3r.Options(motion=motion)  # type: ignore[arg-type]
    plain = dyn3r.reconstruct(clip, model, options)
    scene = dyn3r.reconstruct(clip, model, options, on_findings=seen.append)
    np.testing.assert_array_equal(scene.depth, plain.depth)
    np.testing.assert_array_equal(scene.dynamic, plain.dynamic)
    np.testing.assert_array_equal(scene.T_world_camera, plain.T_world_camera)
    (found,) = seen
    assert found.cue == motion
    assert set(found.attention.attention_maps) == {"mu1", "sd1", "mu2", "sd2"}
    assert found.flow.masks.shape == scene.dynamic.shape
    assert found.inverse_depth.shape == scene.depth.shape
    if motion == "none":
        assert found.motion is None
    else:
        np.testing.assert_array_equal(found.motion.masks, scene.dynamic)
    if frames == 1:
        assert found.steps is None
    else:
        expected = [[t, t + 1] for t in range(frames - 1)] + [[frames - 1, frames - 2]]
        np.testing.assert_array_equal(found.steps.edges, expected)


class Grown:
    """A refiner that moves masks a pixel down, and says so."""

    name = "grown"

    def refine(self, images: np.ndarray, masks: np.ndarray, *, progress=None) -> np.ndarray:
        assert images.shape[:3] == masks.shape
        return np.roll(masks, 1, axis=1)


@pytest.mark.parametrize("bundle", [False, True])
def test_refined_masks_are_saved_and_united_for_the_cameras(
    model: Model, monkeypatch: pytest.MonkeyPatch, bundle: bool
) -> None:
    seen: list[np.ndarray] = []
    aligned, bundled = dyn3r.pipeline.align, dyn3r.pipeline.bundle_adjust

    def align(predictions, *, dynamic, **others):
        seen.append(dynamic)
        return aligned(predictions, dynamic=dynamic, **others)

    def bundle_adjust(*args, moving, **others):
        seen.append(moving)
        return bundled(*args, moving=moving, **others)

    monkeypatch.setattr(dyn3r.pipeline, "align", align)
    monkeypatch.setattr(dyn3r.pipeline, "bundle_adjust", bundle_adjust)
    masks = np.zeros((3, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    found: list = []
    scene = dyn3r.reconstruct(
        clip_of(3), model, dyn3r.Options(bundle=bundle), masks=masks, refiner=Grown(),
        on_findings=found.append,
    )  # fmt: skip
    np.testing.assert_array_equal(scene.dynamic, np.roll(masks, 1, axis=1))
    # refined once, when the masks are final: before the last solver of cameras
    assert len(seen) == (3 if bundle else 1)
    np.testing.assert_array_equal(seen[-1], masks | np.roll(masks, 1, axis=1))
    for earlier in seen[:-1]:
        np.testing.assert_array_equal(earlier, masks)
    np.testing.assert_array_equal(found[0].motion.masks, masks)
    assert "refined by grown: 10.4% -> 10.4%" in scene.metadata["notes"][1]


def test_refinement_by_name(model: Model) -> None:
    clip, masks = clip_of(4), np.zeros((4, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    scene = dyn3r.reconstruct(clip, model, dyn3r.Options(refine="edges"), masks=masks)
    edges = dyn3r.motion.mask_refiner.EdgeRefiner().refine(clip.images, masks)
    np.testing.assert_array_equal(scene.dynamic, edges)
    assert scene.metadata["options"]["refine"] == "edges"
    assert "refinement" in scene.metadata["seconds"]
    # where nothing moves there is nothing to refine
    still = dyn3r.reconstruct(clip_of(2), model, dyn3r.Options(refine="sam2", motion="none"))
    assert not still.dynamic.any()
    with pytest.raises(InputError, match="choose none, edges"):
        dyn3r.Options(refine="polish")


def test_findings_with_given_masks_and_with_a_motion_model(model: Model) -> None:
    masks, seen = np.zeros((3, 48, 64), bool), []
    masks[:, 10:26, 10:30] = True
    dyn3r.reconstruct(clip_of(3), model, masks=masks, on_findings=seen.append)
    assert seen[0].cue == "given"
    other, flow = other_model(), dyn3r.Options(motion="flow")
    dyn3r.reconstruct(clip_of(3), model, flow, motion_model=other, on_findings=seen.append)
    dyn3r.reconstruct(clip_of(3), other, flow, on_findings=seen.append)
    for name, map_ in seen[1].attention.attention_maps.items():
        np.testing.assert_allclose(map_, seen[2].attention.attention_maps[name], atol=1e-5)
