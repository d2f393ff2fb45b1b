"""A hub on this machine: as much of the protocol as a download needs, and ways to misbehave.

Large files are served as by the real hub: the hub answers with a redirect that carries the SHA-256,
and another server (here: the same one under another port) sends the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """What is served, what was asked for, and how the server fails."""

    files: dict[str, bytes] = field(default_factory=dict)
    """`owner/name/file` -> content; `.safetensors` and `.pth` are large files."""
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """(method, path, Range, Authorization) of every request."""
    break_after: list[int] = field(default_factory=list)
    """For the next transfers: close the connection after so many bytes."""
    fail_with: list[int] = field(default_factory=list)
    """For the next transfers after those: answer with this error."""
    refuse: tuple[int, str] | None = None
    """Answer every request for metadata with this status and X-Error-Code."""
    corrupt: bool = False
    """Send bytes that do not match the checksum."""
    send_more: int = 0
    """Send so many bytes more than announced in the metadata."""
    ignore_range: bool = False
    """Send everything although a part was asked for."""
    etag: str | None = None
    """State this checksum whatever the content is."""
    plain: bool = False
    """Serve files like any web server: no commit, no checksum."""
    hub_url: str = ""
    bytes_url: str = ""

    def transfers(self) -> list[str | None]:
        """The Range of every GET for bytes of a large file."""
        return [r for method, path, r, _ in self.requests if method == "GET" and "/bytes/" in path]

    def authorisations(self, kind: str) -> set[str | None]:
        return {a for _, path, _, a in self.requests if kind in path}


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.hub_url, hub.bytes_url = (f"http://127.0.0.1:{s.server_address[1]}" for s in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are what is tested here: nothing on stderr."""


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0].strip("/")
        ask = self.headers.get("Range"), self.headers.get("Authorization")
        hub.requests.append((self.command, self.path, *ask))
        if hub.refuse:
            self._send(hub.refuse[0], {"X-Error-Code": hub.refuse[1]})
        elif path.startswith("api/models/"):
            self._listing(path.removeprefix("api/models/"), body)
        elif path.startswith("bytes/"):
            self._bytes(path.removeprefix("bytes/"), body)
        elif "/resolve/" in path:
            self._resolve(path, body)
        elif path in hub.files and hub.plain:
            self._send(200, {}, hub.files[path] if body else b"", len(hub.files[path]))
        else:
            self._send(404, {})

    def _listing(self, repository: str, body: bool) -> None:
        names = [n.removeprefix(repository + "/") for n in self.hub.files if repository in n]
        answer = {"id": repository, "modelId": repository, "sha": COMMIT, "private": False,
                  "tags": [], "siblings": [{"rfilename": name} for name in names]}  # fmt: skip
        if names:
            self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        else:
            self._send(401, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, path: str, body: bool) -> None:
        repository, _, rest = path.partition("/resolve/")
        name = f"{repository}/{rest.partition('/')[2]}"
        content = self.hub.files.get(name, b"")
        if not any(file.startswith(repository + "/") for file in self.hub.files):
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif name not in self.hub.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif self.hub.plain:
            self._send(200, {}, content if body else b"", len(content))
        elif name.endswith((".safetensors", ".pth")):
            etag = self.hub.etag or hashlib.sha256(content).hexdigest()
            facts = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            where = {"Location": f"{self.hub.bytes_url}/bytes/{name}", "X-Repo-Commit": COMMIT}
            self._send(302, {**facts, **where})
        else:
            blob = b"blob %d\0" % len(content) + content
            facts = {"ETag": f'"{hashlib.sha1(blob).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(200, facts, content if body else b"", len(content))

    def _bytes(self, name: str, body: bool) -> None:
        hub, start = self.hub, 0
        content = hub.files[name]
        if hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        content += bytes(hub.send_more)
        if (asked := self.headers.get("Range")) and not hub.ignore_range:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        if body and not hub.break_after and hub.fail_with:
            self._send(hub.fail_with.pop(0), {})
            return
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        status, rest = (206 if start else 200), content[start:]
        sent = rest[: hub.break_after.pop(0)] if body and hub.break_after else rest
        self._send(status, headers if start else {}, sent if body else b"", len(rest))
        if len(sent) < len(rest):
            self.close_connection = True

    def _send(
        self, status: int, headers: dict[str, str], content: bytes = b"", length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have heard enough
            self.wfile.write(content)
            self.wfile.flush()
