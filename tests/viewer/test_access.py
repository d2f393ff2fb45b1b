"""Who may read the page: this machine, by its names, from the page itself."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio import server
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dyn3r.viewer import view
from dyn3r.viewer.access import checked_server, has_token, is_allowed
from dyn3r.viewer.page import WebPage
from tests.factories import tiny_scene


@pytest.mark.parametrize(
    ("host", "origin", "bound", "allowed"),
    [
        ("localhost:8080", None, "127.0.0.1", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1", True),
        ("[::1]:8080", "http://[::1]:8080", "::1", True),
        ("LOCALHOST:8080", "http://localhost:8080", "127.0.0.1", True),
        ("localhost:9000", "https://localhost:9000", "127.0.0.1", True),  # through a tunnel
        ("evil.example:8080", None, "127.0.0.1", False),  # DNS rebinding
        ("localhost.evil.example", None, "127.0.0.1", False),
        ("localhost@evil.example", None, "127.0.0.1", False),
        ("192.168.1.5:8080", None, "127.0.0.1", False),
        (None, None, "127.0.0.1", False),
        ("", None, "127.0.0.1", False),
        ("[", None, "127.0.0.1", False),
        ("localhost:8080", "http://evil.example", "127.0.0.1", False),  # another site
        ("localhost:8080", "http://localhost:3000", "127.0.0.1", False),  # another local page
        ("localhost:8080", "null", "127.0.0.1", False),  # a local file, a sandboxed frame
        ("localhost:8080", "file://localhost:8080", "127.0.0.1", False),
        ("localhost:8080", "http://[", "127.0.0.1", False),
        ("192.168.1.5:8080", "http://192.168.1.5:8080", "0.0.0.0", True),
        ("evil.example:8080", "http://evil.example:8080", "0.0.0.0", False),
        ("render.lab:80", "http://render.lab:80", "render.lab", True),
        ("localhost:80", None, "render.lab", True),
    ],
)
def test_rule(host: str | None, origin: str | None, bound: str, allowed: bool) -> None:
    assert is_allowed(host, origin, bound) is allowed


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    viewer = view(tiny_scene(2), block=False, port=0)
    yield viewer.port
    viewer.stop()


def status(port: int, host: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host, **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def open_socket(port: int, **options: Any) -> Any:
    from viser import __version__

    return connect(
        f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{__version__}"],  # type: ignore[list-item]
        max_size=None, **options,
    )  # fmt: skip


def test_pages(port: int) -> None:
    assert status(port, f"localhost:{port}") == 200
    assert status(port, "evil.example") == 403
    assert status(port, f"localhost:{port}", Origin="http://evil.example") == 403


def test_websockets(port: int) -> None:
    with open_socket(port, origin=f"http://127.0.0.1:{port}") as own:
        assert len(own.recv(timeout=10)) > 0
    for options in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"additional_headers": {"Host": "evil.example"}},
    ):
        with pytest.raises(InvalidStatus, match="403"), open_socket(port, **options):
            pytest.fail("must not get here")


@pytest.mark.parametrize("junk", [b"", b"\x80", b"\xff" * 30, b"\x81\xa4type\xa3abc", "text"])
def test_junk_is_one_line_in_the_log(
    junk: bytes | str, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_socket(port) as connection:
        connection.send(junk)
        with pytest.raises(Exception, match=r"closed|error"):  # noqa: PT012
            while True:
                connection.recv(timeout=10)
    (record,) = [r for r in caplog.records if r.name == "websockets.server"]
    assert "no message of the page" in record.getMessage()
    assert record.exc_info is None
    assert status(port, "localhost") == 200


def test_a_server_that_starts_in_another_way_is_not_left_unchecked() -> None:
    before = server.serve
    with pytest.raises(RuntimeError, match="unknown way"), checked_server("127.0.0.1"):
        pass
    assert server.serve is before


@pytest.mark.parametrize(
    ("path", "cookies", "allowed"),
    [
        ("/?token=abc", [], True),
        ("/?t=1&token=abc", [], True),
        ("/", ["dyn3r_80=abc"], True),
        ("/", ["a=b; dyn3r_80=abc"], True),
        ("/", ["a=b", "dyn3r_80=abc"], True),
        ("/", [], False),
        ("/?token=", [], False),
        ("/?token=ab", [], False),
        ("/?token=ABC", ["dyn3r_80=é"], False),
        ("/", ["dyn3r_81=abc"], False),
        ("/token=abc", ["token=abc"], False),
    ],
)
def test_tokens(path: str, cookies: list[str], allowed: bool) -> None:
    assert has_token(path, cookies, "dyn3r_80", "abc") is allowed


def test_a_shared_page_wants_its_token() -> None:
    page = WebPage("127.0.0.1", 0, token="secret")
    try:
        host = f"localhost:{page.port}"
        assert page.url.endswith("/?token=secret")
        assert status(page.port, host) == 403
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        connection.request("GET", "/?token=secret", headers={"Host": host})
        answer = connection.getresponse()
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        connection.close()
        with pytest.raises(InvalidStatus, match="403"), open_socket(page.port):
            pytest.fail("must not get here")
        headers = {"Cookie": cookie.partition(";")[0]}
        assert status(page.port, host, **headers) == 200
        with open_socket(page.port, additional_headers=headers) as own:
            own.send(b"")
    finally:
        page.stop()
