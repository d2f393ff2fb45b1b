"""The viewer: a web page with scenes. Every browser has controls, a clock and a view of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.playback import PreparedScenes
from dyn3r.viewer.session import Session, Start


class Viewer(WebPage):
    """A running viewer. `stop` ends it; `wait` blocks until Ctrl-C.

    The methods act on all connected browsers, and on those that connect later.
    """

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], host: str, port: int,
        appearance: Appearance | None = None, visibility: Visibility | None = None,
    ) -> None:  # fmt: skip
        """Open the page. The arguments are those of `dyn3r.viewer.view`.

        Raises:
            InputError: no port or host to listen on.
        """
        super().__init__(host, port)
        self._start = Start(appearance or Appearance(), visibility or Visibility())
        self._lock = threading.RLock()
        self._playing = False
        self.sessions: dict[int, Session] = {}
        """Sessions of the connected browsers, by viser's client number."""
        self.scenes = PreparedScenes(scenes, names, self._start.appearance)
        self.server.gui.set_panel_label(self.scenes.title)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)

    def play(self) -> None:
        """Start playback."""
        self._playing = True
        self._for_all(Session.play)

    def pause(self) -> None:
        """Pause playback."""
        self._playing = False
        self._for_all(Session.pause)

    def seek(self, frame: int) -> None:
        """Pause and show this frame."""
        self._playing = False
        self._change_start(frame=frame)
        self._for_all(lambda session: session.seek(frame))

    def set_appearance(self, appearance: Appearance) -> None:
        """Change points or colours. Returns when the changes are queued for sending."""
        self._change_start(appearance=appearance)
        self._for_all(lambda session: session.set_appearance(appearance))

    def set_visibility(self, visibility: Visibility) -> None:
        """Show and hide elements. Trails are computed when they are first shown."""
        self._change_start(visibility=visibility)
        self._for_all(lambda session: session.set_visibility(visibility))

    def follow_camera(self, *, enabled: bool) -> None:
        """Keep the connected browsers at the current frame's camera; or restore their cameras."""
        self._for_all(lambda session: session.follow_camera(enabled=enabled))

    def show_filmstrip(self, *, visible: bool) -> None:
        """Show or hide the panel with image, depth and mask in the connected browsers."""
        self._for_all(lambda session: session.show_filmstrip(visible=visible))

    # --- implementation -------------------------------------------------------------------------

    def _change_start(self, **fields: Any) -> None:
        with self._lock:
            self._start = replace(self._start, **fields)

    def _for_all(self, act: Callable[[Session], None]) -> None:
        with self._lock:
            sessions = list(self.sessions.values())
        for session in sessions:
            act(session)

    def _connected(self, client: Any) -> None:
        session = Session(client, self.scenes, self._start)
        with self._lock:
            if self.stopped or client.client_id not in self.server.get_clients():  # it has left
                session.stop()
                return
            self.sessions[client.client_id] = session
        if self._playing:
            session.play()

    def _disconnected(self, client: Any) -> None:
        with self._lock:
            session = self.sessions.pop(client.client_id, None)
        if session is not None:
            session.stop()

    def _end_work(self) -> None:
        with self._lock:
            sessions = list(self.sessions.values())
        for session in sessions:
            session.stop()
