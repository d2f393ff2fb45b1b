"""Verdicts on results whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyn3r.cli.results import report
from dyn3r.errors import InputError
from dyn3r.scene import PartVerdict, Verdict, summarise
from dyn3r.scene.flow_agreement import flow_agreement
from dyn3r.scene.judge import judge
from dyn3r.types import Geometry, Priors
from tests.bundle_adjustment.made_up import Truth, alignment_of, made_up, turned
from tests.factories import tiny_scene
from tests.oracles import flow_agreement as oracle

NAMES = tuple("abcdef")
IMAGES = np.random.default_rng(1).integers(0, 256, (6, 64, 96, 3), np.uint8)
"""Full of texture."""


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Flow with an error of 0.2 pixels."""
    return made_up(6)


@pytest.fixture(scope="module")
def right(truth: Truth) -> Geometry:
    """The true geometry, with standard errors as they are stated for good results."""
    geometry = alignment_of(truth.T, truth.K, truth.depth)
    return replace(geometry, focal_sigma=0.02, sigma_log_depth=np.full(truth.depth.shape, 0.05))


def verdict(geometry: Geometry, truth: Truth, masks: np.ndarray | None = None) -> Verdict:
    masks = np.zeros(truth.depth.shape, bool) if masks is None else masks
    found = judge(geometry, IMAGES, masks, truth.flow, Priors(), NAMES)
    assert found is not None
    return found


def test_the_truth_is_good(truth: Truth, right: Geometry) -> None:
    found = verdict(right, truth)
    assert list(found.parts) == ["cameras", "focal length", "depth", "masks"]
    assert {part.grade for part in found.parts.values()} == {"good"}
    assert found.parts["focal length"].reason == "known to about 2%"
    assert found.parts["masks"].reason == "nothing is called moving"


def test_agreement_counts_visible_pixels_of_near_pairs(truth: Truth, right: Geometry) -> None:
    masks = np.zeros(truth.depth.shape, bool)
    masks[2, :20] = True
    agreement = flow_agreement(right, masks, truth.flow)
    apart = np.abs(agreement.edges[:, 0] - agreement.edges[:, 1])
    assert set(apart.tolist()) == {1}  # this graph has pairs 1, 3 and 5 apart
    assert (agreement.static > 0.95).all()
    seen = truth.flow.visible[0, ::2, ::2].mean()
    assert agreement.visible[0] == pytest.approx(seen)


def test_agreement_is_that_of_arrays(truth: Truth, right: Geometry) -> None:
    random = np.random.default_rng(0)
    flow = replace(truth.flow, visible=random.random(truth.flow.flow.shape[:3]) < 0.8)
    masks = random.random(truth.depth.shape) < 0.1
    masks[1] = True  # nothing to judge
    depth = right.depth * np.exp(random.normal(0, 0.2, truth.depth.shape))
    depth[2, :9] = 0
    given = replace(right, depth=depth.astype(np.float32)), masks, flow
    found, expected = flow_agreement(*given), oracle.flow_agreement(*given)
    np.testing.assert_array_equal(found.edges, expected.edges)
    np.testing.assert_allclose(found.visible, expected.visible)
    np.testing.assert_allclose(found.static, expected.static, atol=2e-3)
    assert np.isnan(expected.static).any()
    assert 0.1 < np.nanmin(expected.static) < 0.99


def test_one_camera_that_jumps_is_named(truth: Truth, right: Geometry) -> None:
    T = truth.T.copy()
    a = np.radians(8)
    T[3, :3, :3] = T[3, :3, :3] @ [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    found = verdict(replace(right, T_world_camera=T), truth)
    assert found.parts["cameras"].grade == "poor"
    assert "c and d" in found.parts["cameras"].reason
    assert found.parts["depth"].grade == "doubtful"  # it follows from the cameras
    assert found.parts["focal length"].grade == "doubtful"


def test_cameras_that_are_all_wrong_are_poor(truth: Truth, right: Geometry) -> None:
    found = verdict(replace(right, T_world_camera=turned(truth.T, 10, 0)), truth)
    assert found.parts["cameras"].grade == "poor"
    assert found.parts["masks"].grade == "doubtful"  # empty, and judged with these cameras
    assert found.parts["masks"].reason.endswith("if the cameras were right")


def test_frames_that_nothing_joins_are_named(truth: Truth, right: Geometry) -> None:
    visible = truth.flow.visible.copy()
    across = (truth.flow.edges.min(1) <= 3) & (truth.flow.edges.max(1) > 3)
    visible[across] = False
    flow = replace(truth.flow, visible=visible)
    found = judge(right, IMAGES, np.zeros(truth.depth.shape, bool), flow, Priors(), NAMES)
    assert found is not None
    assert found.parts["cameras"].grade == "poor"
    assert "d and e hardly show the same place" in found.parts["cameras"].reason


def test_frames_whose_background_is_masked_are_named(truth: Truth, right: Geometry) -> None:
    masks = np.zeros(truth.depth.shape, bool)
    masks[:4] = True
    found = judge(right, IMAGES, masks, truth.flow, Priors(), NAMES)
    assert found is not None
    assert found.parts["cameras"].grade == "poor"
    assert "all that a and b both show is called moving" in found.parts["cameras"].reason


@pytest.mark.parametrize(("sigma", "grade"), [(0.02, "good"), (0.1, "doubtful"), (0.2, "poor")])
def test_focal_length(truth: Truth, right: Geometry, sigma: float, grade: str) -> None:
    found = verdict(replace(right, focal_sigma=sigma), truth)
    assert found.parts["focal length"].grade == grade
    assert f"known to about {sigma:.0%}" in found.parts["focal length"].reason
    assert found.parts["depth"].grade == ("doubtful" if grade == "poor" else "good")


def test_a_given_focal_length_is_good(truth: Truth, right: Geometry) -> None:
    masks = np.zeros(truth.depth.shape, bool)
    given = judge(
        replace(right, focal_sigma=0.0), IMAGES, masks, truth.flow, Priors(K=truth.K), NAMES
    )
    assert given is not None
    assert given.parts["focal length"] == PartVerdict("good", "given")
    unknown = judge(replace(right, focal_sigma=None), IMAGES, masks, truth.flow, Priors(), NAMES)
    assert unknown is not None
    assert "focal length" not in unknown.parts


@pytest.mark.parametrize(("sigma", "grade"), [(0.05, "good"), (0.15, "doubtful")])
def test_a_stated_focal_length_is_called_so(
    truth: Truth, right: Geometry, sigma: float, grade: str
) -> None:
    masks = np.zeros(truth.depth.shape, bool)
    stated = Priors(K=truth.K, focal_sigma=sigma)
    kept = judge(replace(right, focal_sigma=0.0), IMAGES, masks, truth.flow, stated, NAMES)
    assert kept is not None
    part = kept.parts["focal length"]
    assert part.grade == grade
    assert part.reason == f"stated by the file, and taken to be right to {sigma:.0%}"
    from_flow = judge(replace(right, focal_sigma=0.02), IMAGES, masks, truth.flow, stated, NAMES)
    assert from_flow is not None
    assert from_flow.parts["focal length"].reason == "known to about 2%"


def test_uncertain_depth(truth: Truth, right: Geometry) -> None:
    for sigma, grade in ((0.3, "doubtful"), (0.6, "poor")):
        uncertain = replace(right, sigma_log_depth=np.full(truth.depth.shape, sigma))
        assert verdict(uncertain, truth).parts["depth"].grade == grade


def test_depth_without_parallax_is_doubtful(truth: Truth, right: Geometry) -> None:
    found = verdict(replace(right, parallax=0.02), truth).parts["depth"]
    assert found.grade == "doubtful"
    assert "only rotates" in found.reason
    assert verdict(replace(right, parallax=0.4), truth).parts["depth"].grade == "good"


def test_masks_of_what_does_not_move(truth: Truth, right: Geometry) -> None:
    masks = np.zeros(truth.depth.shape, bool)
    masks[:, 20:40, 30:60] = True
    found = verdict(right, truth, masks).parts["masks"]
    assert found.grade == "poor"
    assert "10% of the pixels are called moving" in found.reason
    # the same masks around something that does move
    flow = truth.flow.flow.copy()
    flow[:, 20:40, 30:60, 1] += 6
    moves = judge(right, IMAGES, masks, replace(truth.flow, flow=flow), Priors(), NAMES)
    assert moves is not None
    assert moves.parts["masks"].grade == "good"


def test_without_flow_there_is_no_verdict(truth: Truth, right: Geometry) -> None:
    assert judge(right, IMAGES, np.zeros(truth.depth.shape, bool), None, Priors(), NAMES) is None


def test_the_worse_of_two() -> None:
    good, poor = PartVerdict("good", "a"), PartVerdict("poor", "b")
    one = Verdict({"cameras": good, "depth": poor})
    other = Verdict({"cameras": poor, "depth": good, "masks": good})
    assert one.worse(other) == Verdict({"cameras": poor, "depth": poor, "masks": good})


def test_json_and_what_is_no_verdict() -> None:
    one = Verdict({"cameras": PartVerdict("doubtful", "why"), "masks": PartVerdict("good", "x")})
    assert Verdict.from_json(one.to_json()) == one
    for value in (
        None, 3, [], {"cameras": 1}, {"cameras": {"grade": "great", "reason": ""}},
        {"cameras": {"grade": "good", "reason": 3}}, {"lens": {"grade": "good", "reason": ""}},
        {"cameras": {"grade": ["good"], "reason": ""}},
    ):  # fmt: skip
        with pytest.raises(InputError):
            Verdict.from_json(value)


def test_the_scene_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    one = Verdict({"cameras": PartVerdict("poor", "frames 2 and 3 ...")})
    scene = tiny_scene(metadata={"verdict": one.to_json()})
    assert scene.verdict == one
    line = "cameras: poor (frames 2 and 3 ...)"
    assert f"verdict     {line}" in summarise(scene)
    report(scene, [], Path("my out"), 1.0)
    printed = capsys.readouterr().out
    assert line in printed
    assert "dyn3r view 'my out'" in printed
    assert tiny_scene(metadata={"verdict": "?"}).verdict is None
    assert tiny_scene().verdict is None
