"""The guided filter and votes along optical flow in NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.motion.guided_filter import GREY_REGULARISATION
from dyn3r.types import FlowFields
from tests.oracles.flow_sampling import sample_along_flow


def guided_filter_color(
    values: Float[np.ndarray, "h w"],
    image: UInt8[np.ndarray, "h w 3"],
    radius_px: int,
    regularisation: float,
) -> Float[np.ndarray, "h w"]:
    """Filtered values with the colour image as guide, float32.

    In every window of 2 radius + 1 pixels the values are replaced by the nearest linear function of
    the colours (0..1); a pixel takes the mean over its windows. `regularisation` is added to the
    variance of the colours. Source: section 3.3 of the paper.
    """
    colors = image.astype(np.float64) / 255
    color_mean, value_mean = _box_mean(colors, radius_px), _box_mean(values, radius_px)
    covariance = _box_mean(colors * values[..., None], radius_px)
    covariance = covariance - color_mean * value_mean[..., None]
    products = _box_mean(colors[..., :, None] * colors[..., None, :], radius_px)
    variance = products - color_mean[..., :, None] * color_mean[..., None, :]
    variance += regularisation * np.eye(3)
    slope = np.linalg.solve(variance, covariance[..., None])[..., 0]
    offset = value_mean - (slope * color_mean).sum(-1)
    filtered = (_box_mean(slope, radius_px) * colors).sum(-1) + _box_mean(offset, radius_px)
    return np.asarray(filtered, dtype=np.float32)


def guided_filter_grey(
    values: Float[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"], radius_px: int
) -> Float[np.ndarray, "h w"]:
    """Filtered values with the brightness of the image as guide, float32.

    As `guided_filter_color` with one guide channel, GREY_REGULARISATION and single precision.
    """
    import cv2

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(x, -1, _window(radius_px), borderType=cv2.BORDER_REFLECT)

    values = values.astype(np.float32)
    grey = image.astype(np.float32).mean(-1) / 255
    grey_mean, value_mean = mean(grey), mean(values)
    slope = mean(grey * values) - grey_mean * value_mean
    slope /= mean(grey * grey) - grey_mean**2 + GREY_REGULARISATION
    return np.asarray(mean(slope) * grey + mean(value_mean - slope * grey_mean))


def vote(
    masks: Bool[np.ndarray, "n h w"], flow: FlowFields, t: int, reach: int
) -> Float[np.ndarray, "h w"]:
    """Share (0..1) of the frames up to `reach` away in which each pixel of frame t is dynamic.

    A frame votes where the chained flow to it is reliable; t itself always votes. `flow` holds all
    steps (t, t + 1) and (t + 1, t).
    """
    rows = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    dynamic = masks[t].astype(np.float32)
    voters = np.ones(dynamic.shape, np.float32)
    for direction in (-1, 1):
        for other, chained, visible in _chain(flow, rows, t, direction * reach, len(masks)):
            dynamic += visible * sample_along_flow(masks[other].astype(np.float32), chained)
            voters += visible
    return dynamic / voters


def _chain(
    flow: FlowFields,
    rows: dict[tuple[int, int], int],
    t: int,
    reach: int,
    num_frames: int,
) -> Iterator[tuple[int, Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]]:
    """Frames up to `reach` (negative: backwards) away from t, flow to them, where it is reliable.

    The flow is chained from frame to frame, in pixels; reliability is 0 or 1.
    """
    h, w = flow.flow.shape[1:3]
    total = np.zeros((h, w, 2), np.float32)
    reliable = np.ones((h, w), np.float32)
    direction = 1 if reach > 0 else -1
    for here in range(t, t + reach, direction):
        other = here + direction
        if not 0 <= other < num_frames:
            return
        row = rows[here, other]
        if flow.visible is not None:
            visible = sample_along_flow(flow.visible[row].astype(np.float32), total)
            reliable = reliable * (visible > 0.5)
        total = total + sample_along_flow(np.asarray(flow.flow[row], dtype=np.float32), total)
        yield other, total, reliable


def _window(radius_px: int) -> tuple[int, int]:
    return (2 * radius_px + 1, 2 * radius_px + 1)


def _box_mean(x: np.ndarray, radius_px: int) -> np.ndarray:
    """Box mean of every channel, float64. OpenCV takes no arrays with more than three axes."""
    import cv2

    flat = np.ascontiguousarray(x.reshape(*x.shape[:2], -1), dtype=np.float64)
    channels = [
        cv2.boxFilter(flat[..., k], -1, _window(radius_px), borderType=cv2.BORDER_REFLECT)
        for k in range(flat.shape[-1])
    ]
    return np.stack(channels, -1).reshape(x.shape)
