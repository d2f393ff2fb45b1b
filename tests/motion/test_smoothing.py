"""Edge refiner: temporal voting, the guided filter, and both on a known clip."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.oracles import edge_refiner as oracle

from dyn3r.errors import InputError
from dyn3r.flow import FlowEstimator
from dyn3r.motion import guided_filter
from dyn3r.motion.mask_refiner import MaskRefiner
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.refiners import mask_refiner
from dyn3r.motion.sam2 import Sam2Refiner
from dyn3r.motion.smoothing import EdgeRefiner, _Voters, reading
from dyn3r.types import FlowFields


def guided_filter_color(
    values: np.ndarray, image: np.ndarray, radius_px: int, regularisation: float
) -> np.ndarray:
    given = torch.from_numpy(values), torch.from_numpy(image)
    return guided_filter.guided_filter_color(*given, radius_px, regularisation).numpy()


def vote(masks: np.ndarray, flow: FlowFields, t: int, reach: int) -> np.ndarray:
    return _Voters(torch.from_numpy(masks).float(), flow).votes(t, reach).numpy()


def texture(seed: int, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*cells, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def clip_with_truth(n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A disc in blue and white crosses a brown background, 4 pixels a frame."""
    v, u = np.mgrid[:96, :128]
    images, truth = [], []
    wall = texture(0, (12, 16), (128, 96)) // 3 + np.array([110, 60, 10], np.uint8)
    disk = texture(1, (12, 16), (128, 96)) // 3 + np.array([0, 60, 160], np.uint8)
    for t in range(n):
        inside = (u - 40 - 4 * t) ** 2 + (v - 50) ** 2 < 24**2
        images.append(np.where(inside[..., None], np.roll(disk, 4 * t, axis=1), wall))
        truth.append(inside)
    return np.stack(images).astype(np.uint8), np.stack(truth)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_blocky_and_missing_masks_become_the_object() -> None:
    images, truth = clip_with_truth()
    blocks = truth.reshape(6, 6, 16, 8, 16).mean(axis=(2, 4)) >= 0.5
    masks = blocks.repeat(16, axis=1).repeat(16, axis=2)
    masks[3] = False  # missed once
    kept = masks.copy()
    coarse = EdgeRefiner(radius=0.054, threshold=0.4)  # the defaults are for masks of pixels
    refined = coarse.refine(images, masks)
    assert refined.dtype == bool
    np.testing.assert_array_equal(masks, kept)
    assert iou(masks, truth) < 0.65
    assert iou(refined, truth) > 0.8
    assert iou(refined[3], truth[3]) > 0.8
    # where the filter reaches as far as the blocks are wrong, the outline is found
    assert iou(replace(coarse, radius=0.15).refine(images, masks), truth) > 0.97


def test_a_good_mask_stays_good() -> None:
    images, truth = clip_with_truth()
    assert iou(EdgeRefiner().refine(images, truth), truth) > 0.95


def test_nothing_stays_nothing_and_one_frame_works() -> None:
    images, truth = clip_with_truth(2)
    assert not EdgeRefiner().refine(images, np.zeros_like(truth)).any()
    assert iou(EdgeRefiner().refine(images[:1], truth[:1]), truth[:1]) > 0.95
    said: list[tuple[int, int]] = []
    EdgeRefiner().refine(
        images, truth, progress=lambda stage, done, total: said.append((done, total))
    )
    assert said[-1] == (2, 2)


def test_a_radius_larger_than_the_frame_is_as_large_as_the_frame() -> None:
    images, truth = clip_with_truth(2)
    strip = (slice(None), slice(20, 36))
    found = EdgeRefiner(radius=1.0, reach=0).refine(images[strip], truth[strip])
    assert found.shape == truth[strip].shape


def test_the_vote_follows_the_flow() -> None:
    """Everything moves 2 pixels to the right per frame; frame 1 missed the object."""
    edges = np.array([[0, 1], [1, 0], [1, 2], [2, 1]])
    flow = np.zeros((4, 20, 30, 2), np.float32)
    flow[:, :, :, 0] = np.array([2, -2, 2, -2])[:, None, None]
    visible = np.ones((4, 20, 30), bool)
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 5:10, 10:15] = masks[2, 5:10, 14:19] = True
    votes = vote(masks, FlowFields(edges, flow, visible), 1, 2)
    expected = np.zeros((20, 30))
    expected[5:10, 12:17] = 2 / 3
    np.testing.assert_allclose(votes, expected, atol=1e-6)
    # two frames away, by two steps
    votes = vote(masks, FlowFields(edges, flow, visible), 0, 2)
    np.testing.assert_allclose(votes[5:10, 10:15], 2 / 3, atol=1e-6)
    # who can't be seen has no vote
    visible[1] = False
    votes = vote(masks, FlowFields(edges, flow, visible), 1, 2)
    np.testing.assert_allclose(votes[5:10, 12:17], 1 / 2, atol=1e-6)


def test_the_filter_agrees_with_the_definition_in_every_window() -> None:
    """Against plain loops: ridge regression per window, then the mean over windows (He 2010)."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    values = rng.random((9, 11)).astype(np.float32)
    r, softness = 2, 1e-2
    pad = ((r, r), (r, r))
    big = np.pad(picture / 255, (*pad, (0, 0)), mode="symmetric")
    big_values = np.pad(values.astype(float), pad, mode="symmetric")
    slope, offset = np.zeros((9, 11, 3)), np.zeros((9, 11))
    for y, x in np.ndindex(9, 11):
        c = big[y : y + 5, x : x + 5].reshape(-1, 3)
        p = big_values[y : y + 5, x : x + 5].ravel()
        covariance = np.cov(c.T, bias=True) + softness * np.eye(3)
        slope[y, x] = np.linalg.solve(covariance, (c * p[:, None]).mean(0) - c.mean(0) * p.mean())
        offset[y, x] = p.mean() - slope[y, x] @ c.mean(0)
    expected = np.zeros((9, 11))
    big_slope = np.pad(slope, (*pad, (0, 0)), mode="symmetric")
    big_offset = np.pad(offset, pad, mode="symmetric")
    for y, x in np.ndindex(9, 11):
        mean_slope = big_slope[y : y + 5, x : x + 5].reshape(-1, 3).mean(0)
        mean_offset = big_offset[y : y + 5, x : x + 5].mean()
        expected[y, x] = mean_slope @ (picture[y, x] / 255) + mean_offset
    np.testing.assert_allclose(
        guided_filter_color(values, picture, r, softness), expected, atol=1e-5
    )


@pytest.mark.parametrize("half", [True, False])
def test_votes_and_filters_are_those_of_opencv(half: bool) -> None:
    """But for positions, which some versions of OpenCV round to 1/32 pixel."""
    images, truth = clip_with_truth(5)
    random = np.random.default_rng(0)
    edges = np.array([[t + a, t + 1 - a] for t in range(4) for a in (0, 1)])
    shift = np.array([4.3, 0.2]) * (edges[:, 1] - edges[:, 0])[:, None]
    fields = shift[:, None, None] + random.normal(0, 0.3, (8, 96, 128, 2))
    visible = random.random((8, 96, 128)) < 0.9
    flow = FlowFields(edges, fields.astype(np.float16 if half else np.float32), visible)
    for t in range(5):
        found, expected = vote(truth, flow, t, 2), oracle.vote(truth, flow, t, 2)
        assert np.abs(found - expected).mean() < 5e-3
        assert ((found > 0.5) != (expected > 0.5)).mean() < 1e-3
        filtered = guided_filter_color(expected, images[t], 5, 3e-4)
        same = oracle.guided_filter_color(expected, images[t], 5, 3e-4)
        np.testing.assert_allclose(filtered, same, atol=1e-6)
        given = torch.from_numpy(expected), torch.from_numpy(images[t])
        filtered = guided_filter.guided_filter_grey(*given, 5).numpy()
        same = oracle.guided_filter_grey(expected, images[t], 5)
        np.testing.assert_allclose(filtered, same, atol=1e-5)


def test_on_a_plain_image_the_filter_is_a_mean() -> None:
    values = np.zeros((20, 20), np.float32)
    values[:, 10:] = 1
    plain = np.full((20, 20, 3), 90, np.uint8)
    out = guided_filter_color(values, plain, 3, 1e-3)
    assert out[10, 9] == pytest.approx(1 - out[10, 10], abs=1e-5)
    assert np.all(np.diff(out[10]) >= -1e-6)
    edge = plain.copy()
    edge[:, 10:] = 150
    np.testing.assert_allclose(guided_filter_color(values, edge, 3, 1e-4), values, atol=0.02)


@dataclass(frozen=True)
class NoFlow:
    """Nothing ever moves; counts nothing."""

    name: str = "none"

    def flow(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.zeros((*source.shape[:2], 2), np.float32)


def test_any_flow_estimator_will_do() -> None:
    assert isinstance(NoFlow(), FlowEstimator)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((3, 32, 32), bool)
    masks[0, :16] = True
    only_vote = EdgeRefiner(flow=NoFlow(), radius=0.0, reach=2)
    assert not only_vote.refine(images, masks).any()  # one vote of three
    np.testing.assert_array_equal(
        replace(only_vote, threshold=0.3).refine(images, masks), np.tile(masks[:1], (3, 1, 1))
    )


def test_flow_that_was_measured_before_is_read() -> None:
    """NoFlow would keep the mask in place; the measured flow moves it by 4 pixels a frame."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((3, 32, 32), bool)
    masks[0, :, 8:16] = masks[2, :, 16:24] = True
    edges = np.array([[0, 2], [0, 1], [1, 0], [1, 2], [2, 1]])
    flow = np.zeros((5, 32, 32, 2), np.float32)
    flow[..., 0] = 4.0 * (edges[:, 1] - edges[:, 0])[:, None, None]
    plain = EdgeRefiner(flow=NoFlow(), radius=0.0, reach=1)
    refiner = reading(plain, FlowFields(edges, flow))
    assert refiner is not None
    expected = np.zeros((32, 32), bool)
    expected[:, 12:20] = True
    np.testing.assert_array_equal(refiner.refine(images, masks)[1], expected)
    assert not plain.refine(images, masks)[1, :, 12:16].any()
    without_back = reading(plain, FlowFields(edges[:4], flow[:4]))
    assert without_back is not None  # a step is missing: all are measured
    np.testing.assert_array_equal(without_back.refine(images, masks), plain.refine(images, masks))
    sam = Sam2Refiner()
    assert reading(sam, FlowFields(edges, flow)) is sam


def test_refiners_by_name() -> None:
    for name in ("edges", "sam2", "sam2:folder"):
        refiner = mask_refiner(name)
        assert isinstance(refiner, MaskRefiner)
        assert refiner.name == name.partition(":")[0]
    assert mask_refiner("sam2:some/folder") == Sam2Refiner(weights="some/folder")
    assert mask_refiner("none") is None
    with pytest.raises(InputError, match=r"motion\.refine is auto"):
        MotionOptions(refine="sam2:")
    for wrong in ("sam2:", "edges:x", "sam3", ""):
        with pytest.raises(InputError, match="choose none, edges"):
            mask_refiner(wrong)


def test_what_does_not_fit_is_refused() -> None:
    images, truth = clip_with_truth(2)
    for bad in ((images[:1], truth), (images, truth[:, :10]), (images / 255, truth)):
        with pytest.raises(InputError, match="mask refinement needs"):
            inspect.unwrap(EdgeRefiner.refine)(EdgeRefiner(), *bad)  # past the shape checks
    for wrong in ({"reach": -1}, {"threshold": 1.0}, {"softness": 0.0}, {"radius": -0.1}):
        with pytest.raises(InputError, match="edge refinement needs"):
            EdgeRefiner(**wrong)
