"""Masked components are tested with the final cameras: static ones leave the masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.bundle_adjustment.made_up import Truth, alignment_of, made_up
from tests.oracles import static_test as oracle

from dyn3r.motion.static_components import static_test, without_static_components
from dyn3r.types import FlowFields, Geometry, Motion

IMAGES = np.random.default_rng(1).integers(88, 92, (6, 64, 96, 3), np.uint8)
"""Faint texture, by which no surface matches much better than another: flow alone decides."""
LEFT, RIGHT = (slice(12, 40), slice(10, 34)), (slice(24, 52), slice(60, 84))


@pytest.fixture(scope="module")
def truth() -> Truth:
    """A static scene; flow has an error of 0.2 pixels."""
    return made_up(6, graph="swin-2-noncyclic")


@pytest.fixture(scope="module")
def right(truth: Truth) -> Geometry:
    return alignment_of(truth.T, truth.K, truth.depth)


def motion_of(truth: Truth, *regions: tuple[slice, slice]) -> Motion:
    masks = np.zeros(truth.depth.shape, bool)
    for region in regions:
        masks[:, region[0], region[1]] = True
    return Motion(masks, np.zeros((len(masks), 4, 6), np.float32), "seen in a test")


def moved(truth: Truth, region: tuple[slice, slice], by: np.ndarray) -> FlowFields:
    """Flow of a region that moves by `by` pixels (m, 2) in each pair."""
    flow = truth.flow.flow.copy()
    flow[:, region[0], region[1]] += by[:, None, None]
    return replace(truth.flow, flow=flow)


def per_frame(truth: Truth, uv: tuple[float, float]) -> np.ndarray:
    """Constant velocity (u, v) in pixels a frame."""
    return (truth.flow.edges[:, 1] - truth.flow.edges[:, 0])[:, None] * np.array(uv)


def test_what_does_not_move_leaves_the_masks(truth: Truth, right: Geometry) -> None:
    flow = moved(truth, RIGHT, per_frame(truth, (0.0, 3.0)))
    found = without_static_components(motion_of(truth, LEFT, RIGHT), IMAGES, right, flow)
    assert np.array_equal(found.masks, motion_of(truth, RIGHT).masks)
    assert found.has_motion


def test_nothing_is_left_of_a_static_scene(truth: Truth, right: Geometry) -> None:
    found = without_static_components(motion_of(truth, LEFT, RIGHT), IMAGES, right, truth.flow)
    assert not found.masks.any()
    assert not found.has_motion
    assert "static" in found.reason


def test_a_wrong_depth_is_no_motion(truth: Truth, right: Geometry) -> None:
    depth = right.depth.copy()
    depth[:, LEFT[0], LEFT[1]] *= 1.5
    wrong = replace(right, depth=depth)
    assert not without_static_components(
        motion_of(truth, LEFT), IMAGES, wrong, truth.flow
    ).masks.any()


def test_motion_along_the_epipolar_lines_is_motion_if_no_depth_explains_it(
    truth: Truth, right: Geometry
) -> None:
    """To and fro: each pair would need another depth."""
    back = np.where(truth.flow.edges.sum(1) % 4 < 2, 4.0, -4.0)[:, None] * np.array([1.0, 0.0])
    motion = motion_of(truth, LEFT)
    found = without_static_components(motion, IMAGES, right, moved(truth, LEFT, back))
    assert np.array_equal(found.masks, motion.masks)


def test_an_object_is_kept_as_a_whole(truth: Truth, right: Geometry) -> None:
    """It moves in most frames, and rests in the last."""
    by = per_frame(truth, (0.0, 3.0))
    by[truth.flow.edges.max(1) >= 5] = 0
    motion = motion_of(truth, LEFT)
    found = without_static_components(motion, IMAGES, right, moved(truth, LEFT, by))
    assert np.array_equal(found.masks, motion.masks)


def test_the_noise_of_a_pair_is_that_of_its_background(truth: Truth, right: Geometry) -> None:
    """Three times as noisy flow: what is static remains so, and slow motion is no longer seen."""
    noise = np.random.default_rng(0).normal(0, 1.2, truth.flow.flow.shape)
    noisy = replace(truth.flow, flow=truth.flow.flow + noise)
    found = without_static_components(motion_of(truth, LEFT), IMAGES, right, noisy)
    assert not found.masks.any()
    sharp = static_test(motion_of(truth, LEFT).masks, IMAGES, right, truth.flow)
    assert sharp.all.sum() > 0
    assert (sharp.static <= sharp.all).all()


def test_components_without_measurements_are_kept(truth: Truth, right: Geometry) -> None:
    motion = motion_of(truth, LEFT)
    unseen = replace(truth.flow, visible=np.zeros(truth.flow.visible.shape, bool))
    assert without_static_components(motion, IMAGES, right, unseen) is motion
    nothing = motion_of(truth)
    assert without_static_components(nothing, IMAGES, right, truth.flow) is nothing
    speck = np.zeros(truth.depth.shape, bool)
    speck[2, 5, 7] = True  # between the pixels that are tested
    tiny = replace(motion, masks=speck)
    assert without_static_components(tiny, IMAGES, right, truth.flow) is tiny


@pytest.mark.parametrize(("certain", "kept"), [(0.95, True), (0.7, False)])
def test_what_the_network_says_counts_where_flow_is_in_doubt(
    truth: Truth, right: Geometry, certain: float, kept: bool
) -> None:
    """Slow: a static scene explains three fifths of the measurements."""
    flow, motion = moved(truth, RIGHT, per_frame(truth, (0.0, 0.85))), motion_of(truth, RIGHT)
    test = static_test(motion.masks, IMAGES, right, flow)
    assert 0.55 < test.static.sum() / test.all.sum() < 0.7
    probability = np.where(motion.masks, int(255 * certain), 10).astype(np.uint8)
    motion = replace(motion, probability=probability)
    found = without_static_components(motion, IMAGES, right, flow)
    assert found.has_motion == kept
    assert np.array_equal(found.masks, motion.masks if kept else np.zeros_like(motion.masks))


def test_static_parts_of_what_moves_leave_the_masks(truth: Truth, right: Geometry) -> None:
    """A static strip, such as a post before an animal, is connected with what moves."""
    flow = moved(truth, RIGHT, per_frame(truth, (0.0, 3.0)))
    strip = (slice(32, 44), slice(36, 60))
    found = without_static_components(motion_of(truth, RIGHT, strip), IMAGES, right, flow).masks
    assert found[:, RIGHT[0], RIGHT[1]].mean() > 0.9
    assert found[:, strip[0], strip[1]].mean() < 0.15


def test_parts_that_move_slowly_stay_with_their_object(truth: Truth, right: Geometry) -> None:
    """A static scene explains three fifths of their measurements."""
    strip = (slice(32, 44), slice(36, 60))
    flow = moved(truth, RIGHT, per_frame(truth, (0.0, 3.0)))
    slow = moved(truth, strip, per_frame(truth, (0.0, 0.85)))
    both = flow.flow.copy()
    both[:, strip[0], strip[1]] = slow.flow[:, strip[0], strip[1]]
    flow, motion = replace(flow, flow=both), motion_of(truth, RIGHT, strip)
    test = static_test(motion.masks, IMAGES, right, flow)
    static, total = (x[:, 17:21, 19:27].sum() for x in test)
    assert 0.55 < static / total < 0.68
    found = without_static_components(motion, IMAGES, right, flow).masks
    assert found[:, strip[0], strip[1]].mean() > 0.9


def test_flow_on_a_plain_surface_is_no_evidence(truth: Truth, right: Geometry) -> None:
    """Nor is flow along the only edges that there are."""
    flow, motion = moved(truth, RIGHT, per_frame(truth, (0.0, 3.0))), motion_of(truth, RIGHT)
    plain = IMAGES.copy()
    around = (slice(None), slice(18, 58), slice(54, 90))  # texture of a patch counts
    plain[around] = 90
    assert not without_static_components(motion, plain, right, flow).masks.any()

    def explained(image: np.ndarray) -> float:
        test = static_test(motion.masks, image, right, flow)
        return float(test.static.sum() / test.all.sum())

    vertical, horizontal = plain.copy(), plain.copy()
    vertical[around][:, :, ::3] = 94
    horizontal[around][:, ::3] = 94
    assert explained(plain) > 0.99
    assert explained(vertical) > 0.99  # the region falls, along them
    assert explained(horizontal) < 0.3


def test_a_part_with_other_flow_is_kept_with_its_object(truth: Truth, right: Geometry) -> None:
    """Single measurements that look static do not make holes."""
    flow = moved(truth, RIGHT, per_frame(truth, (0.0, 3.0)))
    still = flow.flow.copy()
    still[:, 36:39, 70:73] = truth.flow.flow[:, 36:39, 70:73]
    motion = motion_of(truth, RIGHT)
    found = without_static_components(motion, IMAGES, right, replace(flow, flow=still))
    assert np.array_equal(found.masks, motion.masks)


@pytest.mark.parametrize("half", [True, False])
def test_measurements_are_counted_as_in_arrays(truth: Truth, right: Geometry, half: bool) -> None:
    flow = moved(truth, RIGHT, per_frame(truth, (0.0, 0.8)))
    random = np.random.default_rng(0)
    visible = random.random(flow.flow.shape[:3]) < 0.8
    visible[0] = False
    fields = flow.flow.astype(np.float16) if half else flow.flow
    flow = FlowFields(flow.edges, fields, visible)
    masks = motion_of(truth, LEFT, RIGHT).masks
    masks[3] = False
    found, expected = (f(masks, IMAGES, right, flow) for f in (static_test, oracle.static_test))
    np.testing.assert_array_equal(found.all, expected.all)
    assert (found.static != expected.static).mean() < 1e-3
    assert 0.1 < expected.static.sum() / expected.all.sum() < 0.9
