"""The page without a browser: what the server is told."""

from __future__ import annotations

import socket
import time
import urllib.request

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.viewer import view
from dyn3r.viewer.app import free_port
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


def shown(viewer) -> list[int]:
    return [t for t, node in enumerate(viewer.stage.moving) if node.visible]


def test_the_page_is_served_on_this_machine_only(viewer):
    with urllib.request.urlopen(viewer.url, timeout=5) as page:
        assert b"<html" in page.read().lower()
    assert viewer.url.startswith("http://127.0.0.1:")


def test_exactly_one_frame_is_shown(viewer):
    assert shown(viewer) == [0]
    for frame in (3, 3, 5, 0):
        viewer.seek(frame)
        assert shown(viewer) == [frame]
        assert [t for t, node in enumerate(viewer.stage.frusta) if node.visible] == [frame]
    viewer.step(-1)
    assert shown(viewer) == [5]
    assert viewer.stage.background.visible


def test_playing_advances_and_pausing_stops(viewer):
    viewer.clock.speed = 4.0
    viewer.play()
    assert wait_for(lambda: viewer.stage.frame >= 2)
    viewer.play(False)
    rest = viewer.stage.frame
    time.sleep(0.15)
    assert viewer.stage.frame == rest
    assert shown(viewer) == [rest]


def test_playing_sends_visibility_only(viewer, monkeypatch):
    sent = []
    original = viewer.server.scene._websock_interface.queue_message
    monkeypatch.setattr(
        viewer.server.scene._websock_interface,
        "queue_message",
        lambda message: (sent.append(message), original(message))[1],
    )
    viewer.step(1)
    kinds = {type(message).__name__ for message in sent}
    assert "SetSceneNodeVisibilityMessage" in kinds
    assert not any("PointCloud" in kind or "SceneNodeUpdate" in kind for kind in kinds)


def test_a_rested_confidence_slider_makes_the_clouds_anew(viewer):
    before = len(viewer.stage.background.points)
    viewer._drop.value = 90
    assert wait_for(lambda: len(viewer.stage.background.points) < 0.7 * before)
    assert wait_for(
        lambda: viewer.stage.background.colors.shape == viewer.stage.background.points.shape
    )


def test_parts_and_point_size(viewer):
    viewer._parts["moving"].value = False
    viewer._parts["axes"].value = True
    assert wait_for(lambda: viewer.stage.axes.visible and not viewer.stage._movers.visible)
    viewer._size.value = 2.0
    expected = 2 * viewer.stage.plan.point_size
    assert wait_for(lambda: viewer.stage.moving[3].point_size == pytest.approx(expected))


def test_several_scenes_are_shown_one_at_a_time():
    scenes = [tiny_scene(n=6), tiny_scene(n=1, depth=np.full((1, 32, 48), 9.0))]
    viewer = view(scenes, names=["a", "b"], port=0, block=False)
    try:
        viewer.seek(5)
        viewer.choose_scene(1)
        assert [stage.root.visible for stage in viewer.stages] == [False, True]
        assert (viewer.clock.frame, viewer.clock.num_frames) == (0, 1)
        assert viewer._menu.value == "b"
        viewer.choose_scene(0)
        viewer.seek(4)
        assert shown(viewer) == [4]
    finally:
        viewer.stop()


def test_a_scene_in_which_nothing_is_known_still_opens():
    viewer = view(tiny_scene(n=2, depth=np.zeros((2, 32, 48))), port=0, block=False)
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
