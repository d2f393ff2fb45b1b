"""Overview of the camera path from above."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dyn3r.scene.background import static_points
from dyn3r.scene.drawing import Picture, draw_text
from dyn3r.scene.scene import Scene
from dyn3r.scene.upright import find_up, horizontal_axes

_BACKGROUND = 18
_PATH_MAP = "COLORMAP_TURBO"


def camera_path_picture(scene: Scene, size: int = 800) -> Picture:
    """Scene seen straight from above, (size, size, 3).

    The viewing direction of the first camera is up. Static points have dimmed colours; those well
    above the cameras are left out, as a ceiling would hide the room. The path runs from blue
    (start) to red (end), with some cameras as triangles and a scale bar in scene units.
    """
    import cv2

    up = find_up(scene).up_world
    right, ahead = horizontal_axes(scene, up)
    plan = np.stack([right, ahead], axis=1)
    centres = scene.T_world_camera[:, :3, 3]
    threshold = scene.confidence_threshold(0.2)
    points, colors = static_points(scene, min_confidence=threshold, max_points=200_000)
    height = points @ up
    seen = height < (centres @ up).max() + 0.1 * scene.median_depth
    order = np.argsort(height[seen])  # higher points cover lower ones
    ground, colors = points[seen][order] @ plan, colors[seen][order]
    path = centres @ plan
    frusta = _frusta(scene, plan)

    low, span = _extent(ground, np.concatenate([path, frusta.reshape(-1, 2)]))

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        u = (xy[..., 0] - low[0]) / span * size
        v = size - (xy[..., 1] - low[1]) / span * size
        return np.stack([u, v], axis=-1)

    picture = np.full((size, size, 3), _BACKGROUND, np.uint8)
    pixels = np.floor(to_pixels(ground)).astype(int)
    inside = ((pixels >= 1) & (pixels < size - 1)).all(axis=1)
    columns, rows = pixels[inside].T
    dots = (40 + 0.6 * colors[inside]).astype(np.uint8)
    for step in np.ndindex(3, 3):
        picture[rows + step[0] - 1, columns + step[1] - 1] = dots
    shift = 4  # draw with 1/16 pixel

    def line(ends: np.ndarray, colour: tuple[int, ...], width: int, *, closed: bool) -> None:
        fixed = np.clip(np.round(to_pixels(ends) * 2**shift), -(2**24), 2**24).astype(np.int32)
        cv2.polylines(picture, [fixed[:, None]], closed, colour, width, cv2.LINE_AA, shift)

    ramp = np.linspace(20, 235, len(scene)).astype(np.uint8)
    tints = cv2.applyColorMap(ramp[:, None], getattr(cv2, _PATH_MAP))[:, 0, ::-1]
    for index in np.unique(np.linspace(0, len(scene) - 1, min(8, len(scene))).astype(int)):
        line(frusta[index], tuple(int(c) for c in tints[index]), 1, closed=True)
    for t in range(len(scene) - 1):
        line(path[t : t + 2], tuple(int(c) for c in tints[t]), 2, closed=False)
    _scale_bar(picture, span, size)
    draw_text(picture, "camera path from above", (14, 24), size=0.5, box=True)
    return picture


def _frusta(scene: Scene, plan: Float[np.ndarray, "3 2"]) -> Float[np.ndarray, "n 3 2"]:
    """Triangles (centre, left, right) of the horizontal field of view, seen from above."""
    length = 0.15 * scene.median_depth
    half = length * scene.size_hw[1] / 2 / scene.K[:, 0, 0]
    corners = np.zeros((len(scene), 3, 3))
    corners[:, 1:, 2] = length
    corners[:, 1, 0], corners[:, 2, 0] = -half, half
    R, t = scene.T_world_camera[:, :3, :3], scene.T_world_camera[:, None, :3, 3]
    return (corners @ R.transpose(0, 2, 1) + t) @ plan


def _extent(ground: np.ndarray, cameras: np.ndarray) -> tuple[np.ndarray, float]:
    """Lower left corner and side of the square that holds the cameras and most of the points."""
    low, high = cameras.min(axis=0), cameras.max(axis=0)
    if len(ground):
        low = np.minimum(low, np.percentile(ground, 2, axis=0))
        high = np.maximum(high, np.percentile(ground, 98, axis=0))
    span = max(float((high - low).max()) * 1.1, 1e-6)
    return (low + high) / 2 - span / 2, span


def _scale_bar(picture: Picture, span: float, size: int) -> None:
    """A white bar of 1, 2 or 5 times a power of ten, about a fifth of the width."""
    import cv2

    power = 10.0 ** np.floor(np.log10(span / 5))
    length = max(step * power for step in (1, 2, 5) if step * power <= span / 5)
    pixels, base = round(length / span * size), size - 20
    cv2.line(picture, (14, base), (14 + pixels, base), (255, 255, 255), 2)
    draw_text(picture, f"{length:g}", (18 + pixels, base + 4), size=0.45)
