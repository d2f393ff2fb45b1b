"""Ground correction for cameras that only rotate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dyn3r.bundle_adjustment import correct_ground_tilt, is_rotation_only
from dyn3r.types import Geometry
from tests.bundle_adjustment.made_up import alignment_of
from tests.rooms import Room, room


def start_of(seen: Room, depth: np.ndarray) -> Geometry:
    return alignment_of(seen.T_world_camera, seen.K, depth.astype(np.float32))


def spoilt(seen: Room, share: float) -> np.ndarray:
    """Depth with a share of the smallest inverse depth subtracted everywhere."""
    inverse = 1 / seen.depth
    return np.asarray(1 / (inverse - share * inverse.min()), dtype=np.float32)


def wrong(found: Geometry, seen: Room) -> float:
    ratio = found.depth / seen.depth
    return float(np.abs(ratio / np.median(ratio) - 1).mean())


def test_missing_disparity_is_restored() -> None:
    seen = room()
    before = start_of(seen, spoilt(seen, 0.7))
    after = correct_ground_tilt(before, seen.images)
    assert wrong(after, seen) < 0.4 * wrong(before, seen)
    assert np.median(after.depth) == pytest.approx(np.median(before.depth), rel=1e-5)
    assert after.T_world_camera is before.T_world_camera
    assert "level" in after.diagnostics.notes[-1]
    assert after.depth.dtype == np.float32
    np.testing.assert_array_equal(before.depth, spoilt(seen, 0.7))


def test_correct_depth_is_kept() -> None:
    seen = room()
    before = start_of(seen, seen.depth)
    assert correct_ground_tilt(before, seen.images) is before


def test_disparity_is_never_reduced() -> None:
    seen = room()
    inverse = 1 / seen.depth
    before = start_of(seen, 1 / (inverse + 0.5 * np.median(inverse)))
    assert correct_ground_tilt(before, seen.images) is before


@pytest.mark.parametrize("why", ["no edges", "a wide rotation", "all dynamic", "unknown"])
def test_an_undetermined_shift_changes_nothing(why: str) -> None:
    seen = room(yaws_deg=(-80, 0, 80) if why == "a wide rotation" else (-10, 10))
    before = start_of(seen, spoilt(seen, 0.7))
    images, dynamic = seen.images, np.zeros(seen.depth.shape, bool)
    if why == "no edges":
        images = np.full_like(images, 90)
    if why == "all dynamic":
        dynamic[:] = True
    if why == "unknown":
        before = replace(before, depth=np.zeros_like(before.depth))
    assert correct_ground_tilt(before, images, dynamic) is before


def test_rotation_only_is_a_parallax_below_the_limit() -> None:
    seen = room()
    unknown = start_of(seen, seen.depth)
    assert not is_rotation_only(unknown)
    assert is_rotation_only(replace(unknown, parallax=0.02))
    assert not is_rotation_only(replace(unknown, parallax=0.5))
