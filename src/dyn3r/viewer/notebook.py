"""A scene from a script, a Python prompt or a notebook: what `Scene.show` does."""

from __future__ import annotations

import html
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dyn3r.errors import InputError
from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.playback import listed
from dyn3r.viewer.record import record

if TYPE_CHECKING:
    from dyn3r.viewer.app import Viewer

logger = logging.getLogger(__name__)


def show(
    scenes: Scene | Sequence[Scene],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    block: bool | None = None,
    embed: bool = False,
    height: int = 600,
    look: Look | None = None,
    parts: Parts | None = None,
) -> Viewer | None:
    """Show scenes where the caller is; the arguments are at `Scene.show`."""
    if embed:
        if not in_notebook():
            raise InputError("embed=True puts a scene into a notebook, and this is none")
        content = record(*listed(scenes, None), look or Look(), parts or Parts(), as_page=True)
        _display_page(content.decode(), height)
        return None
    from dyn3r.viewer import view

    viewer = view(scenes, host=host, port=port, block=False, look=look, parts=parts)
    if in_notebook():
        _display_frame(viewer.url, height)
    elif not viewer.open_in_browser():
        logger.warning("no browser could be opened here: open %s in one", viewer.url)
    # Whoever types at a prompt wants it back; a script would end, and the page with it.
    if block or (block is None and not in_notebook() and not hasattr(sys, "ps1")):
        viewer.wait()
    return viewer


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook (not in a script or at a prompt)."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _display_frame(url: str, height: int) -> None:
    from IPython.display import IFrame, display

    display(IFrame(url, width="100%", height=height))


def _display_page(page: str, height: int) -> None:
    from IPython.display import HTML, display

    source = html.escape(page, quote=True)
    # In a <div>, as IPython advises against frames that stand alone, which this has to be.
    display(HTML(f'<div><iframe srcdoc="{source}" width="100%" height="{height}"></iframe></div>'))
