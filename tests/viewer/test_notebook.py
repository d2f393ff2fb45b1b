"""`Scene.show` in scripts, at prompts and in (simulated) notebooks."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from dyn3r.errors import InputError
from dyn3r.viewer.page import WebPage
from tests.factories import tiny_scene


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Addresses that a browser was asked to open; none is opened."""
    urls: list[str] = []
    monkeypatch.setattr(WebPage, "open_in_browser", lambda page: urls.append(page.url) is None)
    return urls


@pytest.fixture
def notebook(monkeypatch) -> list:
    """Simulated kernel; the list collects what is displayed."""
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
    monkeypatch.setattr(WebPage, "wait", lambda page: waited.append(True))
    viewer = tiny_scene(n=1).show(port=0)
    assert opened == [viewer.url]
    assert waited == [True]
    viewer.stop()


def test_block_false_returns_at_once(opened):
    tiny_scene(n=1).show(port=0, block=False).stop()
    assert len(opened) == 1


def test_without_a_browser_the_address_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(WebPage, "open_in_browser", lambda page: False)
    viewer = tiny_scene(n=1).show(port=0, block=False)
    assert viewer.url in caplog.text
    viewer.stop()


def test_a_notebook_shows_the_page_below_the_cell(opened, notebook):
    viewer = tiny_scene(n=1).show(port=0, height=400)
    assert notebook == [(viewer.url, "100%", 400)]
    assert opened == []
    viewer.stop()


def test_a_notebook_can_embed_the_scene(notebook):
    assert tiny_scene(n=1).show(embed=True) is None
    (text,) = notebook
    assert text.startswith('<div><iframe srcdoc="')
    assert "__VISER_EMBED_DATA__" in text
    assert text.count('"') == 6  # nothing in the page ends the attribute


def test_embedding_needs_a_notebook():
    with pytest.raises(InputError, match="notebook"):
        tiny_scene(n=1).show(embed=True)
