"""Points of a scene: selection, colours, packing, trails; and the settings that select them."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.scene import Scene, static_points
from dyn3r.scene.background import grow
from dyn3r.scene.pictures import find_limits, panels
from dyn3r.viewer import Appearance, Visibility
from dyn3r.viewer.packing import pack
from dyn3r.viewer.points import (
    ScenePoints,
    confidence_threshold,
    pixel_colors,
    pixel_points,
    select_background,
    select_moving,
    unproject,
)
from dyn3r.viewer.trails import find_trails
from tests.factories import tiny_scene

ALL = Appearance(drop_static=0.0, drop_moving=0.0, hide_edges=False)


def count(scene: Scene, appearance: Appearance) -> tuple[int, int]:
    """Numbers of background points and of dynamic points of all frames."""
    static, moving = select_background(scene, appearance), select_moving(scene, appearance)
    return sum(map(len, static)), sum(map(len, moving))


def test_background_is_shared_and_dynamic_points_are_per_frame():
    images = np.full((4, 32, 48, 3), 128, np.uint8)
    images[tiny_scene().dynamic] = (250, 20, 20)
    points = ScenePoints(tiny_scene(images=images), ALL)
    for cloud in points.moving():
        assert len(cloud.points) == 48
        assert (cloud.colors == (250, 20, 20)).all()
        np.testing.assert_allclose(cloud.world[:, 2], 2.5, rtol=2**-11)
    background = points.background()
    assert sum(len(cloud.points) for cloud in background) > 1000
    for cloud in background:
        assert not (cloud.colors == (250, 20, 20)).all(axis=1).any()


def test_the_background_equals_static_points():
    scene = tiny_scene()
    ours = np.concatenate(
        [pixel_points(scene, t, pixels) for t, pixels in enumerate(select_background(scene, ALL))]
    )
    theirs = static_points(scene, max_points=400_000).points_world
    np.testing.assert_allclose(ours, theirs)


def test_static_and_moving_thresholds_are_separate():
    rng = np.random.default_rng(0)
    scene = tiny_scene(confidence=(1 + rng.random((4, 32, 48))).astype(np.float32))
    whole = count(scene, ALL)
    fewer_static = count(scene, Appearance(drop_static=0.9, drop_moving=0.0, hide_edges=False))
    fewer_moving = count(scene, Appearance(drop_static=0.0, drop_moving=0.5, hide_edges=False))
    assert fewer_static[0] < 0.6 * whole[0]
    assert fewer_static[1] == whole[1]
    assert fewer_moving[0] == whole[0]
    assert fewer_moving[1] == pytest.approx(0.5 * whole[1], abs=4)


def test_a_threshold_drops_the_given_share():
    scene = tiny_scene()
    static = scene.confidence[~scene.dynamic & (scene.confidence > 0)]
    limit = confidence_threshold(scene, 0.3, moving=False)
    assert (static < limit).mean() == pytest.approx(0.3, abs=0.01)
    nothing_moves = tiny_scene(dynamic=np.zeros((4, 32, 48), bool))
    assert confidence_threshold(nothing_moves, 0.3, moving=True) == 0


def test_edges_down_sampling_and_mask_dilation():
    scene = tiny_scene()
    whole = count(scene, ALL)
    assert count(scene, Appearance(drop_static=0.0, drop_moving=0.0))[0] < whole[0]
    thinned = Appearance(
        drop_static=0.0, drop_moving=0.0, hide_edges=False, step_static=2, step_moving=2
    )
    thin = count(scene, thinned)
    assert thin[0] < 0.5 * whole[0]
    assert thin[1] == whole[1] / 4
    grown = Appearance(drop_static=0.0, drop_moving=0.0, hide_edges=False, mask_dilation=3)
    assert count(scene, grown)[0] < whole[0]
    expected = [int((grow(m, 3) & scene.select(t)).sum()) for t, m in enumerate(scene.dynamic)]
    assert [len(pixels) for pixels in select_moving(scene, grown)] == expected


def test_dynamic_points_stay_within_their_limit(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.points.MAX_MOVING_PER_FRAME", 20)
    scene = tiny_scene(dynamic=np.ones((4, 32, 48), bool))
    assert [len(pixels) for pixels in select_moving(scene, Appearance())] == [20] * 4
    assert count(scene, Appearance())[0] == 0


def test_the_background_stays_within_its_limit(monkeypatch):
    monkeypatch.setattr("dyn3r.viewer.points.MAX_BACKGROUND", 300)
    static = select_background(tiny_scene(), Appearance())
    assert 250 < sum(map(len, static)) <= 300
    assert all((np.diff(pixels) > 0).all() for pixels in static)


def test_a_new_appearance_recomputes_only_what_it_changes():
    points = ScenePoints(tiny_scene(), Appearance())
    assert points.set_appearance(Appearance()) == (False, False)
    assert points.set_appearance(Appearance(drop_static=0.5)) == (True, False)
    assert points.set_appearance(Appearance(drop_static=0.5, step_moving=2)) == (False, True)
    assert points.set_appearance(Appearance(drop_static=0.5, step_moving=2, color="time")) == (
        True,
        True,
    )


def test_colors_equal_those_of_the_panels():
    scene = tiny_scene()
    limits = find_limits(scene)
    pixels = np.array([70, 500, 501, 1000])
    names = ("rgb", "depth", "motion", "confidence")
    for name, panel in zip(names, panels(scene, 1, limits)):
        expected = panel.reshape(-1, 3)[pixels]
        np.testing.assert_array_equal(pixel_colors(scene, 1, pixels, name, limits), expected)
    grey = tiny_scene(images=np.full((4, 32, 48, 3), 255, np.uint8))
    early, late = (pixel_colors(grey, t, pixels, "time", limits)[0].astype(int) for t in (0, 3))
    assert early[2] > early[0]  # blue is early
    assert late[0] > late[2]  # red is late


def test_copies_share_arrays_and_change_by_themselves():
    points = ScenePoints(tiny_scene(), ALL)
    copy = points.copy()
    assert copy.background_pixels is not points.background_pixels  # selected when asked for
    copy = points.copy()
    assert copy.background_pixels is points.background_pixels
    copy.set_appearance(Appearance(drop_static=0.5, color="time"))
    assert points.appearance == ALL
    assert sum(map(len, copy.background_pixels)) < sum(map(len, points.background_pixels))


def test_each_cloud_has_the_spacing_of_its_own_depth():
    scene = tiny_scene()
    points = ScenePoints(scene, ALL)
    focal = scene.K[0, 0, 0]
    assert [cloud.spacing for cloud in points.moving()] == pytest.approx([2.5 / focal] * 4)
    z = float(np.median(scene.depth[0].ravel()[points.background_pixels[0]]))
    assert points.background()[0].spacing == pytest.approx(z / focal)
    points.set_appearance(Appearance(drop_static=0.0, step_moving=3, hide_edges=False))
    assert points.moving()[0].spacing == pytest.approx(3 * 2.5 / focal)


def test_a_frame_alone_has_all_its_points_and_no_background():
    scene = tiny_scene()
    points = ScenePoints(scene, Appearance(hide_edges=False, frame_alone=True))
    assert not any(map(len, points.background_pixels))
    assert [len(pixels) for pixels in points.moving_pixels] == [
        int(scene.select(t).sum()) for t in range(4)
    ]


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
    packed = pack(points, np.zeros((1000, 3), np.uint8), origin, unit, 0.01)
    error = np.linalg.norm(packed.world - points, axis=1)
    assert (error < distance[:, 0] / 1000).all()  # a pixel of f = 500 is twice as wide
    assert packed.points.nbytes + packed.colors.nbytes == 9 * 1000


def test_packing_an_empty_cloud_and_a_far_point():
    nothing = pack(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(3), 1.0, 0.01)
    assert len(nothing.points) == len(nothing.colors) == 1
    far = pack(np.array([[1e9, 0, 0]]), np.zeros((1, 3), np.uint8), np.zeros(3), 1.0, 0.01)
    assert np.isfinite(far.points.astype(float)).all()


def test_appearance_and_visibility_are_checked():
    for wrong in (
        {"color": "heat"},
        {"drop_static": 1.2},
        {"step_moving": 0},
        {"mask_dilation": -1},
    ):
        with pytest.raises(InputError):
            Appearance(**wrong)
    with pytest.raises(InputError):
        Visibility(frame_stride=-1)


def test_visible_frames_and_trails():
    assert Visibility().visible_frames(3, 10) == {3}
    assert Visibility(frame_stride=4).visible_frames(3, 10) == {0, 3, 4, 8}
    assert Visibility().visible_trails(3) == set()
    assert Visibility(trail_length=3).visible_trails(1) == {0, 1}
    assert Visibility(trail_length=3).visible_trails(8) == {6, 7, 8}


def test_trails_follow_a_moving_square():
    # A textured square moves 3 pixels to the right per frame, in front of a plain background.
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
    # Segments are connected: each starts where the previous one ended.
    ends = {tuple(p) for p in trails[1].segments[:, 1].round(4).tolist()}
    starts = {tuple(p) for p in trails[2].segments[:, 0].round(4).tolist()}
    assert len(ends & starts) >= 4


def test_a_static_scene_has_no_trails():
    trails = find_trails(tiny_scene(dynamic=np.zeros((4, 32, 48), bool)))
    assert [len(trail.segments) for trail in trails] == [0] * 4


def test_unprojected_pixels_are_the_points_of_the_scene():
    scene = tiny_scene()
    expected = scene.points(2)
    rows, columns = np.nonzero(scene.select(2))
    uv = np.stack([columns, rows], axis=-1).astype(float)
    points = unproject(uv, scene.depth[2, rows, columns], scene.K[2], scene.T_world_camera[2])
    np.testing.assert_allclose(points, expected.points_world, atol=1e-5)
