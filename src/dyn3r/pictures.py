"""Pictures of a scene for people: an overview video, a contact sheet, the camera path from above.

Depth is shown as inverse depth (red is near), confidence from dark to bright, both with limits
shared by the whole clip, so that a change in colour is a change in the scene. Grey is "unknown".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.errors import OutputError
from dyn3r.files import atomic_file
from dyn3r.types import Progress, no_progress

if TYPE_CHECKING:
    from dyn3r.scene import Scene

logger = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "h w 3"]
UNKNOWN = (96, 96, 96)
PANELS = ("frames", "depth", "motion", "confidence")
_MOTION_COLOUR = np.array([255, 48, 48], dtype=np.float32)


@dataclass(frozen=True)
class Limits:
    """What is drawn darkest and brightest, for one clip."""

    inverse_depth: tuple[float, float]
    confidence: tuple[float, float]


def find_limits(scene: Scene) -> Limits:
    """Robust limits (2nd and 98th percentile over the clip) for depth and confidence."""
    step = max(1, scene.depth.size // 2_000_000)
    depth = scene.depth.reshape(-1)[::step]
    confidence = scene.confidence.reshape(-1)[::step]
    return Limits(_limits(1 / depth[depth > 0]), _limits(confidence[confidence > 0]))


def depth_picture(depth: Float[np.ndarray, "h w"], limits: tuple[float, float]) -> Picture:
    """Inverse depth in the colour map turbo: red is near, blue far. `limits` are inverse depths."""
    known = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=known)
    return _coloured(inverse, known, limits, "COLORMAP_TURBO")


def confidence_picture(
    confidence: Float[np.ndarray, "h w"], limits: tuple[float, float]
) -> Picture:
    """Confidence in the colour map viridis, bright is sure; rejected pixels (0) are grey."""
    return _coloured(confidence, confidence > 0, limits, "COLORMAP_VIRIDIS")


def motion_picture(image: Picture, mask: Bool[np.ndarray, "h w"]) -> Picture:
    """The frame, dimmed, with moving pixels tinted red."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    out = 0.25 * image + 0.35 * grey
    out[mask] = 0.5 * image[mask] + 0.5 * _MOTION_COLOUR
    return out.astype(np.uint8)


def panels(scene: Scene, t: int, limits: Limits) -> list[Picture]:
    """The pictures of frame t in the order of PANELS."""
    return [
        scene.images[t],
        depth_picture(scene.depth[t], limits.inverse_depth),
        motion_picture(scene.images[t], scene.dynamic[t]),
        confidence_picture(scene.confidence[t], limits.confidence),
    ]


def overview(scene: Scene, t: int, limits: Limits) -> Picture:
    """The four panels of frame t with labels: two by two, or in a row for portrait frames."""
    shown = [_labelled(p, text) for p, text in zip(panels(scene, t, limits), PANELS)]
    h, w = scene.size_hw
    if h > w:
        return np.concatenate(shown, axis=1)
    return np.concatenate([np.concatenate(shown[:2], axis=1), np.concatenate(shown[2:], axis=1)])


def write_overview_video(
    scene: Scene,
    path: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Frames, depth, motion and confidence side by side as an mp4 that browsers play.

    H.264 in yuv420p at the scene's own speed (10 frames per second if that is unknown).

    Raises:
        OutputError: `path` exists and `overwrite` is False, or can't be written.
    """
    limits = find_limits(scene)

    def frames() -> Iterator[Picture]:
        for t in range(len(scene)):
            progress("drawing the overview", t, len(scene))
            yield overview(scene, t, limits)
        progress("drawing the overview", len(scene), len(scene))

    write_video(frames(), path, fps=scene.fps or 10.0, overwrite=overwrite)


def write_video(
    pictures: Iterator[Picture], path: str | Path, *, fps: float, overwrite: bool = False
) -> None:
    """Write RGB pictures of one size as an H.264 mp4 (odd sides lose their last row or column).

    Raises:
        OutputError: `path` exists and `overwrite` is False, or can't be written.
    """
    import av

    rate = Fraction(min(max(fps, 0.1), 240.0)).limit_denominator(1000)
    codec = "libx264" if "libx264" in av.codec.codecs_available else "mpeg4"
    if codec != "libx264":
        logger.warning("this PyAV has no H.264 encoder; %s may not play in browsers", path)
    options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
    with atomic_file(path, overwrite=overwrite) as part:
        # The index at the front lets browsers start before they have the whole file.
        settings = {"movflags": "+faststart"}
        with av.open(str(part), "w", format="mp4", options=settings) as container:
            stream: Any = container.add_stream(codec, rate=rate, options=options)
            stream.pix_fmt = "yuv420p"
            for index, picture in enumerate(pictures):
                even = np.ascontiguousarray(picture[: len(picture) & ~1, : picture.shape[1] & ~1])
                if index == 0:
                    stream.height, stream.width = even.shape[:2]
                    stream.codec_context.colorspace = 1  # BT.709, which players assume
                    stream.codec_context.color_range = 1  # limited range
                frame = av.VideoFrame.from_ndarray(even, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


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
    """The picture that `write_contact_sheet` writes: names on top, labels on the first column."""
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
    """The cameras' path from above (`dyn3r.camera_path`) as PNG or JPEG.

    Raises:
        OutputError: as `write_contact_sheet`.
    """
    from dyn3r.camera_path import camera_path_picture

    write_picture(camera_path_picture(scene, size), path, overwrite=overwrite)


def write_picture(picture: Picture, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an RGB picture as .png or .jpg, atomically.

    Raises:
        OutputError: `path` exists and `overwrite` is False, is no .png or .jpg, or can't be
            written.
    """
    kinds: dict[str, dict[str, Any]] = {
        ".png": {"format": "PNG"},
        ".jpg": {"format": "JPEG", "quality": 92},
        ".jpeg": {"format": "JPEG", "quality": 92},
    }
    kind = kinds.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"cannot write the picture {path}: its name must end in .png or .jpg")
    with atomic_file(path, overwrite=overwrite) as part:
        Image.fromarray(picture).save(part, **kind)


def _limits(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return (0.0, 1.0)
    low, high = np.percentile(values, [2, 98])
    # A clip of one single value is drawn in the middle of the map.
    margin = 1e-6 + 0.01 * abs(float(high)) if high - low < 1e-3 * abs(high) else 0.0
    return (float(low) - margin, float(high) + margin)


def _coloured(
    values: np.ndarray, known: np.ndarray, limits: tuple[float, float], colour_map: str
) -> Picture:
    import cv2

    low, high = limits
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    bgr = cv2.applyColorMap((255 * scaled).round().astype(np.uint8), getattr(cv2, colour_map))
    out = np.ascontiguousarray(bgr[..., ::-1])
    out[~known] = UNKNOWN
    return out


def _labelled(picture: Picture, text: str) -> Picture:
    """The picture with a small label in its upper left corner (small pictures stay bare)."""
    if min(picture.shape[:2]) < 80:
        return picture
    out = np.array(picture)
    size = max(0.4, min(picture.shape[:2]) / 700)
    draw_text(out, text, (round(12 * size), round(30 * size)), size=size, box=True)
    return out


def draw_text(
    picture: Picture,
    text: str,
    left_base: tuple[int, int],
    *,
    size: float = 0.4,
    box: bool = False,
    max_width: int | None = None,
) -> None:
    """Draw white text in place, on a dark box if asked; cut it to `max_width` pixels."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    text = text.encode("ascii", "replace").decode()  # all that this font can draw
    while max_width and text and cv2.getTextSize(text, font, size, 1)[0][0] > max_width:
        text = text[:-1]
    (width, height), below = cv2.getTextSize(text, font, size, 1)
    left, base = left_base
    if box:
        pad = max(2, height // 3)
        top, right = max(0, base - height - pad), left + width + pad
        part = picture[top : base + below + pad, max(0, left - pad) : right]
        part[:] = (0.35 * part).astype(np.uint8)
    cv2.putText(picture, text, (left, base), font, size, (255, 255, 255), 1, cv2.LINE_AA)
