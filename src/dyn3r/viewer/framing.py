"""First view: the camera from which a scene fills the free part of a window. Plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dyn3r.scene.upright import FirstView

_SHARES = (4.0, 96.0)
"""Percentiles of the points that lie inside the free area; the rest may lie outside."""
_FILL = 0.92
"""Share of the free area that the points fill."""
_ELEVATION_RAD = 0.26
"""Angle by which the first view looks down: floors become visible, occlusions stay small."""
_NEAREST = 0.2
"""Smallest distance of the points from the camera, in median depths."""


@dataclass(frozen=True)
class Window:
    """Window of a browser and its part that no panel covers."""

    aspect: float = 16 / 9
    """Width over height."""
    right: float = 0.0
    """Covered share of the width, on the right."""
    bottom: float = 0.0
    """Covered share of the height, at the bottom."""


def view_axes(
    ahead: Float[np.ndarray, " 3"], up: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and ahead of a camera without roll that looks down on the scene.

    `ahead` and `up` are unit vectors at right angles; all in world coordinates.
    """
    down = np.cos(_ELEVATION_RAD) * ahead - np.sin(_ELEVATION_RAD) * up
    right = np.cross(ahead, up)
    return np.stack([right, np.cross(right, down), down])


def fit_view(
    points: Float[np.ndarray, "k 3"],
    axes: Float[np.ndarray, "3 3"],
    fov_y_rad: float,
    unit: float,
    window: Window,
) -> FirstView:
    """The nearest camera with these axes that has the points in the free part of the window.

    Args:
        points: world points; outliers are left out by percentiles.
        axes: right, up and ahead of the camera in world coordinates, as rows.
        fov_y_rad: vertical field of view of the window.
        unit: median depth of the scene.
        window: shape of the window and what covers it.
    """
    x, y, z = (points @ axes.T).T
    slope = np.tan(fov_y_rad / 2)
    # Limits of the free area as slopes x / z and y / z.
    left, right = -window.aspect * slope, window.aspect * slope * (1 - 2 * window.right)
    low, high = -slope * (1 - 2 * window.bottom), slope
    (left, right), (low, high) = _shrink(left, right), _shrink(low, high)
    far_x, middle_x = _fit_axis(x, z, left, right)
    far_y, middle_y = _fit_axis(y, z, low, high)
    nearest = float(np.percentile(z, _SHARES[0])) - _NEAREST * unit
    at_z = min(far_x, far_y, nearest)
    position = np.array([middle_x(at_z), middle_y(at_z), at_z]) @ axes
    return FirstView(
        position, position + max(float(np.median(z)) - at_z, _NEAREST * unit) * axes[2]
    )


def _shrink(low: float, high: float) -> tuple[float, float]:
    middle, half = (low + high) / 2, (high - low) / 2 * _FILL
    return middle - half, middle + half


def _fit_axis(
    x: Float[np.ndarray, " k"], z: Float[np.ndarray, " k"], low: float, high: float
) -> tuple[float, Callable[[float], float]]:
    """Largest camera z for which the points have slopes from `low` to `high`, and the camera's
    coordinate along x that centres them for a given camera z."""
    # (x - cx) <= high (z - cz) and (x - cx) >= low (z - cz)
    over = float(np.percentile(x - high * z, _SHARES[1]))
    under = float(np.percentile(x - low * z, _SHARES[0]))
    return (under - over) / (high - low), lambda at: ((over + high * at) + (under + low * at)) / 2
