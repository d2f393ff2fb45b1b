"""Bundle adjustment as a stage of `reconstruct`, on a tiny untrained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dyn3r
import dyn3r.pipeline
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.bundle_adjustment import BundleOptions
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.motion import FlowMotionOptions, flow_evidence
from dyn3r.motion.estimation import seen_again
from dyn3r.motion.flow_residual import FlowEvidence, motion_from_evidence
from dyn3r.network.model import Model, prepare_model
from dyn3r.types import Geometry, Priors
from tests.bundle.made_up import alignment_of
from tests.factories import tiny_network
from tests.motion.test_consensus import wall
from tests.test_pipeline import clip_of


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu", facts={"bundle": "on"})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Geometry, np.ndarray, Geometry]]:
    """(the start, what moves, the result) of every bundle adjustment."""
    seen: list[tuple[Geometry, np.ndarray, Geometry]] = []
    whole = dyn3r.pipeline.bundle_adjust

    def bundle_adjust(start, *args, moving, **others):
        found = whole(start, *args, moving=moving, **others)
        seen.append((start, moving, found))
        return found

    monkeypatch.setattr(dyn3r.pipeline, "bundle_adjust", bundle_adjust)
    return seen


def test_flow_is_judged_again_by_the_solved_depth(model: Model, calls) -> None:
    clip, found = clip_of(4), []
    scene = dyn3r.reconstruct(clip, model, dyn3r.Options(motion="flow"), on_findings=found.append)
    (start, _, solved), (again, moving, final) = calls
    assert again is start  # not the first answer: its depth is for the eyes of the flow only
    edges = dyn3r.make_pairs("swinstride-5-noncyclic", 4)
    measured = measure_flow(clip.images, edges, flow_estimator("dis"))
    judged = FlowMotionOptions()
    judged = replace(judged, depth_slack=judged.solved_slack)
    inverse = 1 / solved.depth.astype(np.float64)
    evidence = flow_evidence(
        None, clip.images, measured, inverse_depth=inverse / np.median(inverse), options=judged
    )
    evidence = seen_again(evidence, clip.images, solved)
    expected = motion_from_evidence(evidence, measured, options=judged)
    np.testing.assert_array_equal(scene.dynamic, expected.masks)
    np.testing.assert_array_equal(moving, expected.masks)
    np.testing.assert_array_equal(scene.T_world_camera, final.T_world_camera)
    assert found[0].flow_options.depth_slack == judged.solved_slack
    np.testing.assert_allclose(
        found[0].inverse_depth, np.median(solved.depth) / solved.depth, rtol=1e-5
    )
    assert scene.metadata["objective"]["flow_error"] == final.terms["flow_error"]
    assert scene.metadata["options"]["bundle_options"]["depth_sigma"] == 0.5
    assert "bundle adjustment" in scene.metadata["seconds"]


@pytest.mark.parametrize(
    ("options", "again"),
    [
        (FlowMotionOptions(), True),
        (FlowMotionOptions(seen_again=False), False),
        (FlowMotionOptions(masks="evidence"), False),
    ],
)
def test_masks_of_the_second_look_see_other_frames(
    model: Model, calls, monkeypatch: pytest.MonkeyPatch, options: FlowMotionOptions, again: bool
) -> None:
    asked = []

    def seen(evidence, images, solved, behind, progress):
        asked.append((solved, behind))
        refined = np.zeros_like(evidence.refined)
        refined[:, 10:20, 10:20] = 1.0
        return replace(evidence, refined=refined)

    monkeypatch.setattr("dyn3r.motion.estimation.seen_again", seen)
    monkeypatch.setattr(
        "dyn3r.motion.estimation.farther_than_predicted",
        lambda _, solved, moving: np.zeros_like(moving),
    )
    wanted = dyn3r.Options(motion="flow", flow_motion=options, refine="none", stereo=False)
    scene = dyn3r.reconstruct(clip_of(4), model, wanted)
    assert bool(asked) == again
    if again:
        assert all(one is two for (one, _), (_, _, two) in zip(asked, calls))
        expected = np.zeros_like(scene.dynamic)
        expected[:, 10:20, 10:20] = True
        np.testing.assert_array_equal(scene.dynamic, expected)


def test_masks_seen_again_leave_frames_without_evidence_alone() -> None:
    images, depth, moving, K, T = wall(step=0.05)
    n, h, w = depth.shape
    parts = np.zeros((n, 7, h, w), np.float32)
    parts[:, 4] = 1.0
    parts[:, :3][np.repeat(moving[:, None], 3, 1)] = 0.9
    first = np.where(moving, 0.9, 0.05).astype(np.float32)
    typical = np.array([5.0] * (n - 1) + [np.nan])
    start = alignment_of(T, K, depth)
    evidence = FlowEvidence(parts[:, 0], first, typical, parts)
    found = seen_again(evidence, images, start).refined
    assert ((found > 0.5) & moving)[:-1].sum() > 0.8 * moving[:-1].sum()
    assert ((found > 0.5) & ~moving)[:-1].mean() < 0.02
    assert (found[-1] == 0).all()
    np.testing.assert_array_equal(evidence.refined, first)
    behind = np.zeros_like(moving)
    behind[:, :, :20] = True  # moves anyhow: not asked
    other = seen_again(evidence, images, start, behind).refined
    assert not np.array_equal(other, found)


def test_masks_and_cameras_take_turns_until_the_masks_settle(
    model: Model, calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flow puts behind the scene moves, is left out, and stays so."""
    left, middle, right = (np.zeros((4, 48, 64), bool) for _ in range(3))
    left[:, :, :16], middle[:, :, 16:32], right[:, :, 48:] = True, True, True
    answers = iter([left, middle, right])
    monkeypatch.setattr(
        "dyn3r.motion.estimation.farther_than_predicted", lambda *_: next(answers).copy()
    )
    scene = dyn3r.reconstruct(clip_of(4), model, dyn3r.Options(motion="flow", refine="none"))
    assert len(calls) == 4  # three looks are the most
    left_out = [moving for _, moving, _ in calls]
    assert left_out[1][left].all()
    assert left_out[2][left | middle].all()
    assert left_out[3][left | middle | right].all()
    assert scene.dynamic[left | middle | right].all()
    note = next(note for note in scene.metadata["notes"] if note.startswith("motion:"))
    assert "is put behind the scene by it" in note


@pytest.mark.parametrize("alike", [True, False])
def test_the_last_adjustment_starts_at_the_one_before_if_the_masks_are_alike(
    model: Model, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    starts, found, whole = [], [], dyn3r.pipeline.bundle_adjust

    def listening(*args, near, **others):
        starts.append(near)
        found.append(whole(*args, near=near, **others))
        return found[-1]

    monkeypatch.setattr(dyn3r.pipeline, "bundle_adjust", listening)
    monkeypatch.setattr(dyn3r.pipeline, "_alike", lambda *_: alike)
    dyn3r.reconstruct(clip_of(4), model, dyn3r.Options(motion="flow"))
    assert starts[0] is None
    if alike:
        assert len(starts) == 2
        assert starts[1] is found[0]
    else:
        assert starts == [None] * 4


def test_two_adjustments_are_enough_where_the_masks_are_settled(
    model: Model, calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dyn3r.pipeline, "_alike", lambda some, other: some.shape == other.shape)
    dyn3r.reconstruct(clip_of(4), model, dyn3r.Options(motion="flow"))
    assert len(calls) == 2


def test_alike_is_measured_by_intersection_over_union() -> None:
    some, other = np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10), bool)
    assert dyn3r.pipeline._alike(some, other)
    some[0, :, :8] = True
    assert not dyn3r.pipeline._alike(some, other)
    other[0, :, :6] = True
    assert dyn3r.pipeline._alike(some, other)
    other[1] = True
    assert not dyn3r.pipeline._alike(some, other)


@pytest.mark.parametrize("motion", ["attention", "none"])
def test_where_flow_has_no_say_masks_stay(model: Model, calls, motion: str) -> None:
    options = dyn3r.Options(motion=motion, flow_term=False)  # type: ignore[arg-type]
    scene = dyn3r.reconstruct(clip_of(4), model, options)
    assert len(calls) == 1
    without = dyn3r.reconstruct(clip_of(4), model, replace(options, bundle=False))
    np.testing.assert_array_equal(scene.dynamic, without.dynamic)
    assert "flow_error" not in without.metadata["objective"]
    assert "bundle adjustment" not in without.metadata["seconds"]
    assert not np.array_equal(scene.T_world_camera, without.T_world_camera)


def test_flow_as_published_is_not_judged_again(model: Model, calls) -> None:
    options = dyn3r.Options(motion="flow", flow_motion=FlowMotionOptions.monst3r())
    dyn3r.reconstruct(clip_of(4), model, options)
    assert len(calls) == 1


@pytest.mark.parametrize(("frames", "times"), [(1, {0}), (2, {2, 3, 4})])
def test_two_frames_are_enough(model: Model, calls, frames: int, times: set[int]) -> None:
    dyn3r.reconstruct(clip_of(frames), model, dyn3r.Options(motion="flow"))
    assert len(calls) in times


@pytest.mark.parametrize(
    ("recommended", "asked", "times"),
    [(None, None, 0), ("on", None, 1), (None, True, 1), ("on", False, 0)],
)
def test_the_model_recommends_and_the_user_decides(
    model: Model, calls, recommended: str | None, asked: bool | None, times: int
) -> None:
    model = replace(model, facts={} if recommended is None else {"bundle": recommended})
    dyn3r.reconstruct(clip_of(3), model, dyn3r.Options(motion="none", bundle=asked))
    assert len(calls) == times


@pytest.mark.parametrize(
    ("recommended", "asked", "motion", "used"),
    [
        ("edges", "auto", "flow", "edges"),
        (None, "auto", "flow", None),
        ("edges", "auto", "attention", None),
        ("edges", "none", "flow", None),
        (None, "edges", "attention", "edges"),
    ],
)
def test_refinement_as_the_model_recommends(
    model: Model, monkeypatch: pytest.MonkeyPatch, recommended, asked, motion, used
) -> None:
    made = []
    real = dyn3r.pipeline.mask_refiner
    monkeypatch.setattr(dyn3r.pipeline, "mask_refiner", lambda *a: made.append(a[0]) or real(*a))
    model = replace(model, facts={} if recommended is None else {"refine": recommended})
    dyn3r.reconstruct(clip_of(3), model, dyn3r.Options(motion=motion, refine=asked))
    assert made == ([] if used is None else [used])


@pytest.mark.parametrize(
    ("turns", "wanted", "known", "levelled"),
    [(True, True, False, True), (True, False, False, False), (False, True, False, False),
     (True, True, True, False)],
)  # fmt: skip
def test_ground_is_levelled_where_the_camera_only_turns(
    model: Model, monkeypatch: pytest.MonkeyPatch, turns, wanted, known, levelled
) -> None:
    asked = []

    def level_ground(alignment: Geometry, images: np.ndarray, moving: np.ndarray) -> Geometry:
        asked.append((images, moving))
        return replace(alignment, depth=np.full_like(alignment.depth, 7), warnings=("levelled",))

    monkeypatch.setattr(dyn3r.pipeline, "level_ground", level_ground)
    monkeypatch.setattr(dyn3r.pipeline, "only_turns", lambda _: turns)
    priors = Priors()
    if known:
        depth = np.full((3, 48, 64), np.nan, np.float32)
        depth[0, 0, 0] = 2.0
        priors = Priors(depth=depth)
    options = dyn3r.Options(
        motion="flow", stereo=False, refine="none",
        bundle_options=BundleOptions(level_ground=wanted),
        alignment=AlignmentOptions(priors=priors),
    )  # fmt: skip
    clip = clip_of(3)
    scene = dyn3r.reconstruct(clip, model, options)
    assert len(asked) == levelled
    assert bool((scene.depth == 7).all()) == levelled
    assert ("levelled" in scene.metadata["notes"]) == levelled
    if levelled:
        np.testing.assert_array_equal(asked[0][1], scene.dynamic)
