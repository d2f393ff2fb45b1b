"""Motion cues: what each detects, and how it is updated by refined geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from simulated_attention import GRID_HW, SIZE_HW, SimulatedClip, simulate
from tests.factories import geometry_of, moving_square
from textured_wall import wall

import dyn3r.motion.cue
from dyn3r.errors import InputError
from dyn3r.flow import DisFlow, measure_flow
from dyn3r.io.clip import clip_from_images
from dyn3r.motion.attention_cue import find_motion
from dyn3r.motion.combine import CombinedEvidence
from dyn3r.motion.cue import (
    REFINED_DEPTH_TOLERANCE,
    AttentionCue,
    CombinedCue,
    FlowCue,
    KnownMotion,
    Pass,
    motion_cue,
    with_background_model,
)
from dyn3r.motion.flow_residual import FlowEvidence, flow_evidence, motion_from_evidence
from dyn3r.motion.masks import motion_from_masks
from dyn3r.motion.options import AttentionCueOptions, FlowCueOptions
from dyn3r.types import Clip, FlowFields, Geometry, Motion, PairPredictions, RunContext, Tokens

CONTEXT = RunContext()


def attention_pass(simulated: SimulatedClip) -> Pass:
    """A pass over random frames with simulated attention scores."""
    n = len(simulated.tokens)
    images = np.random.default_rng(0).integers(0, 256, (n, *SIZE_HW, 3), dtype=np.uint8)
    clip = clip_from_images(images, size=max(SIZE_HW))
    predictions = PairPredictions(
        simulated.edges, n, scores1=simulated.scores1, scores2=simulated.scores2
    )
    return Pass(clip, predictions, Tokens(torch.from_numpy(simulated.tokens), GRID_HW))


@pytest.fixture(scope="module")
def square() -> tuple[Clip, FlowFields, Geometry, Geometry]:
    """Four frames of a moving square, their flow, and geometry before and after refinement."""
    clip = moving_square(4)
    edges = np.array([(i, j) for i in range(4) for j in range(4) if i != j])
    K = np.tile(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), (4, 1, 1))
    T = np.tile(np.eye(4), (4, 1, 1))
    v, u = np.mgrid[:48, :64]
    depth = np.tile(3 + np.sin(u / 9) + v / 40, (4, 1, 1))
    flow = measure_flow(clip.images, edges, DisFlow())
    return clip, flow, geometry_of(T, K, depth), geometry_of(T, K, 2 * depth**1.1)


def flow_motion(
    square: tuple[Clip, FlowFields, Geometry, Geometry], options: FlowCueOptions
) -> Motion:
    """Motion as after a pass, from constant depth."""
    clip, flow = square[:2]
    evidence = flow_evidence(
        None, clip.images, flow, inverse_depth=np.ones((4, 48, 64)), options=options
    )
    return motion_from_evidence(evidence, flow, options=options)


def update(square: tuple[Clip, FlowFields, Geometry, Geometry], cue: Any, motion: Motion) -> Motion:
    clip, flow, initial, refined = square
    return cue.update(motion, clip, (initial, refined), flow, CONTEXT)


def columns(left: int, right: int) -> np.ndarray:
    masks = np.zeros((4, 48, 64), bool)
    masks[:, :, left:right] = True
    return masks


# --- by name -------------------------------------------------------------------------------------


def test_cues_by_name() -> None:
    clip = moving_square(2)
    attention, flow = AttentionCueOptions(), FlowCueOptions()
    cues = {
        name: motion_cue(name, attention, flow, clip)
        for name in ("attention", "flow", "both", "none")
    }
    assert cues["attention"] == AttentionCue(attention)
    assert cues["flow"] == FlowCue(flow)
    assert cues["both"] == CombinedCue(AttentionCue(attention), FlowCue(flow))
    reads = {name: (cue.reads_attention, cue.reads_flow) for name, cue in cues.items()}
    assert reads == {
        "attention": (True, False), "flow": (False, True), "both": (True, True),
        "none": (False, False),
    }  # fmt: skip
    none = cues["none"].known
    assert none is not None
    assert not none.has_motion
    assert none.masks.shape == (2, 48, 64)
    assert all(cues[name].known is None for name in ("attention", "flow", "both"))


def test_given_masks_must_have_the_size_of_the_frames() -> None:
    clip, masks = moving_square(2), columns(0, 16)[:2]
    known = motion_cue("given", AttentionCueOptions(), FlowCueOptions(), clip, masks).known
    assert known is not None
    np.testing.assert_array_equal(known.masks, masks)
    with pytest.raises(InputError, match="masks have shape"):
        motion_cue("given", AttentionCueOptions(), FlowCueOptions(), clip, masks[:, :32])


def test_known_motion_stays(square) -> None:
    motion = motion_from_masks(columns(0, 16))
    cue = KnownMotion(motion)
    seen = attention_pass(simulate(4))
    assert cue.known is motion
    assert cue.detect(seen, None, CONTEXT) is motion
    assert cue.redetect(motion, seen) is motion
    assert not cue.reads_geometry
    assert update(square, cue, motion) is motion


# --- detection -----------------------------------------------------------------------------------


def test_attention_is_read_from_the_last_pass(square) -> None:
    first, second = simulate(), simulate(seed=1)
    cue = AttentionCue(AttentionCueOptions())
    motion = cue.detect(attention_pass(first), None, CONTEXT)
    expected = find_motion(*first[:4], SIZE_HW)
    np.testing.assert_array_equal(motion.masks, expected.masks)
    again = cue.redetect(motion, attention_pass(second))
    np.testing.assert_array_equal(again.masks, find_motion(*second[:4], SIZE_HW).masks)
    assert not np.array_equal(again.masks, motion.masks)
    assert not cue.reads_geometry
    assert update(square, cue, motion) is motion


def test_a_single_frame_has_no_flow() -> None:
    motion = FlowCue(FlowCueOptions()).detect(attention_pass(simulate(2)), None, CONTEXT)
    assert not motion.has_motion
    assert "single frame" in motion.reason


def test_the_union_keeps_what_each_cue_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = attention_pass(simulate())
    masks = np.zeros(seen.clip.images.shape[:3], bool)
    masks[:, :32, :32] = True
    by_flow = motion_from_masks(masks)
    monkeypatch.setattr(dyn3r.motion.cue, "flow_residual_motion", lambda *_, **__: by_flow)
    cue = CombinedCue(AttentionCue(AttentionCueOptions()), FlowCue(FlowCueOptions()))
    flow = FlowFields(np.zeros((1, 2), int), np.zeros((1, *SIZE_HW, 2), np.float32))
    motion = cue.detect(seen, flow, CONTEXT)
    by_attention = cue.attention.detect(seen, flow, CONTEXT)
    np.testing.assert_array_equal(motion.masks, by_attention.masks | masks)
    assert isinstance(motion.evidence, CombinedEvidence)
    assert motion.evidence.flow is by_flow
    # the second pass replaces attention and keeps flow
    other = attention_pass(simulate(seed=1))
    again = cue.redetect(motion, other)
    expected = cue.attention.detect(other, flow, CONTEXT).masks | masks
    np.testing.assert_array_equal(again.masks, expected)
    assert isinstance(again.evidence, CombinedEvidence)
    assert again.evidence.flow is by_flow


# --- updates by refined geometry -----------------------------------------------------------------


@pytest.mark.slow
def test_flow_is_judged_again_by_refined_depth(square, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, flow, _, refined = square
    monkeypatch.setattr(
        dyn3r.motion.cue, "implausible_depth_outliers", lambda *_: np.zeros((4, 48, 64), bool)
    )
    cue = FlowCue(FlowCueOptions())
    motion = flow_motion(square, cue.options)
    updated = update(square, cue, motion)
    options = replace(cue.options, depth_tolerance=REFINED_DEPTH_TOLERANCE)
    inverse = 1 / refined.depth.astype(np.float64)
    evidence = flow_evidence(
        None, clip.images, flow, inverse_depth=inverse / np.median(inverse), options=options
    )
    evidence = with_background_model(evidence, clip, refined, None, CONTEXT)
    expected = motion_from_evidence(evidence, flow, options=options)
    assert isinstance(updated.evidence, FlowEvidence)
    np.testing.assert_array_equal(updated.evidence.refined, evidence.refined)
    np.testing.assert_array_equal(updated.masks, expected.masks)
    assert not np.array_equal(updated.dynamic_map, motion.dynamic_map)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "used"),
    [
        (FlowCueOptions(), True),
        (FlowCueOptions(background_model=False), False),
        (FlowCueOptions(masks="evidence"), False),
        (FlowCueOptions(photometric=False), False),
    ],
)
def test_the_background_model_is_read_where_it_was_asked_for(
    square, monkeypatch: pytest.MonkeyPatch, options: FlowCueOptions, used: bool
) -> None:
    calls: list[tuple[Geometry, np.ndarray | None]] = []

    def seen(evidence, clip, refined, implausible, context):
        calls.append((refined, implausible))
        return evidence

    monkeypatch.setattr(dyn3r.motion.cue, "with_background_model", seen)
    update(square, FlowCue(options), flow_motion(square, options))
    assert len(calls) == used
    if used:
        assert calls[0][0] is square[3]
        assert calls[0][1] is None


@pytest.mark.slow
def test_implausible_pixels_accumulate(square, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that were excluded once have no depth of their own, so they stay dynamic."""
    left, middle = columns(0, 16), columns(16, 32)
    answers = iter([left, middle])
    calls: list[np.ndarray] = []

    def outliers(predicted, refined, masks):
        assert predicted is square[2].depth
        assert refined is square[3].depth
        calls.append(masks)
        return next(answers).copy()

    monkeypatch.setattr(dyn3r.motion.cue, "implausible_depth_outliers", outliers)
    cue = FlowCue(FlowCueOptions(masks="evidence"))
    first = update(square, cue, flow_motion(square, cue.options))
    assert first.masks[left].all()
    assert first.has_motion
    assert "have implausible depth after refinement" in first.reason
    assert first.dynamic_map[:, :, 0].min() == 1
    second = update(square, cue, first)
    assert second.masks[left | middle].all()
    np.testing.assert_array_equal(second.unreliable, left | middle)
    # outliers are searched outside of what flow finds, not of what was added before
    np.testing.assert_array_equal(calls[0], calls[1])


def test_what_is_implausible_for_a_moment_is_not_measured_and_does_not_move(
    square, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = columns(0, 16)
    moment[1:] = False
    monkeypatch.setattr(dyn3r.motion.cue, "implausible_depth_outliers", lambda *_: moment.copy())
    cue = FlowCue(FlowCueOptions(masks="evidence"))
    motion = flow_motion(square, cue.options)
    found = update(square, cue, motion)
    assert not found.masks[moment].any()
    assert found.excluded[moment].all()
    np.testing.assert_array_equal(found.excluded & ~moment, found.masks & ~moment)


def test_the_published_recipe_is_not_updated() -> None:
    published, ours = FlowCue(FlowCueOptions.monst3r()), FlowCue(FlowCueOptions())
    attention = AttentionCue(AttentionCueOptions())
    assert not published.reads_geometry
    assert not CombinedCue(attention, published).reads_geometry
    assert not attention.reads_geometry
    assert ours.reads_geometry
    assert CombinedCue(attention, ours).reads_geometry


def test_the_union_is_updated_by_flow_alone(square, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, flow = motion_from_masks(columns(0, 16)), motion_from_masks(columns(16, 32))
    updated = motion_from_masks(columns(48, 64))
    both = dyn3r.motion.cue.combine_motion(attention, flow)
    cue = CombinedCue(AttentionCue(AttentionCueOptions()), FlowCue(FlowCueOptions()))
    monkeypatch.setattr(FlowCue, "update", lambda *_: updated)
    found = update(square, cue, both)
    np.testing.assert_array_equal(found.masks, attention.masks | updated.masks)


def test_the_background_model_leaves_frames_without_evidence_alone() -> None:
    images, depth, dynamic, K, T = wall(step=0.05)
    clip = clip_from_images(images, size=64)
    n, h, w = depth.shape
    parts = np.zeros((n, 7, h, w), np.float32)
    parts[:, 4] = 1.0
    parts[:, :3][np.repeat(dynamic[:, None], 3, 1)] = 0.9
    probability = np.where(dynamic, 0.9, 0.05).astype(np.float32)
    typical_px = np.array([5.0] * (n - 1) + [np.nan])
    evidence = FlowEvidence(parts[:, 0], probability, typical_px, parts)
    refined = geometry_of(T, K, depth)
    found = with_background_model(evidence, clip, refined, None, CONTEXT).refined
    assert ((found > 0.5) & dynamic)[:-1].sum() > 0.8 * dynamic[:-1].sum()
    assert ((found > 0.5) & ~dynamic)[:-1].mean() < 0.02
    assert (found[-1] == 0).all()
    np.testing.assert_array_equal(evidence.refined, probability)
    implausible = np.zeros_like(dynamic)
    implausible[:, :, :20] = True  # dynamic, so not part of the background
    other = with_background_model(evidence, clip, refined, implausible, CONTEXT).refined
    assert not np.array_equal(other, found)
