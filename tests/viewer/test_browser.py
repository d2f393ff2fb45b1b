"""The page in a real browser: the cloud is really there, upright, plays, and the controls act."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.viewer import LiveViewer, Parts, save_recording, view
from dyn3r.viewer.downloads import screenshot_file
from tests.factories import tiny_scene
from tests.viewer.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found on the path"),
]


def coloured_scene() -> Scene:
    """A green floor, a blue wall, a red square that moves; 4 frames."""
    scene = tiny_scene(n=4, h=96, w=144)
    images = scene.images.copy()
    rows = np.arange(96)
    images[:, rows > 48] = (40, 200, 40)
    images[:, rows <= 48] = (40, 40, 200)
    images[scene.dynamic] = (250, 20, 60)
    return tiny_scene(n=4, h=96, w=144, images=images)


def is_red(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return (red > 150) & (green < 90) & (blue < 90)


def is_green(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return (green > 150) & (red < 90) & (blue < 90)


def is_blue(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return (blue > 150) & (red < 90) & (green < 90)


def left_part(browser: Browser) -> np.ndarray:
    """What is to see beside the controls."""
    return browser.screenshot()[:, :640]


def is_whole(picture: np.ndarray) -> bool:
    """Whether floor, wall and mover are to be seen."""
    there = is_green(picture).mean() > 0.02 and is_blue(picture).mean() > 0.02
    return bool(there and is_red(picture).sum() > 20)


def mover_column(browser: Browser) -> float:
    """Where the red square is, from left to right."""
    return float(np.nonzero(is_red(left_part(browser)))[1].mean())


def test_a_person_sees_the_scene_and_moves_its_controls(tmp_path):
    viewer = view(coloured_scene(), port=0, block=False, parts=Parts(picture=False, cameras=False))
    try:
        with Browser(viewer.url, tmp_path, (1000, 480)) as browser:
            browser.until(lambda: is_whole(left_part(browser)), 120)
            first = left_part(browser)
            floor, wall = is_green(first), is_blue(first)
            # The floor is below: the page is upright.
            assert np.nonzero(floor)[0].mean() > np.nonzero(wall)[0].mean() + 20
            # The camera goes 0.2 a frame to the right, the square in its pictures to the left by
            # less, so in the world, which stands still here, the square goes right.
            before = mover_column(browser)
            browser.set_slider("frame", 1.0)
            browser.until(lambda: viewer.stage.frame == 3, 60)
            browser.until(lambda: mover_column(browser) > before + 5, 60)
            (client,) = viewer.server.get_clients().values()
            _, content = screenshot_file(client)
            assert is_whole(np.asarray(Image.open(io.BytesIO(content))))
            browser.press("play")
            browser.until(lambda: viewer.clock.playing, 60)
            seen: set[int] = set()
            browser.until(lambda: seen.add(viewer.stage.frame) or len(seen) == 4, 60)
            browser.until(lambda: abs(mover_column(browser) - before) < 3, 60)
            browser.set_slider("point size", 0.0)
            browser.until(lambda: is_green(left_part(browser)).sum() < 0.7 * floor.sum(), 60)
            assert browser.console == []
    finally:
        viewer.stop()


def test_a_recording_plays_from_the_disk_without_server_or_network(tmp_path):
    page = save_recording(coloured_scene(), tmp_path / "scene.html")
    with Browser(page.as_uri(), tmp_path / "profile", (640, 480), offline=True) as browser:
        browser.until(lambda: is_whole(browser.screenshot()), 120)
        columns: list[float] = []

        def goes_on() -> bool:
            red = is_red(browser.screenshot())
            columns.append(float(np.nonzero(red)[1].mean()) if red.any() else -1.0)
            return max(columns) - min(columns) > 5

        browser.until(goes_on, 60)
        assert browser.console == []


def test_a_run_can_be_watched_while_it_goes_on(tmp_path):
    scene = coloured_scene()
    live = LiveViewer(port=0)
    try:
        with Browser(live.url, tmp_path, (1000, 480)) as browser:
            browser.until(lambda: live.server.get_clients(), 120)
            for t in range(len(scene)):
                live.add_frame(
                    float(scene.times_s[t]),
                    scene.images[t].transpose(2, 0, 1) / np.float32(255),
                    scene.depth[t],
                    scene.K[t],
                    scene.T_world_camera[t],
                    scene.dynamic[t],
                )
            browser.until(lambda: is_whole(left_part(browser)), 120)
            assert browser.console == []
    finally:
        live.stop()
