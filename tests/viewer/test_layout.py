"""Layout of a scene, placement side by side, camera lines, filmstrip, playback clock."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.scene.pictures import find_limits, panels
from dyn3r.viewer import Appearance, view
from dyn3r.viewer.clock import Clock
from dyn3r.viewer.filmstrip import filmstrip_image, filmstrip_width
from dyn3r.viewer.frustums import camera_path_segments, frustum_segments
from dyn3r.viewer.layout import scene_layout
from dyn3r.viewer.packing import quat_wxyz
from dyn3r.viewer.page import free_port
from dyn3r.viewer.placement import (
    common_first_view,
    label_position,
    place_side_by_side,
    scale_to_unit_depth,
)
from dyn3r.viewer.points import pixel_points, select_background
from tests.factories import tiny_scene


@pytest.mark.slow
def test_importing_the_viewer_loads_no_server_and_no_algorithm():
    code = (
        "import sys, dyn3r.viewer, dyn3r.viewer.app; "
        "bad = [m for m in sys.modules if m == 'viser' or m.startswith(('dyn3r.alignment', "
        "'dyn3r.network', 'dyn3r.motion', 'dyn3r.training'))]; "
        "sys.exit(', '.join(bad) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layout_of_a_scene():
    layout = scene_layout(tiny_scene(n=3))
    assert layout.num_frames == len(layout.names) == len(layout.thumbnails) == 3
    assert (layout.names[1], layout.times[1]) == ("frame_000001", "0.10 s")
    assert layout.aspect == 1.5
    # f = 0.8 w, so tan(fov_y / 2) = (h / 2) / (0.8 w)
    np.testing.assert_allclose(np.tan(layout.fov_y_rad / 2), 16 / 38.4)
    np.testing.assert_allclose(layout.up_world, [0, -1, 0], atol=0.05)
    assert scene_layout(tiny_scene(fps=0.0)).fps == 10


def test_large_frames_become_thumbnails():
    layout = scene_layout(tiny_scene(n=1, h=320, w=512))
    assert layout.thumbnails[0].shape == (160, 256, 3)


def test_the_filmstrip_is_frame_depth_mask():
    scene = tiny_scene(n=2, h=96, w=144)
    image = filmstrip_image(scene, 1, find_limits(scene), height=50)
    assert image.shape == (48, filmstrip_width(scene, 50), 3)
    np.testing.assert_array_equal(image[20:, :72], scene.images[1, ::2, ::2][20:])
    expected = panels(scene, 1, find_limits(scene))[1][::2, ::2]
    np.testing.assert_array_equal(image[20:, 76:148], expected[20:])


def test_scenes_side_by_side_are_upright_and_of_one_size():
    small = tiny_scene()
    T = small.T_world_camera.copy()
    T[:, :3, 3] *= 7
    large = tiny_scene(depth=small.depth * 7, T_world_camera=T)
    scenes = [scale_to_unit_depth(small), scale_to_unit_depth(large)]
    assert [scene.median_depth for scene in scenes] == pytest.approx([1, 1])
    np.testing.assert_allclose(scenes[0].depth, scenes[1].depth, rtol=1e-5)
    layouts = [scene_layout(scene) for scene in scenes]
    placements = place_side_by_side(scenes, layouts)
    clouds = [
        place(
            pixel_points(
                scene,
                0,
                select_background(
                    scene, Appearance(drop_static=0.0, drop_moving=0.0, hide_edges=False)
                )[0],
            )
        )
        for scene, place in zip(scenes, placements)
    ]
    for scene, layout, place in zip(scenes, layouts, placements):
        np.testing.assert_allclose(place.R @ layout.up_world, [0, 0, 1], atol=1e-9)
        assert np.linalg.det(place.R) == pytest.approx(1)
        assert place(scene.T_world_camera[0, :3, 3])[1:] == pytest.approx([0, 0], abs=1e-9)
        assert label_position(scene, layout) @ layout.up_world > 0
    assert np.percentile(clouds[0][:, 0], 95) < np.percentile(clouds[1][:, 0], 5)
    view_ = common_first_view(layouts, placements)
    between = [place(scene.T_world_camera[0, :3, 3])[0] for scene, place in zip(scenes, placements)]
    assert between[0] < view_.position[0] < between[1] + 0.5
    assert view_.position[2] > 0


def test_camera_lines():
    layout = scene_layout(tiny_scene(n=5))
    path = camera_path_segments(layout)
    np.testing.assert_allclose(path[:, 1] - path[:, 0], [[0.2, 0, 0]] * 4)
    frustums = frustum_segments(layout, range(0, 5, 2)).reshape(3, 8, 2, 3)
    np.testing.assert_allclose(frustums[1, :4, 0], [[0.4, 0, 0]] * 4)
    # The corners of a frustum project onto the corners of the image.
    corners = frustums[0, :4, 1]
    scene = tiny_scene(n=5)
    pixels = corners @ scene.K[0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(pixels, [[0, 0], [48, 0], [48, 32], [0, 32]], atol=1e-9)
    assert len(camera_path_segments(scene_layout(tiny_scene(n=1)))) == 0


def test_clock_plays_loops_and_skips_late_frames():
    clock = Clock(num_frames=4, fps=10.0)
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
    clock = Clock(num_frames=4, fps=10.0, loop=False)
    clock.play()
    clock.advance(5.0)
    assert (clock.frame, clock.playing) == (3, False)
    clock.play()
    assert (clock.frame, clock.playing) == (0, True)


def test_clock_steps_around_the_ends_and_pauses():
    clock = Clock(num_frames=3, fps=10.0)
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


def test_invalid_arguments_are_refused():
    with pytest.raises(InputError, match="no scene"):
        view([])
    with pytest.raises(InputError, match="different names"):
        view([tiny_scene(), tiny_scene()], names=["a", "a"])
    with pytest.raises(InputError, match="different names"):
        view([tiny_scene(), tiny_scene()], names=["side by side", "b"])
    with pytest.raises(InputError, match="0 to 65535"):
        free_port("127.0.0.1", 70000)
    with pytest.raises(InputError, match="cannot listen on host"):
        free_port("203.0.113.7", 8080)  # reserved for documentation
