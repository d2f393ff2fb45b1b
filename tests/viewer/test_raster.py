"""Software rendering of surfaces: no gaps, the nearest wins, colours are interpolated."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.viewer.raster import Layer, Mesh, joined, render_mesh

K = np.array([[60, 0, 23.5], [0, 60, 15.5], [0, 0, 1.0]])
SIZE = (32, 48)


def quad(z, left=-0.2, right=0.2, colors=((255, 0, 0),) * 4) -> Mesh:
    """A rectangle; `z`: depth, or the depths of its left and right side."""
    near, far = np.broadcast_to(z, 2)
    points = np.array(
        [[left, -0.1, near], [left, 0.1, near], [right, 0.1, far], [right, -0.1, far]], np.float32
    )
    return Mesh(points, np.array(colors, np.uint8), np.array([[0, 1, 2, 3]]))


def render(mesh: Mesh) -> Layer:
    return render_mesh(mesh, T_world_camera=np.eye(4), K=K, size_hw=SIZE, near=0.1)


def test_a_quad_covers_its_pixels_without_gaps_and_no_others():
    layer = render(quad(0.5))
    columns = np.arange(48) * 0.5 / 60 - 23.5 * 0.5 / 60
    rows = np.arange(32) * 0.5 / 60 - 15.5 * 0.5 / 60
    away = np.maximum(np.abs(columns) - 0.2, np.abs(rows)[:, None] - 0.1) * 60 / 0.5  # pixels
    drawn = np.isfinite(layer.depth)
    assert drawn[away < -0.5].all()
    assert not drawn[away > 0.5].any()
    np.testing.assert_allclose(layer.depth[drawn], 0.5)
    assert (layer.rgb[drawn] == (255, 0, 0)).all()


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_quad_wins(order):
    meshes = [quad(2.0, colors=[(0, 255, 0)] * 4), quad(1.0, left=0.0, colors=[(0, 0, 255)] * 4)]
    layer = render(joined(meshes[::order]))
    assert layer.rgb[15, 30].tolist() == [0, 0, 255]
    assert layer.rgb[15, 20].tolist() == [0, 255, 0]
    assert layer.depth[15, 30] == 1
    other = render(meshes[0]).over(render(meshes[1]))
    np.testing.assert_array_equal(other.rgb, layer.rgb)
    np.testing.assert_array_equal(other.depth, layer.depth)


def test_colours_and_depth_are_interpolated():
    black, white = (0, 0, 0), (200, 200, 200)
    layer = render(quad((1.0, 1.1), colors=[black, black, white, white]))
    drawn = np.isfinite(layer.depth[15])
    grey, depth = layer.rgb[15, drawn, 0].astype(int), layer.depth[15, drawn]
    assert (np.diff(grey) > 0).all()
    np.testing.assert_allclose(grey, (depth - 1) * 2000, atol=2)


def test_quads_behind_and_beside_the_camera_are_left_out():
    for mesh in (quad(-1.0), quad(0.05), quad((-1.0, 1.0)), quad(1.0, left=5, right=6)):
        assert not np.isfinite(render(mesh).depth).any()
    assert not np.isfinite(render(joined([])).depth).any()
    assert np.isfinite(render(quad(0.3)).depth).all()  # it fills the image
