"""Uncertainty and rejected pixels on small made-up scenes with known answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import dyn3r.geometry.reprojection
from dyn3r.scene import compared_depth
from dyn3r.scene import depth_uncertainty as module
from dyn3r.scene.compared_depth import ComparedDepth, stored
from dyn3r.scene.depth_uncertainty import FLOOR
from dyn3r.scene.visibility_rule import as_stored
from tests.oracles import final_depth as oracle


class Final(NamedTuple):
    """What the last stage says of depth."""

    sigma_log_depth: np.ndarray
    valid: np.ndarray
    confidence: np.ndarray


def compared(
    depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray, dynamic: np.ndarray
) -> ComparedDepth:
    there = (torch.from_numpy(np.ascontiguousarray(x)) for x in (depth, dynamic))
    return ComparedDepth(*there, K, T_world_camera)


def log_depth_sigma(
    depth: np.ndarray,
    K: np.ndarray,
    T_world_camera: np.ndarray,
    dynamic: np.ndarray,
    estimates: tuple[np.ndarray, ...] = (),
    network_confidence: np.ndarray | None = None,
) -> np.ndarray:
    """`dyn3r.scene.depth_uncertainty.log_depth_sigma` on arrays; the last estimate counts."""
    fit = module.stage_fit(depth, estimates[-1], dynamic) if estimates else None
    before = None if fit is None else module.Stage(torch.from_numpy(estimates[-1]), *fit)
    confidence = None if network_confidence is None else torch.from_numpy(network_confidence)
    final = compared(depth, K, T_world_camera, dynamic)
    return module.log_depth_sigma(final, before, confidence).numpy()


def visible(
    depth: np.ndarray,
    K: np.ndarray,
    T_world_camera: np.ndarray,
    dynamic: np.ndarray,
    sigma: np.ndarray,
) -> np.ndarray:
    """`dyn3r.scene.compared_depth.visible` on arrays."""
    final = compared(depth, K, T_world_camera, dynamic)
    return compared_depth.visible(final, torch.from_numpy(np.ascontiguousarray(sigma))).numpy()


def finalise(
    depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray, dynamic: np.ndarray, **named: Any
) -> Final:
    """`dyn3r.scene.finalise.finalise` on arrays, without the search for up and fusion."""
    named.pop("images", None)
    sigma = as_stored(log_depth_sigma(depth, K, T_world_camera, dynamic, **named))
    valid = visible(depth, K, T_world_camera, dynamic, sigma)
    return Final(sigma, valid, as_stored(np.where(valid, 1 / sigma, 0)))


H, W, N = 40, 56, 6


def plane(frames: int = N, shift: float = 0.15) -> dict[str, np.ndarray]:
    """Fronto-parallel textured plane at z = 2, seen by a camera that moves to the right; exact."""
    K = np.array([[50.0, 0, (W - 1) / 2], [0, 50.0, (H - 1) / 2], [0, 0, 1]])
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 0, 3] = shift * np.arange(frames)
    v, u = np.mgrid[:H, :W]
    images = []
    for t in range(frames):
        x, y = (u - K[0, 2]) / 50 * 2 + T[t, 0, 3], (v - K[1, 2]) / 50 * 2
        grey = 120 + 60 * np.sin(25 * x + 3 * np.sin(7 * y)) + 50 * np.cos(22 * y + x)
        images.append(np.repeat(grey[..., None], 3, -1))
    return {
        "depth": np.full((frames, H, W), 2.0, np.float32),
        "K": np.tile(K, (frames, 1, 1)),
        "T_world_camera": T,
        "dynamic": np.zeros((frames, H, W), bool),
        "images": np.clip(images, 0, 255).astype(np.uint8),
    }


def again(scene: dict[str, np.ndarray], sigma: np.ndarray) -> np.ndarray:
    rest = {k: v for k, v in scene.items() if k != "images"}
    return visible(**rest, sigma=sigma)


def check(scene: dict[str, np.ndarray], result: Final) -> None:
    """What holds of every result."""
    sigma, valid, confidence = result
    assert sigma.dtype == confidence.dtype == np.float32
    assert valid.dtype == bool
    assert sigma.shape == valid.shape == confidence.shape == scene["depth"].shape
    assert np.isfinite(sigma).all()
    assert (sigma >= as_stored(np.array([FLOOR]))[0] * 0.999).all()
    assert ((confidence > 0) == valid).all()
    assert np.allclose((confidence * sigma)[valid], 1, atol=2e-3)


def test_exact_geometry_has_sigma_near_the_floor_and_nothing_rejected() -> None:
    scene = plane()
    result = finalise(**scene)
    check(scene, result)
    assert result.valid.all()
    assert np.median(result.sigma_log_depth) < 1.5 * FLOOR
    geometry = [scene[k] for k in ("depth", "K", "T_world_camera", "dynamic")]
    d, seen = compared(*geometry).disagreement(2, torch.zeros(N))
    assert seen.float().mean() > 0.95
    assert d.max() < 1e-5


def test_the_scale_of_a_frame_is_found() -> None:
    scene = plane()
    scene["depth"][4] *= 1.3
    scale = compared(*[scene[k] for k in ("depth", "K", "T_world_camera", "dynamic")]).scales()
    assert scale == pytest.approx([0, 0, 0, 0, np.log(1.3), 0], abs=0.01)
    sigma = finalise(**scene).sigma_log_depth
    assert np.median(sigma[4]) > 0.9 * module.DRIFT * np.log(1.3) > 2 * np.median(sigma[1])


def floater() -> dict[str, np.ndarray]:
    scene = plane()
    scene["depth"][2, 18:22, 26:30] = 0.5
    return scene


def test_a_floater_is_rejected_and_only_it() -> None:
    scene = floater()
    result = finalise(**scene)
    check(scene, result)
    assert not result.valid[2, 18:22, 26:30].any()
    assert (~result.valid).sum() == 16


def test_a_floater_that_moves_is_spared() -> None:
    scene = floater()
    scene["dynamic"][2, 18:22, 26:30] = True
    assert finalise(**scene).valid.all()


def test_moving_pixels_have_a_larger_sigma() -> None:
    scene = plane()
    scene["dynamic"][2, 10:30, 20:30] = True
    sigma = finalise(**scene).sigma_log_depth
    assert sigma[2, 15:25, 23:27].min() > 1.5 * np.median(sigma[2][~scene["dynamic"][2]])


def test_corrupted_depth_raises_sigma_there() -> None:
    scene = plane()
    scene["depth"][3, 10:26, 20:36] *= 1.2
    before = finalise(**plane()).sigma_log_depth[3]
    after = finalise(**scene).sigma_log_depth[3]
    assert after[14:22, 24:32].min() > 2 * before[14:22, 24:32].max()
    assert np.allclose(after[:, :8], before[:, :8], rtol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_on_what_is_stored_gives_the_same_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = plane()
    noise = np.where(rng.random(scene["depth"].shape) < 0.1, -0.6, 0.02)
    scene["depth"] *= np.exp(noise * rng.random(noise.shape)).astype(np.float32)
    scene["depth"][:, :2] = 0
    result = finalise(**scene)
    check(scene, result)
    assert (~result.valid[:, 2:]).sum() > 0
    assert not result.valid[:, :2].any()
    assert (again(scene, result.sigma_log_depth) == result.valid).all()
    half = {**scene, "depth": as_stored(scene["depth"])}
    assert (again(half, as_stored(result.sigma_log_depth)) == result.valid).all()
    for one, other in zip(finalise(**half), result):
        assert (one == other).all()


def test_the_order_of_frames_does_not_matter_to_the_rule() -> None:
    scene = floater()
    result = finalise(**scene)
    back = {k: v[::-1] for k, v in scene.items()}
    assert (again(back, result.sigma_log_depth[::-1]) == result.valid[::-1]).all()


def test_rounding_is_that_of_half_precision() -> None:
    values = np.random.default_rng(0).uniform(0.01, 100, 10_000).astype(np.float32)
    assert (as_stored(values) == values.astype(np.float16).astype(np.float32)).all()
    assert (as_stored(np.zeros(3)) == 0).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames(frames: int) -> None:
    scene = plane(frames)
    result = finalise(**scene)
    check(scene, result)
    assert result.valid.all()
    for estimates in ((scene["depth"],), (scene["depth"], 2 * scene["depth"])):
        check(scene, finalise(**scene, estimates=estimates, network_confidence=scene["depth"]))


def test_without_any_static_pixel() -> None:
    scene = plane(3)
    scene["dynamic"][:] = True
    result = finalise(**scene)
    check(scene, result)
    assert result.valid.all()


def test_unknown_depth_everywhere() -> None:
    scene = plane(3)
    scene["depth"][:] = 0
    result = finalise(**scene)
    check(scene, result)
    assert not result.valid.any()


def relief() -> dict[str, np.ndarray]:
    """The plane with depth that varies from 1.5 to 2.5 at right angles to the camera's path."""
    scene = plane()
    scene["depth"] *= np.linspace(0.75, 1.25, H, dtype=np.float32)[:, None]
    return scene


def test_stages_that_differ_raise_sigma_where_they_differ() -> None:
    scene = relief()
    earlier = scene["depth"].copy()
    earlier[3, 10:26, 20:36] *= 1.4
    before = finalise(**scene).sigma_log_depth
    after = finalise(**scene, estimates=(earlier,)).sigma_log_depth
    inside = np.s_[3, 13:23, 23:33]
    assert after[inside].min() > 2 * before[inside].max()
    elsewhere = np.ones(after.shape, bool)
    elsewhere[3, 8:28, 18:38] = False
    assert np.allclose(after[elsewhere], before[elsewhere], rtol=0.02)


def test_scale_and_shift_of_inverse_depth_are_no_difference_between_stages() -> None:
    scene = relief()
    earlier = (1 / (0.4 / scene["depth"] + 0.1)).astype(np.float32)
    before, after = finalise(**scene), finalise(**scene, estimates=(earlier,))
    assert np.allclose(after.sigma_log_depth, before.sigma_log_depth, rtol=0.01)


def test_only_the_last_estimate_counts() -> None:
    scene = relief()
    one = finalise(**scene, estimates=(scene["depth"],))
    two = finalise(**scene, estimates=(scene["depth"][:, ::-1].copy(), scene["depth"]))
    assert all((a == b).all() for a, b in zip(one, two))


def test_estimates_may_be_unknown() -> None:
    scene = relief()
    nothing = finalise(**scene, estimates=(np.zeros_like(scene["depth"]),))
    check(scene, nothing)
    assert np.array_equal(nothing.sigma_log_depth, finalise(**scene).sigma_log_depth)


def test_low_network_confidence_raises_sigma() -> None:
    scene = plane()
    scene["depth"] *= np.exp(0.02 * np.random.default_rng(0).normal(size=(N, H, W)))
    scene["depth"] = scene["depth"].astype(np.float32)
    confidence = np.full((N, H, W), 5.0, np.float32)
    confidence[:, :, : W // 3] = 1.2
    before = finalise(**scene).sigma_log_depth
    after = finalise(**scene, network_confidence=confidence).sigma_log_depth
    assert np.median(after[:, :, :12] / before[:, :, :12]) > 1.2
    assert np.allclose(after[:, :, 30:], before[:, :, 30:], rtol=0.01)
    same = finalise(**scene, network_confidence=np.full((N, H, W), 3.0, np.float32))
    assert np.allclose(same.sigma_log_depth, before, rtol=1e-3)


def rough(frames: int) -> dict[str, np.ndarray]:
    """Noisy depth with a board in front, holes and masks, from a camera that turns."""
    scene, random = plane(frames), np.random.default_rng(3)
    scene["depth"][:, 10:20, 20:40] = 1.2
    scene["depth"] *= np.exp(random.normal(0, 0.05, scene["depth"].shape)).astype(np.float32)
    scene["depth"][1, :, :10] = 0
    scene["dynamic"][2, 25:35, 5:30] = True
    angle = 0.013 * np.arange(frames)
    scene["T_world_camera"][:, 0, 0] = scene["T_world_camera"][:, 2, 2] = np.cos(angle)
    scene["T_world_camera"][:, 0, 2] = np.sin(angle)
    scene["T_world_camera"][:, 2, 0] = -np.sin(angle)
    del scene["images"]
    return scene


@pytest.mark.parametrize("frames", [6, 20, 1])
def test_the_same_as_in_arrays_pair_by_pair(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, random = rough(max(frames, 3)), np.random.default_rng(4)
    scene = {name: values[:frames] for name, values in scene.items()}
    noise = np.exp(random.normal(0, 0.1, scene["depth"].shape)).astype(np.float32)
    given = {
        "estimates": (scene["depth"] * noise,),
        "network_confidence": 1 + random.random(noise.shape).astype(np.float32),
    }
    sigma, expected = (f(**scene, **given) for f in (log_depth_sigma, oracle.log_depth_sigma))
    # single pixels are rounded to another pixel of the other frame
    assert (np.abs(np.log(sigma / expected)) > 1e-4).mean() < 1e-3
    assert expected.std() > 0.01
    expected = as_stored(expected)
    valid, kept = (f(**scene, sigma=expected) for f in (visible, oracle.visible))
    assert (valid != kept).mean() < 1e-3
    assert frames == 1 or 0.005 < (~kept & (scene["depth"] > 0)).mean() < 0.5
    monkeypatch.setattr(dyn3r.geometry.reprojection, "PIXELS_AT_ONCE", 3 * H * W)
    np.testing.assert_array_equal(visible(**scene, sigma=expected), valid)
    np.testing.assert_array_equal(log_depth_sigma(**scene, **given), sigma)


def test_tensors_are_rounded_as_arrays_are() -> None:
    random = np.random.default_rng(0)
    values = np.exp(random.normal(0, 8, 10_000)).astype(np.float32)
    values[:3] = 0, 1, 1 + 2**-11
    np.testing.assert_array_equal(stored(torch.from_numpy(values)).numpy(), as_stored(values))
