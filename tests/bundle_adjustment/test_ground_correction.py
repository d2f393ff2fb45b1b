"""Relief of a camera that only turns, made weaker until the ground is level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dyn3r.bundle_adjustment import level_ground, only_turns
from dyn3r.types import Geometry
from tests.bundle.made_up import alignment_of
from tests.rooms import Room, room


def start_of(seen: Room, depth: np.ndarray) -> Geometry:
    return alignment_of(seen.T_world_camera, seen.K, depth.astype(np.float32))


def spoilt(seen: Room, share: float) -> np.ndarray:
    """Relief too strong: a share of the least inverse depth is missing everywhere."""
    inverse = 1 / seen.depth
    return np.asarray(1 / (inverse - share * inverse.min()), dtype=np.float32)


def wrong(found: Geometry, seen: Room) -> float:
    ratio = found.depth / seen.depth
    return float(np.abs(ratio / np.median(ratio) - 1).mean())


def test_relief_that_is_too_strong_becomes_weaker() -> None:
    seen = room()
    before = start_of(seen, spoilt(seen, 0.7))
    after = level_ground(before, seen.images)
    assert wrong(after, seen) < 0.4 * wrong(before, seen)
    assert np.median(after.depth) == pytest.approx(np.median(before.depth), rel=1e-5)
    assert after.T_world_camera is before.T_world_camera
    assert "level" in after.warnings[-1]
    assert after.depth.dtype == np.float32
    np.testing.assert_array_equal(before.depth, spoilt(seen, 0.7))


def test_depth_that_is_right_stays() -> None:
    seen = room()
    before = start_of(seen, seen.depth)
    assert level_ground(before, seen.images) is before


def test_relief_never_becomes_stronger() -> None:
    seen = room()
    inverse = 1 / seen.depth
    before = start_of(seen, 1 / (inverse + 0.5 * np.median(inverse)))
    assert level_ground(before, seen.images) is before


@pytest.mark.parametrize("why", ["no edges", "a wide turn", "all moves", "unknown"])
def test_where_nothing_can_be_said_nothing_changes(why: str) -> None:
    seen = room(yaws_deg=(-80, 0, 80) if why == "a wide turn" else (-10, 10))
    before = start_of(seen, spoilt(seen, 0.7))
    images, moving = seen.images, np.zeros(seen.depth.shape, bool)
    if why == "no edges":
        images = np.full_like(images, 90)
    if why == "all moves":
        moving[:] = True
    if why == "unknown":
        before = replace(before, depth=np.zeros_like(before.depth))
    assert level_ground(before, images, moving) is before


def test_only_turns_is_what_the_adjustment_says() -> None:
    seen = room()
    unasked = start_of(seen, seen.depth)
    assert not only_turns(unasked)
    assert only_turns(replace(unasked, terms={"parallax": 0.02}))
    assert not only_turns(replace(unasked, terms={"parallax": 0.5}))
