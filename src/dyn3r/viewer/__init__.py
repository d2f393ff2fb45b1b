"""A scene in the browser: `view`. The server library loads when it is called, not before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dyn3r.errors import InputError
from dyn3r.scene import Scene

if TYPE_CHECKING:
    from dyn3r.viewer.app import Viewer

__all__ = ["view"]


def view(
    scene: Scene | Sequence[Scene],
    *,
    names: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    block: bool = True,
) -> Viewer:
    """Show a scene, or several to choose from, on a page that a browser opens.

    The page listens on this machine only unless `host` says otherwise (there is no password). If
    `port` is taken the next free one of twenty is used; `Viewer.url` says where the page is. With
    `block` the call returns after Ctrl-C, else at once.

    Args:
        scene: one scene, or several; the page then has a menu, labelled by `names`.

    Raises:
        InputError: no scene, as many names as scenes are missing, no port or host to listen on.
    """
    scenes = [scene] if isinstance(scene, Scene) else list(scene)
    if not scenes:
        raise InputError("there is no scene to view")
    labels = list(names) if names is not None else [f"scene {i + 1}" for i in range(len(scenes))]
    if len(labels) != len(scenes) or len(set(labels)) != len(labels):
        raise InputError(f"{len(scenes)} scenes need as many different names, not {labels}")
    from dyn3r.viewer.app import Viewer

    viewer = Viewer(scenes, labels, host, port)
    if block:
        viewer.wait()
    return viewer
