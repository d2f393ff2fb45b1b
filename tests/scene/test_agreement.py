"""Colours that the frames agree on; ghosts of moving objects."""

from __future__ import annotations

import numpy as np

from dyn3r.scene import Scene
from dyn3r.scene.agreement import agreement
from tests.factories import tiny_scene

GREY = (90, 90, 90)


def wall(n: int = 7, **changes) -> Scene:
    """A grey wall at depth 4; the camera stands still."""
    T = np.tile(np.eye(4), (n, 1, 1))
    images = np.full((n, 32, 48, 3), 90, np.uint8)
    fields = {
        "images": images, "depth": np.full((n, 32, 48), 4.0), "T_world_camera": T,
        "dynamic": np.zeros((n, 32, 48), bool), "confidence": np.ones((n, 32, 48)),
    }  # fmt: skip
    return tiny_scene(n=n, **(fields | changes))


PIXELS = np.arange(32 * 48)


def test_a_ghost_on_the_wall_gets_dropped_and_the_others_keep_the_wall():
    images = wall().images.copy()
    images[3, 10:14, 20:26] = (250, 20, 20)  # a moving object that its mask misses in frame 3
    ghost = np.zeros((32, 48), bool)
    ghost[10:14, 20:26] = True
    found = agreement(wall(images=images), 3, PIXELS)
    np.testing.assert_array_equal(found.kept, ~ghost.ravel())
    np.testing.assert_array_equal(found.colors, np.tile(GREY, (32 * 48, 1)))
    assert agreement(wall(images=images), 2, PIXELS).kept.all()


def test_what_most_frames_see_through_gets_dropped():
    depth = wall().depth.copy()
    depth[3, 5, 5] = 2.0
    found = agreement(wall(depth=depth), 3, PIXELS)
    assert np.flatnonzero(~found.kept).tolist() == [5 * 48 + 5]


def test_what_one_frame_alone_sees_stays():
    depth = wall().depth.copy()
    depth[:3], depth[4:] = 0, 0
    images = np.random.default_rng(0).integers(0, 255, (7, 32, 48, 3), dtype=np.uint8)
    scene = wall(depth=depth, images=images)
    found = agreement(scene, 3, PIXELS)
    assert found.kept.all()
    np.testing.assert_array_equal(found.colors, images[3].reshape(-1, 3))
    assert len(agreement(scene, 3, PIXELS[:0]).kept) == 0


def test_colours_are_medians_of_the_frames_that_see_the_surface():
    images = wall(n=5).images.copy()
    images[:, 0, 0] = [[10, 0, 0], [20, 0, 0], [30, 0, 0], [40, 0, 0], [50, 0, 0]]
    dynamic = np.zeros((5, 32, 48), bool)
    dynamic[0, 0, 0] = True  # does not count: the median of 20, 30, 40, 50 is 30
    found = agreement(wall(n=5, images=images, dynamic=dynamic), 4, PIXELS[:1])
    assert found.colors.tolist() == [[30, 0, 0]]
