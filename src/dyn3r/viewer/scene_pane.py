"""The scene of a page whose scene is replaced by better ones, in one browser."""

from __future__ import annotations

import threading
from typing import Any

from dyn3r.scene import Scene
from dyn3r.viewer.page_script import set_query
from dyn3r.viewer.playback import PreparedScenes
from dyn3r.viewer.session import Session, Start


class ScenePane:
    """Shows one scene at a time, with all controls of the viewer. Methods may come from any thread.

    `session` is that of the scene; None before the first one.
    """

    def __init__(self, client: Any) -> None:
        """Show nothing yet on the page of `client`, viser's `ClientHandle`."""
        self.session: Session | None = None
        self._client = client
        self._lock = threading.RLock()
        self._closed = False

    def show(
        self, scene: Scene, name: str, *, keep_view: bool = False, keep_address: bool = False
    ) -> None:
        """Replace the scene; `keep_view`: camera, frame and settings stay as they are.

        Else the view is the first one, or with `keep_address` that of the address.
        """
        with self._lock:
            if self._closed:
                return
            start = Start()
            if self.session is not None:
                old = self.session
                settings = (old.appearance, old.visibility, old.clock.frame)
                start = Start(*settings, fit=not keep_view)
                old.remove()
                self.session = None
            if not keep_view and not keep_address:
                set_query(self._client, "")
            prepared = PreparedScenes([scene], [name], start.appearance)
            self.session = Session(self._client, prepared, start)
            self._client.gui.main_panel.expand()

    def set_masks(self, scene: Scene) -> None:
        """Show other masks of the scene that is shown; all else stays."""
        with self._lock:
            if self.session is not None and not self._closed:
                self.session.set_masks(scene)

    def close(self) -> None:
        """End the session; nothing is shown afterwards."""
        with self._lock:
            self._closed = True
            if self.session is not None:
                self.session.stop()
