"""What is decided before a browser comes in: points, cameras, the clock."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.scene import Scene, static_points
from dyn3r.scene.background import grow
from dyn3r.scene.pictures import find_limits, panels
from dyn3r.viewer import Look, Parts, view
from dyn3r.viewer.clock import Clock
from dyn3r.viewer.filmstrip import strip_picture, strip_width
from dyn3r.viewer.layout import camera_path_segments, camera_segments, plan_playback
from dyn3r.viewer.packing import pack, quat_wxyz
from dyn3r.viewer.page import free_port
from dyn3r.viewer.placement import at_unit_size, common_first_view, label_position, side_by_side
from dyn3r.viewer.points import (
    ScenePoints,
    choose_background,
    choose_moving,
    colours,
    confidence_limit,
    positions,
)
from dyn3r.viewer.trails import find_trails
from tests.factories import tiny_scene

ALL = Look(drop_static=0, drop_moving=0, hide_edges=False)


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


def count(scene: Scene, look: Look) -> tuple[int, int]:
    """Points of the background and of all movers."""
    still, moves = choose_background(scene, look), choose_moving(scene, look)
    return sum(map(len, still)), sum(map(len, moves))


def test_points_are_background_once_and_movers_per_frame():
    scene = tiny_scene()
    points = ScenePoints(scene, ALL)
    for cloud in points.moving():
        assert len(cloud.points) == 48
        assert (cloud.colors == (250, 20, 20)).all()
        np.testing.assert_allclose(cloud.world[:, 2], 2.5, rtol=2**-11)
    background = points.background()
    assert sum(len(cloud.points) for cloud in background) > 1000
    for cloud in background:
        assert not (cloud.colors == (250, 20, 20)).all(axis=1).any()


def test_the_background_is_what_the_scene_itself_accumulates():
    scene = tiny_scene()
    ours = np.concatenate(
        [positions(scene, t, pixels) for t, pixels in enumerate(choose_background(scene, ALL))]
    )
    theirs = static_points(scene, max_points=400_000).points_world
    np.testing.assert_allclose(ours, theirs)


def test_static_and_moving_thresholds_are_separate():
    rng = np.random.default_rng(0)
    scene = tiny_scene(confidence=(1 + rng.random((4, 32, 48))).astype(np.float32))
    whole = count(scene, ALL)
    fewer_static = count(scene, Look(drop_static=0.9, drop_moving=0, hide_edges=False))
    fewer_moving = count(scene, Look(drop_static=0, drop_moving=0.5, hide_edges=False))
    assert fewer_static[0] < 0.6 * whole[0]
    assert fewer_static[1] == whole[1]
    assert fewer_moving[0] == whole[0]
    assert fewer_moving[1] == pytest.approx(0.5 * whole[1], abs=4)


def test_a_limit_leaves_out_the_share_it_says():
    scene = tiny_scene()
    still = scene.confidence[~scene.dynamic & (scene.confidence > 0)]
    limit = confidence_limit(scene, 0.3, moving=False)
    assert (still < limit).mean() == pytest.approx(0.3, abs=0.01)
    nothing_moves = tiny_scene(dynamic=np.zeros((4, 32, 48), bool))
    assert confidence_limit(nothing_moves, 0.3, moving=True) == 0


def test_hiding_edges_down_sampling_and_mask_growth():
    scene = tiny_scene()
    whole = count(scene, ALL)
    assert count(scene, Look(drop_static=0, drop_moving=0))[0] < whole[0]
    thin = count(scene, Look(drop_static=0, drop_moving=0, hide_edges=False, step_static=2,
                             step_moving=2))  # fmt: skip
    assert thin[0] < 0.5 * whole[0]
    assert thin[1] == whole[1] / 4
    grown = Look(drop_static=0, drop_moving=0, hide_edges=False, mask_growth=3)
    assert count(scene, grown)[0] < whole[0]
    expected = [int((grow(m, 3) & scene.select(t)).sum()) for t, m in enumerate(scene.dynamic)]
    assert [len(pixels) for pixels in choose_moving(scene, grown)] == expected


def test_movers_stay_within_their_budget(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.points.MAX_MOVING_PER_FRAME", 20)
    scene = tiny_scene(dynamic=np.ones((4, 32, 48), bool))
    assert [len(pixels) for pixels in choose_moving(scene, Look())] == [20] * 4
    assert count(scene, Look())[0] == 0


def test_the_background_stays_within_its_budget(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.points.MAX_BACKGROUND", 300)
    still = choose_background(tiny_scene(), Look())
    assert 250 < sum(map(len, still)) <= 300
    assert all((np.diff(pixels) > 0).all() for pixels in still)


def test_a_new_look_remakes_only_what_it_touches():
    points = ScenePoints(tiny_scene(), Look())
    assert points.set_look(Look()) == (False, False)
    assert points.set_look(Look(drop_static=0.5)) == (True, False)
    assert points.set_look(Look(drop_static=0.5, step_moving=2)) == (False, True)
    assert points.set_look(Look(drop_static=0.5, step_moving=2, color="time")) == (True, True)


def test_colours_are_those_of_the_pictures():
    scene = tiny_scene()
    limits = find_limits(scene)
    pixels = np.array([70, 500, 501, 1000])
    names = ("rgb", "depth", "motion", "confidence")
    for name, picture in zip(names, panels(scene, 1, limits)):
        expected = picture.reshape(-1, 3)[pixels]
        np.testing.assert_array_equal(colours(scene, 1, pixels, name, limits), expected)
    grey = tiny_scene(images=np.full((4, 32, 48, 3), 255, np.uint8))
    early, late = (colours(grey, t, pixels, "time", limits)[0].astype(int) for t in (0, 3))
    assert early[2] > early[0]  # blue is early
    assert late[0] > late[2]  # red is late


def test_long_clips_have_few_chunks(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.points.MAX_CHUNKS", 2)
    points = ScenePoints(tiny_scene(n=5), ALL)
    assert points.chunks == [range(3), range(3, 5)]
    assert len(points.background()) == 2


def test_packed_points_are_off_by_less_than_a_pixel():
    rng = np.random.default_rng(0)
    origin, unit = np.array([100.0, -50.0, 30.0]), 4.0
    distance = 10 ** rng.uniform(-1, 2, (1000, 1))
    away = rng.normal(size=(1000, 3))
    points = origin + distance * away / np.linalg.norm(away, axis=1, keepdims=True)
    packed = pack(points, np.zeros((1000, 3), np.uint8), origin, unit)
    error = np.linalg.norm(packed.world - points, axis=1)
    assert (error < distance[:, 0] / 1000).all()  # a pixel of f = 500 is twice as wide
    assert packed.nbytes == 9 * 1000


def test_packing_nothing_and_what_is_too_far():
    nothing = pack(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(3), 1.0)
    assert len(nothing.points) == len(nothing.colors) == 1
    far = pack(np.array([[1e9, 0, 0]]), np.zeros((1, 3), np.uint8), np.zeros(3), 1.0)
    assert np.isfinite(far.points.astype(float)).all()


def test_looks_and_parts_are_checked():
    for wrong in ({"color": "heat"}, {"drop_static": 1.2}, {"step_moving": 0}, {"mask_growth": -1}):
        with pytest.raises(InputError):
            Look(**wrong)
    with pytest.raises(InputError):
        Parts(every=-1)


def test_parts_say_which_frames_and_trails_are_visible():
    assert Parts().frames(3, 10) == {3}
    assert Parts(every=4).frames(3, 10) == {0, 3, 4, 8}
    assert Parts().trails(3) == set()
    assert Parts(trail=3).trails(1) == {0, 1}
    assert Parts(trail=3).trails(8) == {6, 7, 8}


def test_trails_follow_what_moves():
    # A textured square goes 3 pixels to the right in each frame, in front of a flat wall.
    rng = np.random.default_rng(3)
    n, h, w = 5, 64, 96
    images = np.full((n, h, w, 3), 90, np.uint8)
    dynamic = np.zeros((n, h, w), bool)
    texture = rng.integers(0, 255, (30, 30, 1), dtype=np.uint8).repeat(3, axis=2)
    for t in range(n):
        images[t, 17:47, 20 + 3 * t : 50 + 3 * t] = texture
        dynamic[t, 17:47, 20 + 3 * t : 50 + 3 * t] = True
    T = np.tile(np.eye(4), (n, 1, 1))
    depth = np.full((n, h, w), 4.0, np.float32)
    scene = tiny_scene(n=n, h=h, w=w, images=images, dynamic=dynamic, depth=depth,
                       T_world_camera=T)  # fmt: skip
    trails = find_trails(scene)
    assert len(trails) == n
    assert len(trails[0].segments) == 0
    step = 3 / scene.K[0, 0, 0] * 4.0
    for trail in trails[1:]:
        assert len(trail.segments) >= 4
        moved = trail.segments[:, 1] - trail.segments[:, 0]
        np.testing.assert_allclose(np.median(moved, axis=0), [step, 0, 0], atol=0.1 * step)
        assert trail.colors.shape == (len(trail.segments), 3)
    # They hang together: where a piece begins another one ended.
    ends = {tuple(p) for p in trails[1].segments[:, 1].round(4).tolist()}
    starts = {tuple(p) for p in trails[2].segments[:, 0].round(4).tolist()}
    assert len(ends & starts) >= 4


def test_nothing_moves_leaves_no_trails():
    trails = find_trails(tiny_scene(dynamic=np.zeros((4, 32, 48), bool)))
    assert [len(trail.segments) for trail in trails] == [0] * 4


def test_the_strip_is_frame_depth_mask():
    scene = tiny_scene(n=2, h=96, w=144)
    picture = strip_picture(scene, 1, find_limits(scene), height=50)
    assert picture.shape == (48, strip_width(scene, 50), 3)
    np.testing.assert_array_equal(picture[20:, :72], scene.images[1, ::2, ::2][20:])
    expected = panels(scene, 1, find_limits(scene))[1][::2, ::2]
    np.testing.assert_array_equal(picture[20:, 76:148], expected[20:])


def test_scenes_stand_side_by_side_upright_and_at_one_size():
    small = tiny_scene()
    T = small.T_world_camera.copy()
    T[:, :3, 3] *= 7
    large = tiny_scene(depth=small.depth * 7, T_world_camera=T)
    scenes = [at_unit_size(small), at_unit_size(large)]
    assert [scene.median_depth for scene in scenes] == pytest.approx([1, 1])
    np.testing.assert_allclose(scenes[0].depth, scenes[1].depth, rtol=1e-5)
    plans = [plan_playback(scene) for scene in scenes]
    places = side_by_side(scenes, plans)
    clouds = [
        place(positions(scene, 0, choose_background(scene, ALL)[0]))
        for scene, place in zip(scenes, places)
    ]
    for scene, plan, place in zip(scenes, plans, places):
        np.testing.assert_allclose(place.R @ plan.upright.up_world, [0, 0, 1], atol=1e-9)
        assert np.linalg.det(place.R) == pytest.approx(1)
        assert place(scene.T_world_camera[0, :3, 3])[1:] == pytest.approx([0, 0], abs=1e-9)
        assert label_position(scene, plan) @ plan.upright.up_world > 0
    assert np.percentile(clouds[0][:, 0], 95) < np.percentile(clouds[1][:, 0], 5)
    view_ = common_first_view(plans, places)
    between = [place(scene.T_world_camera[0, :3, 3])[0] for scene, place in zip(scenes, places)]
    assert between[0] < view_.position[0] < between[1] + 0.5
    assert view_.position[2] > 0


def test_camera_lines():
    plan = plan_playback(tiny_scene(n=5))
    path = camera_path_segments(plan)
    np.testing.assert_allclose(path[:, 1] - path[:, 0], [[0.2, 0, 0]] * 4)
    pyramids = camera_segments(plan, range(0, 5, 2)).reshape(3, 8, 2, 3)
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
    with pytest.raises(InputError, match="different names"):
        view([tiny_scene(), tiny_scene()], names=["side by side", "b"])
    with pytest.raises(InputError, match="0 to 65535"):
        free_port("127.0.0.1", 70000)
    with pytest.raises(InputError, match="cannot listen on host"):
        free_port("203.0.113.7", 8080)  # an address for documentation, nobody's
