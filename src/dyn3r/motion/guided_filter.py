"""Guided filter: smoothing of a map that follows the edges of an image (He, Sun and Tang 2010)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

GREY_REGULARISATION = 0.01
"""Variance of brightness (0..1) below which a window counts as plain: a deviation of 0.1."""


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
