"""From a clip to a scene, on a tiny untrained network: the plumbing, not the quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dyn3r
import dyn3r.pipeline
from dyn3r.alignment.align import align
from dyn3r.alignment.clip_windows import WindowOptions
from dyn3r.bundle_adjustment import stated_focal
from dyn3r.errors import InputError
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.cue import KnownMotion, MotionCue
from dyn3r.motion.masks import masks_converged, motion_from_masks
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.smoothing import EdgeRefiner, reading
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.options import Options, RefinementOptions, resolve
from dyn3r.pipeline import MAX_ROUNDS, reconstruct
from dyn3r.scene import summarise
from dyn3r.scene.explanation import Explanation
from dyn3r.scene.findings import Findings, Recorder, collect_findings
from dyn3r.scene.known_cameras import unit_of
from dyn3r.scene.windows.reconstruct import LongClip
from dyn3r.scene.windows.store import fingerprint_of
from dyn3r.types import Clip, FlowFields, Geometry, Motion, Priors, RunContext
from tests.factories import geometry_of, moving_square, tiny_network


@pytest.fixture(autouse=True)
def quick_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels and iterations: no test here is about how good the cameras are."""
    monkeypatch.setattr("dyn3r.alignment.align.DEFAULT_PIXELS", 64)
    monkeypatch.setattr("dyn3r.alignment.gauss_newton.MAX_ITERATIONS", 3)


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


@pytest.fixture(scope="module")
def refining() -> Model:
    facts = {"bundle": "on", "motion_cue": "flow", "refine": "edges", "mover_depth": "ground"}
    return prepare_model(tiny_network(), "refining", device="cpu", facts=facts)


@pytest.mark.slow
def test_a_long_clip_goes_through_all_stages_in_windows(refining: Model) -> None:
    clip = moving_square(11)
    masks = np.zeros((11, 48, 64), bool)
    masks[:, 10:26, :20] = True
    seen: list[int] = []

    def observe(name: str, value: Any) -> None:
        if name == "clip":
            seen.append(len(value))

    options = Options(windows=WindowOptions(frames=6, overlap=2))
    scene = reconstruct(clip, refining, options, masks=masks, context=RunContext(observe=observe))
    assert seen[:1] == [5]
    assert len(scene) == 11
    np.testing.assert_array_equal(scene.images, clip.images)
    np.testing.assert_array_equal(scene.dynamic, masks)
    assert scene.metadata["windows"]["spans"] == [[0, 5], [3, 8], [6, 11]]
    assert "bundle adjustment" in scene.metadata["seconds"]
    assert scene.sigma_log_depth is not None
    assert scene.verdict is not None


@pytest.mark.slow
def test_frames_without_texture_are_no_window(model: Model) -> None:
    clip = moving_square(12)
    unusable = np.zeros(12, bool)
    unusable[5:9] = True
    options = Options(windows=WindowOptions(frames=5, overlap=2), motion=MotionOptions(cue="none"))
    scene = reconstruct(replace(clip, unusable=unusable), model, options)
    assert len(scene) == 12
    assert scene.metadata["windows"]["spans"] == [[0, 5], [3, 8]]
    assert not scene.depth[5:9].any()
    assert scene.depth[9:].any()


def other_model() -> Model:
    """Like `tiny`, with other weights: it sees other motion."""
    network = tiny_network()
    initialise(network, seed=5)
    return prepare_model(network, "other", device="cpu")


def stages() -> tuple[list[str], RunContext]:
    seen: list[str] = []
    return seen, RunContext(progress=lambda stage, done, total: seen.append(stage))


def explained(clip: Clip, model: Model, options: Options, **named: Any) -> tuple[Any, Findings]:
    recorder = Recorder()
    context = RunContext(observe=recorder)
    scene = reconstruct(clip, model, options, context=context, **named)
    return scene, collect_findings(recorder, context)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2, 6])
def test_every_clip_length_gives_a_whole_scene(model: Model, frames: int) -> None:
    seen, context = stages()
    scene = reconstruct(moving_square(frames), model, context=context)
    assert len(scene) == frames
    assert scene.depth.shape == (frames, 48, 64)
    assert (scene.depth > 0).all()
    assert np.isfinite(scene.T_world_camera).all()
    assert scene.metadata["model"]["name"] == "tiny"
    assert scene.metadata["plan"]["method"] == "easi3r"
    assert scene.metadata["notes"]
    assert "first pass" in seen
    assert "second pass" in seen


def test_all_stages_run_and_leave_their_marks(refining: Model) -> None:
    seen, context = stages()
    scene = reconstruct(moving_square(4), refining, context=context)
    for stage in ("first pass", "measuring flow", "bundle adjustment", "multi-view depth"):
        assert stage in seen
    assert "second pass" not in seen
    seconds = scene.metadata["seconds"]
    assert {"flow", "first pass", "alignment", "bundle adjustment", "motion"} <= set(seconds)
    assert "flow_error" in scene.metadata["objective"]
    assert scene.metadata["plan"]["mask_refiner"] == "edges"


@pytest.mark.slow
def test_where_nothing_moves_two_passes_agree(model: Model) -> None:
    still = dyn3r.clip_from_images(np.repeat(moving_square(1).images, 3, axis=0), size=64, fps=10.0)
    twice, once = (
        reconstruct(still, model, Options(motion=MotionOptions(cue="flow", second_pass=second)))
        for second in (True, False)
    )
    assert not twice.dynamic.any()
    np.testing.assert_array_equal(once.depth, twice.depth)
    np.testing.assert_array_equal(once.T_world_camera, twice.T_world_camera)


@pytest.mark.slow
def test_portrait_and_one_pass(model: Model) -> None:
    seen, context = stages()
    options = Options(method="dust3r", pairs="complete")
    scene = reconstruct(moving_square(3, (64, 48)), model, options, context=context)
    assert scene.size_hw == (64, 48)
    assert not scene.dynamic.any()
    assert "predicting points" in seen
    assert "first pass" not in seen
    assert "measuring flow" not in seen
    assert scene.metadata["pairs"] == 6


@pytest.mark.slow
def test_known_cameras_give_their_unit(model: Model) -> None:
    clip = moving_square(3)
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = [0, 1, 2]
    scene = reconstruct(clip, model, Options(method="dust3r", priors=Priors(T_world_camera=T)))
    assert "the unit of the known cameras" in summarise(scene)[1]
    np.testing.assert_array_equal(scene.T_world_camera, T)
    one = np.where(np.arange(3)[:, None, None] == 0, T, np.nan)
    turning = np.tile(np.eye(4), (3, 1, 1))
    for priors in (
        Priors(), Priors(T_world_camera=T, fix_T=False), Priors(T_world_camera=one),
        Priors(T_world_camera=turning),
    ):  # fmt: skip
        assert unit_of(priors) == {}


def test_given_masks_are_kept(model: Model) -> None:
    clip = moving_square(4)
    masks = np.zeros((4, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    scene = reconstruct(clip, model, masks=masks)
    np.testing.assert_array_equal(scene.dynamic, masks)
    unusable = replace(clip, unusable=np.array([False, False, False, True]))
    for wrong in (masks[:2], np.repeat(masks, 2, 0)):
        for given in (clip, unusable):
            with pytest.raises(InputError, match="masks"):
                reconstruct(given, model, masks=wrong)


def test_the_same_run_twice_gives_the_same_scene(model: Model) -> None:
    one, two = (reconstruct(moving_square(3), model) for _ in range(2))
    np.testing.assert_array_equal(one.depth, two.depth)
    np.testing.assert_array_equal(one.T_world_camera, two.T_world_camera)
    np.testing.assert_array_equal(one.dynamic, two.dynamic)


def test_masked_tokens_change_the_points_of_pairs_that_see_them(model: Model) -> None:
    clip, edges = moving_square(3), np.array([[0, 1], [1, 2]])
    masks = np.zeros((3, 48, 64), bool)
    masks[1, :16, :16] = True
    plain = dyn3r.predict_pairs(model, clip, edges)
    masked = dyn3r.predict_pairs(model, clip, edges, masks)
    assert np.abs(masked.points1[0] - plain.points1[0]).max() > 0  # frame 1 is view 2 here
    np.testing.assert_array_equal(masked.points1[1], plain.points1[1])  # and view 1 here


def test_windows_have_the_pairs_of_the_whole_clip(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is narrower for long clips; each window alone would be short."""
    found = []

    def stopped(work: LongClip, *_: object) -> None:
        found.append((work.identity[0].pairs, work.identity[0].flow.pairs))
        raise InterruptedError

    monkeypatch.setattr(dyn3r.pipeline, "reconstruct_windows", stopped)
    windows = Options(windows=WindowOptions(frames=40))
    refined, other = replace(windows, method="refined"), replace(windows, pairs="swin-2-noncyclic")
    for options in (windows, refined, other):
        with pytest.raises(InterruptedError):
            reconstruct(moving_square(100, (48, 64)), model, options)
    published, few = "swinstride-4-noncyclic", "swinstride-3-noncyclic-alternating"
    assert found == [(published, published), (few, published), ("swin-2-noncyclic",) * 2]


@pytest.mark.parametrize(
    ("changes", "method", "shared"),
    [
        ({}, "refined", True),
        ({"focal_px": 80.0, "focal_sigma": 0.05}, "refined", False),  # it is known already
        ({"focal_px": 80.0, "focal_sigma": 0.05}, "easi3r", True),  # which does not read it
        ({"mixed": True}, "refined", False),  # a focal length for each size
    ],
)
def test_windows_share_a_focal_length_that_nothing_states(
    model: Model, monkeypatch: pytest.MonkeyPatch, changes: dict, method: str, shared: bool
) -> None:
    found = []

    def stopped(work: LongClip, *_: object) -> None:
        found.append(work.finds_focal)
        raise InterruptedError

    monkeypatch.setattr(dyn3r.pipeline, "reconstruct_windows", stopped)
    clip = moving_square(12, (48, 64))
    if changes.pop("mixed", False):
        images = [x if t % 2 else x[:, :40] for t, x in enumerate(clip.images)]
        clip = dyn3r.clip_from_images(images, size=64)
        assert clip.mapping.is_mixed
    options = Options(windows=WindowOptions(frames=6, overlap=2), method=method)
    with pytest.raises(InterruptedError):
        reconstruct(replace(clip, **changes), model, options)
    assert found == [shared]


def test_windows_of_another_refiner_are_other_windows(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def stopped(work: LongClip, *_: object) -> None:
        found.append(fingerprint_of(*work.identity))
        raise InterruptedError

    monkeypatch.setattr(dyn3r.pipeline, "reconstruct_windows", stopped)
    options = Options(windows=WindowOptions(frames=6, overlap=2))
    for refiner in (EdgeRefiner(reach=1), EdgeRefiner(reach=2), EdgeRefiner(reach=1)):
        with pytest.raises(InterruptedError):
            reconstruct(moving_square(12, (48, 64)), model, options, refiner=refiner)
    assert found[0] == found[2] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize("grey", [0, 90])
def test_plain_frames_do_not_break_it(model: Model, grey: int) -> None:
    images = np.full((3, 48, 64, 3), grey, np.uint8)
    scene = reconstruct(dyn3r.clip_from_images(images, size=64), model)
    assert np.isfinite(scene.depth).all()
    assert np.isfinite(scene.T_world_camera).all()


def test_full_size_class_on_the_meta_device() -> None:
    """The published size has the published number of parameters (SPEC 1; about 571 M)."""
    with torch.device("meta"):
        network = PointmapNetwork(NetworkConfig())
    assert 570e6 < sum(p.numel() for p in network.parameters()) < 573e6


@pytest.mark.slow
@pytest.mark.parametrize("cue", ["attention", "both"])
def test_masks_from_one_model_and_geometry_from_another(model: Model, cue: str) -> None:
    clip, other = moving_square(3), other_model()
    options = Options(motion=MotionOptions(cue=cue))  # type: ignore[arg-type]
    alone = reconstruct(clip, other, options)
    both = reconstruct(clip, model, options, motion_model=other)
    np.testing.assert_array_equal(both.dynamic, alone.dynamic)
    assert both.metadata["model"]["name"] == "tiny"
    assert both.metadata["motion_model"]["name"] == "other"
    # what comes after the masks is as if they had been given
    given = reconstruct(clip, model, masks=alone.dynamic)
    np.testing.assert_array_equal(both.depth, given.depth)
    np.testing.assert_array_equal(both.T_world_camera, given.T_world_camera)


@pytest.mark.slow
@pytest.mark.parametrize(("cue", "twice"), [("flow", False), ("attention", True)])
def test_a_motion_model_makes_no_pass_that_nobody_reads(
    model: Model, monkeypatch: pytest.MonkeyPatch, cue: str, twice: bool
) -> None:
    asked: list[tuple[str, bool, bool]] = []
    predict = dyn3r.pipeline.predict_pairs

    def listening(*args: Any, **named: Any) -> Any:
        asked.append((named["stage"], named["heads"], named["scores"]))
        return predict(*args, **named)

    monkeypatch.setattr(dyn3r.pipeline, "predict_pairs", listening)
    options = Options(motion=MotionOptions(cue=cue))  # type: ignore[arg-type]
    reconstruct(moving_square(3), model, options, motion_model=other_model())
    assert ("second pass" in [stage for stage, _, _ in asked]) == twice
    assert all(heads or scores for _, heads, scores in asked)
    assert asked[-1] == ("predicting points", True, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "cue"), [(1, "both"), (3, "attention"), (3, "flow"), (3, "both"), (3, "none")]
)
def test_findings_hold_both_cues_and_change_nothing(model: Model, cue: str, frames: int) -> None:
    clip, options = moving_square(frames), Options(motion=MotionOptions(cue=cue))  # type: ignore[arg-type]
    plain = reconstruct(clip, model, options)
    scene, found = explained(clip, model, options)
    np.testing.assert_array_equal(scene.depth, plain.depth)
    np.testing.assert_array_equal(scene.dynamic, plain.dynamic)
    np.testing.assert_array_equal(scene.T_world_camera, plain.T_world_camera)
    assert found.cue == cue
    assert isinstance(found.attention.evidence, AttentionEvidence)
    assert set(found.attention.evidence.statistics) == {"mu1", "sd1", "mu2", "sd2"}
    assert found.flow.masks.shape == scene.dynamic.shape
    assert found.inverse_depth.shape == scene.depth.shape
    np.testing.assert_array_equal(found.motion.masks, scene.dynamic)
    if frames == 1:
        assert found.steps is None
    else:
        expected = [[t, t + 1] for t in range(frames - 1)] + [[frames - 1, frames - 2]]
        np.testing.assert_array_equal(found.steps.edges, expected)


@pytest.mark.slow
def test_findings_with_given_masks_and_with_a_motion_model(model: Model) -> None:
    masks, clip = np.zeros((3, 48, 64), bool), moving_square(3)
    masks[:, 10:26, 10:30] = True
    assert explained(clip, model, Options(), masks=masks)[1].cue == "given"
    other, by_flow = other_model(), Options(motion=MotionOptions(cue="flow"))
    one = explained(clip, model, by_flow, motion_model=other)[1].attention.evidence
    two = explained(clip, other, by_flow)[1].attention.evidence
    assert isinstance(one, AttentionEvidence)
    assert isinstance(two, AttentionEvidence)
    for name, values in one.statistics.items():
        np.testing.assert_allclose(values, two.statistics[name], atol=1e-5)


class MovedDown:
    """A refiner that moves masks a pixel down."""

    name = "moved"

    def refine(self, images: np.ndarray, masks: np.ndarray, *, progress: Any = None) -> np.ndarray:
        assert images.shape[:3] == masks.shape
        return np.roll(masks, 1, axis=1)


@pytest.mark.slow
def test_refined_masks_are_saved_and_united_for_the_cameras(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    align = dyn3r.pipeline.align

    def listening(predictions: Any, *, dynamic: np.ndarray, **others: Any) -> Geometry:
        seen.append(dynamic)
        return align(predictions, dynamic=dynamic, **others)

    monkeypatch.setattr(dyn3r.pipeline, "align", listening)
    masks = np.zeros((3, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    scene = reconstruct(moving_square(3), model, masks=masks, refiner=MovedDown())
    np.testing.assert_array_equal(scene.dynamic, np.roll(masks, 1, axis=1))
    np.testing.assert_array_equal(seen, [masks | np.roll(masks, 1, axis=1)])
    assert "refined by moved: 10.4% -> 10.4%" in scene.metadata["notes"][1]


@pytest.mark.slow
def test_refinement_by_name(model: Model) -> None:
    clip, masks = moving_square(4), np.zeros((4, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    seen: dict[str, Any] = {}
    scene = reconstruct(
        clip, model, Options(motion=MotionOptions(refine="edges")), masks=masks,
        context=RunContext(observe=seen.__setitem__),
    )  # fmt: skip
    refiner = reading(EdgeRefiner(), seen["flow"])  # of the run, not measured again
    assert refiner is not None
    np.testing.assert_array_equal(scene.dynamic, refiner.refine(clip.images, masks))
    assert "mask refinement" in scene.metadata["seconds"]
    # a static scene has nothing to refine, so no weights are asked for
    none = Options(motion=MotionOptions(refine="sam2", cue="none"))
    assert not reconstruct(moving_square(2), model, none).dynamic.any()


class Answers(MotionCue):
    """A cue whose updates are known beforehand."""

    reads_geometry = True

    def __init__(self, answers: list[np.ndarray]) -> None:
        self.answers = iter(answers)

    def detect(self, seen: Any, flow: Any, context: Any) -> Motion:
        raise AssertionError("not asked")

    def update(self, motion: Motion, *rest: Any) -> Motion:
        return motion_from_masks(next(self.answers))


@pytest.fixture
def adjusted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The named arguments of every bundle adjustment, which returns other depth each time."""
    calls: list[dict[str, Any]] = []

    def recording(name: str) -> Callable[..., Geometry]:
        def adjust(start: Geometry, images: np.ndarray, flow: FlowFields, **named: Any) -> Geometry:
            result = replace(start, depth=start.depth + len(calls) + 1, parallax=0.5)
            calls.append({"name": name, "start": start, "result": result, **named})
            return result

        return adjust

    monkeypatch.setattr(dyn3r.pipeline, "bundle_adjust", recording("bundle_adjust"))
    name = "calibrated_bundle_adjust"
    monkeypatch.setattr(stated_focal, name, recording(name))
    return calls


Refine = Callable[..., tuple[Geometry, Motion]]


@pytest.fixture
def refine(refining: Model) -> Refine:
    """`dyn3r.pipeline.refine` on four frames, from masks, with a cue."""
    clip = moving_square(4)
    K = np.tile(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), (4, 1, 1))
    initial = geometry_of(np.tile(np.eye(4), (4, 1, 1)), K, np.ones((4, 48, 64)))
    flow = FlowFields(np.zeros((1, 2), int), np.zeros((1, 48, 64, 2), np.float32))

    def run(masks: np.ndarray, cue: MotionCue, refiner: Any = None, **options: Any) -> Any:
        plan = resolve(Options(**options), refining, clip)
        motion = motion_from_masks(masks)
        return dyn3r.pipeline.refine(clip, initial, motion, flow, cue, refiner, plan, RunContext())

    return run


def block(left: int, right: int) -> np.ndarray:
    masks = np.zeros((4, 48, 64), bool)
    masks[:, :, left:right] = True
    return masks


def test_masks_and_cameras_alternate_until_the_masks_converge(refine: Refine, adjusted) -> None:
    second, third = block(16, 32), block(16, 31)
    geometry, motion = refine(block(0, 16), Answers([second, third]))
    np.testing.assert_array_equal(motion.masks, third)
    for call, masks in zip(adjusted, (block(0, 16), second, third)):
        np.testing.assert_array_equal(call["dynamic"], masks)
    assert len(adjusted) == 3
    assert all(call["start"] is adjusted[0]["start"] for call in adjusted)  # always the prior
    calibrated = [call["name"] == "calibrated_bundle_adjust" for call in adjusted]
    assert calibrated == [False, False, True]
    assert geometry is adjusted[2]["result"]


def test_rounds_are_bounded(refine: Refine, adjusted) -> None:
    answers = [block(16 * (k % 4), 16 * (k % 4) + 16) for k in range(1, 9)]
    _, motion = refine(block(0, 16), Answers(answers))
    assert len(adjusted) == MAX_ROUNDS + 1
    np.testing.assert_array_equal(motion.masks, answers[MAX_ROUNDS - 1])


def test_a_cue_without_updates_needs_one_adjustment(refine: Refine, adjusted) -> None:
    known = KnownMotion(motion_from_masks(block(0, 16)))
    _, motion = refine(block(0, 16), known)
    assert len(adjusted) == 1
    np.testing.assert_array_equal(motion.masks, block(0, 16))
    # of the refined masks, if they are
    adjusted.clear()
    _, motion = refine(block(0, 16), known, MovedDown())
    assert [call["name"] for call in adjusted] == ["calibrated_bundle_adjust"]
    np.testing.assert_array_equal(adjusted[0]["dynamic"], motion.masks | block(0, 16))


@pytest.mark.parametrize(
    ("rotation_only", "wanted", "known", "corrected"),
    [(True, True, False, True), (True, False, False, False), (False, True, False, False),
     (True, True, True, False)],
)  # fmt: skip
def test_ground_is_corrected_where_the_camera_only_rotates(
    refine: Refine, adjusted, monkeypatch: pytest.MonkeyPatch, rotation_only, wanted, known,
    corrected,
) -> None:  # fmt: skip
    def correct(geometry: Geometry, images: np.ndarray, masks: np.ndarray) -> Geometry:
        np.testing.assert_array_equal(masks, block(0, 16))
        return replace(geometry, depth=np.full_like(geometry.depth, 7))

    monkeypatch.setattr(dyn3r.pipeline, "correct_ground_tilt", correct)
    monkeypatch.setattr(dyn3r.pipeline, "is_rotation_only", lambda _: rotation_only)
    priors = Priors()
    if known:
        depth = np.full((4, 48, 64), np.nan, np.float32)
        depth[0, 0, 0] = 2.0
        priors = Priors(depth=depth)
    geometry, _ = refine(
        block(0, 16), KnownMotion(motion_from_masks(block(0, 16))),
        refinement=RefinementOptions(ground_correction=wanted), priors=priors,
    )  # fmt: skip
    assert bool((geometry.depth == 7).all()) == corrected


def test_convergence_is_measured_by_intersection_over_union() -> None:
    one, other = np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10), bool)
    assert masks_converged(one, other)
    one[0, :, :8] = True
    assert not masks_converged(one, other)
    other[0, :, :6] = True
    assert masks_converged(one, other)
    other[1] = True
    assert not masks_converged(one, other)


def test_unusable_frames_are_in_no_pair_and_stay_in_the_timeline(model: Model) -> None:
    clip = moving_square(5)
    clip.images[2] = 0
    unusable = np.arange(5) == 2
    recorder = Recorder()
    options = Options(pairs="complete", motion=MotionOptions(cue="none"))
    context = RunContext(observe=recorder)
    scene = reconstruct(replace(clip, unusable=unusable), model, options, context=context)
    assert len(scene) == 5
    explained = Explanation(collect_findings(recorder, context), scene)
    assert explained.frames.tolist() == [0, 1, 3, 4]
    assert scene.names == clip.names
    assert not scene.depth[2].any()
    assert (scene.depth[~unusable] > 0).all()
    assert scene.frame_quality is not None
    assert scene.frame_quality[2] == 0
    assert scene.metadata["pairs"] == 4 * 3
    centres = scene.T_world_camera[:, :3, 3]
    np.testing.assert_allclose(centres[2], (centres[1] + centres[3]) / 2, atol=1e-9)


def test_overlays_have_no_flow_no_motion_and_no_points(refining: Model) -> None:
    clip = moving_square(4)
    overlay = np.zeros((48, 64), bool)
    overlay[8:30, 4:24] = True  # a part of what moves
    recorder = Recorder()
    scene = reconstruct(
        replace(clip, overlay=overlay), refining, Options(motion=MotionOptions(cue="flow")),
        context=RunContext(observe=recorder),
    )  # fmt: skip
    flow: FlowFields = recorder.values["flow"]
    assert flow.visible is not None
    assert not flow.visible[:, overlay].any()
    assert flow.visible.any()
    assert not scene.dynamic[:, overlay].any()
    assert not scene.confidence[:, overlay].any()
    assert (scene.depth > 0).all()


def test_a_scene_of_several_shots_says_so(model: Model) -> None:
    clip = replace(moving_square(4), cuts=(2,))
    scene = reconstruct(clip, model, Options(motion=MotionOptions(cue="none")))
    assert any("2 shots in one world" in note for note in scene.notes)


@pytest.mark.parametrize(
    ("factor", "sigma", "expected", "calls"),
    [(1.0, 0.0, 80, 1), (1.1, 0.05, 80, 2), (1.1, 0.15, 88, 1), (1.5, 0.05, 120, 1)],
    ids=["exact", "kept where both agree", "less certain than flow", "contradicted"],
)
def test_a_stated_focal_length_is_a_prior(
    refining: Model, monkeypatch: pytest.MonkeyPatch,
    factor: float, sigma: float, expected: float, calls: int,
) -> None:  # fmt: skip
    seen: list[tuple[float | None, bool]] = []

    def adjust(geometry: Geometry, *, priors: Priors, **others: Any) -> Geometry:
        seen.append((geometry.focal_sigma, priors.fix_K))
        np.testing.assert_allclose(geometry.K[:, 0, 0], 80)
        K = geometry.K * np.array([[1 if priors.fix_K else factor], [1], [1]])
        return replace(geometry, K=K, focal_sigma=0.06, parallax=0.5)

    monkeypatch.setattr(stated_focal, "calibrated_bundle_adjust", adjust)
    clip = replace(moving_square(3), focal_px=80.0, focal_sigma=sigma)
    scene = reconstruct(clip, refining, Options(motion=MotionOptions(cue="none")))
    np.testing.assert_allclose(scene.K[:, 0, 0], expected)
    free, fixed = (sigma, False), (None, True)
    assert seen == ([free, fixed][:calls] if sigma else [fixed])
    assert any("flow contradicts" in note for note in scene.notes) == (factor == 1.5)


@pytest.mark.parametrize("adjusted", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_a_known_focal_length_does_not_bend_the_depth_of_the_network(
    refining: Model, monkeypatch: pytest.MonkeyPatch, sigma: float, adjusted: bool
) -> None:
    aligned: list[bool] = []

    def seen(*arguments: Any, priors: Priors, **others: Any) -> Geometry:
        aligned.append(priors.K is not None)
        return align(*arguments, priors=priors, **others)

    def adjust(geometry: Geometry, *, priors: Priors, **others: Any) -> Geometry:
        np.testing.assert_allclose(geometry.K[:, 0, 0], 80)
        diagnostics = geometry.diagnostics.added("why it was refused")
        return replace(geometry, parallax=0.5 if adjusted else None, diagnostics=diagnostics)

    monkeypatch.setattr(dyn3r.pipeline, "align", seen)
    monkeypatch.setattr(stated_focal, "calibrated_bundle_adjust", adjust)
    K = np.tile(np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]), (3, 1, 1))
    priors = Priors(K=K, focal_sigma=sigma)
    options = Options(motion=MotionOptions(cue="none"), priors=priors)
    scene = reconstruct(moving_square(3), refining, options)
    np.testing.assert_allclose(scene.K, K)
    # without an adjustment, cameras and depth must go with K
    assert aligned == ([False] if adjusted else [False, True])
    assert scene.notes.count("why it was refused") == 1


def test_given_focal_lengths_win_and_published_recipes_read_none(
    model: Model, refining: Model
) -> None:
    clip = replace(moving_square(3), focal_px=80.0, focal_sigma=0.05)
    static = MotionOptions(cue="none")
    given = Priors(K=np.tile(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), (3, 1, 1)))
    assert reconstruct(clip, refining, Options(motion=static, priors=given)).K[0, 0, 0] == 50
    plain = replace(clip, focal_px=None)
    stated, unstated = (reconstruct(c, model, Options(motion=static)).K for c in (clip, plain))
    np.testing.assert_array_equal(stated, unstated)
