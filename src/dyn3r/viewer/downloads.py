"""The files that the page's buttons offer: a screenshot, a turntable video, the page itself."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.scene.drawing import write_video
from dyn3r.types import Progress
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.playback import Show
from dyn3r.viewer.record import record
from dyn3r.viewer.splat import Painter, View
from dyn3r.viewer.turntable import TurntableOptions, turntable_pictures


def screenshot_file(client: Any, timeout_s: float = 60.0) -> tuple[str, bytes]:
    """What this browser shows, without the controls, as it draws it."""
    camera = client.camera
    height, width = camera.image_height, camera.image_width
    picture = client.get_render(height, width, transport_format="jpeg", timeout=timeout_s)
    with io.BytesIO() as file:
        Image.fromarray(np.asarray(picture)[..., :3]).save(file, format="PNG")
        return "screenshot.png", file.getvalue()


def turntable_file(show: Show, client: Any, look: Look, progress: Progress) -> tuple[str, bytes]:
    """A turn of the leading scene around what this browser looks at, drawn in software."""
    stage, camera = show.leading, client.camera
    R, at = stage.placement.R, stage.placement.position
    view = View(
        (camera.position - at) @ R,
        (camera.look_at - at) @ R,
        stage.plan.upright.up_world,
        float(camera.fov),
    )
    options = TurntableOptions()
    pictures = turntable_pictures(
        Painter(stage.scene, look), view, options, stage.plan.fps, progress
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.mp4"
        write_video(pictures, path, fps=options.fps)
        return path.name, path.read_bytes()


def page_file(
    scenes: Sequence[Scene], names: Sequence[str], look: Look, parts: Parts
) -> tuple[str, bytes]:
    """The page as one file that opens without a server."""
    return "scene.html", record(scenes, names, look, parts, as_page=True)
