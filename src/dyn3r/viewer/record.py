"""A scene as one file that plays without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dyn3r.errors import OutputError
from dyn3r.io.atomic import check_writable, write_bytes
from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.page import Page
from dyn3r.viewer.playback import Show, listed

SUFFIXES = (".html", ".htm", ".viser")


def save_recording(
    scenes: Scene | Sequence[Scene],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    look: Look | None = None,
    parts: Parts | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the scene, or several side by side, as one file with its timeline.

    `.html` is a page with everything in it: it opens from the disk in any browser that has WebGL2,
    without a server and without a network. `.viser` is the recording alone, smaller, for viser's
    own client (`?playbackPath=`). Both play, pause, scrub and change speed; what else the page of
    `view` can change is fixed when the file is written, by `look` and `parts`.

    Raises:
        OutputError: `path` exists and `overwrite` is False, ends in something else than .html,
            .htm or .viser, or can't be written.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot record to {target}: its name must end in .html or .viser")
    check_writable(target, overwrite=overwrite)
    as_page = target.suffix.lower() != ".viser"
    content = record(*listed(scenes, names), look or Look(), parts or Parts(), as_page=as_page)
    write_bytes(target, content, overwrite=overwrite)
    return target


def record(
    scenes: Sequence[Scene], names: Sequence[str], look: Look, parts: Parts, *, as_page: bool
) -> bytes:
    """The content of the file of `save_recording`."""
    page = Page("127.0.0.1", 0)  # viser records what it would send; nobody connects
    try:
        show = Show(page.server, scenes, names, look, parts)
        show.show_parts(parts)
        show.show_frame(0)
        serializer = page.server.get_scene_serializer()
        for t in range(show.num_frames):
            show.show_frame(t)
            serializer.insert_sleep(1.0 / show.fps)
        return serializer.as_html(dark_mode=True).encode() if as_page else serializer.serialize()
    finally:
        page.stop()
