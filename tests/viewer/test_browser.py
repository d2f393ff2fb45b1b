"""The page in a real browser: points visible and upright, playback, controls."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.viewer import Appearance, LiveViewer, Visibility, save_recording, view
from dyn3r.viewer.app import Viewer
from dyn3r.viewer.downloads import screenshot_file
from dyn3r.viewer.session import Session
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


def scene_part(browser: Browser) -> np.ndarray:
    """Screenshot without the controls."""
    return browser.screenshot()[:400, :640]


def is_complete(image: np.ndarray) -> bool:
    """True if floor, wall and moving square are visible."""
    static = is_green(image).mean() > 0.02 and is_blue(image).mean() > 0.02
    return bool(static and is_red(image).sum() > 20)


def square_column(browser: Browser) -> float:
    """Mean column of the red square."""
    return float(np.nonzero(is_red(scene_part(browser)))[1].mean())


def session_of(viewer: Viewer) -> Session:
    """The session of the only browser."""
    (session,) = viewer.sessions.values()
    return session


def test_a_user_sees_the_scene_and_the_controls_act(tmp_path):
    visibility = Visibility(image=False, path=False)
    viewer = view(coloured_scene(), names=["room"], port=0, block=False, visibility=visibility)
    try:
        viewer.seek(0)
        with Browser(viewer.url, tmp_path, (1000, 640)) as browser:
            browser.until(lambda: is_complete(scene_part(browser)), 120)
            session = session_of(viewer)
            assert browser.run("document.title") == "room - dyn3r"
            first = scene_part(browser)
            floor, wall = is_green(first), is_blue(first)
            # The floor is below: the page is upright.
            assert np.nonzero(floor)[0].mean() > np.nonzero(wall)[0].mean() + 20
            # The camera moves right by 0.2 per frame. The square moves left in its images by less,
            # so it moves right in the world, which is static on the page.
            before = square_column(browser)
            browser.set_slider("frame", 1.0)
            browser.until(lambda: session.scene_nodes.frame == 3, 60)
            browser.until(lambda: square_column(browser) > before + 5, 60)
            browser.until(lambda: browser.run("location.search").startswith("?t=3&view="), 60)
            _, content = screenshot_file(session.client)
            assert is_complete(np.asarray(Image.open(io.BytesIO(content))))
            browser.key("ArrowRight", 39)
            browser.until(lambda: session.scene_nodes.frame == 0, 60)
            browser.key("Space", 32, text=" ")
            browser.until(lambda: session.clock.playing, 60)
            seen: set[int] = set()
            browser.until(lambda: seen.add(session.scene_nodes.frame) or len(seen) == 4, 60)
            browser.press("pause")
            browser.until(lambda: not session.clock.playing, 60)
            browser.until(lambda: browser.slider_value("frame") == session.scene_nodes.frame, 60)
            # textures have their own colours
            colors = {tuple(color) for color in browser.settled()[:400, :640].reshape(-1, 3)}
            assert {(40, 40, 200), (40, 200, 40)} <= colors
            session.set_appearance(Appearance(style="points"))
            browser.until(lambda: is_complete(scene_part(browser)), 60)
            browser.set_slider("point size", 0.0)
            browser.until(lambda: is_green(scene_part(browser)).sum() < 0.7 * floor.sum(), 60)
            assert browser.console == []
    finally:
        viewer.stop()


def test_the_camera_shows_the_points_and_a_click_measures_them(tmp_path):
    viewer = view(coloured_scene(), port=0, block=False)
    try:
        with Browser(viewer.url, tmp_path, (1000, 640)) as browser:
            browser.until(lambda: is_complete(scene_part(browser)), 120)
            session = session_of(viewer)
            browser.check("measure")
            browser.until(lambda: session.controls.picked.content == "click a point", 60)
            rows, columns = np.nonzero(is_red(browser.screenshot()[:320, 320:640]))
            browser.click(320 + float(np.median(columns)), float(np.median(rows)))
            browser.until(lambda: "depth 2.5," in session.controls.picked.content, 60)
            browser.press("look through the camera")
            # no image in front: the wall of frame 2 fills the upper half of the window
            browser.until(lambda: is_blue(browser.screenshot()[160:240, 320:640]).mean() > 0.9, 60)
            assert browser.console == []
    finally:
        viewer.stop()


def test_two_browsers_have_their_own_frame_and_the_address_is_read(tmp_path):
    viewer = view(coloured_scene(), port=0, block=False)
    try:
        with (
            Browser(viewer.url + "/?t=1", tmp_path / "a", (1000, 640)) as first,
            Browser(viewer.url, tmp_path / "b", (480, 800)) as narrow,
        ):
            first.until(lambda: len(viewer.sessions) == 2, 120)
            frames = {s.camera.size_px[0] > 600: s for s in viewer.sessions.values()}
            first.until(lambda: frames[True].clock.frame == 1, 60)
            narrow.until(lambda: frames[False].clock.playing, 60)
            first.until(lambda: first.slider_value("frame") == 1, 60)
            first.press("next")
            first.press("next")
            first.until(lambda: frames[True].clock.frame == 3, 60)
            assert frames[False].clock.playing
            narrow.until(lambda: is_complete(narrow.screenshot()), 60)
            # the sheet with the controls is closed: floor and wall reach its side of the window
            assert is_blue(narrow.screenshot()[:, 300:]).any()
            first.call("Page.reload")
            first.until(lambda: frames[True] not in viewer.sessions.values(), 60)
            first.until(lambda: len(viewer.sessions) == 2, 60)
            assert first.console == []
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
            browser.until(lambda: is_complete(scene_part(browser)), 120)
            assert browser.console == []
    finally:
        live.stop()
