"""The live page without a browser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyn3r.errors import InputError
from dyn3r.viewer import LiveOptions, LiveViewer
from dyn3r.viewer.voxels import VoxelTable
from tests.factories import tiny_scene


def frames(n: int = 4):
    scene = tiny_scene(n=n)
    for t in range(n):
        yield (
            float(scene.times_s[t]),
            torch.from_numpy(scene.images[t]).permute(2, 0, 1).float() / 255,
            torch.from_numpy(scene.depth[t]),
            torch.from_numpy(scene.K[t]),
            torch.from_numpy(scene.T_world_camera[t]),
            torch.from_numpy(scene.dynamic[t]),
            torch.from_numpy(scene.confidence[t]),
        )


@pytest.fixture
def live():
    viewer = LiveViewer(port=0, options=LiveOptions(points_per_frame=500, keep_frames=3))
    yield viewer
    viewer.stop()


def test_frames_are_added_and_old_ones_removed(live):
    for frame in frames(5):
        live.add_frame(*frame)
    assert live.num_frames == 5
    names = set(live.server.scene._handle_from_node_name)
    assert {"/moving/2", "/moving/3", "/moving/4"} <= names
    assert not {"/moving/0", "/moving/1", "/background/0", "/cameras/1"} & names
    assert [f.moving.visible for f in live._frames] == [False, False, True]
    assert live._slider.value == 4
    live.finish()
    assert live._status.value == "finished: 5 frames"


def test_points_lie_at_their_depth(live):
    first = next(frames(1))
    live.add_frame(*first)
    moving = live._frames[0].moving
    world = moving.points.astype(float) * moving.scale + moving.position
    np.testing.assert_allclose(world[:, 2], 2.5, atol=0.002)
    assert (moving.colors == (250, 20, 20)).all()


def test_only_points_in_new_voxels_are_sent(live):
    first = next(frames(1))
    for _ in range(2):
        live.add_frame(*first)
    assert len(live._frames[0].background.points) > 100
    assert len(live._frames[1].background.points) == 1  # the placeholder of an empty cloud


def test_without_mask_and_confidence_everything_is_background(live):
    time_s, image, depth, K, T, _, _ = next(frames(1))
    live.add_frame(time_s, image.half(), depth.double(), K, T)
    assert len(live._frames[0].moving.points) == 1
    assert len(live._frames[0].background.points) > 100


def test_frames_without_depth_are_accepted(live):
    time_s, image, depth, K, T, _, _ = next(frames(1))
    live.add_frame(time_s, image, depth * float("nan"), K, T)
    live.add_frame(time_s, image, depth * 0, K, T)
    assert live.num_frames == 2


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (1, torch.zeros(3, 8, 8), "image"),
        (2, torch.zeros(32), "depth"),
        (3, torch.full((3, 3), float("nan")), "finite"),
        (4, torch.eye(3), "4x4"),
        (5, torch.zeros(8, 8, dtype=torch.bool), "mask"),
    ],
)
def test_frames_that_do_not_fit_are_refused(live, place, value, match):
    frame = list(next(frames(1)))
    frame[place] = value
    with pytest.raises(InputError, match=match):
        live.add_frame(*frame)
    assert live.num_frames == 0


def test_options_are_checked():
    with pytest.raises(InputError):
        LiveOptions(keep_frames=0)
    with pytest.raises(InputError):
        LiveOptions(drop=1.5)


def test_frames_after_stop_are_ignored():
    viewer = LiveViewer(port=0)
    viewer.stop()
    viewer.add_frame(*next(frames(1)))
    viewer.stop()
    assert viewer.num_frames == 0


def test_voxels_take_one_point_each_and_can_be_freed():
    table = VoxelTable(0.5)
    points = np.array([[0.1, 0, 0], [0.2, 0, 0], [0.6, 0, 0], [-0.1, 0, 0]])
    new, slots = table.insert(points)
    assert new.tolist() == [True, False, True, True]
    assert not table.insert(points)[0].any()
    table.remove(slots)
    assert table.insert(points)[0].sum() == 3
