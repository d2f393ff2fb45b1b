"""Scenes in the browser: `view`, and `LiveViewer` for a run that goes on.

`save_recording` writes a page that opens without a server, `write_screenshot` and
`write_turntable` draw without a browser. The server library loads when a page is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.live import LiveOptions, LiveViewer
from dyn3r.viewer.playback import listed
from dyn3r.viewer.record import save_recording
from dyn3r.viewer.turntable import TurntableOptions, write_screenshot, write_turntable

if TYPE_CHECKING:
    from dyn3r.viewer.app import Viewer

__all__ = [
    "LiveOptions",
    "LiveViewer",
    "Look",
    "Parts",
    "TurntableOptions",
    "save_recording",
    "view",
    "write_screenshot",
    "write_turntable",
]


def view(
    scene: Scene | Sequence[Scene],
    *,
    names: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    block: bool = True,
    look: Look | None = None,
    parts: Parts | None = None,
) -> Viewer:
    """Show a scene, or several side by side, on a page that a browser opens.

    The page listens on this machine only unless `host` says otherwise (there is no password; that
    is logged as a warning). If `port` is taken the next free one of twenty is used; `Viewer.url`
    says where the page is. With `block` the call returns after Ctrl-C, else at once.

    Args:
        scene: one scene, or several, labelled by `names`; several are shown upright and at one
            size (their median depth), with a menu that picks one of them.
        look: which points, and their colours.
        parts: what is visible at first.

    Raises:
        InputError: no scene, as many names as scenes are missing, no port or host to listen on.
    """
    scenes, labels = listed(scene, names)
    from dyn3r.viewer.app import Viewer

    viewer = Viewer(scenes, labels, host, port, look, parts)
    if block:
        viewer.wait()
    return viewer
