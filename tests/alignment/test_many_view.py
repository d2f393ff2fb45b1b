"""The many-view geometry source on a known world, seen through a simulated network.

Every call of the simulated network gives true cameras and depth in a world and unit of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dyn3r.alignment.clip_windows import kept_frames
from dyn3r.alignment.many_view import many_view_geometry, registered, with_cameras_of
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.view_uncertainty import (
    DEPTH_FLOOR,
    ROTATION_FLOOR_DEG,
    SHARED,
    UNKNOWN_SIGMA,
    camera_sigma,
    camera_terms,
    depth_sigma,
    neighbour_agreement,
    shared_intrinsics,
)
from dyn3r.alignment.view_windows import PlacedViews, view_windows
from dyn3r.geometry.cameras import invert
from dyn3r.geometry.registration import weighted_similarity
from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.io.clip import clip_from_images
from dyn3r.network.model import prepare_model
from dyn3r.network.predict_views import GivenCameras, ViewPrediction
from dyn3r.types import Clip, Geometry, Priors
from tests.factories import geometry_of, tiny_network
from tests.network.golden_many_view import GOLDEN

N, H, W, FOCAL = 10, 48, 64, 60.0


class World:
    """A wavy wall at a depth of about 4, seen by a camera that moves right and turns."""

    def __init__(self) -> None:
        t = torch.arange(N, dtype=torch.float64)
        T = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
        T[:, :3, :3] = rotvec_to_rotmat(torch.stack([0 * t, -0.02 * t, 0.01 * t], -1))
        T[:, :3, 3] = torch.stack([0.1 * t, 0.02 * t**1.5, -0.05 * t], -1)
        self.T = T.numpy()
        self.K = np.tile(np.array([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]]), (N, 1, 1))
        v, u = np.mgrid[:H, :W]
        ray = np.stack([(u - W / 2) / FOCAL, (v - H / 2) / FOCAL, np.ones((H, W))], -1)
        self.depth = np.empty((N, H, W), np.float32)
        for i in range(N):
            d = ray @ self.T[i, :3, :3].T
            depth = np.full((H, W), 4.0)
            for _ in range(60):  # fixed point of the wall z = 4 + 0.3 sin(2 x) cos(y)
                x = self.T[i, :3, 3] + depth[..., None] * d
                z = 4 + 0.3 * np.sin(2 * x[..., 0]) * np.cos(x[..., 1])
                depth = (z - self.T[i, 2, 3]) / d[..., 2]
            self.depth[i] = depth
        images = np.zeros((N, H, W, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(N)  # says which frame it is
        self.clip: Clip = clip_from_images(images, size=W)


class SimulatedNetwork:
    """Truth in a random similarity for every call, with noise and outliers of depth."""

    def __init__(self, world: World, noise: float = 0.0, outliers: float = 0.0) -> None:
        self.world, self.noise, self.outliers = world, noise, outliers
        self.random = np.random.default_rng(0)
        self.calls: list[tuple[list[int], GivenCameras | None]] = []

    def __call__(self, model: Any, images: np.ndarray, **more: Any) -> ViewPrediction:
        rows = images[:, 0, 0, 0].astype(int)
        self.calls.append((rows.tolist(), more["given"]))
        R = rotvec_to_rotmat(torch.from_numpy(self.random.normal(size=3))).numpy()
        t, scale = self.random.normal(size=3), np.exp(self.random.normal())
        T = self.world.T[rows].copy()
        T[:, :3, 3] = scale * T[:, :3, 3] @ R.T + t
        T[:, :3, :3] = R @ T[:, :3, :3]
        depth = scale * self.world.depth[rows]
        depth *= np.exp(self.noise * self.random.normal(size=depth.shape))
        wrong = self.random.random(depth.shape) < self.outliers
        depth = np.where(wrong, 3 * depth, depth).astype(np.float32)
        confidence = np.full(depth.shape, 2, np.float32)
        return ViewPrediction(
            T, np.full((len(rows), 2), FOCAL), depth, confidence, np.zeros((len(rows), 3))
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def estimate(
    monkeypatch: pytest.MonkeyPatch, network: SimulatedNetwork, priors: Priors, **options: Any
) -> Geometry:
    monkeypatch.setattr("dyn3r.alignment.many_view.predict_views", network)
    geometry, attention = many_view_geometry(
        prepare_model(tiny_network(), "unused", device="cpu"),
        network.world.clip,
        priors=priors,
        options=AlignmentOptions(**options),
    )
    assert attention is None
    return geometry


def equals_truth(geometry: Geometry, world: World, tolerance: float) -> None:
    """In the unit of the geometry, relative to the first camera."""
    first = np.linalg.inv(world.T[0]) @ world.T
    scale = np.median(geometry.depth / world.depth)
    first[:, :3, 3] *= scale
    np.testing.assert_allclose(geometry.T_world_camera, first, atol=tolerance * scale)
    error = np.abs(np.log(geometry.depth / (scale * world.depth)))
    assert np.median(error) < tolerance


# --- windows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 12, 99, 100])
@pytest.mark.parametrize("size", [0, 2, 5, 6, 40])
@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.9])
def test_windows_cover_every_frame_and_overlap(n: int, size: int, overlap: float) -> None:
    windows = view_windows(n, size, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == n
    lengths = {end - start for start, end in windows}
    assert lengths == {n if size == 0 else min(n, size)}
    for (_, end), (start, _) in itertools.pairwise(windows):
        assert end - start >= max(1, min(size - 1, round(size * overlap)))
    kept = kept_frames(windows, n)
    assert [t for start, end in kept for t in range(start, end)] == list(range(n))
    for (start, end), (first, last) in zip(windows, kept):
        assert start <= first < last <= end


def test_one_window_is_the_truth_from_the_first_camera(monkeypatch: Any, world: World) -> None:
    network = SimulatedNetwork(world)
    geometry = estimate(monkeypatch, network, Priors())
    equals_truth(geometry, world, 1e-5)
    assert network.calls == [(list(range(N)), None)]
    np.testing.assert_array_equal(geometry.T_world_camera[0], np.eye(4))
    np.testing.assert_allclose(geometry.frame_quality, 1, atol=1e-6)


def test_windows_are_joined_by_their_points(monkeypatch: Any, world: World) -> None:
    """Noise and outliers of depth do not add up to drift: distances are not squared."""
    network = SimulatedNetwork(world, noise=0.01, outliers=0.05)
    geometry = estimate(monkeypatch, network, Priors(), window=4, overlap=0.5)
    assert [rows for rows, _ in network.calls] == [
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [4, 5, 6, 7],
        [6, 7, 8, 9],
    ]
    equals_truth(geometry, world, 0.02)


# --- known values ----------------------------------------------------------------------------


def test_known_cameras_are_input_of_the_network_and_kept(monkeypatch: Any, world: World) -> None:
    network = SimulatedNetwork(world)
    known = Priors(K=world.K, T_world_camera=world.T)
    geometry = estimate(monkeypatch, network, known, window=4)
    for rows, given in network.calls:
        np.testing.assert_array_equal(given.T_world_camera, world.T[rows])
        np.testing.assert_array_equal(given.K, world.K[rows])
    np.testing.assert_array_equal(geometry.T_world_camera, world.T)
    np.testing.assert_array_equal(geometry.K, world.K)
    np.testing.assert_allclose(geometry.depth, world.depth, rtol=1e-5)


def test_cameras_known_for_some_frames_place_the_others(monkeypatch: Any, world: World) -> None:
    T = np.full_like(world.T, np.nan)
    T[[2, 7]] = world.T[[2, 7]]
    network = SimulatedNetwork(world)
    geometry = estimate(monkeypatch, network, Priors(T_world_camera=T))
    assert network.calls[0][1] is None
    np.testing.assert_array_equal(geometry.T_world_camera[[2, 7]], world.T[[2, 7]])
    np.testing.assert_allclose(geometry.T_world_camera, world.T, atol=1e-5)
    np.testing.assert_allclose(geometry.depth, world.depth, rtol=1e-5)


def test_known_depth_sets_the_unit(monkeypatch: Any, world: World) -> None:
    """As when a scene is continued: cameras, intrinsics and depth of the first frames."""
    T, depth = np.full_like(world.T, np.nan), np.full_like(world.depth, np.nan)
    T[0], depth[0, 5:20] = world.T[0], world.depth[0, 5:20]
    geometry = estimate(monkeypatch, SimulatedNetwork(world), Priors(T_world_camera=T, depth=depth))
    np.testing.assert_array_equal(geometry.depth[0, 5:20], world.depth[0, 5:20])
    np.testing.assert_allclose(geometry.depth, world.depth, rtol=1e-5)
    np.testing.assert_allclose(geometry.T_world_camera, world.T, atol=1e-5)


def test_the_scale_of_given_cameras_agrees_with_golden() -> None:
    """SPEC of the network: the similarity of the given camera centres to the predicted ones."""
    given = torch.linalg.inv(torch.from_numpy(GOLDEN["posed|input_extrinsics"]).double())
    code = torch.from_numpy(GOLDEN["posed|pose_enc"]).double()
    fit = weighted_similarity(given[None, :, :3, 3], code[None, :, :3], torch.ones(1, 3).double())
    golden = float(GOLDEN["posed|umeyama_scale"])
    assert abs(float(fit.scale) - golden) < 1e-4 * golden


# --- focal length ----------------------------------------------------------------------------


def views(focal_xy: np.ndarray, world: World) -> PlacedViews:
    n = len(focal_xy)
    confidence = np.full((n, H, W), 2.0, np.float32)
    return PlacedViews(world.T[:n], focal_xy, world.depth[:n], confidence, np.zeros((n, 3)))


def test_the_focal_length_is_the_median_and_says_how_sure_it_is(world: World) -> None:
    alike = np.full((5, 2), 60.0)
    K, sigma, notes = shared_intrinsics(views(alike, world), Priors(), shared=True)
    np.testing.assert_allclose(K[:, [0, 1], [0, 1]], 60)
    np.testing.assert_array_equal(K[:, :2, 2], np.tile([W / 2, H / 2], (5, 1)))
    assert not notes
    spread = alike * np.array([0.9, 1.0, 1.1, 1.0, 1e7])[:, None]  # the last is no estimate
    K, wider, _ = shared_intrinsics(views(spread, world), Priors(), shared=True)
    np.testing.assert_allclose(K[:, 0, 0], 60)
    stretched = alike * [1.2, 1 / 1.2]
    K, unequal, _ = shared_intrinsics(views(stretched, world), Priors(), shared=True)
    np.testing.assert_allclose(K[:, 0, 0], 60)
    assert 0 < sigma < wider
    assert unequal == pytest.approx(np.hypot(sigma, np.log(1.2)))
    rays = replace(views(alike, world), disagreement=np.tile([1.0, 0.1, 0.2], (5, 1)))
    _, by_rays, _ = shared_intrinsics(rays, Priors(), shared=True)
    assert by_rays == pytest.approx(np.hypot(sigma, 0.1))
    assert camera_terms(rays) == {
        "camera_disagreement_deg": 1.0, "focal_disagreement_log": 0.1,
        "center_disagreement_depths": 0.2,
    }  # fmt: skip


def test_focal_lengths_of_a_zoom(world: World) -> None:
    zoom = np.array([[60.0, 60], [70, 70], [1e8, 1e8]])
    K, _, _ = shared_intrinsics(views(zoom, world), Priors(), shared=False)
    np.testing.assert_allclose(K[:, 0, 0], [60, 70, np.sqrt(60 * 70)])


def test_no_focal_length_at_all(world: World) -> None:
    K, sigma, notes = shared_intrinsics(views(np.full((2, 2), 1e8), world), Priors(), shared=True)
    assert sigma is None
    assert "53 degrees is assumed" in notes[0]
    assert 2 * np.degrees(np.arctan(W / 2 / K[0, 0, 0])) == pytest.approx(53)


def test_known_intrinsics_are_kept(world: World) -> None:
    known = world.K[:3] * np.array([1.5, 1.4, 1])[:, None]
    known[1] = np.nan
    K, _, _ = shared_intrinsics(views(np.full((3, 2), 60.0), world), Priors(K=known), shared=True)
    np.testing.assert_array_equal(K[[0, 2]], known[[0, 2]])
    np.testing.assert_array_equal(K[1], known[0])


# --- agreement -------------------------------------------------------------------------------


def test_frames_of_another_scale_do_not_agree(world: World) -> None:
    seen = views(np.full((4, 2), FOCAL), world)
    quality, apart = neighbour_agreement(seen, world.K[:4])
    np.testing.assert_allclose(quality, 1, atol=1e-6)
    assert (apart < 0.01).all()
    wrong = seen.depth.copy()
    wrong[2] *= 1.5
    quality, apart = neighbour_agreement(replace(seen, depth=wrong), world.K[:4])
    assert quality[0] > 0.99  # compared with frame 1
    assert quality[[1, 2]].max() < 0.05
    assert apart[1] == pytest.approx(np.log(1.5), abs=0.05)


def test_single_frames_and_frames_apart(world: World) -> None:
    quality, apart = neighbour_agreement(views(np.full((1, 2), FOCAL), world), world.K[:1])
    assert quality.tolist() == [1]
    assert apart.tolist() == [UNKNOWN_SIGMA]
    seen = views(np.full((2, 2), FOCAL), world)
    away = world.T[:2].copy()
    away[1, :3, :3] = np.diag([-1, 1, -1.0])  # looks back
    turned = replace(seen, T_world_camera=away)
    assert neighbour_agreement(turned, world.K[:2])[0].tolist() == [0, 0]


def test_the_standard_error_of_depth_follows_the_disagreement() -> None:
    """Known factors; frames that can't be compared do not count."""
    assert depth_sigma(np.zeros(3)) == DEPTH_FLOOR
    apart = np.array([0.04, UNKNOWN_SIGMA, 0.06, 0.05])
    assert depth_sigma(apart) == pytest.approx(np.hypot(DEPTH_FLOOR, SHARED * 0.05))
    assert depth_sigma(np.array([UNKNOWN_SIGMA])) is None


def test_the_standard_errors_of_cameras_follow_the_two_statements(world: World) -> None:
    """Known factors and floors; the centre in the unit of the depth."""
    alike = views(np.full((5, 2), 60.0), world)
    unit = float(np.median(world.depth[:5]))
    assert camera_sigma(alike) == pytest.approx((np.radians(ROTATION_FLOOR_DEG), 0.05 * unit))
    apart = replace(alike, disagreement=np.tile([2.0, 0.1, 0.3], (5, 1)))
    turned, moved = camera_sigma(apart)
    assert turned == pytest.approx(np.radians(np.hypot(1, SHARED * 2)))
    assert moved == pytest.approx(unit * np.hypot(0.05, SHARED * 0.3))


def test_cameras_of_a_second_pass_in_the_unit_of_the_first(world: World) -> None:
    geometry = geometry_of(world.T, world.K, world.depth)
    T = world.T.copy()
    T[:, :3, 3] *= 0.5
    static = geometry_of(T, world.K, 0.5 * world.depth)
    dynamic = np.zeros(world.depth.shape, bool)
    both = with_cameras_of(geometry, static, dynamic)
    np.testing.assert_allclose(both.T_world_camera, world.T, rtol=1e-6)
    np.testing.assert_array_equal(both.depth, world.depth)
    assert np.isfinite(with_cameras_of(geometry, static, ~dynamic).T_world_camera).all()


def test_registration_keeps_what_it_does_not_know(world: World) -> None:
    seen = views(np.full((3, 2), FOCAL), world)
    same = registered(seen, Priors())
    np.testing.assert_array_equal(same.T_world_camera, seen.T_world_camera)
    turned = torch.from_numpy(world.T[:3])
    one = np.full((3, 4, 4), np.nan)
    one[1] = np.eye(4)
    moved = registered(seen, Priors(T_world_camera=one))
    expected = (invert(turned[1]) @ turned).numpy()
    np.testing.assert_allclose(moved.T_world_camera, expected, atol=1e-9)
