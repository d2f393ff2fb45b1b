"""Bars around the picture: letterbox, pillarbox, and frames of one colour."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from dyn3r.io.images import Window
from dyn3r.types import FrameMapping

SAMPLES = 64
"""About as many frames are looked at."""
BLACK = 32
"""Largest value of black: 16 (black of limited range that was not converted) and coding noise."""
TOLERANCE = 24
"""Values of a bar differ by at most this: coding noise."""
STRAIGHT = 0.5
"""The picture must differ from the bar on this share of the edge at some time: a night sky ends
in roofs, a bar in a straight line."""
MIN_SHARE = 0.25
"""The picture has at least this share of the frame."""
MIN_CONTRAST = 4.0
"""Standard deviation of the picture; below it is itself of one colour."""
EDGE_PX = 2
"""Rows beside the edge of a bar that are neither bar nor picture: resampling and coding."""


def find_borders(images: UInt8[np.ndarray, "n h w 3"]) -> Window | None:
    """The picture within bars that stay the same over the clip; None without, or for one frame.

    A side that is black is a bar by itself; of another colour, if the opposite side has the same.
    """
    n, h, w = images.shape[:3]
    if n == 1:
        return None
    frames = images[:: max(1, n // SAMPLES)]
    low, high = frames.min(axis=0).astype(int), frames.max(axis=0).astype(int)
    top, bottom = _bars(low, high)
    left, right = _bars(low.swapaxes(0, 1), high.swapaxes(0, 1))
    window = Window(left, top, w - right, h - bottom)
    picture = frames[:, top : h - bottom, left : w - right]
    if window == (0, 0, w, h) or picture[0].size < MIN_SHARE * frames[0].size:
        return None
    return window if picture.std() > MIN_CONTRAST else None


def in_source(window: Window, mapping: FrameMapping) -> Window:
    """The window in pixels of the source, without the EDGE_PX pixels beside every bar."""
    h, w = mapping.size_hw
    near = np.array([window.left, window.top]), np.array([window.right, window.bottom])
    bars = near[0] > 0, near[1] < (w, h)
    scale, crop = np.array(mapping.scale_xy), np.array(mapping.crop_xy)
    first = np.ceil((near[0] + EDGE_PX + crop) / scale)
    last = np.floor((near[1] - EDGE_PX + crop) / scale)
    left, top = np.where(bars[0], first, 0).astype(int).tolist()
    right, bottom = np.where(bars[1], last, mapping.source_hw[::-1]).astype(int).tolist()
    return Window(left, top, right, bottom)


def _bars(low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
    """Rows of the bars at the beginning and at the end, from the range of every pixel over time."""
    first, last = _bar(low, high), _bar(low[::-1], high[::-1])
    colours = _colour(low[:1], high[:1]), _colour(low[-1:], high[-1:])
    alike = bool(np.abs(colours[0] - colours[1]).max() <= TOLERANCE)
    return tuple(  # type: ignore[return-value]
        rows if colour.max() <= BLACK or (first and last and alike) else 0
        for rows, colour in zip((first, last), colours)
    )


def _bar(low: np.ndarray, high: np.ndarray) -> int:
    """Rows from the beginning that have one colour for all time and end in a straight edge."""
    colour = _colour(low[:1], high[:1])
    off = np.maximum(high - colour, colour - low).max(axis=2)
    same = np.quantile(off, 0.99, axis=1) <= TOLERANCE
    rows = int(np.argmin(same)) if not same.all() else 0
    beyond = off[rows : rows + EDGE_PX + 1].max(axis=0)
    if rows == 0 or (beyond > TOLERANCE).mean() < STRAIGHT:
        return 0
    return rows


def _colour(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (np.median(low, axis=(0, 1)) + np.median(high, axis=(0, 1))) / 2
