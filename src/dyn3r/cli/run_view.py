"""The page of `dyn3r run --view`: how far the run is, what it has found, its scene."""

from __future__ import annotations

import html
import threading
import time
from typing import Any

from dyn3r.cli.watch import RunWatcher
from dyn3r.scene import Scene
from dyn3r.types import Progress
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.page_script import start_page_script
from dyn3r.viewer.scene_pane import ScenePane
from dyn3r.viewer.tiles import Tiles
from dyn3r.viewer.worker import Worker

_WIDTH_PX = 300
_PERIOD_S = 0.1
"""Least time between two updates of the progress."""
_TEXT = "font-size:13px;margin:4px 12px;overflow-wrap:anywhere"


class RunPage(WebPage):
    """A page that fills while a run computes; `stop` ends it.

    No call waits for a browser: a thread of its own brings the browsers up to date. Browsers may
    connect at any time.
    """

    def __init__(self, name: str, port: int = 8080) -> None:
        """Open the page; `name` is shown as that of the clip.

        Raises:
            InputError: no port to listen on.
        """
        super().__init__("127.0.0.1", port)
        self.name = name
        self.scene: Scene | None = None
        """The newest scene."""
        self.share, self.text, self.tiles_html = 0.0, "starting", ""
        """Share of the run that is done (0..1), its stage, and the tiles as HTML."""
        self.is_over = False
        self.views: dict[int, _RunView] = {}
        """Pages of the connected browsers, by viser's client number."""
        self._told_s = 0.0
        self._lock = threading.RLock()
        self._worker = Worker(lambda _: None)
        self._worker.start()
        self.server.gui.set_panel_label(name)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)

    def watcher(self) -> RunWatcher:
        """An observer of the run that shows on the page what it finds."""
        return RunWatcher(self.show_scene, self.show_tiles)

    def progress(self, before: Progress) -> Progress:
        """A progress callback that tells `before`; its `overall` tells the page, too."""

        def tell(stage: str, done: int, total: int) -> None:
            before(stage, done, total)

        def overall(text: str, share: float) -> None:
            shown = getattr(before, "overall", None)
            if shown is not None:  # the bar of the whole run
                shown(text, share)
            self.share, self.text = share, f"{text} ({100 * share:.0f} %)"
            now_s = time.monotonic()
            if now_s - self._told_s >= _PERIOD_S:
                self._told_s = now_s
                self._submit(_RunView.update)

        tell.overall = overall  # type: ignore[attr-defined]
        return tell

    def show_tiles(self, tiles: Tiles) -> None:
        """Show depth and motion of a few frames."""
        self.tiles_html = tiles.html()
        self._submit(_RunView.update)

    def show_scene(self, scene: Scene) -> None:
        """Show a scene in place of the one before, which may have another scale."""
        self.scene = scene
        self.show_tiles(Tiles(scene.images, scene.depth, scene.dynamic))
        self._submit(_RunView.show_scene)

    def finish(self, text: str = "finished") -> None:
        """Show that the run has ended. The page stays until `stop`."""
        self.share, self.text, self.is_over = 1.0, text, True
        self._submit(_RunView.update)

    def _submit(self, act: Any) -> None:
        self._worker.submit(lambda: self._for_all(act))

    def _for_all(self, act: Any) -> None:
        with self._lock:
            views = list(self.views.values())
        for view in views:
            act(view)

    def _connected(self, client: Any) -> None:
        view = _RunView(client, self)
        with self._lock:
            if self.stopped or client.client_id not in self.server.get_clients():  # it has left
                view.close()
                return
            self.views[client.client_id] = view
        self._worker.submit(lambda: self._catch_up(view))

    @staticmethod
    def _catch_up(view: _RunView) -> None:
        view.update()
        view.show_scene()

    def _disconnected(self, client: Any) -> None:
        with self._lock:
            view = self.views.pop(client.client_id, None)
        if view is not None:
            view.close()

    def _end_work(self) -> None:
        with self._lock:
            views = list(self.views.values())
        for view in views:
            view.close()
        self._worker.stop()


class _RunView:
    """The page in one browser."""

    def __init__(self, client: Any, page: RunPage) -> None:
        self._page = page
        self._shown: Scene | None = None
        self.pane = ScenePane(client)
        gui = client.gui
        panel = gui.add_panel()
        panel.dock_left()
        panel.set_width(_WIDTH_PX)
        with panel.add_tab("run"):
            gui.add_html(f"<div style='{_TEXT}'><b>{html.escape(page.name)}</b></div>")
            self._bar = gui.add_progress_bar(0, animated=True)
            self._state = gui.add_html("")
            self._tiles = gui.add_html("")
        start_page_script(client, collapse_sheet=False)
        panel.expand()
        client.gui.main_panel.minimize()  # it holds the controls of the scene

    def update(self) -> None:
        """Show progress and tiles."""
        page = self._page
        self._bar.value, self._bar.animated = 100 * page.share, not page.is_over
        self._bar.visible = not page.is_over
        self._state.content = f"<div style='{_TEXT}'>{html.escape(page.text)}</div>"
        if self._tiles.content != page.tiles_html:
            self._tiles.content = page.tiles_html

    def show_scene(self) -> None:
        """Show the newest scene."""
        scene = self._page.scene
        if scene is not None and scene is not self._shown:
            first = self._shown is None
            self._shown = scene
            self.pane.show(scene, self._page.name, keep_address=first)

    def close(self) -> None:
        """End the session of the scene."""
        self.pane.close()
