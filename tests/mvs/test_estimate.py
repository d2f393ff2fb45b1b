"""Multi-view depth: the network, its inputs and files, and the stage of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dyn3r.pipeline
from dyn3r.errors import CheckpointError
from dyn3r.geometry.ground_contact import snap_to_ground_contact
from dyn3r.motion.masks import motion_from_masks
from dyn3r.mvs import DepthNetwork, load_depth_network, multi_view_depth
from dyn3r.mvs.depth_network import (
    FRAME_CHANNELS,
    LOG_OFFSETS,
    MATCH_CHANNELS,
    MIN_LOG_INVERSE,
    PRIOR_CHANNEL,
    sample_costs,
)
from dyn3r.mvs.estimate import WEIGHTS, frame_channels
from dyn3r.mvs.plane_sweep import CHANNELS, PLANES, Sweep, SweepFrames, plane_sweep
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.options import Options, RefinementOptions, resolve
from dyn3r.types import Geometry, Priors, RunContext
from tests.factories import geometry_of, moving_square
from tests.mvs.walls import BOARD, SIZE, WALL, sideways, walls


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    torch.manual_seed(0)
    return DepthNetwork().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shaken() -> DepthNetwork:
    """Network whose output depends on every input."""
    torch.manual_seed(0)
    network = DepthNetwork().eval().requires_grad_(False)
    network.out.weight.normal_(0, 0.1)
    return network


def anything(size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    h, w = size_hw
    return torch.rand(2, FRAME_CHANNELS, h, w) - 0.5, torch.rand(2, CHANNELS, h // 2, w // 2)


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (16, 16), (176, 80)])
def test_the_untrained_network_returns_the_depth_before(
    network: DepthNetwork, size_hw: tuple[int, int]
) -> None:
    frame, sweep = anything(size_hw)
    torch.testing.assert_close(network(frame, sweep), frame[:, PRIOR_CHANNEL])


@pytest.mark.slow
def test_every_channel_is_read(shaken: DepthNetwork) -> None:
    frame, sweep = anything((32, 48))
    before = shaken(frame, sweep)
    for k in range(FRAME_CHANNELS):
        other = frame.clone()
        other[:, k] += 1
        assert not torch.equal(
            shaken(other, sweep) - other[:, PRIOR_CHANNEL], before - frame[:, PRIOR_CHANNEL]
        )
    # the depths before lie between planes 18 and 31: planes below half of that are not sampled
    for k in (*range(10, PLANES), *range(PLANES + 10, 2 * PLANES), CHANNELS - 2, CHANNELS - 1):
        other = sweep.clone()
        other[:, k] = 1 - other[:, k]
        assert not torch.equal(shaken(frame, other), before), k


def test_costs_are_sampled_around_the_depth_before() -> None:
    sweep = torch.zeros(1, CHANNELS, 4, 6)
    sweep[0, :PLANES] = torch.arange(PLANES)[:, None, None].float()
    sweep[0, PLANES : 2 * PLANES] = 0.5
    sweep[0, -2], sweep[0, -1] = 0.25, 0.1
    before = torch.full((1, 4, 6), -1.0)
    before[0, 0, 0] = -0.2
    found = sample_costs(sweep, before)
    assert found.shape == (1, MATCH_CHANNELS, 4, 6)
    offsets = torch.tensor([*(-x for x in LOG_OFFSETS[::-1]), 0, *LOG_OFFSETS])
    count = len(offsets)
    expected = torch.exp(-1.0 + offsets) * (PLANES - 1)
    torch.testing.assert_close(found[0, :count, 2, 3], expected)
    nearer = (torch.exp(-0.2 + offsets) * (PLANES - 1)).clamp(max=PLANES - 1)
    torch.testing.assert_close(found[0, :count, 0, 0], nearer, atol=2e-3, rtol=0)
    assert (found[0, count : 2 * count] == 0.5).all()
    assert float(found[0, -2, 2, 3]) == pytest.approx(np.log(0.25) + 1)
    assert (found[0, -1] == 0.1).all()


def test_frame_channels() -> None:
    images, found = walls(sideways())
    snapped = torch.from_numpy((found.depth[2] / 2).astype(np.float32))
    sweep = Sweep(torch.ones(CHANNELS, 32, 48), max_inverse_depth=0.5, plane_spacing_px=0.98)
    dynamic = np.zeros((5, *SIZE), bool)
    dynamic[2, 10, 20] = True
    frames = SweepFrames(images, found.K, found.T_world_camera, found.depth, dynamic)
    seen = frame_channels(frames, 2, snapped, sweep).numpy()
    assert seen.shape == (FRAME_CHANNELS, *SIZE)
    np.testing.assert_allclose(seen[:3, 5, 7], images[2][5, 7] / 127.5 - 1, atol=1e-6)
    assert seen[3, 0, 0] == pytest.approx(-np.log(WALL * 0.5), abs=1e-5)
    assert seen[3, 32, 48] == pytest.approx(-np.log(BOARD * 0.5), abs=1e-5)
    np.testing.assert_allclose(seen[4], seen[3] + np.log(2), atol=1e-5)
    assert seen[5].sum() == seen[5, 10, 20] == 1
    assert seen[6, 3, -1] == pytest.approx(47.5 / 80)
    assert seen[7, -1, 3] == pytest.approx(31.5 / 80)
    assert seen[8] == pytest.approx(0.0)  # log(0.98 + 0.02)
    frames.depth *= 1e9
    endless = frame_channels(frames, 2, snapped * 0, sweep)
    assert (endless[3] == MIN_LOG_INVERSE).all()
    assert torch.isfinite(endless).all()


@pytest.mark.slow
def test_depth_is_that_of_the_network_and_cameras_stay(shaken: DepthNetwork) -> None:
    images, found = walls(sideways())
    dynamic = np.zeros((5, *SIZE), bool)
    dynamic[:, 5:30, 40:60] = True
    stages: list[tuple[str, int, int]] = []
    estimated = multi_view_depth(
        found, images, dynamic=dynamic, network=shaken, progress=lambda *a: stages.append(a)
    )
    np.testing.assert_array_equal(estimated.T_world_camera, found.T_world_camera)
    np.testing.assert_array_equal(estimated.K, found.K)
    assert estimated.depth.dtype == np.float32
    assert np.isfinite(estimated.depth).all()
    assert (estimated.depth > 0).all()
    assert stages[0] == ("multi-view depth", 0, 5)
    assert stages[-1] == ("multi-view depth", 5, 5)
    frames = SweepFrames(images, found.K, found.T_world_camera, found.depth, dynamic)
    sweep = plane_sweep(frames, 3)
    snapped = torch.from_numpy(snap_to_ground_contact(found.depth, dynamic).astype(np.float32))
    frame = frame_channels(frames, 3, snapped[3], sweep)
    expected = torch.exp(-shaken(frame[None], sweep.channels[None])[0]) / sweep.max_inverse_depth
    np.testing.assert_allclose(estimated.depth[3], expected.numpy(), rtol=1e-4)


@pytest.mark.slow
def test_known_depth_is_kept(shaken: DepthNetwork) -> None:
    images, found = walls(sideways())
    known = np.full(found.depth.shape, np.nan, np.float32)
    known[1, :20] = found.depth[1, :20]
    estimated = multi_view_depth(found, images, priors=Priors(depth=known), network=shaken)
    np.testing.assert_array_equal(estimated.depth[1, :20], found.depth[1, :20])
    assert not np.array_equal(estimated.depth[1, 20:], found.depth[1, 20:])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e5])
def test_the_unit_of_length_does_not_matter(shaken: DepthNetwork, size: float) -> None:
    images, found = walls(sideways())
    plain = multi_view_depth(found, images, network=shaken)
    T = found.T_world_camera.copy()
    T[:, :3, 3] *= size
    scaled = replace(found, T_world_camera=T, depth=(found.depth * size).astype(np.float32))
    np.testing.assert_allclose(
        multi_view_depth(scaled, images, network=shaken).depth / size, plain.depth, rtol=2e-2
    )


@pytest.mark.slow
def test_the_packages_network_sharpens_a_smoothed_board() -> None:
    import cv2

    images, found = walls(sideways(7))
    smooth = np.stack([cv2.GaussianBlur(depth, (0, 0), 10) for depth in found.depth])
    estimated = multi_view_depth(replace(found, depth=smooth), images).depth
    inner = (slice(None), slice(8, -8), slice(16, -16))
    before, now = (np.abs(np.log(d / found.depth))[inner].mean() for d in (smooth, estimated))
    assert now < 0.7 * before
    across = np.abs(np.diff(np.log(estimated[3, 32]))).max()  # the outline of the board
    assert across > 2 * np.abs(np.diff(np.log(smooth[3, 32]))).max()


def test_the_packages_network_is_small_and_finite() -> None:
    network = load_depth_network()
    values = torch.cat([p.flatten() for p in network.parameters()])
    assert torch.isfinite(values).all()
    assert not any(p.requires_grad for p in network.parameters())
    file = resources.files("dyn3r") / "assets" / "weights" / WEIGHTS
    assert Path(str(file)).stat().st_size < 5e6


@pytest.mark.parametrize("wrong", ["missing", "text", "other", "short"])
def test_a_file_without_a_depth_network_is_refused(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "depth.safetensors"
    if wrong == "text":
        file.write_text("no weights")
    elif wrong == "other":
        save_file({"x": torch.zeros(3)}, file)
    elif wrong == "short":
        state = DepthNetwork().state_dict()
        state["out.bias"] = torch.zeros(2)
        save_file(state, file)
    with pytest.raises(CheckpointError, match="holds no depth network"):
        load_depth_network(file)


CLIP = moving_square(3)
MASKS = np.zeros((3, 48, 64), bool)
MASKS[:, 5:20, 5:20] = True


@dataclass
class StubModel:
    """A model that recommends nothing."""

    recommendation: Recommendation
    name: str = "stub"
    is_many_view: bool = False


def dense_depth(
    monkeypatch: pytest.MonkeyPatch, masks: np.ndarray, asked: RefinementOptions
) -> tuple[Geometry, list[np.ndarray], list[np.ndarray], RunContext]:
    """Stage of the pipeline with stubs: result, masks of the sweep, depth of the ground contact."""
    swept: list[np.ndarray] = []
    snapped: list[np.ndarray] = []

    def estimate(geometry: Geometry, *_: Any, dynamic: np.ndarray | None, **__: Any) -> Geometry:
        swept.append(dynamic)
        return replace(geometry, depth=np.full_like(geometry.depth, 7))

    def snap(depth: np.ndarray, dynamic: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(dynamic, masks)
        assert not fixed.any()
        snapped.append(depth)
        return np.where(dynamic, np.float32(0.125), depth)

    monkeypatch.setattr(dyn3r.pipeline, "multi_view_depth", estimate)
    monkeypatch.setattr(dyn3r.pipeline, "snap_to_ground_contact", snap)
    K = np.tile(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), (3, 1, 1))
    geometry = geometry_of(np.tile(np.eye(4), (3, 1, 1)), K, np.ones((3, 48, 64)))
    plan, context = (
        resolve(Options(refinement=asked), StubModel(Recommendation()), CLIP),
        RunContext(),
    )
    motion = motion_from_masks(masks)
    found = dyn3r.pipeline.dense_depth(CLIP, geometry, motion, plan, context)
    return found, swept, snapped, context


@pytest.mark.parametrize("wanted", [True, False])
def test_multi_view_depth_runs_as_planned(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    asked = RefinementOptions(multi_view_depth=wanted, ground_contact=False)
    found, swept, snapped, context = dense_depth(monkeypatch, MASKS, asked)
    assert len(swept) == wanted
    assert not snapped
    assert bool((found.depth == 7).all()) == wanted
    assert ("multi-view depth" in context.seconds) == wanted
    if wanted:
        np.testing.assert_array_equal(swept[0], MASKS)


@pytest.mark.parametrize("wanted", [True, False])
def test_moving_objects_are_snapped_to_the_ground_afterwards(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    asked = RefinementOptions(multi_view_depth=True, ground_contact=wanted)
    found, _, snapped, _ = dense_depth(monkeypatch, MASKS, asked)
    assert len(snapped) == wanted
    assert all((depth == 7).all() for depth in snapped)
    assert bool((found.depth[MASKS] == 0.125).all()) == wanted
    assert (found.depth[~MASKS] == 7).all()


def test_a_static_scene_has_no_object_to_snap(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = RefinementOptions(ground_contact=True)
    found, _, snapped, _ = dense_depth(monkeypatch, np.zeros_like(MASKS), asked)
    assert not snapped
    assert (found.depth == 1).all()


def test_what_an_overlay_hides_is_as_far_away_as_what_is_beside_it() -> None:
    images, found = walls(sideways(), board=False)
    overlay = np.zeros(SIZE, bool)
    overlay[50:60, 60:90] = True  # a watermark near the lower edge
    wrong = np.where(overlay, 0.5, found.depth).astype(np.float32)
    estimated = multi_view_depth(
        replace(found, depth=wrong), images, overlay=overlay, network=DepthNetwork().eval()
    )
    np.testing.assert_allclose(estimated.depth, WALL, rtol=0.01)
