"""`dyn3r run --view`: a page that fills while the run computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyn3r.cli.run import Run
from dyn3r.cli.run_view import RunPage
from dyn3r.cli.watch import RunWatcher
from dyn3r.network.model import prepare_model
from dyn3r.scene import Scene
from dyn3r.types import no_progress
from dyn3r.viewer.tiles import Tiles
from tests.factories import moving_square, tiny_network, tiny_scene
from tests.videos import write_video
from tests.viewer.browser import CHROMIUM, Browser


def test_tiles_show_depth_and_motion_of_a_few_frames():
    scene = tiny_scene(n=9)
    assert Tiles(scene.images).html() == ""
    depth = Tiles(scene.images, np.zeros_like(scene.depth)).html()  # nothing is known yet
    assert (depth.count('alt="depth"'), depth.count('alt="motion"')) == (4, 0)
    both = Tiles(scene.images[:2], scene.depth[:2], scene.dynamic[:2]).html()
    assert (both.count('alt="depth"'), both.count('alt="motion"')) == (2, 2)


def test_a_fault_of_the_page_does_not_end_the_run(caplog):
    def fail(_: object) -> None:
        raise RuntimeError("the browser has left")

    watcher = RunWatcher(fail, fail)
    watcher("clip", moving_square(3))
    watcher("motion", tiny_scene())  # it has no masks
    assert "could not be shown" in caplog.text


def run_with_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunPage, list[Scene]]:
    """The page of a finished run, before it would wait for Ctrl-C; and the scenes that it got."""
    monkeypatch.setattr("dyn3r.alignment.align.DEFAULT_PIXELS", 64)
    monkeypatch.setattr("dyn3r.alignment.gauss_newton.MAX_ITERATIONS", 3)
    model = prepare_model(tiny_network(), "tiny", device="cpu")
    monkeypatch.setattr("dyn3r.cli.run.load_models", lambda *_: (model, None))
    shown: list[Scene] = []
    show = RunPage.show_scene
    monkeypatch.setattr(
        RunPage, "show_scene", lambda page, scene: (shown.append(scene), show(page, scene))
    )
    pages: list[RunPage] = []
    monkeypatch.setattr(RunPage, "wait", lambda page: pages.append(page))
    monkeypatch.setattr(RunPage, "stop", lambda _: None)
    Run(
        write_video(tmp_path / "cat.mp4"), tmp_path / "out", num_frames=4, size=64,
        view=True, view_port=0, no_browser=True, no_pictures=True, quiet=True,
    )()  # fmt: skip
    monkeypatch.undo()
    return pages[0], shown


@pytest.mark.slow
def test_the_page_gets_drafts_and_then_the_scene(tmp_path, monkeypatch, capsys):
    page, shown = run_with_page(tmp_path, monkeypatch)
    try:
        assert f"watch it at {page.url}" in capsys.readouterr().out
        assert len(shown) >= 2
        assert all(scene.metadata.get("draft") for scene in shown[:-1])
        assert "draft" not in shown[-1].metadata
        saved = Scene.load(tmp_path / "out")
        np.testing.assert_array_equal(saved.dynamic, shown[-1].dynamic)
        assert (page.share, page.text, page.is_over) == (1.0, "finished", True)
        assert page.tiles_html.count('alt="motion"') == 4
    finally:
        page.stop()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found on the path")
def test_a_browser_follows_a_run_and_catches_up_after_a_reload(tmp_path):
    page, scene = RunPage("cat.mp4", 0), tiny_scene(n=4, h=96, w=144)
    tell = page.progress(no_progress)

    def text(browser: Browser) -> str:
        return browser.run("document.body?.innerText ?? ''")

    def tiles(browser: Browser) -> int:
        return browser.run("document.querySelectorAll('img[alt]').length")

    try:
        with Browser(page.url, tmp_path / "a", (1200, 700)) as browser:
            browser.until(lambda: "cat.mp4" in text(browser), 60)
            tell.overall("stage 3 of 9: first pass", 0.25)
            browser.until(lambda: "stage 3 of 9: first pass (25 %)" in text(browser), 60)
            assert "reset view" not in text(browser)
            page.show_tiles(Tiles(scene.images, scene.depth))
            browser.until(lambda: tiles(browser) == 4, 60)
            page.show_scene(scene)
            browser.until(lambda: tiles(browser) == 8 and "reset view" in text(browser), 60)
            page.show_scene(tiny_scene(n=4, h=96, w=144))
            page.finish()
            browser.until(lambda: "finished" in text(browser), 60)
            browser.call("Page.reload")  # a browser that comes later catches up
            browser.until(lambda: tiles(browser) == 8 and "reset view" in text(browser), 60)
            assert browser.console == []
    finally:
        page.stop()
    assert page.stopped
