"""The covariance of flow by dense inverse search, beside its true errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dyn3r
from dyn3r.assets.demo import demo_clip_folder
from dyn3r.bundle_adjustment.measurements import regular_grid
from dyn3r.evaluation.truth import read_truth
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.flow.noise import (
    BRIGHTNESS_SIGMA,
    LEAST_SIGMA_PX,
    MEDIAN_NORMAL_ERROR,
    ROUND_TRIP_SHARE,
    flow_covariance_px2,
    texture_covariance_px2,
    whitening_of,
)
from dyn3r.geometry.reprojection import pixel_maps, static_flow
from dyn3r.geometry.warping import round_trip_error_px


def test_the_covariance_is_the_sum_of_its_parts() -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    uv, trips = np.array([[3, 4], [20, 11]]), np.array([[0.0, 2.0], [0.5, 1.0]])
    uu, cross, vv = flow_covariance_px2(torch.from_numpy(image), uv, trips)
    texture = texture_covariance_px2(torch.from_numpy(image), BRIGHTNESS_SIGMA)
    for row in range(2):
        for k, (u, v) in enumerate(uv):
            isotropic = LEAST_SIGMA_PX**2 + (ROUND_TRIP_SHARE * trips[row, k]) ** 2
            assert uu[row, k] == pytest.approx(float(texture[0][v, u]) + isotropic)
            assert vv[row, k] == pytest.approx(float(texture[2][v, u]) + isotropic)
            assert cross[k] == pytest.approx(float(texture[1][v, u]))


def test_a_plain_surface_says_nothing() -> None:
    plain = torch.full((24, 32, 3), 90, dtype=torch.uint8)
    uu, _, vv = flow_covariance_px2(plain, np.array([[10, 10]]), np.zeros((1, 1)))
    assert min(uu[0, 0], vv[0, 0]) ** 0.5 > 90


@pytest.mark.slow
def test_stated_errors_are_those_of_the_bundled_clip() -> None:
    """The median error of static pixels in standard errors is about that of a normal one."""
    clip = dyn3r.read_clip(demo_clip_folder() / "frames", size=224, num_frames=8)
    truth = read_truth(demo_clip_folder(), clip.mapping, clip.names)
    assert truth.depth is not None
    assert truth.K is not None
    assert truth.T_world_camera is not None
    assert truth.dynamic is not None
    edges = np.array([(i, j) for i in range(7) for j in (i + 1, i + 3) if j < 8])
    flow = measure_flow(
        clip.images, np.concatenate([edges, edges[:, ::-1]]), flow_estimator("aligned-dis")
    )
    assert flow.visible is not None
    uv = regular_grid(clip.images.shape[1:3], 350)
    u, v = uv.T
    rows, errors = {tuple(e): k for k, e in enumerate(flow.edges.tolist())}, []
    K = np.broadcast_to(truth.K, (8, 3, 3))
    for i, j in edges.tolist():
        P = pixel_maps(K, truth.T_world_camera, i, np.array([j]), "cpu")
        depth = torch.from_numpy(truth.depth[i].astype(np.float64))
        exact = static_flow(P, depth, 1)[0].permute(1, 2, 0).numpy()[v, u]
        forward = flow.flow[rows[i, j]].astype(np.float32)[v, u]
        trip = round_trip_error_px(forward, flow.flow[rows[j, i]], uv)[None]
        a, b, c = whitening_of(*flow_covariance_px2(torch.from_numpy(clip.images[i]), uv, trip))
        x, y = (forward - exact).T
        length = np.hypot(a[0] * x + b[0] * y, c[0] * y)
        errors.append(length[flow.visible[rows[i, j]][v, u] & ~truth.dynamic[i][v, u]])
    assert MEDIAN_NORMAL_ERROR / 1.5 < np.median(np.concatenate(errors)) < 1.5 * MEDIAN_NORMAL_ERROR
