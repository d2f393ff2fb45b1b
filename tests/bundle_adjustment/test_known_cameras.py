"""Known cameras replace those of the alignment; flow says how far away everything is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dyn3r.bundle_adjustment import known_throughout, with_known_cameras
from dyn3r.types import Geometry, Priors
from tests.bundle_adjustment.made_up import Truth, alignment_of, made_up

IMAGES = np.random.default_rng(1).integers(0, 255, (6, 64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return made_up(6, graph="swin-2-noncyclic")


def free(truth: Truth, unit: float) -> Geometry:
    """An alignment whose cameras go the other way, in a unit of its own."""
    T = truth.T.copy()
    T[:, :3, 3] *= -unit
    return alignment_of(T, truth.K, truth.depth * unit)


@pytest.mark.parametrize("metres", [1.0, 1000.0, 0.01])
@pytest.mark.parametrize("unit", [1.0, 0.02])
def test_depth_has_the_unit_of_the_known_cameras(truth: Truth, unit: float, metres: float) -> None:
    T = truth.T.copy()
    T[:, :3, 3] *= metres
    found = with_known_cameras(
        free(truth, unit), IMAGES, truth.flow, dynamic=None, priors=Priors(T_world_camera=T)
    )
    np.testing.assert_array_equal(found.T_world_camera, T)
    ratio = found.depth / (truth.depth * metres)
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.ptp(ratio) < 1e-4 * np.median(ratio)  # one factor


def test_moving_objects_do_not_decide(truth: Truth) -> None:
    """20 % of the picture moves with the camera."""
    flow = truth.flow.flow.copy()
    flow[:, :30, :42] = 0
    found = with_known_cameras(
        free(truth, 1.0), IMAGES, replace(truth.flow, flow=flow), dynamic=None,
        priors=Priors(T_world_camera=truth.T),
    )  # fmt: skip
    assert 0.8 < np.median(found.depth / truth.depth) < 1.25


def test_cameras_at_one_place_leave_depth_alone(truth: Truth) -> None:
    T = truth.T.copy()
    T[:, :3, 3] = 3.0
    start = free(truth, 1.0)
    found = with_known_cameras(
        start, IMAGES, truth.flow, dynamic=None, priors=Priors(T_world_camera=T)
    )
    np.testing.assert_array_equal(found.T_world_camera, T)
    np.testing.assert_array_equal(found.depth, start.depth)


def test_nothing_changes_unless_all_cameras_are_fixed_and_depth_is_not(truth: Truth) -> None:
    partly = truth.T.copy()
    partly[2] = np.nan
    start, shape = free(truth, 1.0), truth.depth.shape
    for priors in (
        Priors(),
        Priors(T_world_camera=partly),
        Priors(T_world_camera=truth.T, fix_T=False),
        Priors(T_world_camera=truth.T, depth=truth.depth),
    ):
        assert not known_throughout(priors, shape)
        found = with_known_cameras(start, IMAGES, truth.flow, dynamic=None, priors=priors)
        assert found is start
    assert known_throughout(Priors(T_world_camera=truth.T), shape)


@pytest.mark.parametrize("why", ["nothing is visible", "everything moves"])
def test_without_flow_depth_keeps_its_unit_and_a_note_says_so(truth: Truth, why: str) -> None:
    start, flow, dynamic = free(truth, 1.0), truth.flow, np.zeros(truth.depth.shape, bool)
    if why == "everything moves":
        dynamic[:] = True
    else:
        flow = replace(flow, visible=np.zeros_like(flow.visible))
    found = with_known_cameras(
        start, IMAGES, flow, dynamic=dynamic, priors=Priors(T_world_camera=truth.T)
    )
    np.testing.assert_array_equal(found.T_world_camera, truth.T)
    np.testing.assert_array_equal(found.depth, start.depth)
    assert "unit of depth" in found.diagnostics.notes[-1]
