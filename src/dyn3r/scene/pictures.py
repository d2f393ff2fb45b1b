"""Overviews of a scene: a video, a contact sheet, the camera path from above.

Depth is shown as inverse depth (red is near), confidence from dark to bright, both with limits
shared by the whole clip, so that a change in colour is a change in the scene. Unknown values are
grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dyn3r.scene.camera_path import camera_path_picture
from dyn3r.scene.drawing import (
    Picture,
    confidence_picture,
    depth_picture,
    draw_text,
    motion_picture,
    write_picture,
    write_video,
)
from dyn3r.scene.scene import Scene
from dyn3r.types import Progress, no_progress

SceneView = Callable[[Scene, tuple[int, int]], Callable[[int], Picture]]
"""Makes, of a scene and a size (height, width), a function from a frame to its picture in 3-D."""
MIN_HEIGHT, MIN_WIDTH = 720, 1280
"""Least size in pixels of an overview video with a panel in 3-D."""
PANELS = ("frames", "depth", "motion", "confidence")


@dataclass(frozen=True)
class Limits:
    """Limits of the colour maps for one clip: the lowest and the highest colour."""

    inverse_depth: tuple[float, float]
    """Inverse scene units."""
    confidence: tuple[float, float]
    """As `Scene.confidence`."""


def find_limits(scene: Scene) -> Limits:
    """Robust limits (2nd and 98th percentile over the clip) for depth and confidence."""
    step = max(1, scene.depth.size // 2_000_000)
    depth = scene.depth.reshape(-1)[::step]
    confidence = scene.confidence.reshape(-1)[::step]
    return Limits(_limits(1 / depth[depth > 0]), _limits(confidence[confidence > 0]))


def panels(scene: Scene, t: int, limits: Limits) -> list[Picture]:
    """Panels of frame t in the order of PANELS."""
    return [
        scene.images[t],
        depth_picture(scene.depth[t], limits.inverse_depth),
        motion_picture(scene.images[t], scene.dynamic[t]),
        confidence_picture(scene.confidence[t], limits.confidence),
    ]


def overview(scene: Scene, t: int, limits: Limits) -> Picture:
    """Labelled panels of frame t: two by two, or in a row for portrait frames."""
    shown = [_labelled(p, text) for p, text in zip(panels(scene, t, limits), PANELS)]
    h, w = scene.size_hw
    if h > w:
        return np.concatenate(shown, axis=1)
    return np.concatenate([np.concatenate(shown[:2], axis=1), np.concatenate(shown[2:], axis=1)])


def view_size(scene: Scene) -> tuple[int, int]:
    """Height and width of the panel in 3-D: beside two by two panels, at least a square."""
    height, width = _panel_size(scene)
    side = 2 * height
    return side, side + max(0, MIN_WIDTH - side - 2 * width)


def with_view(
    scene: Scene, t: int, limits: Limits, view: UInt8[np.ndarray, "vh vw 3"]
) -> UInt8[np.ndarray, "oh ow 3"]:
    """Labelled panels of frame t two by two, and the scene in 3-D beside them."""
    height, width = _panel_size(scene)
    shown = [
        _labelled(np.asarray(Image.fromarray(p).resize((width, height))), text)
        for p, text in zip(panels(scene, t, limits), PANELS)
    ]
    rows = [np.concatenate(shown[:2], axis=1), np.concatenate(shown[2:], axis=1)]
    return np.concatenate([np.concatenate(rows), _labelled(view, "3-D")], axis=1)


def _panel_size(scene: Scene) -> tuple[int, int]:
    """Height and width of a panel: two of them are at least 720 pixels high."""
    h, w = scene.size_hw
    height = max(MIN_HEIGHT // 2, h)
    return height, 2 * max(1, round(w * height / h / 2))


def write_overview_video(
    scene: Scene,
    path: str | Path,
    *,
    view: SceneView | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Frames, depth, motion and confidence side by side as an mp4 that browsers play.

    H.264 in yuv420p at the scene's own speed (10 frames per second if that is unknown). `view`:
    adds a panel with the scene in 3-D; the video is then at least 1280x720.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or can't be written.
    """
    limits = find_limits(scene)
    draw = None if view is None else view(scene, view_size(scene))

    def frames() -> Iterator[Picture]:
        for t in range(len(scene)):
            progress("drawing the overview", t, len(scene))
            yield (
                overview(scene, t, limits) if draw is None else with_view(scene, t, limits, draw(t))
            )
        progress("drawing the overview", len(scene), len(scene))

    write_video(frames(), path, fps=scene.fps or 10.0, overwrite=overwrite)


def write_contact_sheet(
    scene: Scene, path: str | Path, *, columns: int = 6, overwrite: bool = False
) -> None:
    """About `columns` frames by four rows (frames, depth, motion, confidence) as PNG or JPEG.

    Raises:
        OutputError: `path` exists and `overwrite` is False, ends in something else than .png, .jpg
            or .jpeg, or can't be written.
    """
    write_picture(contact_sheet(scene, columns), path, overwrite=overwrite)


def contact_sheet(scene: Scene, columns: int = 6) -> Picture:
    """Contact sheet with the names of the frames on top and labels in the first column."""
    limits = find_limits(scene)
    chosen = np.unique(np.linspace(0, len(scene) - 1, min(columns, len(scene))).round().astype(int))
    h, w = scene.size_hw
    scale = min(1.0, 320 / max(h, w))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    gap, head = 4, 20
    sheet = np.full(
        (head + len(PANELS) * (size[1] + gap), len(chosen) * (size[0] + gap) - gap, 3),
        32,
        dtype=np.uint8,
    )
    for column, t in enumerate(chosen):
        left = column * (size[0] + gap)
        caption = f"{scene.names[t]}  {scene.times_s[t]:.2f} s"
        draw_text(sheet, caption, (left + 3, 14), max_width=size[0])
        for row, picture in enumerate(panels(scene, int(t), limits)):
            small = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
            if column == 0:
                small = _labelled(small, PANELS[row])
            top = head + row * (size[1] + gap)
            sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


def write_camera_path(
    scene: Scene, path: str | Path, *, size: int = 800, overwrite: bool = False
) -> None:
    """The cameras' path from above (`dyn3r.scene.camera_path`) as PNG or JPEG.

    Raises:
        OutputError: as `write_contact_sheet`.
    """
    write_picture(camera_path_picture(scene, size), path, overwrite=overwrite)


def _limits(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return (0.0, 1.0)
    low, high = np.percentile(values, [2, 98])
    # a single value gets the middle of the colour map
    margin = 1e-6 + 0.01 * abs(float(high)) if high - low < 1e-3 * abs(high) else 0.0
    return (float(low) - margin, float(high) + margin)


def _labelled(picture: Picture, text: str) -> Picture:
    """Panel with a label in its upper left corner; panels below 80 pixels have none."""
    if min(picture.shape[:2]) < 80:
        return picture
    out = np.array(picture)
    size = max(0.4, min(picture.shape[:2]) / 700)
    draw_text(out, text, (round(12 * size), round(30 * size)), size=size, box=True)
    return out
