"""DIS flow on images with known motion, and checks that all estimators share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from dyn3r.errors import InputError
from dyn3r.flow import DisFlow, FlowEstimator, RaftFlow, flow_estimator


def texture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Smooth random colours, 0..255, floating point."""
    noise = np.random.default_rng(seed).standard_normal((h, w, 3))
    smooth = gaussian_filter(noise, (2, 2, 0)) + gaussian_filter(noise, (6, 6, 0)) * 3
    return (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255


def moved(image: np.ndarray, uv: tuple[float, float]) -> np.ndarray:
    """The image with its content shifted by (u, v) pixels."""
    h, w = image.shape[:2]
    v, u = np.mgrid[:h, :w].astype(float)
    at = [v - uv[1], u - uv[0]]
    bands = [map_coordinates(image[..., c], at, order=1, mode="nearest") for c in range(3)]
    return np.stack(bands, -1).round().astype(np.uint8)


@pytest.mark.parametrize("uv", [(0.0, 0.0), (3.0, -2.0), (-7.5, 4.25)])
def test_a_shift_is_found(uv: tuple[float, float]) -> None:
    image = texture(96, 128)
    field = DisFlow().flow(image.round().astype(np.uint8), moved(image, uv))
    assert field.shape == (96, 128, 2)
    assert field.dtype == np.float32
    inner = field[16:-16, 16:-16]
    assert np.abs(np.median(inner, axis=(0, 1)) - uv).max() < 0.15
    assert (np.linalg.norm(inner - uv, axis=-1) < 0.5).mean() > 0.9


def test_small_images_are_enlarged_and_flow_is_in_their_own_pixels() -> None:
    image = texture(20, 48)
    field = DisFlow().flow(image.round().astype(np.uint8), moved(image, (2.0, 1.0)))
    assert field.shape == (20, 48, 2)
    assert np.abs(np.median(field, axis=(0, 1)) - (2.0, 1.0)).max() < 0.4


def test_the_same_flow_every_time() -> None:
    a, b = (texture(64, 64, seed).round().astype(np.uint8) for seed in (0, 1))
    assert np.array_equal(DisFlow().flow(a, b), DisFlow().flow(a, b))


def test_images_that_do_not_fit() -> None:
    a = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(InputError, match="one size"):
        DisFlow().flow(a, a[:, :32])
    with pytest.raises(InputError, match="uint8"):
        DisFlow().flow(a.astype(np.uint16), a.astype(np.uint16))


def test_options_out_of_range() -> None:
    with pytest.raises(InputError, match="stride"):
        DisFlow(stride=0)
    with pytest.raises(InputError, match="update"):
        RaftFlow(updates=0)


def test_estimators_by_name() -> None:
    for name in ("aligned-dis", "dis", "compact", "raft", "raft-small"):
        estimator = flow_estimator(name)  # loads nothing
        assert isinstance(estimator, FlowEstimator)
        assert estimator.name == name
    with pytest.raises(InputError, match="choose aligned-dis, dis, compact, raft"):
        flow_estimator("magic")
