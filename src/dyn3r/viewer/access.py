"""Access to the page's server: requests for other hosts and from other pages are refused.

A page of another site, open in the same browser, can send requests to this machine. Its websocket
carries its own `Origin`. With DNS rebinding its requests carry its own name as `Host`.
"""

from __future__ import annotations

import inspect
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
TOKEN_FIELD = "token"
"""Field of the address that holds the token of a shared page."""
_COOKIE = "dyn3r_"  # with the port: cookies do not tell ports apart
_ANY = ("", "0.0.0.0", "::")
_STARTING = threading.Lock()

Answer = Callable[[Any, Any], Any]
"""Hook of `websockets`: (connection, request) -> response, or None to go on."""


def is_allowed(host: str | None, origin: str | None, bound_host: str) -> bool:
    """Whether a request may be answered.

    Args:
        host: header `Host`.
        origin: header `Origin`; browsers send it with every websocket and every request of another
            page.
        bound_host: the address that the server listens on. On an address of this machine alone,
            only the names of this machine are allowed; on all addresses, numeric ones too (names
            can be rebound, numbers cannot) and this machine's own name.
    """
    if host is None or not _is_ours(_name(f"//{host}"), bound_host):
        return False
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_ours(name: str | None, bound_host: str) -> bool:
    if name is None:
        return False
    if name in (*LOCAL_NAMES, bound_host.lower()):
        return True
    if bound_host in LOCAL_NAMES:
        return False
    own = socket.gethostname().lower()
    return _is_number(name) or (bound_host in _ANY and name in (own, own.partition(".")[0]))


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@contextmanager
def checked_server(bound_host: str, token: str | None = None) -> Iterator[None]:
    """Check the requests to the server that viser starts in this context.

    With a `token`, a request must have it in its address (`?token=`) or in the cookie that the
    answer to such a request sets.

    viser has no hook for this, so the function that it starts its server with is replaced
    meanwhile. RuntimeError if it was not used: then nothing would be checked.
    """
    from websockets.asyncio import server

    original: Any = server.serve
    started = []

    def serve(*arguments: Any, process_request: Answer | None = None, **options: Any) -> Any:
        started.append(True)
        answer = partial(_answer, bound_host, token, process_request)
        return original(*arguments, process_request=answer, **options)

    with _STARTING:
        server.serve = serve  # type: ignore[assignment,misc]
        try:
            yield
        finally:
            server.serve = original  # type: ignore[misc]
    if not started:
        raise RuntimeError("this version of viser starts its server in an unknown way")


async def _answer(
    bound_host: str, token: str | None, rest: Answer | None, connection: Any, request: Any
) -> Any:
    headers = request.headers
    one_each = all(len(headers.get_all(name)) <= 1 for name in ("Host", "Origin"))
    if not one_each or not is_allowed(headers.get("Host"), headers.get("Origin"), bound_host):
        text = "This page is only for the address that dyn3r printed.\n"
        return connection.respond(HTTPStatus.FORBIDDEN, text)
    cookie = f"{_COOKIE}{urlsplit('//' + headers['Host']).port or 80}"
    if token is not None and not has_token(request.path, headers.get_all("Cookie"), cookie, token):
        text = "The address of this page ends in a token: use the one that dyn3r printed.\n"
        return connection.respond(HTTPStatus.FORBIDDEN, text)
    answer = None if rest is None else rest(connection, request)
    if inspect.isawaitable(answer):
        answer = await answer
    if token is not None and answer is not None:
        answer.headers["Set-Cookie"] = f"{cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
    return answer


def has_token(path: str, cookies: list[str], name: str, token: str) -> bool:
    """Whether a request has the token: in the query of its path, or in the cookie `name`."""
    given = parse_qs(urlsplit(path).query).get(TOKEN_FIELD, [])
    for part in ";".join(cookies).split(";"):
        key, _, value = part.strip().partition("=")
        given += [value] if key == name else []
    return any(secrets.compare_digest(value.encode(), token.encode()) for value in given)
