"""`Scene.show` in scripts, at prompts and in notebooks (which are acted here)."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from dyn3r.errors import InputError
from dyn3r.viewer.page import Page
from tests.factories import tiny_scene


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The addresses that a browser was asked to open; no real one is."""
    urls: list[str] = []
    monkeypatch.setattr(Page, "open_in_browser", lambda page: urls.append(page.url) is None)
    return urls


@pytest.fixture
def notebook(monkeypatch) -> list:
    """A kernel that keeps what is displayed."""
    displayed: list = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    display.display = displayed.append
    display.HTML = lambda text: text
    display.IFrame = lambda url, width, height: (url, width, height)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return displayed


def test_a_script_opens_a_browser_and_waits(opened, monkeypatch):
    waited: list[bool] = []
    monkeypatch.setattr(Page, "wait", lambda page: waited.append(True))
    viewer = tiny_scene(n=1).show(port=0)
    assert opened == [viewer.url]
    assert waited == [True]
    viewer.stop()


def test_it_can_be_told_not_to_wait(opened):
    tiny_scene(n=1).show(port=0, block=False).stop()
    assert len(opened) == 1


def test_without_a_browser_the_address_is_said(monkeypatch, caplog):
    monkeypatch.setattr(Page, "open_in_browser", lambda page: False)
    viewer = tiny_scene(n=1).show(port=0, block=False)
    assert viewer.url in caplog.text
    viewer.stop()


def test_no_browser_and_browsers_of_the_terminal_are_left_alone(monkeypatch):
    import webbrowser

    page = Page("127.0.0.1", 0)
    try:

        def nothing() -> None:
            raise webbrowser.Error("no browser")

        monkeypatch.setattr(webbrowser, "get", nothing)
        assert not page.open_in_browser()
        monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
        assert not page.open_in_browser()
    finally:
        page.stop()


def test_a_notebook_shows_the_page_below_the_cell(opened, notebook):
    viewer = tiny_scene(n=1).show(port=0, height=400)
    assert notebook == [(viewer.url, "100%", 400)]
    assert opened == []
    viewer.stop()


def test_a_notebook_can_hold_the_scene_itself(notebook):
    assert tiny_scene(n=1).show(embed=True) is None
    (text,) = notebook
    assert text.startswith('<div><iframe srcdoc="')
    assert "__VISER_EMBED_DATA__" in text
    assert text.count('"') == 6  # nothing in the page ends the attribute


def test_embedding_needs_a_notebook():
    with pytest.raises(InputError, match="notebook"):
        tiny_scene(n=1).show(embed=True)
