"""First view: the scene fills the free part of the window."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.viewer.framing import Window, fit_view, view_axes
from dyn3r.viewer.layout import FOV_RAD, scene_layout
from tests.factories import tiny_scene

AHEAD, UP = np.array([0, 1.0, 0]), np.array([0, 0, 1.0])


def projected(points, view, axes, window):
    """Positions in the window, 0..1 from the left and from the top."""
    x, y, z = ((points - view.position) @ axes.T).T
    slope = np.tan(FOV_RAD / 2)
    return 0.5 + x / z / slope / window.aspect / 2, 0.5 - y / z / slope / 2


@pytest.mark.parametrize(
    "window", [Window(), Window(0.6, 0, 0.1), Window(2.0, 0.25, 0.2), Window(1.0, 0.5, 0.0)]
)
@pytest.mark.parametrize("size", [0.1, 30.0])
def test_nine_tenths_of_the_points_lie_in_the_free_area_and_fill_it(window, size):
    rng = np.random.default_rng(0)
    points = np.array([5.0, 100.0, 2.0]) + size * rng.uniform(-1, 1, (4000, 3))
    points[:20] *= 50  # outliers
    axes = view_axes(AHEAD, UP)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    view = fit_view(points, axes, FOV_RAD, 0.1 * size, window)
    across, down = projected(points, view, axes, window)
    inside = (across > 0) & (across < 1 - window.right) & (down > 0) & (down < 1 - window.bottom)
    assert inside.mean() > 0.85
    spread = [np.ptp(np.percentile(v, [4, 96])) for v in (across, down)]
    free = [1 - window.right, 1 - window.bottom]
    assert max(s / f for s, f in zip(spread, free)) > 0.75
    assert (view.look_at - view.position) @ axes[2] > 0
    assert view.position[2] > 2  # from above


def test_a_distant_narrow_scene_is_approached():
    """A telephoto clip: its points lie far away in a narrow cone."""
    rng = np.random.default_rng(0)
    points = np.array([0, 200.0, 0]) + 4 * rng.uniform(-1, 1, (1000, 3))
    view = fit_view(points, view_axes(AHEAD, UP), FOV_RAD, 200.0, Window())
    assert view.position @ AHEAD > 150


def test_the_view_of_a_scene_shows_its_points():
    layout = scene_layout(tiny_scene())
    window = Window(1.5, 0.2, 0.2)
    view = layout.first_view(window)
    across, down = projected(layout.sample, view, layout.view_axes, window)
    assert ((across > 0) & (across < 0.8) & (down > 0) & (down < 0.8)).mean() > 0.8


def test_a_scene_without_depth_has_a_view():
    layout = scene_layout(tiny_scene(depth=np.zeros((4, 32, 48))))
    view = layout.first_view()
    assert np.isfinite([*view.position, *view.look_at]).all()
    assert (view.look_at - view.position) @ layout.view_axes[2] > 0
