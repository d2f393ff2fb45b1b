"""Bundle adjustment as a whole, on scenes whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment import (
    BundleAdjustmentOptions,
    bundle_adjust,
    calibrated_bundle_adjust,
)
from dyn3r.bundle_adjustment.adjust import with_stated_sigmas
from dyn3r.bundle_adjustment.progress import Adjustments
from dyn3r.errors import InputError
from dyn3r.io.workers import at_most
from dyn3r.types import FlowFields, Geometry, Priors
from tests.bundle_adjustment.made_up import (
    Truth,
    alignment_of,
    depth_error,
    disturbed,
    focal_error,
    made_up,
    path,
    path_error,
    turn_error,
    turned,
    wrong_depth,
)

OPEN = BundleAdjustmentOptions(focal_sigma=0.3, noise_inflation=1.0)
"""Weak prior on the focal length, and masks that are right."""
RIGHT_MASKS = BundleAdjustmentOptions(noise_inflation=1.0)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return made_up()


@pytest.fixture(scope="module")
def start(truth: Truth) -> Geometry:
    return disturbed(truth)


@pytest.fixture(scope="module")
def clean(truth: Truth, start: Geometry) -> Geometry:
    return bundle_adjust(start, truth.images, truth.flow, options=OPEN)


def test_a_geometry_may_state_its_own_standard_errors(truth: Truth, start: Geometry) -> None:
    """In place of the options': depth that is stated to be certain stays."""
    assert with_stated_sigmas(OPEN, start) == OPEN
    stated = replace(start, focal_sigma=0.05, depth_sigma=1e-4)
    assert with_stated_sigmas(OPEN, stated) == replace(OPEN, focal_sigma=0.05, depth_sigma=1e-4)
    found = bundle_adjust(stated, truth.images, truth.flow)
    np.testing.assert_allclose(found.depth, start.depth, rtol=1e-3)
    free = bundle_adjust(start, truth.images, truth.flow)
    assert np.abs(np.log(free.depth / start.depth)).max() > 0.1


def errors(found: Geometry, truth: Truth) -> np.ndarray:
    T = found.T_world_camera
    return np.array([
        turn_error(T, truth), path_error(T, truth), focal_error(found.K, truth),
        depth_error(found.depth, truth),
    ])  # fmt: skip


def finite(found: Geometry) -> bool:
    arrays = (found.T_world_camera, found.K, found.depth)
    return all(np.isfinite(x).all() for x in arrays) and bool((found.depth > 0).all())


def within(flow: FlowFields, keep: np.ndarray) -> FlowFields:
    return FlowFields(flow.edges[keep], flow.flow[keep], flow.visible[keep])


@pytest.mark.slow
def test_everything_gets_several_times_better(truth, start, clean) -> None:
    before, after = errors(start, truth), errors(clean, truth)
    assert (after < before / 3.5).all(), (before, after)
    assert (
        clean.diagnostics.terms["flow_error"] < 0.1 * clean.diagnostics.terms["flow_error_before"]
    )
    assert clean.diagnostics.terms["total"] == 1.0
    assert clean.diagnostics.notes == ()
    assert clean.depth.dtype == np.float32
    assert clean.T_world_camera.dtype == np.float64
    for name in ("confidence", "sigma_log_depth", "frame_quality"):
        assert getattr(clean, name) is getattr(start, name)


@pytest.mark.slow
def test_the_thread_count_is_that_of_the_caller(truth: Truth, start: Geometry) -> None:
    before, seen = torch.get_num_threads(), []

    def watch(*_: Any) -> None:
        seen.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        bundle_adjust(start, truth.images, truth.flow, progress=watch)
        assert set(seen) == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("adjust", [bundle_adjust, calibrated_bundle_adjust])
def test_any_number_of_threads_gives_the_same_bits(
    truth: Truth, start: Geometry, adjust: Callable[..., Geometry]
) -> None:
    with at_most(1):
        alone = adjust(start, truth.images, truth.flow)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = adjust(start, truth.images, truth.flow)
    finally:
        torch.set_num_threads(torch_threads)
    for name in ("T_world_camera", "K", "depth"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    assert alone.focal_sigma == together.focal_sigma


def test_progress_of_adjustments_side_by_side_never_falls() -> None:
    seen: list[int] = []
    adjustments = Adjustments(lambda _, done, total: seen.append(done), "any", 2)
    first, second = adjustments.one(), adjustments.one()
    first("a", 4, 10)
    second("b", 1, 10)
    first("a", 10, 10)
    adjustments.finished()
    assert seen == [20, 25, 55, 100]


@pytest.mark.slow
def test_what_was_given_is_not_changed(truth: Truth, start: Geometry) -> None:
    again = disturbed(truth)
    bundle_adjust(start, truth.images, truth.flow)
    for name in ("T_world_camera", "K", "depth"):
        np.testing.assert_array_equal(getattr(start, name), getattr(again, name))


@pytest.mark.slow
def test_a_strong_focal_prior_holds(truth: Truth) -> None:
    right = replace(disturbed(truth), K=truth.K)
    found = bundle_adjust(right, truth.images, truth.flow, options=RIGHT_MASKS)  # a strong prior
    before, after = errors(right, truth), errors(found, truth)
    assert (after < before / 3.5)[[0, 1, 3]].all(), (before, after)
    assert after[2] < 0.01


@pytest.mark.slow
def test_rotations_stay_rotations(clean: Geometry) -> None:
    R = clean.T_world_camera[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (8, 1, 1)), atol=1e-9)
    np.testing.assert_array_equal(clean.T_world_camera[:, 3], np.tile([0, 0, 0, 1], (8, 1)))


@pytest.mark.slow
def test_flow_in_one_direction_without_visibility_suffices(truth: Truth, start: Geometry) -> None:
    # exact where it leaves the picture too
    forward = truth.flow.edges[:, 0] < truth.flow.edges[:, 1]
    flow = FlowFields(truth.flow.edges[forward], truth.flow.flow[forward])
    found = bundle_adjust(start, truth.images, flow, options=OPEN)
    assert (errors(found, truth) < errors(start, truth) / 2)[:3].all()


@pytest.mark.slow
def test_a_camera_that_only_rotates(truth: Truth) -> None:
    T = path(8, move=0.0, turn=0.15)
    still = made_up(T=T)
    depth = wrong_depth(still.depth)
    found = bundle_adjust(alignment_of(turned(T, 1.5, 1), still.K, depth), still.images, still.flow)
    assert turn_error(found.T_world_camera, still) < 0.2
    assert turn_error(turned(T, 1.5, 1), still) > 1
    # flow determines neither translation nor depth
    assert np.abs(found.T_world_camera[:, :3, 3]).max() < 0.05 * 4
    change = np.abs(np.log(found.depth / depth))
    assert change.mean() < 0.1
    assert change.max() < BundleAdjustmentOptions().depth_sigma
    assert focal_error(found.K, still) < 0.02


@pytest.mark.slow
def test_without_parallax_priors_are_not_inflated(truth: Truth) -> None:
    T = path(8, move=0.0, turn=0.15)
    still = made_up(T=T)
    given = alignment_of(turned(T, 1.5, 1), still.K, wrong_depth(still.depth))
    tight = bundle_adjust(
        given, still.images, still.flow, options=BundleAdjustmentOptions(prior_inflation=1.0)
    )
    found = bundle_adjust(given, still.images, still.flow)
    # no prior is inflated: exactly the same
    np.testing.assert_array_equal(found.T_world_camera, tight.T_world_camera)
    np.testing.assert_array_equal(found.depth, tight.depth)


@pytest.mark.slow
def test_with_parallax_priors_are_inflated(truth: Truth, start: Geometry) -> None:
    """A wrong focal length with a strong prior, and wrong depth everywhere."""
    tight = bundle_adjust(
        start, truth.images, truth.flow, options=BundleAdjustmentOptions(prior_inflation=1.0)
    )
    found = bundle_adjust(start, truth.images, truth.flow)
    assert (errors(found, truth) < errors(tight, truth))[:3].all()
    assert focal_error(found.K, truth) < 0.6 * focal_error(tight.K, truth)


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "power"), [(0.0, 2), (25.0, 3)])
def test_the_alternative_initialisation_leaves_a_wrong_minimum(
    truth: Truth, monkeypatch: pytest.MonkeyPatch, degrees: float, power: int
) -> None:
    """Bas-relief ambiguity: inverted depth and opposite camera motion."""
    T = turned(truth.T, degrees, 0)
    T[:, :3, 3] *= -1
    inside_out = alignment_of(T, truth.K, 4 * (4 / truth.depth) ** power)
    found = bundle_adjust(inside_out, truth.images, truth.flow)
    assert turn_error(found.T_world_camera, truth) < 0.3
    assert path_error(found.T_world_camera, truth) < 0.03
    assert focal_error(found.K, truth) < 0.05
    monkeypatch.setattr("dyn3r.bundle_adjustment.camera_solution.MIN_RELATIVE_IMPROVEMENT", 1.1)
    alone = bundle_adjust(inside_out, truth.images, truth.flow)
    assert turn_error(alone.T_world_camera, truth) > 3


@pytest.mark.slow
def test_known_cameras_are_kept_exactly(truth: Truth, start: Geometry) -> None:
    known = np.full((8, 4, 4), np.nan)
    known[2:5] = truth.T[2:5]
    T = start.T_world_camera.copy()
    T[2:5] = truth.T[2:5]
    given = replace(start, T_world_camera=T)
    priors = Priors(T_world_camera=known)
    found = bundle_adjust(given, truth.images, truth.flow, priors=priors, options=OPEN)
    np.testing.assert_array_equal(found.T_world_camera[2:5], truth.T[2:5])
    assert (found.T_world_camera[[0, 1, 5, 6, 7]] != T[[0, 1, 5, 6, 7]]).any((1, 2)).all()
    assert (errors(found, truth) < errors(given, truth) / 3)[[0, 1, 3]].all()
    # the unit of length is theirs
    assert abs(np.median(np.log(found.depth / truth.depth))) < 0.03
    loose = replace(priors, fix_T=False)
    freed = bundle_adjust(given, truth.images, truth.flow, priors=loose, options=OPEN)
    assert (freed.T_world_camera[2:5] != truth.T[2:5]).any((1, 2)).all()
    np.testing.assert_array_equal(freed.T_world_camera[0], given.T_world_camera[0])


@pytest.mark.slow
def test_with_all_cameras_known_depth_alone_gets_better(truth: Truth) -> None:
    given = alignment_of(truth.T, truth.K, wrong_depth(truth.depth))
    priors = Priors(T_world_camera=truth.T, K=truth.K)
    found = bundle_adjust(given, truth.images, truth.flow, priors=priors)
    np.testing.assert_array_equal(found.T_world_camera, truth.T)
    np.testing.assert_array_equal(found.K, truth.K)
    assert depth_error(found.depth, truth) < depth_error(given.depth, truth) / 5


@pytest.mark.slow
def test_a_known_focal_length_is_kept(truth: Truth, start: Geometry) -> None:
    priors = Priors(K=start.K)
    found = bundle_adjust(start, truth.images, truth.flow, priors=priors, options=OPEN)
    np.testing.assert_array_equal(found.K, start.K)
    loose = replace(priors, fix_K=False)
    freed = bundle_adjust(start, truth.images, truth.flow, priors=loose, options=OPEN)
    assert focal_error(freed.K, truth) < focal_error(start.K, truth) / 3


@pytest.mark.slow
def test_known_depth_is_kept_exactly(truth: Truth, start: Geometry) -> None:
    known = np.full(truth.depth.shape, np.nan, np.float32)
    known[1, :, :50] = truth.depth[1, :, :50]
    depth = np.where(np.isfinite(known), known, start.depth)
    given = replace(start, depth=depth)
    priors = Priors(depth=known)
    found = bundle_adjust(given, truth.images, truth.flow, priors=priors, options=OPEN)
    np.testing.assert_array_equal(found.depth[1, :, :50], known[1, :, :50])
    assert (found.depth[1, :, 50:] != depth[1, :, 50:]).mean() > 0.9
    # cameras are found in its unit
    assert abs(np.median(np.log(found.depth / truth.depth))) < 0.05


@pytest.mark.slow
def test_resuming_from_a_known_beginning(truth: Truth, start: Geometry) -> None:
    """Priors of a resumed run: cameras, K and depth of the first frames."""
    T, depth = truth.T.copy(), truth.depth.astype(np.float32)
    T[4:] = depth[4:] = np.nan
    K = truth.K.copy()
    K[4:] = np.nan
    given = replace(
        start,
        K=truth.K,
        T_world_camera=np.where(np.isfinite(T), T, start.T_world_camera),
        depth=np.where(np.isfinite(depth), depth, start.depth),
    )
    priors = Priors(K=K, T_world_camera=T, depth=depth)
    found = bundle_adjust(given, truth.images, truth.flow, priors=priors)
    np.testing.assert_array_equal(found.T_world_camera[:4], truth.T[:4])
    np.testing.assert_array_equal(found.depth[:4], depth[:4])
    np.testing.assert_array_equal(found.K, truth.K)
    shift = np.linalg.norm((found.T_world_camera - truth.T)[4:, :3, 3], axis=1)
    shift_before = np.linalg.norm((given.T_world_camera - truth.T)[4:, :3, 3], axis=1)
    assert shift.mean() < shift_before.mean() / 5
    assert np.abs(np.log(found.depth / truth.depth)[4:]).mean() < 0.03


def with_moving_object(truth: Truth, shift: float) -> tuple[FlowFields, np.ndarray]:
    """Flow with a square of wrong values, and a slightly larger mask; 12 % of the image."""
    flow, dynamic = truth.flow.flow.copy(), np.zeros(truth.depth.shape, bool)
    for row, (i, _j) in enumerate(truth.flow.edges):
        left = 10 + 6 * i
        flow[row, 20:47, left : left + 27] += shift
        dynamic[i, 18:49, left - 2 : left + 29] = True
    return replace(truth.flow, flow=flow), dynamic


@pytest.mark.slow
def test_flow_of_dynamic_pixels_has_no_weight(truth: Truth, start: Geometry) -> None:
    found = []
    for shift in (0.0, 5.0):
        flow, dynamic = with_moving_object(truth, shift)
        found.append(bundle_adjust(start, truth.images, flow, dynamic=dynamic, options=OPEN))
    still, moved = found
    np.testing.assert_array_equal(still.T_world_camera, moved.T_world_camera)
    np.testing.assert_array_equal(still.K, moved.K)
    np.testing.assert_allclose(still.depth, moved.depth, rtol=1e-5)
    assert (errors(moved, truth) < errors(start, truth) / 3).all()


@pytest.mark.slow
def test_outliers_have_little_weight(truth: Truth, start: Geometry, clean: Geometry) -> None:
    flow, _ = with_moving_object(truth, 5.0)
    found = bundle_adjust(start, truth.images, flow, options=OPEN)
    assert (errors(found, truth) < errors(start, truth) / 2)[:3].all()
    turns = [turn_error(found.T_world_camera, truth) for found in (start, found, clean)]
    assert turns[1] < turns[0] / 5
    assert turns[2] < turns[0] / 10


def test_no_visible_flow_changes_nothing_but_says_so(truth: Truth, start: Geometry) -> None:
    hidden = replace(truth.flow, visible=np.zeros_like(truth.flow.visible))
    none = within(truth.flow, np.zeros(len(truth.flow.edges), bool))
    everything = np.ones(truth.depth.shape, bool)
    for flow, dynamic in ((hidden, None), (none, None), (truth.flow, everything)):
        found = bundle_adjust(start, truth.images, flow, dynamic=dynamic)
        assert found.depth is start.depth
        assert found.T_world_camera is start.T_world_camera
        assert len(found.diagnostics.notes) == 1
        assert "too little flow" in found.diagnostics.notes[0]


@pytest.mark.slow
def test_a_frame_without_flow_stays_beside_the_one_before(truth: Truth, start: Geometry) -> None:
    flow = within(truth.flow, (truth.flow.edges != 3).all(1))
    found = bundle_adjust(start, truth.images, flow, options=OPEN)
    before, now = (np.linalg.inv(g.T_world_camera[2]) @ g.T_world_camera[3] for g in (start, found))
    np.testing.assert_allclose(now, before, atol=1e-9)
    (note,) = [note for note in found.diagnostics.notes if "joins" in note]
    assert note.startswith("no flow joins frame 3 to the others")
    np.testing.assert_allclose(found.depth[3], start.depth[3], rtol=1e-5)
    others = np.delete(np.arange(8), 3)
    part = Truth(truth.T[others], truth.K[others], truth.depth[others], truth.images, flow)
    gain = turn_error(start.T_world_camera[others], part) / turn_error(
        found.T_world_camera[others], part
    )
    assert gain > 3


@pytest.mark.slow
def test_components_that_no_pair_connects(truth: Truth, start: Geometry) -> None:
    flow = within(truth.flow, (truth.flow.edges[:, 0] < 4) == (truth.flow.edges[:, 1] < 4))
    right = replace(start, K=truth.K)
    found = bundle_adjust(right, truth.images, flow)
    assert finite(found)
    for a in (0, 4):

        def own(T: np.ndarray, first: int = a) -> np.ndarray:
            """In the system of the part's first camera."""
            return np.linalg.inv(T[first]) @ T[first : first + 4]

        few = slice(a, a + 4)
        part = Truth(own(truth.T), truth.K[few], truth.depth[few], truth.images, flow)
        before, after = (turn_error(own(x.T_world_camera), part) for x in (right, found))
        assert after < before / 2
    # the second part has not run away
    assert np.abs(found.T_world_camera - start.T_world_camera)[:, :3, 3].max() < 0.5


@pytest.mark.slow
def test_three_frames() -> None:
    three = made_up(3, T=path(3, move=0.4))
    given = replace(disturbed(three), K=three.K)
    found = bundle_adjust(given, three.images, three.flow)
    before, after = errors(given, three), errors(found, three)
    assert (after < before / 1.5)[[0, 1, 3]].all(), (before, after)


def test_one_frame_comes_back() -> None:
    one = made_up(1)
    found = bundle_adjust(disturbed(one), one.images, one.flow)
    np.testing.assert_array_equal(found.T_world_camera, one.T)
    assert finite(found)


@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=pytest.mark.slow) for k in ("noise", "huge", "holes")), "nan"]
)
def test_garbage_gives_numbers(truth: Truth, start: Geometry, kind: str) -> None:
    random = np.random.default_rng(0)
    flow = truth.flow.flow.copy()
    if kind == "noise":
        flow = random.normal(0, 50, flow.shape).astype(np.float32)
    elif kind == "huge":
        flow[:] = 1e9
    elif kind == "holes":
        flow[random.random(flow.shape) < 0.02] = np.nan
        flow[random.random(flow.shape) < 0.02] = np.inf
    else:
        flow[:] = np.nan
    given = FlowFields(truth.flow.edges, flow, truth.flow.visible if kind == "holes" else None)
    found = bundle_adjust(start, truth.images, given, options=OPEN)
    assert finite(found)
    if kind == "nan":
        assert "too little flow" in found.diagnostics.notes[0]
    if kind == "holes":
        assert (errors(found, truth) < errors(start, truth) / 2)[[0, 1, 3]].all()


@pytest.mark.slow
def test_flow_without_texture_has_little_weight(truth: Truth, start: Geometry) -> None:
    plain = np.full_like(truth.images, 128)
    found = bundle_adjust(start, plain, truth.flow)
    assert finite(found)
    # a hundred pixels' standard error: the priors hold
    assert np.abs(np.log(found.depth / start.depth)).mean() < 0.02


@pytest.mark.slow
def test_size_that_the_grid_does_not_fit(truth: Truth) -> None:
    odd = made_up(4, (53, 75))
    given = replace(disturbed(odd), K=odd.K)
    found = bundle_adjust(given, odd.images, odd.flow, options=RIGHT_MASKS)
    assert found.depth.shape == (4, 53, 75)
    assert (errors(found, odd) < errors(given, odd) / 2)[[0, 3]].all()


@pytest.mark.slow
def test_progress_ends_where_it_should(truth: Truth, start: Geometry) -> None:
    calls: list[tuple[str, int, int]] = []
    bundle_adjust(start, truth.images, truth.flow, progress=lambda *c: calls.append(c))
    for stage in {c[0] for c in calls}:
        done = [c[1] for c in calls if c[0] == stage]
        total = {c[2] for c in calls if c[0] == stage}
        assert done == sorted(done)
        assert total == {done[-1]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth_sigma", 0.0), ("focal_sigma", float("nan")), ("focal_sigma", -0.1),
        ("focal_sigma", float("inf")), ("mask_margin", -0.1), ("mask_margin", 1.1),
        ("prior_inflation", 0.5), ("iterations", 0),
    ],
)  # fmt: skip
def test_bad_numbers_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        BundleAdjustmentOptions(**{name: value})


def test_the_focal_prior_is_that_of_300_measurements() -> None:
    assert BundleAdjustmentOptions().focal_sigma == 0.3 / 300.0**0.5


@pytest.mark.slow
def test_the_mask_margin_excludes_flow_beside_moving_objects(truth: Truth, start: Geometry) -> None:
    """Beside a mask, smooth flow is that of the moving object."""
    assert BundleAdjustmentOptions(mask_margin=0.0).mask_margin == 0
    dynamic = np.zeros(truth.depth.shape, bool)
    dynamic[:, 16:48, 20:60] = True
    dragged = np.zeros(dynamic.shape[1:], bool)
    dragged[12:52, 16:64] = True
    flow = truth.flow.flow.copy()
    for field, (i, j) in zip(flow, truth.flow.edges):
        field[dragged] += 1.5 * (j - i) * np.array([1.0, 0.4])
    bled = replace(truth.flow, flow=flow)

    def wrong(margin: float) -> np.ndarray:
        options = BundleAdjustmentOptions(focal_sigma=0.3, mask_margin=margin)
        found = bundle_adjust(start, truth.images, bled, dynamic=dynamic, options=options)
        return errors(found, truth)[:2]

    assert (wrong(0.06) < 0.7 * wrong(0.0)).all()
