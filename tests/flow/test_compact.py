"""The flow network as an estimator, with random weights."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dyn3r.bundle_adjustment.measurements import whitening_matrix
from dyn3r.errors import CheckpointError, InputError
from dyn3r.flow import CompactFlow, DisFlow, checked_name, flow_estimator, measure_flow
from dyn3r.flow.estimator import PairFlowEstimator
from dyn3r.flow.network import FlowNetwork


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("flow") / "flow.safetensors"
    save_file({k: v.half().contiguous() for k, v in FlowNetwork().state_dict().items()}, file)
    return str(file)


def textured(n: int, h: int, w: int) -> np.ndarray:
    """Frames of noise that moves by three pixels a frame."""
    import cv2

    wide = np.random.default_rng(0).integers(0, 255, (h, w + 3 * n, 3), np.uint8)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.5)
    return np.stack([wide[:, 3 * k : 3 * k + w] for k in range(n)])


def test_all_pairs_at_once_are_those_one_by_one(weights: str) -> None:
    images, estimator = textured(4, 48, 70), CompactFlow(weights)
    assert isinstance(estimator, PairFlowEstimator)
    found = measure_flow(images, np.array([[0, 1], [1, 2], [0, 3]]), estimator)
    assert found.whitening is not None
    assert found.whitening.shape == (6, 48, 70, 3)
    for row, (i, j) in enumerate(found.edges):
        alone = estimator.flow(images[i], images[j])
        np.testing.assert_allclose(found.flow[row], alone, atol=0.05)


def test_features_that_were_dropped_are_computed_again(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, edges = textured(4, 32, 48), np.array([[0, 1], [2, 3], [0, 3]])
    usual = measure_flow(images, edges, CompactFlow(weights))
    monkeypatch.setattr("dyn3r.flow.compact.FRAMES_KEPT", 1)
    few = measure_flow(images, edges, CompactFlow(weights))
    np.testing.assert_allclose(few.flow, usual.flow, atol=0.01)


def test_a_point_is_visible_where_it_is_stated_returns_and_stays_inside(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dyn3r.flow import compact
    from dyn3r.flow.estimator import MeasuredFlow

    def shifted(*_: object) -> list[MeasuredFlow]:
        there, back = np.zeros((2, 32, 48, 2), np.float32)
        there[..., 0], back[..., 0] = 10, -10
        back[:8, :, 0] = -20  # does not return
        seen = np.ones((32, 48), bool)
        seen[24:] = False
        whitening = np.zeros((32, 48, 3), np.float32)
        return [MeasuredFlow(flow, seen, whitening) for flow in (there, back)]

    monkeypatch.setattr(compact, "_fields", shifted)
    found = measure_flow(textured(2, 32, 48), np.array([[0, 1]]), CompactFlow(weights))
    assert found.visible is not None
    assert found.visible[0, 8:24, :38].all()
    assert not found.visible[0, :, 38:].any()
    assert not found.visible[0, :8].any()
    assert not found.visible[0, 24:].any()


def test_the_network_of_the_package_measures_a_shift_and_its_error() -> None:
    rng = np.random.default_rng(5)
    wide = cv2.resize(rng.integers(0, 255, (16, 28, 3), dtype=np.uint8), (224, 128))
    shift = np.array([5.0, -3.0])
    images = np.stack([wide[8:104, 20:180], wide[11:107, 15:175]])  # content moves by the shift
    estimator = flow_estimator("compact")
    assert isinstance(estimator, CompactFlow)
    ((there, back),) = estimator.measure(images, np.array([[0, 1]]))
    inner = np.s_[12:-12, 12:-12]
    for found, true in ((there, shift), (back, -shift)):
        away = np.linalg.norm(found.flow[inner] - true, axis=-1)
        assert np.median(away) < 0.25
        assert found.visible is not None
        assert found.visible[inner].mean() > 0.95
        assert found.whitening is not None
        sigma = np.exp(-found.whitening[inner][..., 0])
        assert 0.02 < np.median(sigma) < 1.0


def test_the_whitening_matrix_gives_unit_covariance() -> None:
    stated = np.array([[0.2, -0.5, 1.5], [0.0, 0.0, 0.0]], np.float32)
    W = whitening_matrix(stated)
    covariance = np.linalg.inv(W.swapaxes(-1, -2) @ W)
    np.testing.assert_allclose(W @ covariance @ W.swapaxes(-1, -2), [np.eye(2)] * 2, atol=1e-5)
    np.testing.assert_allclose(W[1], np.eye(2))
    u, v = 0.3, -0.8
    a, b, c = stated[0]
    expected = [np.exp(a) * u, np.exp(b) * (v + c * u)]
    np.testing.assert_allclose(W[0] @ [u, v], expected, rtol=1e-6)


def test_a_run_uses_the_stated_errors(weights: str) -> None:
    from dyn3r.bundle_adjustment.measurements import flow_measurements

    images = textured(3, 32, 48)
    uv = np.array([[10, 10], [30, 20]])
    edges = np.array([[0, 1]])
    ours = measure_flow(images, edges, CompactFlow(weights))
    measured = flow_measurements(ours, images[0], 0, uv, None)
    assert measured is not None
    assert ours.whitening is not None
    stated = whitening_matrix(ours.whitening[:1, [10, 20], [10, 30]])
    np.testing.assert_allclose(measured.whiten.numpy(), stated, rtol=1e-5)
    dis = flow_measurements(measure_flow(images, edges, DisFlow()), images[0], 0, uv, None)
    assert dis is not None
    assert not np.allclose(dis.whiten.numpy(), stated)


def test_names_and_files(weights: str, tmp_path: Path) -> None:
    assert checked_name(weights) == weights
    assert flow_estimator(weights).name == "compact"
    with pytest.raises(InputError, match="no file"):
        checked_name(str(tmp_path / "missing.safetensors"))
    with pytest.raises(InputError, match="choose aligned-dis"):
        checked_name("magic")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="no flow network"):
        flow_estimator(str(other)).flow(*textured(2, 32, 32))
    with pytest.raises(InputError, match="one size"):
        flow_estimator(weights).flow(textured(1, 32, 32)[0], textured(1, 32, 48)[0])
