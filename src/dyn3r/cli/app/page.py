"""The server of the app: one page per browser, one queue for all."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dyn3r.cli.app.mask_editing import ObjectTracker
from dyn3r.cli.app.models import ModelShelf
from dyn3r.cli.app.uploads import Limits
from dyn3r.cli.app.view import AppView
from dyn3r.cli.app.work import Reconstructor, Work
from dyn3r.network.model import Model
from dyn3r.viewer.page import WebPage

_KEY = "dyn3r-app"
_KEEP_S = 900.0
"""Seconds that the work of a closed page is kept for a reload."""
_TIMEOUT_S = 5.0


class AppPage(WebPage):
    """The app. `stop` ends it and removes all uploaded clips."""

    def __init__(
        self, models: Model | ModelShelf, *, port: int = 8090, share_on_lan: bool = False,
        limits: Limits | None = None, tracker: ObjectTracker | None = None,
    ) -> None:  # fmt: skip
        """Open the page; with `share_on_lan` on all addresses, with a token.

        It offers the models, of which the first is chosen at first. `tracker` follows objects when
        masks are edited.

        Raises:
            InputError: no port to listen on.
        """
        token = secrets.token_urlsafe(18) if share_on_lan else None
        super().__init__("0.0.0.0" if share_on_lan else "127.0.0.1", port, token)
        self._limits = limits or Limits()
        self._folder = Path(tempfile.mkdtemp(prefix="dyn3r-app-"))
        self._reconstructor = Reconstructor(models, tracker)
        self._lock = threading.RLock()
        self.works: dict[str, Work] = {}
        """Work of every user, by the secret key that the user's browser keeps."""
        self.views: dict[int, AppView] = {}
        """Pages of the connected browsers, by viser's client number."""
        self.server.gui.set_panel_label("dyn3r")
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)

    @property
    def url(self) -> str:
        """Address of the page: for other machines, if it is shared with them."""
        if self._token is None:
            return super().url
        return super().url.replace("//localhost:", f"//{_own_address()}:")

    def _connected(self, client: Any) -> None:
        work = self._work_of(client)
        view = AppView(client, work, self._limits)
        with self._lock:
            if self.stopped or client.client_id not in self.server.get_clients():  # it has left
                view.close()
                return
            self.views[client.client_id] = view
            work.pages.add(view)
        self._forget()

    def _disconnected(self, client: Any) -> None:
        with self._lock:
            view = self.views.pop(client.client_id, None)
        if view is not None:
            view.work.pages.discard(view)
            view.work.left_at_s = time.monotonic()
            view.close()
        self._forget()

    def _work_of(self, client: Any) -> Work:
        """The work whose key the browser knows, or a new one."""
        try:
            key = client.local_storage.get_item(_KEY, timeout=_TIMEOUT_S)
        except (RuntimeError, TimeoutError):  # no local storage: nothing outlives a reload
            key = None
        with self._lock:
            work = self.works.get(key or "")
            if work is None:
                key = secrets.token_urlsafe(24)
                work = self.works[key] = Work(self._reconstructor, self._folder)
                client.local_storage.set_item(_KEY, key)
            return work

    def _forget(self) -> None:
        """Remove the work of pages that were closed some time ago."""
        with self._lock:
            for key, work in list(self.works.items()):
                if not work.pages and time.monotonic() - work.left_at_s > _KEEP_S:
                    del self.works[key]
                    work.remove()

    def _end_work(self) -> None:
        self._reconstructor.queue.stop()
        with self._lock:
            views = list(self.views.values())
        for view in views:
            view.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _own_address() -> str:
    """Address of this machine in its network; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return "localhost"
