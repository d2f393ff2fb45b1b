from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.viewer import view
from dyn3r.viewer.app import free_port
from dyn3r.viewer.plan import (
    Clock,
    camera_path_segments,
    camera_segments,
    plan_clouds,
    plan_playback,
)
from dyn3r.viewer.stage import quat_wxyz
from tests.factories import tiny_scene


def test_importing_the_viewer_loads_no_server_and_no_algorithm():
    code = (
        "import sys, dyn3r.viewer, dyn3r.viewer.app; "
        "bad = [m for m in sys.modules if m == 'viser' or m.startswith(('dyn3r.alignment', "
        "'dyn3r.network', 'dyn3r.motion', 'dyn3r.training', 'dyn3r.geometry'))]; "
        "sys.exit(', '.join(bad) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plan_says_what_the_scene_says():
    plan = plan_playback(tiny_scene(n=3))
    assert plan.num_frames == len(plan.captions) == len(plan.thumbnails) == 3
    assert plan.captions[1] == "frame_000001 at 0.10 s"
    assert plan.aspect == 1.5
    # f = 0.8 w, so tan(fov_y / 2) = (h / 2) / (0.8 w)
    np.testing.assert_allclose(np.tan(plan.fov_y_rad / 2), 16 / 38.4)
    assert plan.upright.source == "ground plane"
    assert plan_playback(tiny_scene(fps=0)).fps == 10


def test_large_frames_become_thumbnails():
    plan = plan_playback(tiny_scene(n=1, h=320, w=512))
    assert plan.thumbnails[0].shape == (160, 256, 3)


def test_clouds_hold_background_once_and_movers_per_frame():
    scene = tiny_scene()
    clouds = plan_clouds(scene, drop=0.0, hide_edges=False)
    assert [len(c.points_world) for c in clouds.moving] == [48] * 4
    for cloud in clouds.moving:
        assert (cloud.colors == (250, 20, 20)).all()
        np.testing.assert_allclose(cloud.points_world[:, 2], 2.5)
    assert not (clouds.background.colors == (250, 20, 20)).all(axis=1).any()
    assert len(clouds.background.points_world) > 1000


def test_dropping_and_hiding_edges_leaves_fewer_points():
    scene = tiny_scene()

    def count(**options) -> int:
        return len(plan_clouds(scene, **options).background.points_world)

    everything = count(drop=0.0, hide_edges=False)
    assert count(drop=0.9, hide_edges=False) < 0.6 * everything
    assert count(drop=0.0, hide_edges=True) < everything
    assert count(drop=1.0) <= 1


def test_movers_stay_within_their_budget(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.plan.MAX_MOVING_PER_FRAME", 20)
    scene = tiny_scene(dynamic=np.ones((4, 32, 48), bool))
    clouds = plan_clouds(scene, drop=0.0)
    assert [len(c.points_world) for c in clouds.moving] == [20] * 4
    assert len(clouds.background.points_world) == 0


def test_camera_lines():
    plan = plan_playback(tiny_scene(n=5))
    path = camera_path_segments(plan)
    np.testing.assert_allclose(path[:, 1] - path[:, 0], [[0.2, 0, 0]] * 4)
    pyramids = camera_segments(plan, 2).reshape(3, 8, 2, 3)
    np.testing.assert_allclose(pyramids[1, :4, 0], [[0.4, 0, 0]] * 4)
    # Its corners project onto the picture's corners.
    corners = pyramids[0, :4, 1]
    scene = tiny_scene(n=5)
    pixels = corners @ scene.K[0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(pixels, [[0, 0], [48, 0], [48, 32], [0, 32]], atol=1e-9)
    assert len(camera_path_segments(plan_playback(tiny_scene(n=1)))) == 0


def test_clock_plays_loops_and_skips_late_frames():
    clock = Clock(num_frames=4, fps=10)
    clock.advance(1.0)
    assert clock.frame == 0  # not playing
    clock.play()
    clock.advance(0.15)
    assert clock.frame == 1
    clock.advance(0.2)
    assert clock.frame == 3
    clock.advance(0.1)
    assert clock.frame == 0
    clock.speed = 2.0
    assert clock.frame_seconds == pytest.approx(0.05)
    clock.advance(0.1)
    assert clock.frame == 2


def test_clock_without_loop_stops_at_the_end_and_starts_again():
    clock = Clock(num_frames=4, fps=10, loop=False)
    clock.play()
    clock.advance(5.0)
    assert (clock.frame, clock.playing) == (3, False)
    clock.play()
    assert (clock.frame, clock.playing) == (0, True)


def test_clock_steps_around_the_ends_and_pauses():
    clock = Clock(num_frames=3, fps=10)
    clock.play()
    clock.step(-1)
    assert (clock.frame, clock.playing) == (2, False)
    clock.step(1)
    assert clock.frame == 0
    clock.seek(99)
    assert clock.frame == 2
    clock.seek(-5)
    assert clock.frame == 0


def test_quaternions_are_w_first():
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(quat_wxyz(np.eye(3)), [1, 0, 0, 0])
    np.testing.assert_allclose(quat_wxyz(quarter), [0.5**0.5, 0, 0, 0.5**0.5])


def test_what_can_not_be_viewed_is_refused():
    with pytest.raises(InputError, match="no scene"):
        view([])
    with pytest.raises(InputError, match="different names"):
        view([tiny_scene(), tiny_scene()], names=["a", "a"])
    with pytest.raises(InputError, match="0 to 65535"):
        free_port("127.0.0.1", 70000)
    with pytest.raises(InputError, match="cannot listen on host"):
        free_port("203.0.113.7", 8080)  # an address for documentation, nobody's
