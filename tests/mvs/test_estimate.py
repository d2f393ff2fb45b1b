"""The depth network: what it reads, what it must not touch, its files, and who asks it."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dyn3r
import dyn3r.pipeline
from dyn3r.errors import CheckpointError
from dyn3r.geometry.ground_contact import stand_on_ground
from dyn3r.mvs import DepthNetwork, load_depth_network, multi_view_depth
from dyn3r.mvs.depth_network import BEFORE, FARTHEST, FRAME, MATCHES, OFFSETS, look_up
from dyn3r.mvs.estimate import WEIGHTS, frame_channels
from dyn3r.mvs.plane_sweep import CHANNELS, PLANES, Sweep, SweepFeatures, plane_sweep
from dyn3r.network.model import Model, prepare_model
from dyn3r.types import Geometry, Priors
from tests.factories import tiny_network
from tests.stereo.walls import BOARD, SIZE, WALL, sideways, walls
from tests.test_pipeline import clip_of


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    torch.manual_seed(0)
    return DepthNetwork().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shaken() -> DepthNetwork:
    """Whose answer depends on everything."""
    torch.manual_seed(0)
    network = DepthNetwork().eval().requires_grad_(False)
    network.out.weight.normal_(0, 0.1)
    return network


def anything(size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    h, w = size_hw
    return torch.rand(2, FRAME, h, w) - 0.5, torch.rand(2, CHANNELS, h // 2, w // 2)


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (16, 16), (176, 80)])
def test_untrained_it_says_the_depth_before(
    network: DepthNetwork, size_hw: tuple[int, int]
) -> None:
    frame, sweep = anything(size_hw)
    torch.testing.assert_close(network(frame, sweep), frame[:, BEFORE])


def test_every_channel_is_read(shaken: DepthNetwork) -> None:
    frame, sweep = anything((32, 48))
    before = shaken(frame, sweep)
    for k in range(FRAME):
        other = frame.clone()
        other[:, k] += 1
        assert not torch.equal(shaken(other, sweep) - other[:, BEFORE], before - frame[:, BEFORE])
    # the depths before lie between planes 18 and 31: nearer than half of that is not looked at
    for k in (*range(10, PLANES), *range(PLANES + 10, 2 * PLANES), CHANNELS - 2, CHANNELS - 1):
        other = sweep.clone()
        other[:, k] = 1 - other[:, k]
        assert not torch.equal(shaken(frame, other), before), k


def test_costs_are_read_around_the_depth_before() -> None:
    sweep = torch.zeros(1, CHANNELS, 4, 6)
    sweep[0, :PLANES] = torch.arange(PLANES)[:, None, None].float()
    sweep[0, PLANES : 2 * PLANES] = 0.5
    sweep[0, -2], sweep[0, -1] = 0.25, 0.1
    before = torch.full((1, 4, 6), -1.0)
    before[0, 0, 0] = -0.2
    found = look_up(sweep, before)
    assert found.shape == (1, MATCHES, 4, 6)
    offsets = torch.tensor([*(-x for x in OFFSETS[::-1]), 0, *OFFSETS])
    count = len(offsets)
    expected = torch.exp(-1.0 + offsets) * (PLANES - 1)
    torch.testing.assert_close(found[0, :count, 2, 3], expected)
    nearer = (torch.exp(-0.2 + offsets) * (PLANES - 1)).clamp(max=PLANES - 1)
    torch.testing.assert_close(found[0, :count, 0, 0], nearer, atol=2e-3, rtol=0)
    assert (found[0, count : 2 * count] == 0.5).all()
    assert float(found[0, -2, 2, 3]) == pytest.approx(np.log(0.25) + 1)
    assert (found[0, -1] == 0.1).all()


def test_what_a_frame_tells() -> None:
    images, found = walls(sideways())
    depth, standing = found.depth[2], found.depth[2] / 2
    sweep = Sweep(torch.ones(CHANNELS, 32, 48), nearest=0.5, step_px=0.98)
    moving = np.zeros(SIZE, bool)
    moving[10, 20] = True
    seen = frame_channels(images[2], depth, standing, moving, found.K[2], sweep).numpy()
    assert seen.shape == (FRAME, *SIZE)
    np.testing.assert_allclose(seen[:3, 5, 7], images[2][5, 7] / 127.5 - 1, atol=1e-6)
    assert seen[3, 0, 0] == pytest.approx(-np.log(WALL * 0.5), abs=1e-5)
    assert seen[3, 32, 48] == pytest.approx(-np.log(BOARD * 0.5), abs=1e-5)
    np.testing.assert_allclose(seen[4], seen[3] + np.log(2), atol=1e-5)
    assert seen[5].sum() == seen[5, 10, 20] == 1
    assert seen[6, 3, -1] == pytest.approx(47.5 / 80)
    assert seen[7, -1, 3] == pytest.approx(31.5 / 80)
    assert seen[8] == pytest.approx(0.0)  # log(0.98 + 0.02)
    endless = frame_channels(images[2], depth * 1e9, depth * 0, moving, found.K[2], sweep)
    assert (endless[3] == FARTHEST).all()
    assert torch.isfinite(endless).all()


def test_cameras_stay_and_the_network_decides_the_depth(shaken: DepthNetwork) -> None:
    images, found = walls(sideways())
    moving = np.zeros((5, *SIZE), bool)
    moving[:, 5:30, 40:60] = True
    stages: list[tuple[str, int, int]] = []
    drawn = multi_view_depth(
        found, images, moving=moving, network=shaken, progress=lambda *a: stages.append(a)
    )
    np.testing.assert_array_equal(drawn.T_world_camera, found.T_world_camera)
    np.testing.assert_array_equal(drawn.K, found.K)
    assert drawn.depth.dtype == np.float32
    assert np.isfinite(drawn.depth).all()
    assert (drawn.depth > 0).all()
    assert stages[0] == ("multi-view depth", 0, 5)
    assert stages[-1] == ("multi-view depth", 5, 5)
    sweep = plane_sweep(
        SweepFeatures(images), 3, found.K, found.T_world_camera, found.depth, moving
    )
    standing = stand_on_ground(found.depth, moving)
    frame = frame_channels(images[3], found.depth[3], standing[3], moving[3], found.K[3], sweep)
    expected = torch.exp(-shaken(frame[None], sweep.channels[None])[0]) / sweep.nearest
    np.testing.assert_allclose(drawn.depth[3], expected.numpy(), rtol=1e-4)


def test_known_depth_is_held(shaken: DepthNetwork) -> None:
    images, found = walls(sideways())
    known = np.full(found.depth.shape, np.nan, np.float32)
    known[1, :20] = found.depth[1, :20]
    drawn = multi_view_depth(found, images, priors=Priors(depth=known), network=shaken)
    np.testing.assert_array_equal(drawn.depth[1, :20], found.depth[1, :20])
    assert not np.array_equal(drawn.depth[1, 20:], found.depth[1, 20:])


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


def test_the_packages_network_draws_a_board_sharper_than_flow_left_it() -> None:
    import cv2

    images, found = walls(sideways(7))
    smooth = np.stack([cv2.GaussianBlur(depth, (0, 0), 10) for depth in found.depth])
    drawn = multi_view_depth(replace(found, depth=smooth), images).depth
    inner = (slice(None), slice(8, -8), slice(16, -16))
    before, now = (np.abs(np.log(d / found.depth))[inner].mean() for d in (smooth, drawn))
    assert now < 0.7 * before
    across = np.abs(np.diff(np.log(drawn[3, 32]))).max()  # the outline of the board
    assert across > 2 * np.abs(np.diff(np.log(smooth[3, 32]))).max()


def test_the_packages_network_is_small_and_finite() -> None:
    network = load_depth_network()
    values = torch.cat([p.flatten() for p in network.parameters()])
    assert torch.isfinite(values).all()
    assert not any(p.requires_grad for p in network.parameters())
    file = resources.files("dyn3r") / "assets" / "weights" / WEIGHTS
    assert Path(str(file)).stat().st_size < 5e6


@pytest.mark.parametrize("wrong", ["missing", "text", "other", "short"])
def test_a_file_that_holds_no_depth_network_is_refused(tmp_path: Path, wrong: str) -> None:
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


@pytest.fixture
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


@pytest.mark.parametrize(
    ("facts", "asked", "frames", "drawn"),
    [
        ({"bundle": "on", "stereo": "on"}, None, 3, True),
        ({"stereo": "on"}, None, 3, False),  # cameras that flow has not settled
        ({"bundle": "on"}, None, 3, True),
        ({"bundle": "on", "stereo": "off"}, None, 3, False),
        ({}, True, 3, True),
        ({"bundle": "on", "stereo": "on"}, False, 3, False),
        ({"bundle": "on", "stereo": "on"}, None, 1, False),
    ],
)
def test_the_model_recommends_and_the_user_decides(
    model: Model, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], asked: bool | None,
    frames: int, drawn: bool,
) -> None:  # fmt: skip
    calls = []

    def draw(alignment: Geometry, images, *, moving, priors, progress) -> Geometry:
        calls.append(moving)
        return replace(alignment, depth=np.full_like(alignment.depth, 7))

    monkeypatch.setattr(dyn3r.pipeline, "multi_view_depth", draw)
    options = dyn3r.Options(motion="flow", stereo=asked, flow_term=False)
    scene = dyn3r.reconstruct(clip_of(frames), replace(model, facts=facts), options)
    assert len(calls) == drawn
    assert bool((scene.depth == 7).all()) == drawn
    if drawn:
        np.testing.assert_array_equal(calls[0], scene.dynamic)
        assert "multi-view depth" in scene.metadata["seconds"]
    assert scene.metadata["options"]["stereo"] == asked


@pytest.mark.parametrize(("asked", "stands"), [("auto", 1), ("network", 0), ("ground", 1)])
def test_what_moves_is_put_on_the_ground_afterwards(
    model: Model, monkeypatch: pytest.MonkeyPatch, asked: str, stands: int
) -> None:
    calls = []

    def draw(alignment: Geometry, *_, **__) -> Geometry:
        return replace(alignment, depth=np.full_like(alignment.depth, 7))

    def stand(depth: np.ndarray, *_) -> np.ndarray:
        calls.append(depth)
        return depth

    monkeypatch.setattr(dyn3r.pipeline, "multi_view_depth", draw)
    monkeypatch.setattr(dyn3r.pipeline, "stand_on_ground", stand)
    model = replace(model, facts={"bundle": "on", "mover_depth": "ground"})
    masks = np.zeros((3, 48, 64), bool)
    masks[:, 5:20, 5:20] = True
    options = dyn3r.Options(mover_depth=asked, flow_term=False)  # type: ignore[arg-type]
    dyn3r.reconstruct(clip_of(3), model, options, masks=masks)
    assert len(calls) == stands
    assert all((depth == 7).all() for depth in calls)
