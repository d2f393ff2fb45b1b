"""Inference of the many-view network on frames of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyn3r.errors import GeometryError, InputError
from dyn3r.network.many_view.view_cameras import decode_cameras
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.predict_views import GivenCameras, predict_views, token_keep
from tests.factories import tiny_network

from .golden_many_view import GOLDEN, golden_many_view, golden_views


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(golden_many_view(), "views", device="cpu", precision="float32")


def test_frames_of_the_networks_size_are_not_resized(model: Model) -> None:
    seen = predict_views(model, GOLDEN["images"], reference="saddle_balanced")
    views = model.many_view(golden_views())
    T, K = decode_cameras(views.code.double(), (70, 98))
    np.testing.assert_array_equal(seen.depth, views.maps.depth)
    np.testing.assert_array_equal(seen.confidence, views.maps.confidence)
    np.testing.assert_array_equal(seen.T_world_camera, T)
    np.testing.assert_array_equal(seen.focal_xy, K[:, [0, 1], [0, 1]])
    assert seen.attention is None


@pytest.mark.parametrize(("h", "w"), [(48, 64), (64, 48), (16, 80), (96, 96)])
def test_maps_and_focal_lengths_have_the_size_of_the_frames(model: Model, h: int, w: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    steps: list[tuple[str, int, int]] = []
    seen = predict_views(model, images, progress=lambda *step: steps.append(step))
    assert seen.depth.shape == seen.confidence.shape == (2, h, w)
    assert (seen.depth > 0).all()
    assert (seen.confidence > 1).all()
    assert steps[-1] == ("predicting views", 11, 11)
    assert [done for _, done, _ in steps] == list(range(1, 12))
    # the same field of view at another size: the focal length is in pixels of the frames
    fov = 2 * np.arctan(np.array([w, h]) / 2 / seen.focal_xy)
    assert ((fov > 0) & (fov < np.pi)).all()


def test_given_cameras_change_the_prediction(model: Model) -> None:
    images, T = GOLDEN["images"], np.linalg.inv(GOLDEN["posed|input_extrinsics"].astype(float))
    given = GivenCameras(T, GOLDEN["posed|input_intrinsics"].astype(float))
    seen = predict_views(model, images, given=given)
    error = np.abs(seen.depth[:, ::3, ::3] / GOLDEN["posed|depth"] - 1).max()
    assert error < 1e-4
    moved = given.T_world_camera.copy()
    moved[:, :3, 3] = 7 * moved[:, :3, 3] + 5  # the unit and the origin do not matter
    again = predict_views(model, images, given=GivenCameras(moved, given.K))
    np.testing.assert_allclose(again.depth, seen.depth, rtol=1e-3)


def test_masked_patches_have_any_dynamic_pixel() -> None:
    dynamic = np.zeros((2, 48, 64), bool)
    dynamic[1, 20, 30] = True
    dynamic[1, 40:, :] = True
    keep = token_keep(dynamic, (3, 4))  # 42 x 56 pixels
    assert keep.shape == (2, 13)
    assert keep[0].all()
    assert keep[1, 0]  # the camera token
    grid = keep[1, 1:].reshape(3, 4)
    assert not grid[2].any()
    assert grid[0].all()
    assert grid[1].sum() == 3
    assert not grid[1, 1]


def test_masked_frames_change_cameras(model: Model) -> None:
    images, dynamic = GOLDEN["images"], np.zeros((3, 70, 98), bool)
    plain = predict_views(model, images, dynamic=dynamic)
    same = predict_views(model, images)
    np.testing.assert_allclose(plain.T_world_camera, same.T_world_camera, atol=1e-5)
    dynamic[1, 20:50, 20:50] = True
    masked = predict_views(model, images, dynamic=dynamic)
    assert np.abs(masked.T_world_camera - same.T_world_camera).max() > 1e-3


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("cam_dec.fc_t", "cameras"),
        ("cam_dec.fc_qvec", "cameras"),
        ("head.scratch.output_conv2.2", "depth"),
        ("head.scratch.output_conv2_aux.3.5", "rays"),
    ],
)
def test_values_that_are_not_finite_are_refused(part: str, name: str) -> None:
    network = golden_many_view()
    network.get_submodule(part).bias.fill_(torch.nan)
    with pytest.raises(GeometryError, match=f"broken gives .* not finite .{name}"):
        predict_views(prepare_model(network, "broken", device="cpu"), GOLDEN["images"])


def test_a_network_that_says_nothing_gives_finite_values() -> None:
    """All weights of the head 0: constant depth, no rays; quaternions are kept from 0."""
    network = golden_many_view()
    for parameter in network.head.parameters():
        parameter.zero_()
    seen = predict_views(prepare_model(network, "zero", device="cpu"), GOLDEN["images"])
    np.testing.assert_array_equal(seen.depth, 1)
    assert np.isfinite(seen.disagreement).all()


def test_frames_and_models_that_do_not_fit(model: Model) -> None:
    with pytest.raises(InputError, match="too small"):
        predict_views(model, np.zeros((1, 10, 40, 3), np.uint8))
    pairs = prepare_model(tiny_network(), "pairs", device="cpu")
    with pytest.raises(InputError, match="pairs is a two-view network"):
        predict_views(pairs, GOLDEN["images"])
