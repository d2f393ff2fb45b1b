"""The calibrated adjustment on scenes whose noise, depth errors and cameras are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment import (
    bundle_adjust,
    calibrated_bundle_adjust,
    is_rotation_only,
    stated_focal,
)
from dyn3r.bundle_adjustment.calibrated import (
    comparable_costs,
    neighbouring_pairs,
    prior_counted_once,
)
from dyn3r.bundle_adjustment.noise import with_estimated_noise
from dyn3r.bundle_adjustment.solver import Solution, minimise
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.types import FlowFields, Geometry, Priors
from tests.bundle_adjustment.made_up import (
    Truth,
    alignment_of,
    bent,
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
from tests.bundle_adjustment.test_solve import problem_of


@pytest.fixture(scope="module")
def truth() -> Truth:
    return made_up()


@pytest.fixture(scope="module")
def found(truth: Truth) -> Geometry:
    return calibrated_bundle_adjust(disturbed(truth), truth.images, truth.flow)


@pytest.mark.slow
def test_cameras_focal_length_and_depth(truth: Truth, found: Geometry) -> None:
    start = disturbed(truth)
    assert turn_error(found.T_world_camera, truth) < 0.1 * turn_error(start.T_world_camera, truth)
    assert path_error(found.T_world_camera, truth) < 0.2 * path_error(start.T_world_camera, truth)
    assert focal_error(found.K, truth) < 0.02  # 0.14 before
    assert depth_error(found.depth, truth) < 0.5 * depth_error(start.depth, truth)
    assert not is_rotation_only(found)


@pytest.mark.slow
def test_one_frame_that_the_alignment_lost_is_found(truth: Truth) -> None:
    """The last two cameras look away by 40 degrees; the pairs between still say how they turned."""
    lost = disturbed(truth)
    T = lost.T_world_camera.copy()
    a = np.radians(40)
    away = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    T[-2:, :3, :3] = T[-2:, :3, :3] @ away
    found = calibrated_bundle_adjust(replace(lost, T_world_camera=T), truth.images, truth.flow)
    assert turn_error(T, truth) > 9
    assert turn_error(found.T_world_camera, truth) < 0.2


@pytest.mark.slow
def test_pairs_that_see_different_places_are_left_out(truth: Truth) -> None:
    """Their flow passes the round-trip test by chance, on some pixels."""
    random = np.random.default_rng(0)
    flow, visible = truth.flow.flow.copy(), truth.flow.visible.copy()
    far = np.abs(truth.flow.edges[:, 0] - truth.flow.edges[:, 1]) >= 3
    flow[far] = random.uniform(-40, 40, flow[far].shape)
    visible[far] = random.random(visible[far].shape) < 0.15
    broken = FlowFields(truth.flow.edges, flow, visible)
    without = FlowFields(truth.flow.edges[~far], flow[~far], visible[~far])
    found, wanted = (
        calibrated_bundle_adjust(disturbed(truth), truth.images, given)
        for given in (broken, without)
    )
    np.testing.assert_array_equal(found.T_world_camera, wanted.T_world_camera)
    assert turn_error(found.T_world_camera, truth) < 0.6


@pytest.mark.slow
def test_without_translation_depth_is_kept_and_the_focal_length_found() -> None:
    T = path(8, move=0.0, turn=0.15)
    still = made_up(T=T)
    K = still.K.copy()
    K[:, [0, 1], [0, 1]] *= 1.15
    given = alignment_of(turned(T, 1.5, 1), K, wrong_depth(still.depth))
    found = calibrated_bundle_adjust(given, still.images, still.flow)
    assert is_rotation_only(found)
    assert turn_error(found.T_world_camera, still) < 0.2
    assert focal_error(found.K, still) < 0.02
    np.testing.assert_allclose(found.depth, given.depth, rtol=1e-3)
    centres = found.T_world_camera[:, :3, 3]
    np.testing.assert_allclose(centres, np.tile(given.T_world_camera[0, :3, 3], (8, 1)), atol=1e-9)


@pytest.mark.slow
def test_smooth_errors_of_depth_are_removed_where_flow_does_not_see(truth: Truth) -> None:
    """Depth is tilted by a factor of 1.5 from side to side; half of each frame has no flow."""
    h, w = truth.depth.shape[1:]
    tilt = np.exp(0.2 * np.cos(np.pi * (np.arange(w) + 0.5) / w))
    given = alignment_of(truth.T, truth.K, truth.depth * tilt)
    visible = truth.flow.visible.copy()
    visible[:, : h // 2] = False
    flow = FlowFields(truth.flow.edges, truth.flow.flow, visible)
    found = calibrated_bundle_adjust(given, truth.images, flow)
    unseen = np.s_[:, : h // 4]
    before = depth_error(given.depth[unseen], replace(truth, depth=truth.depth[unseen]))
    after = depth_error(found.depth[unseen], replace(truth, depth=truth.depth[unseen]))
    assert after < 0.5 * before


@pytest.mark.slow
def test_known_values_are_kept(truth: Truth) -> None:
    start, known = disturbed(truth), np.full((8, 4, 4), np.nan)
    known[[0, 3, 7]] = truth.T[[0, 3, 7]]
    depth = np.where(np.arange(96) < 20, truth.depth, np.nan).astype(np.float32)
    given = replace(
        start,
        T_world_camera=np.where(np.isfinite(known), known, start.T_world_camera),
        K=truth.K,
        depth=np.where(np.isfinite(depth), depth, start.depth).astype(np.float32),
    )
    priors = Priors(T_world_camera=known, K=truth.K, depth=depth)
    found = calibrated_bundle_adjust(given, truth.images, truth.flow, priors=priors)
    np.testing.assert_array_equal(found.T_world_camera[[0, 3, 7]], known[[0, 3, 7]])
    np.testing.assert_allclose(found.K, truth.K)
    np.testing.assert_array_equal(found.depth[..., :20], depth[..., :20])
    assert turn_error(found.T_world_camera, truth) < 0.2


@pytest.mark.slow
def test_standard_errors_that_the_geometry_states_are_used(truth: Truth, found: Geometry) -> None:
    stated = replace(disturbed(truth), depth_sigma=1e-4, focal_sigma=1e-4)
    kept = calibrated_bundle_adjust(stated, truth.images, truth.flow)
    np.testing.assert_allclose(kept.depth, stated.depth, rtol=2e-3)
    np.testing.assert_allclose(kept.K, stated.K, rtol=2e-3)
    assert np.abs(np.log(found.depth / stated.depth)).max() > 0.1


def test_the_likelier_solution_costs_less() -> None:
    """Its noise is smaller. At noise of their own, the sums of squares alone would be equal."""
    problem, start = problem_of(made_up(4, (48, 64)), 60)
    good = minimise(problem, start)
    bad = replace(good, estimate=replace(good.estimate, log_depth=good.estimate.log_depth + 0.3))
    solutions = [(with_estimated_noise(problem, s.estimate), s) for s in (good, bad)]
    first, second = comparable_costs(solutions)
    assert first < second


def test_neighbouring_pairs_are_the_nearest_of_each_frame() -> None:
    problem, _ = problem_of(made_up(5, (32, 48), graph="swinstride-3-noncyclic"), 8)
    for i, m in enumerate(neighbouring_pairs(problem).measurements):
        assert sorted(m.target.tolist()) == [j for j in (i - 1, i + 1) if 0 <= j < 5]
        assert len(m.uv) == len(m.source) == len(m.whiten) == len(m.weight)


def test_the_prior_counts_once_for_a_surface() -> None:
    problem, _ = problem_of(made_up(4, (32, 48)), 8)
    seen = torch.stack([(m.weight > 0).sum(0).double().mean() for m in problem.measurements])
    once = prior_counted_once(problem).prior
    torch.testing.assert_close(once.variance, problem.prior.variance * (1 + float(seen.mean())))


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.5, 1, 2, 4])
def test_bent_images_are_refused_or_do_no_harm(truth: Truth, size: float) -> None:
    """Smooth distortions of each image, up to 4 % of its width."""
    start = disturbed(truth)
    result = calibrated_bundle_adjust(start, truth.images, bent(truth, size))
    refused = result.parallax is None
    if refused:
        assert (result.T_world_camera == start.T_world_camera).all()
        assert any("agree with flow" in note for note in result.diagnostics.notes)
    assert refused == (size >= 2)
    errors = [turn_error(T, truth) for T in (result.T_world_camera, start.T_world_camera)]
    assert errors[0] < errors[1] + 0.2


@pytest.mark.slow
def test_flow_between_pictures_of_noise_is_refused(truth: Truth) -> None:
    start, rng = disturbed(truth), np.random.default_rng(0)
    noise = rng.integers(0, 256, truth.images.shape, np.uint8)
    flow = measure_flow(noise, truth.flow.edges, flow_estimator("aligned-dis"))
    result = calibrated_bundle_adjust(start, noise, flow)
    assert result.parallax is None
    assert (result.T_world_camera == start.T_world_camera).all()
    assert any("random" in note for note in result.diagnostics.notes)


@pytest.mark.slow
def test_known_cameras_and_flow_that_states_its_errors_are_never_refused(truth: Truth) -> None:
    start, flow = disturbed(truth), bent(truth, 4)
    known = calibrated_bundle_adjust(
        replace(start, T_world_camera=truth.T), truth.images, flow,
        priors=Priors(T_world_camera=truth.T),
    )  # fmt: skip
    assert known.parallax is not None
    stated = np.zeros((*flow.flow.shape[:3], 3), np.float32)
    honest = calibrated_bundle_adjust(start, truth.images, replace(flow, whitening=stated))
    assert honest.parallax is not None


@pytest.mark.slow
@pytest.mark.parametrize("blind", [[4], [5, 6, 7], [0]], ids=["one", "a whole shot", "the first"])
def test_frames_that_no_flow_joins_stay_beside_the_others(truth: Truth, blind: list[int]) -> None:
    start, edges = disturbed(truth), truth.flow.edges
    apart = np.isin(edges[:, 0], blind) != np.isin(edges[:, 1], blind)
    flow = replace(truth.flow, visible=truth.flow.visible & ~apart[:, None, None])
    found = calibrated_bundle_adjust(start, truth.images, flow)
    assert found.parallax is not None
    frame = blind[0]
    beside = frame - 1 if frame else 1
    first, second = (beside, frame) if frame else (0, beside)
    before, now = (
        np.linalg.inv(g.T_world_camera[first]) @ g.T_world_camera[second] for g in (start, found)
    )
    np.testing.assert_allclose(now, before, atol=1e-6)
    (note,) = [note for note in found.diagnostics.notes if "joins" in note]
    lost = blind if frame else range(1, len(truth.T))
    assert ", ".join(map(str, lost)) in note


@pytest.mark.slow
def test_identical_images_have_no_parallax(truth: Truth) -> None:
    start = disturbed(truth)
    images = np.repeat(truth.images[:1], len(truth.images), 0)
    flow = replace(
        truth.flow, flow=np.zeros_like(truth.flow.flow), visible=np.ones_like(truth.flow.visible)
    )
    found = calibrated_bundle_adjust(start, images, flow)
    assert found.parallax == 0
    assert is_rotation_only(found)
    assert is_rotation_only(bundle_adjust(start, images, flow))


@pytest.mark.slow
def test_a_refused_solution_leaves_no_error_of_the_focal_length(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Solution, "fits_better", property(lambda _: False))
    found = calibrated_bundle_adjust(disturbed(truth), truth.images, truth.flow)
    assert found.parallax is None
    assert found.focal_sigma is None
    assert "contradict each other" in found.diagnostics.notes[-1]


def test_frames_without_known_intrinsics_do_not_hide_a_contradiction(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adjust(geometry: Geometry, **_: object) -> Geometry:
        return replace(geometry, K=geometry.K * np.array([[1.5], [1.5], [1]]), focal_sigma=0.02)

    monkeypatch.setattr(stated_focal, "calibrated_bundle_adjust", adjust)
    K = truth.K.copy()
    K[2] = np.nan
    start = disturbed(truth)
    found = stated_focal.adjust_with_stated_focal(
        replace(start, K=truth.K), truth.images, truth.flow, priors=Priors(K=K, focal_sigma=0.05),
        dynamic=np.zeros(truth.depth.shape, bool),
    )  # fmt: skip
    assert "flow contradicts the stated focal length" in found.diagnostics.notes[-1]
