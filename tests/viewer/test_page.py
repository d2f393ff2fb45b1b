"""Web server of a page: host, port, browser."""

from __future__ import annotations

import socket

import pytest

from dyn3r.errors import InputError
from dyn3r.viewer import view
from dyn3r.viewer.page import WebPage, free_port
from tests.factories import tiny_scene


def test_another_host_gives_a_warning(caplog):
    viewer = view(tiny_scene(n=1), host="0.0.0.0", port=0, block=False)
    try:
        assert "no password" in caplog.text
        assert viewer.url.startswith("http://localhost:")
    finally:
        viewer.stop()
    caplog.clear()
    view(tiny_scene(n=1), port=0, block=False).stop()
    assert "password" not in caplog.text


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


def test_text_browsers_are_not_opened(monkeypatch):
    import webbrowser

    page = WebPage("127.0.0.1", 0)
    try:

        def nothing() -> None:
            raise webbrowser.Error("no browser")

        monkeypatch.setattr(webbrowser, "get", nothing)
        assert not page.open_in_browser()
        monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
        assert not page.open_in_browser()
    finally:
        page.stop()
