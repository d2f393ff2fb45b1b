"""Flow aligned by a homography: large rotations, several motions, and images that do not match."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.flow import AlignedFlow, DisFlow, FlowEstimator, flow_estimator, measure_flow
from dyn3r.flow.aligned import better, homography, match_keypoints, root_sift
from dyn3r.flow.estimator import PairFlowEstimator
from tests.flow.test_dis import texture

H, W = 128, 192


def view(rotation_deg: tuple[float, float, float], focal: float = 160.0) -> np.ndarray:
    """Homography (3, 3) of a camera that rotates about x, y and z."""
    K = np.array([[focal, 0, (W - 1) / 2], [0, focal, (H - 1) / 2], [0, 0, 1.0]])
    R, _ = cv2.Rodrigues(np.radians(np.array(rotation_deg)))
    return np.asarray(K @ R @ np.linalg.inv(K))


def seen(canvas: np.ndarray, M: np.ndarray) -> np.ndarray:
    """The canvas, whose pixel (u, v) is at M (u, v) in the picture."""
    picture = cv2.warpPerspective(canvas, M, (W, H), flags=cv2.INTER_CUBIC)
    return picture.clip(0, 255).round().astype(np.uint8)


def displacement(M: np.ndarray) -> np.ndarray:
    """(H, W, 2): where M leads, relative to each pixel."""
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(np.float64)
    return cv2.perspectiveTransform(grid.reshape(-1, 1, 2), M).reshape(H, W, 2) - grid


def rotated() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two pictures of a camera that turns by 21 degrees, the flow, and where both see a point."""
    canvas = texture(400, 600)
    centre = np.array([[1, 0, -200.0], [0, 1, -130], [0, 0, 1]])
    M = view((4.0, -17.0, 12.0))
    flow = displacement(M)
    at = flow + np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1)
    inside = (at >= 8).all(-1) & (at[..., 0] < W - 8) & (at[..., 1] < H - 8)
    return seen(canvas, centre), seen(canvas, M @ centre), flow, inside


def test_a_fast_rotation_is_found_where_dense_search_alone_loses_it() -> None:
    a, b, flow, inside = rotated()
    assert np.median(np.linalg.norm(flow[inside], axis=-1)) > 40
    error = np.linalg.norm(AlignedFlow().flow(a, b) - flow, axis=-1)[inside]
    assert np.median(error) < 0.2
    assert (error < 1).mean() > 0.95
    alone = np.linalg.norm(DisFlow().flow(a, b) - flow, axis=-1)[inside]
    assert (alone < 1).mean() < 0.5


def test_both_directions_and_several_pairs() -> None:
    a, b, flow, inside = rotated()
    found = measure_flow(np.stack([a, b, a]), np.array([[0, 1], [1, 2]]), AlignedFlow())
    assert found.edges.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    for there in (found.flow[0], found.flow[3]):  # frames 0 and 2 are alike
        error = np.linalg.norm(there.astype(np.float32) - flow, axis=-1)[inside]
        assert np.median(error) < 0.2
    assert found.visible is not None
    assert found.visible[0][inside].mean() > 0.9
    assert found.whitening is None


def test_an_object_that_does_not_follow_the_homography_keeps_its_own_flow() -> None:
    a, b, flow, inside = rotated()
    patch = texture(40, 40, seed=7).round().astype(np.uint8)
    a, b = a.copy(), b.copy()
    a[40:80, 60:100], b[43:83, 65:105] = patch, patch
    found = AlignedFlow().flow(a, b)
    assert np.abs(np.median(found[48:72, 68:92], axis=(0, 1)) - (5, 3)).max() < 0.3
    inside[36:84, 56:104] = False
    assert np.median(np.linalg.norm(found - flow, axis=-1)[inside]) < 0.3


def test_images_that_do_not_match_have_the_flow_of_dense_search() -> None:
    a = texture(64, 64).round().astype(np.uint8)
    for b in (np.zeros_like(a), np.full_like(a, 90), texture(64, 64, 5).round().astype(np.uint8)):
        assert np.array_equal(AlignedFlow().flow(a, b), DisFlow().flow(a, b))
        assert np.array_equal(AlignedFlow().flow(b, a), DisFlow().flow(b, a))


def test_keypoints_match_and_give_the_homography() -> None:
    a, b, flow, _ = rotated()
    here, there = root_sift(a), root_sift(b)
    assert np.allclose(np.linalg.norm(here.descriptors, axis=1), 1, atol=1e-5)
    uv, to = match_keypoints(here, there)
    assert len(uv) > 30
    at = flow[uv[:, 1].round().astype(int), uv[:, 0].round().astype(int)]
    assert (np.linalg.norm(to - uv - at, axis=-1) < 2).mean() > 0.9
    found = homography(here, there)
    assert found is not None
    assert np.abs(displacement(found) - flow).max() < 2
    assert homography(here, root_sift(np.zeros_like(a))) is None


def test_flow_that_returns_is_better() -> None:
    right = np.full((32, 32, 2), 2.0, np.float32)
    wrong = np.full((32, 32, 2), 9.0, np.float32)
    assert np.array_equal(better((right, -right), (wrong, -right)), right)
    assert np.array_equal(better((wrong, -right), (right, -right)), right)
    far = np.full((32, 32, 2), np.inf, np.float32)
    assert np.array_equal(better((right, -right), (far, far)), right)


def test_it_is_an_estimator_of_pairs() -> None:
    estimator = flow_estimator("aligned-dis")
    assert isinstance(estimator, FlowEstimator)
    assert isinstance(estimator, PairFlowEstimator)
    assert estimator.name == "aligned-dis"
    assert not estimator.states_errors
    a = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(InputError, match="one size"):
        estimator.flow(a, a[:, :32])
