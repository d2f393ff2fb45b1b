"""Files that the page offers for download: a screenshot, a turntable video, the page itself."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dyn3r.scene.drawing import write_video
from dyn3r.types import Progress
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.playback import CameraState, Playback, PreparedScenes
from dyn3r.viewer.record import record
from dyn3r.viewer.renderer import SceneRenderer, Viewpoint
from dyn3r.viewer.turntable import TurntableOptions, render_turntable


def screenshot_file(client: Any, timeout_s: float = 60.0) -> tuple[str, bytes]:
    """Name and content of a PNG of what the browser shows, rendered by it, without the controls."""
    camera = client.camera
    height, width = camera.image_height, camera.image_width
    image = client.get_render(height, width, transport_format="jpeg", timeout=timeout_s)
    with io.BytesIO() as file:
        Image.fromarray(np.asarray(image)[..., :3]).save(file, format="PNG")
        return "screenshot.png", file.getvalue()


def turntable_file(
    playback: Playback, client: Any, appearance: Appearance, progress: Progress
) -> tuple[str, bytes]:
    """Name and content of an MP4: a turntable of the leading scene, rendered in software.

    The camera starts at the browser's camera and orbits the point that it looks at.
    """
    nodes, camera = playback.leading, client.camera
    R, origin = nodes.placement.R, nodes.placement.position
    viewpoint = Viewpoint(
        (camera.position - origin) @ R,
        (camera.look_at - origin) @ R,
        nodes.layout.up_world,
        float(camera.fov),
    )
    options = TurntableOptions()
    images = render_turntable(
        SceneRenderer(nodes.scene, appearance), viewpoint, options, nodes.layout.fps, progress
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.mp4"
        write_video(images, path, fps=float(options.fps))
        return path.name, path.read_bytes()


def page_file(
    scenes: PreparedScenes, appearance: Appearance, visibility: Visibility, point_size: float,
    view: CameraState | None,
) -> tuple[str, bytes]:  # fmt: skip
    """Name and content of the page as one self-contained HTML file, which opens at this view."""
    content = record(scenes, appearance, visibility, as_page=True, point_size=point_size, view=view)
    return "scene.html", content
