"""Recordings: scenes as one file that plays without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dyn3r.errors import InputError, OutputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.atomic import check_writable, write_bytes
from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.legend import legend_html
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.page_script import overlay_legend, set_title
from dyn3r.viewer.playback import (
    CameraState,
    Playback,
    PreparedScenes,
    label_scenes,
    set_initial_camera,
)
from dyn3r.viewer.viser_internals import keep_colors

_SUFFIXES = (".html", ".htm", ".viser")


def save_recording(
    scenes: Scene | Sequence[Scene],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    appearance: Appearance | None = None,
    visibility: Visibility | None = None,
    point_size: float = 1.0,
    overwrite: bool = False,
) -> Path:
    """Write a scene, or several side by side, as one file with its timeline.

    `.html` is a self-contained page: it opens from the disk in any browser with WebGL2, without a
    server and without a network. `.viser` is the recording alone, smaller, for viser's own client
    (`?playbackPath=`). Both play, pause, seek and change speed. All other settings of `view` are
    fixed when the file is written, by `appearance`, `visibility` and `point_size` (a factor on the
    radius of the points); a legend says what the colours mean.

    Returns:
        `path`.

    Raises:
        InputError: no scene, names that do not fit the scenes, a `point_size` not in 0.1..10.
        OutputError: `path` exists and `overwrite` is False, has another suffix than .html, .htm or
            .viser, or cannot be written.
    """
    target = checked_path(path, "the recording")
    if target.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"cannot record to {target}: its name must end in .html or .viser")
    if not 0.1 <= point_size <= 10:
        raise InputError(f"the point size is a factor from 0.1 to 10, not {point_size}")
    check_writable(target, overwrite=overwrite)
    appearance = appearance or Appearance()
    content = record(
        PreparedScenes(*label_scenes(scenes, names), appearance),
        appearance,
        visibility or Visibility(),
        as_page=target.suffix.lower() != ".viser",
        point_size=point_size,
    )
    write_bytes(target, content, overwrite=overwrite)
    return target


def record(
    prepared: PreparedScenes,
    appearance: Appearance,
    visibility: Visibility,
    *,
    as_page: bool,
    point_size: float = 1.0,
    view: CameraState | None = None,
) -> bytes:
    """Content of the file of `save_recording`: a page, or viser's recording alone.

    `point_size` scales the points; `view`: that of a browser that opens it, else the first view.
    """
    page = WebPage("127.0.0.1", 0)  # viser records the messages to a client that never connects
    try:
        playback = Playback(page.server, prepared, appearance, visibility)
        set_initial_camera(page.server, playback, view)
        playback.set_visibility(visibility)
        for nodes in playback.scene_nodes:
            nodes.set_point_size(point_size)
        set_title(page.server, prepared.title)
        keep_colors(page.server)
        overlay_legend(page.server, legend_html(playback.leading, appearance))
        playback.show_frame(0)
        serializer = page.server.get_scene_serializer()
        for t in range(playback.num_frames):
            playback.show_frame(t)
            serializer.insert_sleep(1.0 / playback.fps)
        if as_page:
            return str(serializer.as_html(dark_mode=True)).encode()
        return bytes(serializer.serialize())
    finally:
        page.stop()
