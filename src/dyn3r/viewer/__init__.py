"""Scenes in the browser: `view`, and `LiveViewer` for a run in progress.

`save_recording` writes a page that opens without a server. `write_screenshot` and
`write_turntable` render without a browser. The server library loads when a page is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.live import LiveOptions, LiveViewer
from dyn3r.viewer.playback import label_scenes
from dyn3r.viewer.record import save_recording
from dyn3r.viewer.turntable import TurntableOptions, write_screenshot, write_turntable

if TYPE_CHECKING:
    from dyn3r.viewer.app import Viewer

__all__ = [
    "Appearance",
    "LiveOptions",
    "LiveViewer",
    "TurntableOptions",
    "Visibility",
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
    appearance: Appearance | None = None,
    visibility: Visibility | None = None,
) -> Viewer:
    """Show a scene, or several side by side, on a web page.

    Every browser has controls and a view of its own. The page listens on this machine only unless
    `host` says otherwise. There is no password; another host is logged as a warning. If `port` is
    taken, the next free one of twenty is used; `Viewer.url` is the address. With `block` the call
    returns after Ctrl-C, otherwise at once.

    Args:
        scene: one scene, or several, labelled by `names`. Several are shown upright and scaled to
            the same median depth, with a menu that selects one of them.
        appearance: selection and colours of the points.
        visibility: elements that are visible at first.

    Raises:
        InputError: no scene, names that do not fit the scenes, no port or host to listen on.
    """
    scenes, labels = label_scenes(scene, names)
    from dyn3r.viewer.app import Viewer

    viewer = Viewer(scenes, labels, host, port, appearance, visibility)
    if block:
        viewer.wait()
    return viewer
