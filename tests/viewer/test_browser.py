"""The page in a real browser: points visible and upright, playback, controls."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.viewer import LiveViewer, Visibility, save_recording, view
from dyn3r.viewer.downloads import screenshot_file
from tests.factories import tiny_scene
from tests.viewer.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
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


def is_red(image: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    return (red > 150) & (green < 90) & (blue < 90)


def is_green(image: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    return (green > 150) & (red < 90) & (blue < 90)


def is_blue(image: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    return (blue > 150) & (red < 90) & (green < 90)


def left_part(browser: Browser) -> np.ndarray:
    """Screenshot without the controls."""
    return browser.screenshot()[:, :640]


def is_complete(image: np.ndarray) -> bool:
    """True if floor, wall and moving square are visible."""
    static = is_green(image).mean() > 0.02 and is_blue(image).mean() > 0.02
    return bool(static and is_red(image).sum() > 20)


def square_column(browser: Browser) -> float:
    """Mean column of the red square."""
    return float(np.nonzero(is_red(left_part(browser)))[1].mean())


def test_a_user_sees_the_scene_and_the_controls_act(tmp_path):
    visibility = Visibility(image=False, cameras=False)
    viewer = view(coloured_scene(), port=0, block=False, visibility=visibility)
    try:
        with Browser(viewer.url, tmp_path, (1000, 480)) as browser:
            browser.until(lambda: is_complete(left_part(browser)), 120)
            first = left_part(browser)
            floor, wall = is_green(first), is_blue(first)
            # The floor is below: the page is upright.
            assert np.nonzero(floor)[0].mean() > np.nonzero(wall)[0].mean() + 20
            # The camera moves right by 0.2 per frame. The square moves left in its images by less,
            # so it moves right in the world, which is static on the page.
            before = square_column(browser)
            browser.set_slider("frame", 1.0)
            browser.until(lambda: viewer.scene_nodes.frame == 3, 60)
            browser.until(lambda: square_column(browser) > before + 5, 60)
            (client,) = viewer.server.get_clients().values()
            _, content = screenshot_file(client)
            assert is_complete(np.asarray(Image.open(io.BytesIO(content))))
            browser.press("play")
            browser.until(lambda: viewer.clock.playing, 60)
            seen: set[int] = set()
            browser.until(lambda: seen.add(viewer.scene_nodes.frame) or len(seen) == 4, 60)
            browser.until(lambda: abs(square_column(browser) - before) < 3, 60)
            browser.set_slider("point size", 0.0)
            browser.until(lambda: is_green(left_part(browser)).sum() < 0.7 * floor.sum(), 60)
            assert browser.console == []
    finally:
        viewer.stop()


def test_a_recording_plays_from_the_disk_without_server_or_network(tmp_path):
    page = save_recording(coloured_scene(), tmp_path / "scene.html")
    with Browser(page.as_uri(), tmp_path / "profile", (640, 480), offline=True) as browser:
        browser.until(lambda: is_complete(browser.screenshot()), 120)
        columns: list[float] = []

        def is_playing() -> bool:
            red = is_red(browser.screenshot())
            columns.append(float(np.nonzero(red)[1].mean()) if red.any() else -1.0)
            return max(columns) - min(columns) > 5

        browser.until(is_playing, 60)
        assert browser.console == []


def test_a_run_in_progress_is_visible(tmp_path):
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
            browser.until(lambda: is_complete(left_part(browser)), 120)
            assert browser.console == []
    finally:
        live.stop()
