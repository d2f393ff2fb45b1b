"""Motion from flow: exact flow of known scenes, wrong geometry, noise, still clips, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from tests.oracles import inverse_depth as inverse_oracle
from tests.oracles import rigid_residual as oracle

from dyn3r.errors import InputError
from dyn3r.evaluation.mask_metrics import region_similarity
from dyn3r.geometry.cameras import intrinsics, invert, transform, unproject
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.motion.combine import CombinedEvidence, combine_motion
from dyn3r.motion.flow_residual import (
    FlowEvidence,
    flow_evidence,
    flow_residual_motion,
    motion_from_evidence,
)
from dyn3r.motion.guided_filter import guided_filter_grey
from dyn3r.motion.masks import motion_from_masks
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.rigid_flow import (
    _equations,
    _products,
    _solve,
    fit_static_flow,
    fit_stride,
    nearest_static_flow,
)
from dyn3r.motion.rigid_residual import mean_inverse_depth, rigid_residual
from dyn3r.types import FlowFields, PairPredictions, no_progress

H, W, N = 64, 96, 4


class Filmed(NamedTuple):
    images: np.ndarray
    flow: FlowFields
    predictions: PairPredictions
    dynamic: np.ndarray


def film(
    *, mover: bool = True, travel: float = 0.15, turn: float = 0.02, noise: float = 0.0,
    focal_error: float = 1.0, depth_error: float = 0.0, frames: int = N,
) -> Filmed:  # fmt: skip
    """A hilly ground with a near block; a square moves (-4, -6) px a frame; exact flow + noise."""
    rng = np.random.default_rng(3)
    v, u = np.mgrid[:H, :W].astype(np.float32)
    hills = 4 + np.sin(u / 11) + np.cos(v / 7) + 0.02 * v
    hills[20:44, 60:80] = 2.0
    depth = torch.from_numpy(hills).expand(frames, H, W)
    K = intrinsics(torch.tensor(80.0), (H, W))
    T = torch.eye(4).repeat(frames, 1, 1)
    for t in range(frames):
        c, s = np.cos(turn * t), np.sin(turn * t)
        T[t, :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        T[t, :3, 3] = torch.tensor([travel * t, 0.3 * travel * t, 0.5 * travel * t])
    dynamic = np.zeros((frames, H, W), bool)
    for t in range(frames):
        dynamic[t, 42 - 6 * t : 58 - 6 * t, 26 - 4 * t : 46 - 4 * t] = mover
    edges = np.array([(i, j) for i in range(frames) for j in range(frames) if i != j])
    edges = edges.reshape(-1, 2).astype(int)
    fields, points1, points2 = [], [], []
    Kp = intrinsics(torch.tensor(80.0 * focal_error), (H, W))
    wrong = torch.from_numpy(np.exp(depth_error * rng.standard_normal((H, W))).astype(np.float32))
    for i, j in edges:
        field = induced_flow(depth[i], K, T[i], K, T[j]).numpy()
        field[dynamic[i]] = (-4.0 * (j - i), -6.0 * (j - i))
        fields.append(field + noise * rng.standard_normal(field.shape))
        points1.append(unproject(depth[i] * wrong, Kp).numpy())
        cloud = transform(invert(T[i]) @ T[j], unproject(depth[j] * wrong, Kp).reshape(-1, 3))
        points2.append(cloud.reshape(H, W, 3).numpy())
    stack = (len(edges), H, W)
    predictions = PairPredictions(
        edges, frames,
        np.array(points1, np.float32).reshape(*stack, 3), np.full(stack, 2.0, np.float32),
        np.array(points2, np.float32).reshape(*stack, 3), np.full(stack, 2.0, np.float32),
    )  # fmt: skip
    # all of it is to be believed: nothing is hidden from anything here
    flow = FlowFields(edges, np.array(fields, np.float32).reshape(*stack, 2))
    images = rng.integers(0, 255, (frames, H, W, 3), dtype=np.uint8)
    images[dynamic] = 255
    return Filmed(images, flow, predictions, dynamic)


def overlap(shot: Filmed, options: FlowCueOptions | None = None) -> float:
    motion = flow_residual_motion(shot.predictions, shot.images, shot.flow, options=options)
    assert motion.has_motion, motion.reason
    return float(region_similarity(motion.masks, shot.dynamic).mean())


PLAIN = FlowCueOptions(smoothing=0.0, photometric=False)


def distance_to_static(
    P: np.ndarray, field: np.ndarray, inverse_depth: np.ndarray, depth_tolerance: float = 1.0
) -> np.ndarray:
    fields, inverse = torch.from_numpy(field).float(), torch.from_numpy(inverse_depth).float()
    fields = fields.permute(2, 0, 1)[None]
    nearest = nearest_static_flow(torch.from_numpy(P)[None], fields, inverse[None], depth_tolerance)
    return (nearest - fields).norm(dim=1)[0].numpy()


def fit(field: np.ndarray, inverse_depth: np.ndarray) -> np.ndarray:
    """P of one flow field that is visible everywhere."""
    fields = torch.from_numpy(field).permute(2, 0, 1)[None]
    usable = torch.ones(1, *field.shape[:2], dtype=torch.bool)
    return fit_static_flow(fields, usable, torch.from_numpy(inverse_depth)[None], 0.5)[0].numpy()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_mover_is_found(noise: float) -> None:
    assert overlap(film(noise=noise), PLAIN) > 0.85


def test_the_published_recipe_finds_it_when_the_geometry_is_right() -> None:
    assert overlap(film(), FlowCueOptions.monst3r()) > 0.85


def test_wrong_geometry_breaks_the_published_recipe_and_not_the_robust_one() -> None:
    shot = film(focal_error=2.0, depth_error=0.15, turn=0.05)
    assert overlap(shot, PLAIN) > 0.8
    assert overlap(shot, PLAIN) > overlap(shot, FlowCueOptions.monst3r()) + 0.1


def test_a_camera_that_only_turns() -> None:
    shot = film(travel=0.0, turn=0.05)
    assert overlap(shot, PLAIN) > 0.85
    constant = np.ones((N, H, W))  # any depth will do without parallax
    motion = flow_residual_motion(
        None, shot.images, shot.flow, inverse_depth=constant, options=PLAIN
    )
    assert region_similarity(motion.masks, shot.dynamic).mean() > 0.85


def test_known_depth_takes_the_place_of_predictions() -> None:
    shot = film(depth_error=0.1)
    predicted = flow_residual_motion(shot.predictions, shot.images, shot.flow, options=PLAIN)
    depth = mean_inverse_depth(shot.predictions, N, (H, W)).numpy()
    known = flow_residual_motion(None, shot.images, shot.flow, inverse_depth=depth, options=PLAIN)
    np.testing.assert_array_equal(known.masks, predicted.masks)
    other = flow_residual_motion(
        shot.predictions, shot.images, shot.flow, inverse_depth=np.ones((N, H, W)), options=PLAIN
    )
    assert not np.array_equal(other.dynamic_map, predicted.dynamic_map)
    with pytest.raises(InputError, match="inverse depth has the shape"):
        flow_residual_motion(None, shot.images, shot.flow, inverse_depth=depth[:2])


def test_inverse_depth_of_the_predictions_is_that_of_numpy() -> None:
    predictions = film(depth_error=0.1).predictions
    assert predictions.points1 is not None
    assert predictions.conf1 is not None
    random = np.random.default_rng(0)
    points = predictions.points1.astype(np.float16)
    points[0, :3] = np.nan
    points[1, 3:6] = -1
    confidence = random.uniform(0.5, 9, predictions.conf1.shape).astype(np.float16)
    confidence[2, 5] = np.nan
    kept = predictions.edges[:, 0] != 1  # a frame without pairs
    rough = PairPredictions(
        predictions.edges[kept], N, points[kept], confidence[kept],
        predictions.points2, predictions.conf2,
    )  # fmt: skip
    found = mean_inverse_depth(rough, N, (H, W)).numpy()
    expected = inverse_oracle.mean_inverse_depth(rough, N, (H, W))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found[1] == 1).all()
    assert expected.std() > 0.1


def test_wrong_flow_that_does_not_come_back_is_forgiven() -> None:
    shot = film()
    wild = shot.flow.flow.copy()
    specks = np.random.default_rng(0).random((N, H, W)) < 0.02
    for row, (i, _) in enumerate(shot.flow.edges):
        wild[row][specks[i]] += 20
    spoilt = shot._replace(flow=FlowFields(shot.flow.edges, wild))
    assert overlap(spoilt, PLAIN) > 0.95


def test_flow_dragged_along_is_taken_back_by_the_colours() -> None:
    shot = film()
    images = np.full_like(shot.images, 90)
    coat = np.random.default_rng(1).integers(0, 255, (16 * 20, 3), dtype=np.uint8)
    for t in range(N):
        images[t][shot.dynamic[t]] = coat
    dragged = shot.flow.flow.copy()
    rim = np.zeros_like(shot.dynamic)
    for t in range(N):
        v, u = np.nonzero(shot.dynamic[t])
        rim[t, v.min() - 6 : v.max() + 7, u.min() - 6 : u.max() + 7] = True
    for row, (i, j) in enumerate(shot.flow.edges):
        dragged[row][rim[i]] = (-4.0 * (j - i), -6.0 * (j - i))
    flow = FlowFields(shot.flow.edges, dragged)
    spoilt = shot._replace(images=images, flow=flow)
    plain = replace(PLAIN, threshold=0.35, masks="evidence")
    with_colours = overlap(spoilt, replace(plain, photometric=True))
    assert with_colours > overlap(spoilt, plain) + 0.15
    assert with_colours > 0.5  # what the mover hides in the other frame can't be taken back
    plain = spoilt._replace(images=np.full_like(images, 90))
    motion = flow_residual_motion(
        plain.predictions, plain.images, plain.flow, options=FlowCueOptions(masks="evidence")
    )
    assert not motion.has_motion  # nothing that could be seen moves


def test_smoothing_removes_specks_and_stops_at_edges() -> None:
    image = np.zeros((H, W, 3), np.uint8)
    image[:, W // 2 :] = 255
    guide = torch.from_numpy(image)
    step = (guide[..., 0] > 0).float()
    smooth = guided_filter_grey(step, guide, 4)
    assert (smooth - step).abs().max() < 0.1
    specks = step.clone()
    specks[5::12, 5::12] = 1 - specks[5::12, 5::12]
    assert torch.equal(guided_filter_grey(specks, guide, 4) > 0.35, step > 0)
    even = guided_filter_grey(torch.full_like(step, 0.3), guide, 4)
    np.testing.assert_allclose(even, 0.3, atol=1e-5)


@pytest.mark.parametrize("method", ["robust", "published"])
def test_a_still_clip_is_classified_as_still(method: str) -> None:
    shot = film(mover=False, noise=0.1)
    options = FlowCueOptions(method=method)  # type: ignore[arg-type]
    motion = flow_residual_motion(shot.predictions, shot.images, shot.flow, options=options)
    assert not motion.has_motion
    assert not motion.masks.any()
    assert "static scene" in motion.reason
    if method == "published":  # the recipe itself finds motion in every clip
        torn = FlowCueOptions.monst3r()
        assert flow_residual_motion(
            shot.predictions, shot.images, shot.flow, options=torn
        ).masks.any()


def test_the_maps_are_patch_means() -> None:
    shot = film()
    evidence = flow_evidence(shot.predictions, shot.images, shot.flow)
    motion = flow_residual_motion(shot.predictions, shot.images, shot.flow)
    assert motion.dynamic_map.shape == (N, H // 16, W // 16)
    assert motion.dynamic_map[1, 2, 3] == pytest.approx(evidence.refined[1, 32:48, 48:64].mean())
    assert evidence.raw.min() >= 0
    assert evidence.raw.max() <= 1


def test_one_frame_and_blind_pairs() -> None:
    alone = film(frames=1)
    motion = flow_residual_motion(alone.predictions, alone.images, alone.flow)
    assert not motion.has_motion
    assert "cannot be estimated" in motion.reason
    shot = film()
    dark = FlowFields(shot.flow.edges, shot.flow.flow, np.zeros(shot.flow.flow.shape[:3], bool))
    motion = flow_residual_motion(shot.predictions, shot.images, dark)
    assert "cannot be estimated" in motion.reason
    two = film(frames=2)
    assert overlap(two, PLAIN) > 0.8


def test_what_does_not_fit() -> None:
    shot = film()
    with pytest.raises(InputError, match="not measured between"):
        flow_residual_motion(shot.predictions, shot.images[:2], shot.flow)
    with pytest.raises(InputError, match="multiples of 16"):
        flow_residual_motion(shot.predictions, shot.images[:, :60], shot.flow)
    with pytest.raises(InputError, match="needs pointmaps"):
        flow_residual_motion(None, shot.images, shot.flow)
    for wrong in ({"threshold": -0.1}, {"smoothing": float("nan")}, {"depth_tolerance": 0.5}):
        with pytest.raises(InputError, match="finite number"):
            FlowCueOptions(**wrong)


def test_the_fit_is_free_of_scale_shift_and_tilt_of_inverse_depth() -> None:
    shot = film(mover=False)
    assert shot.predictions.points1 is not None
    inverse = 1 / shot.predictions.points1[0, ..., 2].astype(np.float64)
    v, u = np.mgrid[:H, :W]
    for changed in (inverse * 3, 2 * inverse + 0.4, inverse + 0.001 * u - 0.002 * v):
        changed = changed / np.median(changed)
        P = fit(shot.flow.flow[0], changed)
        assert distance_to_static(P, shot.flow.flow[0], changed).max() < 0.2


def test_slack_forgives_wrong_depth_and_not_other_motion() -> None:
    shot = film(mover=False)
    assert shot.predictions.points1 is not None
    inverse = 1 / shot.predictions.points1[2, ..., 2].astype(np.float64)
    inverse /= np.median(inverse)
    field = shot.flow.flow[2]
    P = fit(field, inverse)
    off = inverse * 1.3
    strict = distance_to_static(P, field, off)
    assert strict.max() > 1
    assert distance_to_static(P, field, off, depth_tolerance=1.5).max() < 0.1
    # across the epipolar lines nothing is forgiven: two opposite steps, one of them is such
    step = np.array([3.0, -6.0])
    both = [distance_to_static(P, field + s * step, off, depth_tolerance=1.5) for s in (1, -1)]
    assert np.maximum(*both).min() > 1


def test_normal_equations_against_plain_least_squares() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((1, 60, 4))
    points[..., 2] = 1
    target, weight = rng.standard_normal((1, 60, 2)), rng.random((1, 60))
    coordinates_first = (torch.from_numpy(x).transpose(1, 2) for x in (points, target))
    equations = _equations(torch.device("cpu"))
    P = _solve(_products(*coordinates_first), equations, torch.from_numpy(weight))[0].numpy()
    rows, right = [], []
    for x, y, w in zip(points[0], target[0], weight[0]):
        zero = np.zeros(4)
        third = x[[0, 1, 3]]
        rows += [
            np.sqrt(w) * np.concatenate([x, zero, -y[0] * third]),
            np.sqrt(w) * np.concatenate([zero, x, -y[1] * third]),
        ]
        right += [np.sqrt(w) * y[0], np.sqrt(w) * y[1]]
    for parallax in (3, 7, 10):  # the prior, as one more equation each
        rows.append(np.sqrt(1e-3 * weight.sum()) * np.eye(11)[parallax])
        right.append(0.0)
    slow = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    assert np.allclose(P[:2].ravel(), slow[:8], atol=1e-6)
    assert np.allclose(P[2, [0, 1, 3]], slow[8:], atol=1e-6)


@pytest.mark.parametrize("tolerance", [1.0, 2.0])
def test_evidence_is_that_of_numpy_and_opencv(tolerance: float) -> None:
    shot = film(noise=0.3)
    rng = np.random.default_rng(1)
    kept = np.arange(len(shot.flow.edges)) != 4  # the way back of one pair is not known
    visible = rng.random((kept.sum(), H, W)) < 0.9
    visible[2] = False  # and one pair sees nothing
    flow = FlowFields(shot.flow.edges[kept], shot.flow.flow[kept].astype(np.float16), visible)
    images = np.stack([cv2.GaussianBlur(x, (0, 0), 2.0) for x in shot.images])
    inverse = mean_inverse_depth(shot.predictions, N, (H, W)).numpy()
    options = FlowCueOptions(depth_tolerance=tolerance)
    parts = rigid_residual(inverse, images, flow, options, no_progress).finish().parts.numpy()
    expected = oracle.parts(inverse, images, flow, tolerance)
    # OpenCV rounds positions to 1/32 pixel and colours to integers
    np.testing.assert_allclose(parts, expected, atol=0.03)
    assert np.abs(parts - expected).mean() < 1e-3
    assert expected[:, 0].max() > 0.3


def test_motion_does_not_hold_the_input_of_the_mask_network() -> None:
    shot = film(noise=0.3)
    evidence = flow_evidence(shot.predictions, shot.images, shot.flow)
    assert evidence.parts is not None
    assert evidence.parts.shape == (N, 7, H, W)
    np.testing.assert_array_equal(evidence.parts[:, 0], evidence.raw)
    assert evidence.raw.base is None or evidence.raw.base.nbytes == evidence.raw.nbytes
    kept = motion_from_evidence(evidence, shot.flow).evidence
    assert isinstance(kept, FlowEvidence)
    assert kept.parts is None
    assert kept.raw is evidence.raw


def test_combining_two_cues(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.zeros((2, 2, 32, 32), bool)
    left[:, :20, :10], right[:, 10:, :10] = True, True
    a, b = motion_from_masks(left), motion_from_masks(right)
    assert np.array_equal(combine_motion(a, b).masks, left | right)
    still = motion_from_masks(np.zeros_like(left))
    alone = combine_motion(still, b)  # a cue that finds nothing leaves the decision to the other
    assert np.array_equal(alone.masks, right)
    assert isinstance(alone.evidence, CombinedEvidence)
    assert alone.evidence.flow is b
    assert not combine_motion(still, still).has_motion
    monkeypatch.setattr("dyn3r.motion.stillness.MAX_SHARE", 0.2)
    smaller = combine_motion(a, b)
    assert np.array_equal(smaller.masks, left)
    assert "smaller" in smaller.reason
    with pytest.raises(InputError, match="different clips"):
        combine_motion(a, motion_from_masks(left[:1]))


@pytest.mark.parametrize(("samples", "fits"), [(49, False), (50, True)])
def test_a_fit_needs_samples_not_pixels(samples: int, fits: bool) -> None:
    """In a large frame every eleventh row and column is a sample."""
    h, w = 384, 512
    stride = fit_stride((h, w))
    v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride].reshape(2, -1)
    chosen = np.random.default_rng(0).permutation(len(u))[:samples]
    usable = torch.zeros(1, h, w, dtype=torch.bool)
    usable[0, v[chosen], u[chosen]] = True
    inverse = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 1.5, (1, h, w)))
    P = fit_static_flow(torch.ones(1, 2, h, w), usable, inverse, 0.5)
    assert bool(P.isfinite().all()) == fits
