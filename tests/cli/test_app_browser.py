"""The app in a real browser: from a dropped video to a scene, masks and files."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.cli.app.page import AppPage
from dyn3r.cli.app.requests import Request
from dyn3r.cli.app.view import AppView
from dyn3r.cli.overall import PREVIEW, Overall
from dyn3r.network.model import prepare_model
from dyn3r.scene import Scene
from dyn3r.viewer.tiles import Tiles
from tests.factories import tiny_network, tiny_scene
from tests.videos import write_video
from tests.viewer.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found on the path"),
]


def room(request: Request) -> Scene:
    """A grey room in which a white square moves; nothing is masked unless masks are known."""
    scene = tiny_scene(n=4, h=96, w=144)
    images = np.full_like(scene.images, 110)
    images[scene.dynamic] = 250
    masks = np.zeros_like(scene.dynamic) if request.masks is None else request.masks
    # the square is doubtful: it appears in the masks when the sensitivity rises
    probability = np.where(scene.dynamic, 90, 10).astype(np.uint8)
    return tiny_scene(
        n=4, h=96, w=144, images=images, dynamic=masks, confidence=np.ones(masks.shape),
        dynamic_probability=probability if request.masks is None else None,
    )  # fmt: skip


@pytest.fixture
def hold():
    """While this is set, a reconstruction goes on and on."""
    return threading.Event()


@pytest.fixture
def page(monkeypatch, hold):
    """The app with a reconstruction that takes two seconds and gives a known scene."""

    def reconstruct(request, _model, inner, watcher, _expected_s):
        progress = Overall(inner, without=(PREVIEW,))
        while hold.is_set():
            progress("first pass", 0, 10)
            time.sleep(0.05)
        for k in range(10):
            progress("first pass", k, 10)
            time.sleep(0.2)
            if k == 3:
                scene = room(request)
                watcher.show_tiles(Tiles(scene.images, scene.depth))
                watcher.show_scene(scene)
        return room(request)

    monkeypatch.setattr("dyn3r.cli.app.work.reconstruct_request", reconstruct)
    page = AppPage(prepare_model(tiny_network(), "tiny", device="cpu"), port=0)
    yield page
    page.stop()


def view_of(page: AppPage, browser: Browser) -> AppView:
    """The view of the only browser."""
    browser.until(lambda: len(page.views) == 1, 60)
    (view,) = page.views.values()
    return view


def drop(browser: Browser, path: Path) -> None:
    """Drop a file onto the page."""
    ready = "Boolean(window.dyn3rDrop && document.querySelector('input[type=file]'))"
    browser.until(lambda: browser.run(ready), 60)
    data = json.dumps(list(path.read_bytes()))
    browser.run(
        f"(() => {{ const file = new File([new Uint8Array({data})], {json.dumps(path.name)});"
        " const transfer = new DataTransfer(); transfer.items.add(file);"
        " window.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer})); })()"
    )


def is_red(image: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    return (red > green + 50) & (red > blue + 50)


def is_grey(image: np.ndarray) -> np.ndarray:
    return (np.abs(image.astype(int) - image[..., :1]) < 8).all(axis=-1) & (image[..., 0] > 40)


def is_white(image: np.ndarray) -> np.ndarray:
    return is_grey(image) & (image[..., 0] > 115)


def tiles(browser: Browser) -> dict[str, int]:
    """Number of tiles on the page, by kind."""
    kinds = browser.run("[...document.querySelectorAll('img[alt]')].map(i => i.alt)")
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def text(browser: Browser) -> str:
    return browser.run("document.body?.innerText ?? ''")


def test_from_a_dropped_video_to_a_scene_its_masks_and_a_file(page, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with Browser(page.url, tmp_path / "a", (1400, 800)) as browser:
        view = view_of(page, browser)
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        drop(browser, write_video(tmp_path / "cat.mp4"))
        browser.until(lambda: "6 of 6 frames, about" in text(browser), 60)
        browser.press("reconstruct")
        browser.until(lambda: view.work.job, 60)
        shares: set[float] = set()
        browser.until(lambda: shares.add(view.work.job.share) or view.work.job.is_over, 60)
        assert len(shares) > 5
        browser.until(lambda: tiles(browser) == {"depth": 4, "motion": 4}, 60)
        browser.until(lambda: "finished" in text(browser), 60)
        canvas = lambda: browser.screenshot()[160:480, 340:1040]  # noqa: E731
        browser.until(lambda: is_grey(canvas()).mean() > 0.3, 60)
        # a click makes the white square a moving object, in all frames
        browser.check("edit")
        # the slider acts on the masks, and takes nothing away for good
        browser.set_slider("mask sensitivity %", 0.9)
        browser.until(lambda: is_red(canvas()).sum() > 50, 60)
        browser.set_slider("mask sensitivity %", 0.5)
        browser.until(lambda: not is_red(canvas()).any(), 60)
        assert not view.shown_scene.dynamic.any()
        browser.until(lambda: is_white(canvas()).sum() > 50, 60)
        rows, columns = np.nonzero(is_white(canvas()))
        browser.click(340 + float(np.median(columns)), 160 + float(np.median(rows)))
        browser.until(lambda: view.work.scene.dynamic.any(axis=(1, 2)).all(), 60)
        assert view.work.scene.dynamic.mean() < 0.1
        browser.until(lambda: is_red(canvas()).sum() > 50, 60)
        # a touch of the brush changes one frame, undo takes it back
        masks = view.work.scene.dynamic
        view.masks.tool.value = "add with a brush"
        browser.until(lambda: "brush px" in text(browser), 60)
        rows, columns = np.nonzero(is_grey(canvas()))
        row = int(np.median(rows))
        browser.click(340 + float(np.quantile(columns[rows == row], 0.25)), 160.0 + row)
        browser.until(lambda: view.work.scene.dynamic is not masks, 60)
        changed = (view.work.scene.dynamic != masks).sum(axis=(1, 2))
        assert (changed > 0).sum() == 1
        assert changed.max() > 30
        browser.press("undo")
        browser.until(lambda: np.array_equal(view.work.scene.dynamic, masks), 60)
        # a stroke paints along its path, and is carried to the other frames
        browser.until(lambda: is_red(canvas()).sum() > 50, 60)
        picture = browser.settled()[160:480, 340:1040]
        rows, columns = np.nonzero(is_red(picture))
        width = columns.max() - columns.min()
        top, middle = 160 + rows.min() - 12.0, 340 + float(columns.mean())
        camera = view.session.client.camera.position.copy()
        browser.drag([(float(x), top) for x in np.linspace(middle - width, middle + width, 8)])
        browser.until(lambda: view.work.scene.dynamic is not masks, 60)
        assert np.array_equal(view.session.client.camera.position, camera)  # it did not turn
        painted = view.work.scene.dynamic != masks
        assert (painted.any(axis=(1, 2))).sum() == 1
        assert painted.any(axis=(0, 1)).sum() > 1.5 * painted.any(axis=(0, 2)).sum()  # wide
        browser.press("propagate")
        browser.until(lambda: (view.work.scene.dynamic != masks).any(axis=(1, 2)).all(), 60)
        browser.press("undo")
        browser.press("undo")
        browser.until(lambda: np.array_equal(view.work.scene.dynamic, masks), 60)
        browser.press("run again with these masks")
        browser.until(lambda: view.work.request.masks is not None and view.work.job.is_over, 60)
        assert view.work.scene.dynamic.any()
        browser.until(lambda: "nerfstudio" in text(browser), 60)
        browser.press("scene")
        browser.until(lambda: list(downloads.glob("*.dyn3r")), 60)
        browser.until(lambda: "scene.dyn3r:" in text(browser), 60)
        browser.until(lambda: not list(downloads.glob("*.crdownload")), 60)
        assert Scene.load(downloads / "scene.dyn3r").dynamic.any()
        # the page is saved as it is on the screen
        view.session.set_point_size(3.0)
        browser.press("page")
        browser.until(lambda: "scene.html:" in text(browser), 60)
        browser.until(lambda: list(downloads.glob("*.html")), 60)
        saved = next(downloads.glob("*.html"))
        browser.until(lambda: not list(downloads.glob("*.crdownload")), 60)
        assert "<html" in saved.read_text()[:2000].lower()
        # a reload keeps the work; another browser has none of it
        client = next(iter(page.views))
        browser.call("Page.reload")
        browser.until(lambda: page.views and client not in page.views, 60)
        again = view_of(page, browser)
        assert again.work is view.work
        browser.until(lambda: again.session is not None, 60)
        with Browser(page.url, tmp_path / "b", (480, 800)) as other:
            other.until(lambda: len(page.views) == 2, 60)
            second = next(v for v in page.views.values() if v is not again)
            assert second.work is not again.work
            assert second.work.scene is None
            assert second.work.folder != again.work.folder
        folders = [work.folder for work in page.works.values()]
        assert browser.console == []
    page.stop()
    assert not any(folder.exists() for folder in folders)


def test_cancel_failures_and_a_second_job_in_line(page, hold, tmp_path):
    hold.set()
    with Browser(page.url, tmp_path / "a", (1400, 800)) as browser:
        view = view_of(page, browser)
        (tmp_path / "notes.mp4").write_text("no video")
        drop(browser, tmp_path / "notes.mp4")
        browser.until(lambda: "notes.mp4 cannot be read as a video" in text(browser), 60)
        folder = tmp_path / "holiday"
        (folder / "frames").mkdir(parents=True)
        for t in range(3):
            Image.new("RGB", (64, 48), (80 * t, 0, 0)).save(folder / "frames" / f"{t}.png")
        (folder / "notes.txt").write_text("no image")
        browser.drop(folder)
        browser.until(lambda: "3 of 3 frames" in text(browser), 60)
        browser.press("street")
        browser.until(lambda: "24 of 24 frames" in text(browser), 60)
        browser.press("reconstruct")
        browser.until(lambda: view.work.is_running, 60)
        with Browser(page.url, tmp_path / "b", (1400, 800)) as other:
            other.until(lambda: "workshop" in text(other), 60)
            other.press("workshop")
            other.until(lambda: "24 of 24 frames" in text(other), 60)
            other.press("reconstruct")
            other.until(lambda: "waiting in line: 1 before" in text(other), 60)
            browser.until(lambda: "cancel" in text(browser), 60)
            browser.press("cancel")
            browser.until(lambda: "cancelled" in text(browser), 60)
            browser.until(lambda: view.work.job.state == "cancelled", 60)
            hold.clear()
            other.until(lambda: "finished" in text(other), 60)
        assert browser.console == []
