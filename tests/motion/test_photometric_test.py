"""Wrong flow is told from motion by the images: a static surface explains them better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.bundle_adjustment.made_up import Truth, alignment_of, made_up

from dyn3r.geometry.cameras import pixel_grid, rays
from dyn3r.motion.photometric_test import better_static
from dyn3r.motion.static_components import LARGEST_DEPTH_ERROR, without_static_components
from dyn3r.types import FlowFields, Geometry, Motion

REGION = (slice(20, 44), slice(30, 66))


@pytest.fixture(scope="module")
def truth() -> Truth:
    """A static scene; flow has an error of 0.1 pixels. Its images show a textured surface."""
    found = made_up(6, graph="swin-2-noncyclic", noise=0.1)
    direction = rays(torch.from_numpy(found.K[0]), pixel_grid((64, 96), dtype=torch.float64))
    points = found.depth[..., None] * (
        direction.numpy() @ found.T[:, None, :3, :3].transpose(0, 1, 3, 2)
    )
    places = points + found.T[:, None, None, :3, 3]
    return replace(found, images=textured(places[..., :2]))


@pytest.fixture(scope="module")
def right(truth: Truth) -> Geometry:
    return alignment_of(truth.T, truth.K, truth.depth)


def textured(places: np.ndarray) -> np.ndarray:
    """Images (n, h, w, 3) of a texture that depends on the places (n, h, w, 2)."""
    random = np.random.default_rng(1)
    waves = sum(np.sin(places @ random.normal(0, 9, 2) + k)[..., None] for k in range(6))
    return (128 + 20 * waves * [1.0, 0.8, 0.6]).clip(0, 255).astype(np.uint8)


def masks_of(truth: Truth) -> np.ndarray:
    masks = np.zeros(truth.depth.shape, bool)
    masks[:, REGION[0], REGION[1]] = True
    return masks


def off_by(truth: Truth, uv: tuple[float, float]) -> FlowFields:
    """Flow whose region is off by so many pixels a frame."""
    flow = truth.flow.flow.copy()
    steps = truth.flow.edges[:, 1] - truth.flow.edges[:, 0]
    flow[:, REGION[0], REGION[1]] += (steps[:, None] * np.array(uv))[:, None, None]
    return replace(truth.flow, flow=flow)


def share(truth: Truth, images: np.ndarray, right: Geometry, flow: FlowFields) -> float:
    masks = masks_of(truth)
    found = better_static(masks, images, right, flow, LARGEST_DEPTH_ERROR, 2)
    assert not found[~masks[:, ::2, ::2]].any()
    return float(found[masks[:, ::2, ::2]].mean())


def test_wrong_flow_is_worse_than_a_static_surface(truth: Truth, right: Geometry) -> None:
    assert share(truth, truth.images, right, off_by(truth, (3.0, 2.0))) > 0.95
    assert share(truth, truth.images, right, truth.flow) < 0.4  # by the errors of flow


def test_the_depth_may_be_wrong(truth: Truth, right: Geometry) -> None:
    for factor in (0.5, 2.0):
        wrong = replace(right, depth=right.depth * np.float32(factor))
        assert share(truth, truth.images, wrong, off_by(truth, (3.0, 2.0))) > 0.95


def test_flow_of_what_moves_is_better(truth: Truth, right: Geometry) -> None:
    """An object of another texture moves with its flow, across the epipolar lines."""
    images, flow = truth.images.copy(), truth.flow.flow.copy()
    grid = pixel_grid((64, 96)).numpy()
    for t in range(6):
        rows, columns = slice(14 + 3 * t, 38 + 3 * t), REGION[1]
        object_ = textured(0.1 * (grid + np.array([40, -3 * t]))[None])[0]
        images[t, rows, columns] = object_[rows, columns]
    for row, (i, j) in enumerate(truth.flow.edges):
        flow[row] = [0, 3 * (j - i)]
    masks = np.zeros(truth.depth.shape, bool)
    for t in range(6):
        masks[t, 17 + 3 * t : 35 + 3 * t, 34:62] = True
    moved = replace(truth.flow, flow=flow)
    found = better_static(masks, images, right, moved, LARGEST_DEPTH_ERROR, 2)
    assert found[masks[:, ::2, ::2]].mean() < 0.02


def test_plain_images_say_nothing(truth: Truth, right: Geometry) -> None:
    plain = np.full_like(truth.images, 90)
    assert share(truth, plain, right, off_by(truth, (3.0, 2.0))) == 0


def test_frames_without_flow_say_nothing(truth: Truth, right: Geometry) -> None:
    flow = off_by(truth, (3.0, 2.0))
    far = np.flatnonzero(np.abs(flow.edges[:, 0] - flow.edges[:, 1]) > 2)
    nothing = FlowFields(flow.edges[far], flow.flow[far], None)
    assert share(truth, truth.images, right, nothing) == 0


def test_masks_lose_what_wrong_flow_put_there(truth: Truth, right: Geometry) -> None:
    motion = Motion(masks_of(truth), np.zeros((6, 4, 6), np.float32), "seen in a test")
    flow = off_by(truth, (3.0, 2.0))
    faint = np.random.default_rng(0).integers(88, 92, truth.images.shape, np.uint8)
    assert without_static_components(motion, faint, right, flow) is motion
    assert not without_static_components(motion, truth.images, right, flow).masks.any()
