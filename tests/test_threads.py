"""Stages that work on several frames at once give the same bits as one frame after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dyn3r.assets.demo import demo_clip_folder
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.io.clip import read_clip
from dyn3r.motion.background_model import background_evidence
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.rigid_residual import rigid_residual
from dyn3r.mvs.plane_sweep import SweepFrames, plane_sweep
from dyn3r.network.pair_graph import make_pairs
from dyn3r.scene.compared_depth import ComparedDepth, visible
from dyn3r.types import no_progress


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return read_clip(demo_clip_folder() / "frames", size=128, num_frames=5).images


def cameras(n: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cameras that move to the right."""
    K = np.tile(np.array([[110.0, 0, 63.5], [0, 110.0, size_hw[0] / 2], [0, 0, 1]]), (n, 1, 1))
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = 0.05 * np.arange(n)
    return K, T


def on_threads(monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[], tuple]) -> tuple:
    monkeypatch.setattr("dyn3r.io.workers.workers", lambda: count)
    return work()


def test_threads_change_nothing(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    n, h, w = images.shape[:3]
    generator = np.random.default_rng(0)
    depth = generator.uniform(1.5, 2.5, (n, h, w)).astype(np.float32)
    sigma = generator.uniform(0.01, 0.1, (n, h, w)).astype(np.float32)
    dynamic = np.zeros((n, h, w), bool)
    dynamic[:, 20:40, 30:60] = True
    K, T = cameras(n, (h, w))
    pairs = make_pairs("swin-2-noncyclic", n)

    def work() -> tuple:
        flow = measure_flow(images, pairs, flow_estimator("aligned-dis"))
        means = rigid_residual(1 / depth, images, flow, FlowCueOptions(), no_progress).finish()
        background = background_evidence(images, np.full_like(depth, 2), dynamic, K, T)
        compared = ComparedDepth(torch.from_numpy(depth), torch.from_numpy(dynamic), K, T)
        valid = visible(compared, torch.from_numpy(sigma)).numpy()
        return (
            np.asarray(flow.flow), np.asarray(flow.visible),
            means.evidence.numpy(), means.parts.numpy(),
            background.color_difference.numpy(), background.colour.numpy(), valid,
        )  # fmt: skip

    serial, parallel = (on_threads(monkeypatch, count, work) for count in (1, 4))
    for one, four in zip(serial, parallel):
        np.testing.assert_array_equal(one, four)
    assert 0 < serial[-1].mean() < 1
    assert np.isfinite(serial[4]).any()


def test_one_set_of_features_serves_sweeps_of_all_threads(images: np.ndarray) -> None:
    from dyn3r.io.workers import ordered_map

    n, h, w = images.shape[:3]
    K, T = cameras(n, (h, w))
    depth, still = np.full((n, h, w), 2.0, np.float32), np.zeros((n, h, w), bool)
    frames = SweepFrames(images, K, T, depth, still)
    found = [
        list(ordered_map(lambda i: plane_sweep(frames, i), range(n), count)) for count in (1, 4)
    ]
    for one, four in zip(*found):
        np.testing.assert_array_equal(one.channels.numpy(), four.channels.numpy())
