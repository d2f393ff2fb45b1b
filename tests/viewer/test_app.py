"""A session of the viewer without a browser: state of the nodes and messages of the server."""

from __future__ import annotations

import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dyn3r.viewer import Appearance, Visibility, view
from dyn3r.viewer.browser_camera import BrowserCamera
from dyn3r.viewer.packing import POINT_RADIUS
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.playback import PreparedScenes
from dyn3r.viewer.session import Session, Start
from tests.factories import tiny_scene

AT_FIRST = Start(frame=0)


@contextmanager
def session_of(*scenes, names=("scene",), start=AT_FIRST):
    """Session for all browsers of a page, none of which is connected."""
    page = WebPage("127.0.0.1", 0)
    session = Session(page.server, PreparedScenes(scenes, names, start.appearance), start)
    try:
        yield session
    finally:
        session.stop()
        page.stop()


@pytest.fixture
def viewer(capsys):
    with session_of(tiny_scene(n=6)) as session:
        yield session
    assert capsys.readouterr().out == ""  # a library does not print


def wait_for(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def shown(nodes) -> list[int]:
    return [t for t, node in enumerate(nodes) if node.visible]


def messages_of(viewer, monkeypatch) -> list:
    """List that collects the messages that the server sends from now on."""
    sent: list = []
    socket_ = viewer.target.scene._websock_interface
    original = socket_.queue_message

    def record(message):
        sent.append(message)
        original(message)

    monkeypatch.setattr(socket_, "queue_message", record)
    return sent


def updated(messages) -> set[tuple[str, str]]:
    """(node, property) pairs that the messages update."""
    updates = [m for m in messages if type(m).__name__ == "SceneNodeUpdateMessage"]
    return {(m.name, key) for m in updates for key in m.updates}


def a_browser(position=(0.0, 0.0, -5.0)):
    """The part of viser's client that the viewer uses."""
    from contextlib import nullcontext

    camera = SimpleNamespace(
        position=np.array(position), look_at=np.zeros(3), up_direction=np.array([0, -1.0, 0]),
        fov=1.0, image_height=48, image_width=64,
    )  # fmt: skip
    sent: list = []
    return SimpleNamespace(
        camera=camera, atomic=nullcontext, downloads=sent,
        send_file_download=lambda name, content, **_: sent.append((name, content)),
        get_render=lambda h, w, **_: np.full((h, w, 3), 77, np.uint8),
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_is_served_on_this_machine_only():
    viewer = view(tiny_scene(n=1), port=0, block=False)
    with urllib.request.urlopen(viewer.url, timeout=5) as page:
        assert b"<html" in page.read().lower()
    assert viewer.url.startswith("http://127.0.0.1:")
    viewer.stop()


def test_exactly_one_frame_is_shown(viewer):
    assert shown(viewer.scene_nodes.moving) == [0]
    for frame in (3, 3, 5, 0):
        viewer.seek(frame)
        assert shown(viewer.scene_nodes.moving) == [frame]
        assert shown(viewer.scene_nodes.images) == [frame]
    viewer.step(-1)
    assert shown(viewer.scene_nodes.moving) == [5]
    assert shown(viewer.scene_nodes.background) == list(range(6))


def test_playing_advances_and_pausing_stops(viewer):
    viewer.clock.speed = 4.0
    viewer.play()
    assert wait_for(lambda: viewer.scene_nodes.frame >= 2)
    viewer.pause()
    rest = viewer.scene_nodes.frame
    time.sleep(0.15)
    assert viewer.scene_nodes.frame == rest
    assert shown(viewer.scene_nodes.moving) == [rest]


def test_playing_sends_visibility_only(viewer, monkeypatch):
    sent = messages_of(viewer, monkeypatch)
    viewer.step(1)
    kinds = [type(message).__name__ for message in sent]
    assert kinds.count("SetSceneNodeVisibilityMessage") == 4
    assert set(kinds) == {"SetSceneNodeVisibilityMessage", "GuiUpdateMessage"}


def test_all_frames_with_a_stride_and_a_growing_background(viewer):
    viewer.set_visibility(Visibility(frame_stride=2))
    viewer.seek(3)
    assert shown(viewer.scene_nodes.moving) == [0, 2, 3, 4]
    viewer.set_visibility(Visibility(up_to_current=True))
    assert shown(viewer.scene_nodes.moving) == [3]
    assert shown(viewer.scene_nodes.background) == [0, 1, 2, 3]


def test_a_settled_slider_selects_the_points_again(viewer):
    viewer.set_appearance(Appearance(style="points"))
    before = sum(len(node.points) for node in viewer.scene_nodes.background)
    viewer.controls.drop_static.value = 90
    viewer.controls._actions.appearance_changed()
    assert wait_for(
        lambda: sum(len(node.points) for node in viewer.scene_nodes.background) < 0.7 * before
    )
    assert wait_for(
        lambda: all(n.colors.shape == n.points.shape for n in viewer.scene_nodes.background)
    )
    assert viewer.appearance == Appearance(style="points", drop_static=0.9)


def test_only_what_changes_is_sent(viewer, monkeypatch):
    viewer.set_appearance(Appearance(style="points"))
    sent = messages_of(viewer, monkeypatch)
    viewer.set_appearance(Appearance(style="points", color="time"))
    touched = updated(sent)
    assert {key for _, key in touched} == {"colors"}
    sent.clear()
    viewer.set_appearance(Appearance(style="points", color="time", drop_moving=0.6))
    assert {key for _, key in updated(sent)} == {"points", "colors"}
    assert all(name.startswith("/scene_0/moving/") for name, _ in updated(sent))
    sent.clear()
    viewer.set_appearance(Appearance(style="points", color="time", drop_moving=0.6))
    viewer.set_visibility(Visibility())
    assert sent == []


def test_surfaces_are_sent_again_only_where_they_change(viewer, monkeypatch):
    sent = messages_of(viewer, monkeypatch)
    viewer.set_appearance(Appearance(color="depth"))
    assert {key for _, key in updated(sent)} == {"glb_data"}
    sent.clear()
    viewer.set_appearance(Appearance(color="depth", step_moving=2))
    assert {name.rpartition("/")[0] for name, _ in updated(sent)} == {"/scene_0/moving"}
    sent.clear()
    masks = viewer.scene_nodes.scene.dynamic.copy()
    masks[2, 20:28, :10] = True
    viewer.set_masks(replace(viewer.scene_nodes.scene, dynamic=masks))
    changed = {name for name, _ in updated(sent) if "/moving/" in name}
    assert changed == {"/scene_0/moving/2"}
    sent.clear()
    viewer.set_appearance(viewer.appearance)
    assert sent == []


def test_another_style_replaces_the_nodes(viewer):
    surfaces = viewer.scene_nodes.moving
    viewer.seek(3)
    for style, kind in (("points", "PointCloudHandle"), ("surface", "GlbHandle")):
        viewer.set_appearance(Appearance(style=style))
        nodes = viewer.scene_nodes
        assert {type(node).__name__ for node in (*nodes.moving, *nodes.background)} == {kind}
        assert shown(nodes.moving) == [3]
        assert viewer.controls.size.disabled == (style == "surface")
    assert viewer.scene_nodes.moving is not surfaces


def test_visibility_and_point_size(viewer):
    viewer.set_appearance(Appearance(style="points"))
    viewer.controls.boxes["moving"].value = False
    viewer.controls.boxes["axes"].value = True
    viewer.controls._actions.visibility_changed()
    groups = viewer.scene_nodes.groups
    assert wait_for(lambda: viewer.scene_nodes.axes.visible and not groups["moving"].visible)
    viewer.set_point_size(2.0)
    assert viewer.controls.size.value == 2.0
    scene = viewer.scene_nodes.scene
    footprint = 2.5 / scene.K[3, 0, 0]  # of a pixel of the moving square
    expected = 2 * POINT_RADIUS * footprint / scene.median_depth
    assert viewer.scene_nodes.moving[3].point_size == pytest.approx(expected)


def test_the_controls_show_the_settings(viewer):
    appearance = Appearance(
        color="depth", drop_static=0.4, step_moving=3, mask_dilation=5, hide_edges=False
    )
    visibility = Visibility(axes=True, frame_stride=2, trail_length=3, cameras=False)
    viewer.set_appearance(appearance)
    viewer.set_visibility(visibility)
    assert viewer.controls.appearance == appearance
    assert viewer.controls.visibility == visibility
    viewer.set_appearance(Appearance(step_static=50))  # beyond the slider's range
    assert viewer.appearance.step_static == 50


def test_settings_beyond_the_sliders_are_accepted():
    appearance = Appearance(drop_static=0.99, step_moving=20)
    visibility = Visibility(frame_stride=50, trail_length=50)
    with session_of(tiny_scene(n=2), start=Start(appearance, visibility, 0)) as viewer:
        assert viewer.appearance == appearance
        assert viewer.controls.step_moving.value == viewer.controls.step_moving.max
        assert wait_for(lambda: shown(viewer.scene_nodes.trails) == [0])


def test_trails_are_computed_when_they_are_first_shown(viewer):
    assert viewer.scene_nodes.trails == []
    viewer.set_visibility(Visibility(trail_length=2))
    viewer.seek(4)
    assert shown(viewer.scene_nodes.trails) == [3, 4]
    viewer.set_visibility(Visibility())
    assert shown(viewer.scene_nodes.trails) == []


def test_the_filmstrip_shows_the_current_frame(viewer):
    viewer.show_filmstrip(visible=True)
    first = viewer._filmstrip.image.copy()
    viewer.seek(3)
    assert not np.array_equal(viewer._filmstrip.image, first)
    viewer.show_filmstrip(visible=False)
    assert viewer._filmstrip.image is None


def in_common_world(viewer, T):
    return viewer.scene_nodes.placement(T[:3, 3]), viewer.scene_nodes.placement.R @ T[:3, :3]


def test_following_the_camera_and_restoring_the_browser(viewer):
    browser = a_browser()
    viewer.camera = BrowserCamera(browser, viewer.playback)
    viewer.follow_camera(enabled=True)
    viewer.seek(4)
    centre, R = in_common_world(viewer, viewer.scene_nodes.layout.T_world_camera[4])
    np.testing.assert_allclose(browser.camera.position, centre)
    np.testing.assert_allclose(browser.camera.up_direction, -R[:, 1])
    assert browser.camera.fov == pytest.approx(viewer.scene_nodes.layout.fov_y_rad[4])
    assert not viewer.scene_nodes.path.visible
    viewer.follow_camera(enabled=False)
    np.testing.assert_allclose(browser.camera.position, [0, 0, -5])
    assert browser.camera.fov == 1.0
    assert viewer.scene_nodes.path.visible


def test_looking_through_the_camera_hides_its_image_until_the_browser_leaves(viewer):
    browser = a_browser()
    viewer.camera = BrowserCamera(browser, viewer.playback)
    viewer.seek(2)
    viewer.look_through_camera()
    centre, _ = in_common_world(viewer, viewer.scene_nodes.layout.T_world_camera[2])
    np.testing.assert_allclose(browser.camera.position, centre)
    viewer.camera.moved(2)
    assert not viewer.scene_nodes.groups["images"].visible
    assert viewer.visibility.image
    viewer.reset_view()
    view_ = viewer.playback.first_view(viewer.camera.window)
    np.testing.assert_allclose(browser.camera.position, view_.position)
    np.testing.assert_allclose(browser.camera.up_direction, [0, 0, 1])
    browser.camera.position = centre + 1
    viewer.camera.moved(2)
    assert viewer.scene_nodes.groups["images"].visible


def test_seeking_pauses_and_sends_the_frame_again(viewer, monkeypatch):
    """A value that the browser sends may cross one that is under way to it."""
    viewer.play()
    viewer.seek(3)
    assert not viewer.clock.playing
    sent = messages_of(viewer, monkeypatch)

    def values() -> list[int]:
        """Of the slider, in the order in which they were sent."""
        return [m.updates["value"] for m in sent if "value" in getattr(m, "updates", {})]

    # The page takes the frame as new because another value comes before it.
    assert wait_for(lambda: len(values()) > 1 and values()[-1] == 3)
    assert values()[-2] != 3
    assert viewer.timeline.slider.value == 3


def test_the_trails_say_that_they_are_computed(viewer, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(viewer.controls, "show_state", said.append)
    viewer.set_visibility(Visibility(trail_length=2))
    assert said[0] == "computing trails ..."
    assert said[-1] == ""
    assert any("tracking moving points" in text for text in said)


def test_camera_size_and_line_width(viewer):
    viewer._resize_frustums(2.0, 4.0)
    assert viewer.scene_nodes.images[0].thickness == 4
    assert viewer.scene_nodes.path.thickness == 6
    before = viewer.scene_nodes.cameras.points.copy()
    viewer._resize_frustums(4.0, 4.0)
    edges = [np.ptp(points[:8], axis=1) for points in (before, viewer.scene_nodes.cameras.points)]
    np.testing.assert_allclose(edges[1], 2 * edges[0], rtol=1e-5)


def test_the_page_offers_files(viewer, monkeypatch):
    from dyn3r.viewer import TurntableOptions, downloads

    short = TurntableOptions(seconds=0.2, fps=10.0, size_hw=(48, 64))
    monkeypatch.setattr(downloads, "TurntableOptions", lambda: short)
    browser = a_browser()
    for kind in ("screenshot", "turntable", "page"):
        viewer._save(kind, browser)
    files = dict(browser.downloads)
    assert files["screenshot.png"].startswith(b"\x89PNG")
    assert files["turntable.mp4"][4:8] == b"ftyp"
    assert b"__VISER_EMBED_DATA__" in files["scene.html"]
    assert "scene.html" in viewer.controls.state.content


def test_a_failed_job_is_reported_on_the_page(viewer):
    def job():
        raise TimeoutError("the browser has gone")

    viewer._worker.submit(job)
    assert wait_for(lambda: viewer.controls.state.content == "failed: the browser has gone")
    viewer.controls.drop_moving.value = 50
    viewer.controls._actions.appearance_changed()
    assert wait_for(lambda: viewer.appearance.drop_moving == 0.5)


def test_several_scenes_side_by_side_or_one_of_them():
    scenes = [tiny_scene(n=6), tiny_scene(n=1, depth=np.full((1, 32, 48), 9.0))]
    with session_of(*scenes, names=["a", "b"]) as viewer:
        assert [nodes.root.visible for nodes in viewer.playback.scene_nodes] == [True, True]
        assert [nodes.label.text for nodes in viewer.playback.scene_nodes] == ["a", "b"]
        left, right = (nodes.root.position for nodes in viewer.playback.scene_nodes)
        assert right[0] > left[0] + 1
        viewer.seek(5)
        assert [nodes.frame for nodes in viewer.playback.scene_nodes] == [5, 0]
        viewer.choose_scene("b")
        assert [nodes.root.visible for nodes in viewer.playback.scene_nodes] == [False, True]
        assert (viewer.clock.frame, viewer.clock.num_frames) == (0, 1)
        assert viewer.controls.menu.value == "b"
        viewer.choose_scene("side by side")
        viewer.seek(4)
        assert shown(viewer.playback.scene_nodes[0].moving) == [4]
        assert [nodes.root.visible for nodes in viewer.playback.scene_nodes] == [True, True]


def test_a_scene_without_depth_opens():
    with session_of(tiny_scene(n=2, depth=np.zeros((2, 32, 48)))) as viewer:
        viewer.set_visibility(Visibility(trail_length=1))


def test_a_session_starts_in_the_middle_of_the_clip_and_can_be_removed():
    with session_of(tiny_scene(n=6), start=Start()) as viewer:
        assert viewer.scene_nodes.frame == 3
        assert viewer.visibility == Visibility(cameras=False, path=True, image=True)
        viewer.remove()
        assert not [h for h in viewer.target.scene._handle_from_node_name if "scene_0" in h]
