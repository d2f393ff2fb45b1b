"""The page without a browser: what the server is told."""

from __future__ import annotations

import socket
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.viewer import Look, Parts, view
from dyn3r.viewer.page import free_port
from tests.factories import tiny_scene


@pytest.fixture
def viewer(capsys):
    viewer = view(tiny_scene(n=6), port=0, block=False)
    yield viewer
    viewer.stop()
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
    """What the server sends from now on."""
    sent: list = []
    socket_ = viewer.server.scene._websock_interface
    original = socket_.queue_message

    def record(message):
        sent.append(message)
        original(message)

    monkeypatch.setattr(socket_, "queue_message", record)
    return sent


def updated(messages) -> set[tuple[str, str]]:
    """(node, property) of the scene's updates."""
    updates = [m for m in messages if type(m).__name__ == "SceneNodeUpdateMessage"]
    return {(m.name, key) for m in updates for key in m.updates}


def a_browser(position=(0.0, 0.0, -5.0)):
    """As much of viser's client as the viewer touches."""
    from contextlib import nullcontext

    camera = SimpleNamespace(
        position=np.array(position), look_at=np.zeros(3), up_direction=np.array([0, -1.0, 0]),
        fov=1.0, image_height=48, image_width=64,
    )  # fmt: skip
    sent: list = []
    return SimpleNamespace(
        camera=camera, atomic=nullcontext, downloads=sent,
        send_file_download=lambda name, content: sent.append((name, content)),
        get_render=lambda h, w, **_: np.full((h, w, 3), 77, np.uint8),
    )  # fmt: skip


def test_the_page_is_served_on_this_machine_only(viewer):
    with urllib.request.urlopen(viewer.url, timeout=5) as page:
        assert b"<html" in page.read().lower()
    assert viewer.url.startswith("http://127.0.0.1:")


def test_another_host_is_warned_about(caplog):
    viewer = view(tiny_scene(n=1), host="0.0.0.0", port=0, block=False)
    try:
        assert "no password" in caplog.text
        assert viewer.url.startswith("http://localhost:")
    finally:
        viewer.stop()
    caplog.clear()
    view(tiny_scene(n=1), port=0, block=False).stop()
    assert "password" not in caplog.text


def test_exactly_one_frame_is_shown(viewer):
    assert shown(viewer.stage.moving) == [0]
    for frame in (3, 3, 5, 0):
        viewer.seek(frame)
        assert shown(viewer.stage.moving) == [frame]
        assert shown(viewer.stage.pictures) == [frame]
    viewer.step(-1)
    assert shown(viewer.stage.moving) == [5]
    assert shown(viewer.stage.background) == list(range(6))


def test_playing_advances_and_pausing_stops(viewer):
    viewer.clock.speed = 4.0
    viewer.play()
    assert wait_for(lambda: viewer.stage.frame >= 2)
    viewer.play(False)
    rest = viewer.stage.frame
    time.sleep(0.15)
    assert viewer.stage.frame == rest
    assert shown(viewer.stage.moving) == [rest]


def test_playing_sends_visibility_only(viewer, monkeypatch):
    sent = messages_of(viewer, monkeypatch)
    viewer.step(1)
    kinds = [type(message).__name__ for message in sent]
    assert kinds.count("SetSceneNodeVisibilityMessage") == 4
    assert set(kinds) == {"SetSceneNodeVisibilityMessage", "GuiUpdateMessage"}


def test_all_frames_with_a_stride_and_a_growing_background(viewer):
    viewer.set_parts(Parts(every=2))
    viewer.seek(3)
    assert shown(viewer.stage.moving) == [0, 2, 3, 4]
    viewer.set_parts(Parts(until_now=True))
    assert shown(viewer.stage.moving) == [3]
    assert shown(viewer.stage.background) == [0, 1, 2, 3]


def test_a_rested_slider_makes_the_points_anew(viewer):
    before = sum(len(node.points) for node in viewer.stage.background)
    viewer.controls.drop_static.value = 90
    viewer.controls._do.look_changed()
    assert wait_for(
        lambda: sum(len(node.points) for node in viewer.stage.background) < 0.7 * before
    )
    assert wait_for(lambda: all(n.colors.shape == n.points.shape for n in viewer.stage.background))
    assert viewer.look == Look(drop_static=0.9)


def test_only_what_changes_is_sent(viewer, monkeypatch):
    sent = messages_of(viewer, monkeypatch)
    viewer.set_look(Look(color="time"))
    touched = updated(sent)
    assert {key for _, key in touched} == {"colors"}
    sent.clear()
    viewer.set_look(Look(color="time", drop_moving=0.6))
    assert {key for _, key in updated(sent)} == {"points", "colors"}
    assert all(name.startswith("/scene_0/moving/") for name, _ in updated(sent))
    sent.clear()
    viewer.set_look(Look(color="time", drop_moving=0.6))
    viewer.set_parts(Parts())
    assert sent == []


def test_parts_and_point_size(viewer):
    viewer.controls.boxes["moving"].value = False
    viewer.controls.boxes["axes"].value = True
    viewer.controls._do.parts_changed()
    groups = viewer.stage._groups
    assert wait_for(lambda: viewer.stage.axes.visible and not groups["moving"].visible)
    viewer.set_point_size(2.0)
    assert viewer.controls.size.value == 2.0
    plan = viewer.stage.plan
    expected = 2 * plan.point_size / plan.unit
    assert viewer.stage.moving[3].point_size == pytest.approx(expected)


def test_the_controls_say_what_is_shown(viewer):
    look = Look(color="depth", drop_static=0.4, step_moving=3, mask_growth=5, hide_edges=False)
    parts = Parts(axes=True, every=2, trail=3, cameras=False)
    viewer.set_look(look)
    viewer.set_parts(parts)
    assert viewer.controls.look == look
    assert viewer.controls.parts == parts
    viewer.set_look(Look(step_static=50))  # more than the slider reaches
    assert viewer.look.step_static == 50


def test_a_look_beyond_the_sliders_opens_all_the_same():
    look, parts = Look(drop_static=0.99, step_moving=20), Parts(every=50, trail=50)
    viewer = view(tiny_scene(n=2), port=0, block=False, look=look, parts=parts)
    assert viewer.look == look
    assert viewer.controls.step_moving.value == viewer.controls.step_moving.max
    assert wait_for(lambda: shown(viewer.stage.trails) == [0])
    viewer.stop()


def test_trails_are_made_when_they_are_asked_for(viewer):
    assert viewer.stage.trails == []
    viewer.set_parts(Parts(trail=2))
    viewer.seek(4)
    assert shown(viewer.stage.trails) == [3, 4]
    viewer.set_parts(Parts())
    assert shown(viewer.stage.trails) == []


def test_the_strip_follows_the_time(viewer):
    viewer.show_strip(True)
    first = viewer._strip.image.copy()
    viewer.seek(3)
    assert not np.array_equal(viewer._strip.image, first)
    viewer.show_strip(False)
    assert viewer._strip is None


def test_following_the_camera_and_coming_back(viewer, monkeypatch):
    browser = a_browser()
    monkeypatch.setattr(viewer.server, "get_clients", lambda: {0: browser})
    viewer.follow(True)
    viewer.seek(4)
    T = viewer.stage.plan.T_world_camera[4]
    np.testing.assert_allclose(browser.camera.position, T[:3, 3])
    np.testing.assert_allclose(browser.camera.up_direction, -T[:3, 1])
    assert browser.camera.fov == pytest.approx(viewer.stage.plan.fov_y_rad[4])
    assert not viewer.stage.path.visible
    viewer.follow(False)
    np.testing.assert_allclose(browser.camera.position, [0, 0, -5])
    assert browser.camera.fov == 1.0
    assert viewer.stage.path.visible


def test_first_view_and_looking_through(viewer):
    browser = a_browser()
    viewer.seek(2)
    viewer.look_through(browser)
    T = viewer.stage.plan.T_world_camera[2]
    np.testing.assert_allclose(browser.camera.position, T[:3, 3])
    viewer.first_view(browser)
    np.testing.assert_allclose(browser.camera.position, viewer.stage.plan.first_view.position)
    np.testing.assert_allclose(browser.camera.up_direction, viewer.stage.plan.upright.up_world)


def test_the_page_offers_files(viewer, monkeypatch):
    from dyn3r.viewer import TurntableOptions, downloads

    short = TurntableOptions(seconds=0.2, fps=10, size_hw=(48, 64))
    monkeypatch.setattr(downloads, "TurntableOptions", lambda: short)
    browser = a_browser()
    for kind in ("screenshot", "turntable", "page"):
        viewer._save(kind, browser)
    files = dict(browser.downloads)
    assert files["screenshot.png"].startswith(b"\x89PNG")
    assert files["turntable.mp4"][4:8] == b"ftyp"
    assert b"__VISER_EMBED_DATA__" in files["scene.html"]
    assert "scene.html" in viewer.controls.saving.value


def test_a_job_that_fails_is_said_on_the_page(viewer):
    def job():
        raise TimeoutError("the browser has gone")

    viewer._jobs.put(job)
    assert wait_for(lambda: viewer.controls.saving.value == "failed: the browser has gone")
    viewer.controls.drop_moving.value = 50
    viewer.controls._do.look_changed()
    assert wait_for(lambda: viewer.look.drop_moving == 0.5)


def test_several_scenes_side_by_side_or_one_of_them():
    scenes = [tiny_scene(n=6), tiny_scene(n=1, depth=np.full((1, 32, 48), 9.0))]
    viewer = view(scenes, names=["a", "b"], port=0, block=False)
    try:
        assert [stage.root.visible for stage in viewer.show.stages] == [True, True]
        assert [stage.label.text for stage in viewer.show.stages] == ["a", "b"]
        left, right = (stage.root.position for stage in viewer.show.stages)
        assert right[0] > left[0] + 1
        viewer.seek(5)
        assert [stage.frame for stage in viewer.show.stages] == [5, 0]
        viewer.choose_scene("b")
        assert [stage.root.visible for stage in viewer.show.stages] == [False, True]
        assert (viewer.clock.frame, viewer.clock.num_frames) == (0, 1)
        assert viewer.controls.menu.value == "b"
        viewer.choose_scene("side by side")
        viewer.seek(4)
        assert shown(viewer.show.stages[0].moving) == [4]
        assert [stage.root.visible for stage in viewer.show.stages] == [True, True]
    finally:
        viewer.stop()


def test_a_scene_in_which_nothing_is_known_still_opens():
    viewer = view(tiny_scene(n=2, depth=np.zeros((2, 32, 48))), port=0, block=False)
    viewer.set_parts(Parts(trail=1))
    viewer.stop()


def test_a_taken_port_gives_the_next_one(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_port("127.0.0.1", port)
        assert port < found < port + 20
        assert f"port {port} is taken" in caplog.text
        with pytest.raises(InputError, match="are taken"):
            free_port("127.0.0.1", port, tries=1)
