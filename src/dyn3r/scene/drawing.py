"""Colour maps, labels, and files of images and videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.errors import OutputError
from dyn3r.io.atomic import atomic_file

logger = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "h w 3"]
"""RGB, 0..255."""
UNKNOWN = (96, 96, 96)
"""Colour of unknown values."""
_MOTION_COLOUR = np.array([255, 48, 48], dtype=np.float32)


def depth_picture(depth: Float[np.ndarray, "h w"], limits: tuple[float, float]) -> Picture:
    """Inverse depth in the colour map turbo: red is near, blue is far.

    `limits` are inverse depths.
    """
    known = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=known)
    return _coloured(inverse, known, limits, "COLORMAP_TURBO")


def confidence_picture(
    confidence: Float[np.ndarray, "h w"], limits: tuple[float, float]
) -> Picture:
    """Confidence in the colour map viridis, brighter is higher; rejected pixels (0) are grey."""
    return _coloured(confidence, confidence > 0, limits, "COLORMAP_VIRIDIS")


def motion_picture(image: Picture, mask: Bool[np.ndarray, "h w"]) -> Picture:
    """Dimmed frame with dynamic pixels tinted red."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    out = 0.25 * image + 0.35 * grey
    out[mask] = 0.5 * image[mask] + 0.5 * _MOTION_COLOUR
    return out.astype(np.uint8)


def write_video(
    pictures: Iterator[Picture], path: str | Path, *, fps: float, overwrite: bool = False
) -> None:
    """Write RGB images of one size as an H.264 mp4; odd sides lose their last row or column.

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
        # with the index at the front browsers start before they have the whole file
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


def write_picture(picture: Picture, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an RGB image as .png or .jpg, atomically.

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
        raise OutputError(f"cannot write the image {path}: its name must end in .png or .jpg")
    with atomic_file(path, overwrite=overwrite) as part:
        Image.fromarray(picture).save(part, **kind)


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


def draw_text(
    picture: Picture,
    text: str,
    left_base: tuple[int, int],
    *,
    size: float = 0.4,
    box: bool = False,
    max_width: int | None = None,
) -> None:
    """Draw white text into an image, cut to `max_width` pixels; `box`: on a dark box."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    text = text.encode("ascii", "replace").decode()  # the font has no other characters
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
