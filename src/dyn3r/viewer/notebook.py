"""`Scene.show`: a scene from a script, a Python prompt or a notebook."""

from __future__ import annotations

import html
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dyn3r.errors import InputError
from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.playback import PreparedScenes, label_scenes
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
    appearance: Appearance | None = None,
    visibility: Visibility | None = None,
) -> Viewer | None:
    """Show scenes in the caller's environment. The arguments are those of `Scene.show`."""
    if embed:
        if not in_notebook():
            raise InputError("embed=True has no effect outside a notebook")
        appearance = appearance or Appearance()
        content = record(
            PreparedScenes(*label_scenes(scenes, None), appearance),
            appearance,
            visibility or Visibility(),
            as_page=True,
        )
        _display_page(content.decode(), height)
        return None
    from dyn3r.viewer import view

    viewer = view(
        scenes, host=host, port=port, block=False, appearance=appearance, visibility=visibility
    )
    if in_notebook():
        _display_frame(viewer.url, height)
    elif not viewer.open_in_browser():
        logger.warning("no browser found on this machine: open %s in one", viewer.url)
    # A prompt returns at once. A script would end, and the page with it.
    if block or (block is None and not in_notebook() and not hasattr(sys, "ps1")):
        viewer.wait()
    return viewer


def in_notebook() -> bool:
    """True in the kernel of a notebook; False in a script and at a prompt."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _display_frame(url: str, height: int) -> None:
    from IPython.display import IFrame, display

    display(IFrame(url, width="100%", height=height))


def _display_page(page: str, height: int) -> None:
    from IPython.display import HTML, display

    source = html.escape(page, quote=True)
    # IPython warns about a bare <iframe>, so it is wrapped in a <div>.
    display(HTML(f'<div><iframe srcdoc="{source}" width="100%" height="{height}"></iframe></div>'))
