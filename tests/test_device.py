"""Stages that compute on the device of the network: nothing is mixed, and little comes back.

On a device that this machine does not have (`tests.fake_device`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dyn3r import clip_from_images
from dyn3r.alignment.align import align
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.bundle_adjustment import (
    BundleAdjustmentOptions,
    bundle_adjust,
    calibrated_bundle_adjust,
)
from dyn3r.bundle_adjustment.adjust import adjustment_inputs
from dyn3r.bundle_adjustment.from_start import adjust_from_start
from dyn3r.flow.fields import neighbouring_rows
from dyn3r.motion.cue import with_background_model
from dyn3r.motion.flow_residual import FlowEvidence, flow_evidence
from dyn3r.motion.mask_network import (
    load_background_mask_network,
    load_mask_network,
    mask_probability,
)
from dyn3r.motion.photometric_test import better_static
from dyn3r.motion.smoothing import EdgeRefiner
from dyn3r.motion.static_components import static_test
from dyn3r.mvs import load_depth_network, multi_view_depth
from dyn3r.network.model import prepare_model
from dyn3r.network.pair_graph import make_pairs
from dyn3r.options import Options
from dyn3r.pipeline import reconstruct
from dyn3r.scene.finalise import finalise
from dyn3r.scene.flow_agreement import flow_agreement
from dyn3r.types import FlowFields, PairPredictions, RunContext
from tests.alignment.synthetic_pairs import SIZE, cameras, make, pairs_within
from tests.bundle_adjustment.made_up import disturbed, made_up
from tests.factories import moving_square, tiny_network, tiny_scene
from tests.fake_device import OnDevice, fake_device
from tests.motion.test_flow_residual import film
from tests.mvs.walls import sideways, walls

PIXELS = SIZE[0] * SIZE[1]


def test_the_fake_device_finds_what_an_accelerator_would_refuse() -> None:
    with fake_device() as transfers:
        there = torch.from_numpy(np.arange(6.0)).to("meta")
        assert isinstance(there + torch.ones(6, dtype=torch.float64, device="meta"), OnDevice)
        with pytest.raises(AssertionError, match="mixes"):
            there + torch.ones(6)
        for read in (np.asarray, lambda x: x.numpy()):
            with pytest.raises(AssertionError, match="NumPy"):
                read(there)
        there[2:] = 7
        np.testing.assert_array_equal(there.cpu().numpy(), [0, 1, 7, 7, 7, 7])
        assert float(there.sum()) == 29
    assert (transfers.to_device, transfers.to_host, transfers.scalars) == ([6], [6], 1)


def predictions_of(frames: int) -> PairPredictions:
    """Of a camera that sways; one frame is paired with itself."""
    edges = pairs_within(frames) if frames > 1 else np.array([[0, 0]])
    return make(cameras(frames), edges, 0.03)[0]


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (5, {}), (2, {}), (1, {}), (6, {"window": 4}),
        (4, {"shared_focal": False, "smoothness_weight": 0.01, "depth_prior_weight": 0.1}),
    ],
)  # fmt: skip
def test_alignment_stays_on_the_device(frames: int, options: dict[str, Any]) -> None:
    """Of clips whose levels end after as many iterations here and there, in spite of rounding."""
    predictions = predictions_of(frames)
    dynamic = np.zeros((frames, *SIZE), bool)
    dynamic[:, :5, :5] = True
    here = align(predictions, dynamic=dynamic, options=AlignmentOptions(**options))
    with fake_device() as transfers:
        on_device = AlignmentOptions(device="meta", **options)
        there = align(predictions, dynamic=dynamic, options=on_device)
    for name in ("depth", "T_world_camera", "K", "sigma_log_depth", "confidence"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-4, atol=1e-5)
    maps = 3 * frames * PIXELS  # depth, its uncertainty and confidence: the result
    assert max(transfers.to_host) <= maps
    assert sum(transfers.to_host) <= maps + 2.5 * frames * PIXELS
    read = 8 * len(predictions.edges) * PIXELS  # all pointmaps and their confidence
    assert sum(transfers.to_device) <= 3 * read


def test_alignment_with_flow_mixes_nothing() -> None:
    predictions = predictions_of(3)
    random = np.random.default_rng(0).normal(0, 0.3, (len(predictions.edges), *SIZE, 2))
    flow = FlowFields(predictions.edges, random.astype(np.float32), np.ones(random.shape[:3], bool))
    with fake_device() as transfers:
        found = align(predictions, flow=flow, options=AlignmentOptions(device="meta", iterations=3))
    assert np.isfinite(found.T_world_camera).all()
    assert sum(transfers.to_host) <= 5.5 * 3 * PIXELS


def test_mask_networks_stay_on_the_device() -> None:
    scene = tiny_scene()
    n, h, w = scene.depth.shape
    parts = np.random.default_rng(0).random((n, 7, h, w)).astype(np.float32)
    here = mask_probability(load_mask_network(), scene.images, parts)
    with fake_device() as transfers:
        there = mask_probability(load_mask_network(), scene.images, parts, device="meta")
    np.testing.assert_allclose(there, here, atol=1e-6)  # another number of threads
    assert sum(transfers.to_host) == n * h * w
    assert transfers.scalars == 0


@pytest.mark.parametrize("half", [True, False])
def test_evidence_stays_on_the_device(half: bool) -> None:
    """Every flow field goes there once and as it is; evidence comes back once."""
    shot = film(noise=0.3)
    n, h, w = shot.images.shape[:3]
    dtype = np.float16 if half else np.float32
    visible = np.random.default_rng(0).random((len(shot.flow.edges), h, w)) < 0.9
    flow = FlowFields(shot.flow.edges, shot.flow.flow.astype(dtype), visible)
    evidence = partial(flow_evidence, shot.predictions, shot.images, flow)
    here = evidence()
    with fake_device() as transfers:
        there = evidence(device="meta")
    assert there.parts is not None
    np.testing.assert_allclose(there.parts, here.parts, atol=1e-4)
    np.testing.assert_allclose(there.refined, here.refined, atol=1e-3)
    np.testing.assert_allclose(there.typical_px, here.typical_px, rtol=1e-4)
    # how many pixels are seen; evidence, probability and the parts; typical distances
    assert sorted(transfers.to_host) == [n, n, n * h * w, n * h * w, 7 * n * h * w]
    assert transfers.scalars == 0
    pixels = len(flow.edges) * h * w
    # flow and where it is seen; depth and confidence; images, twice: also for the mask network
    network = 4 * sum(x.numel() for x in load_mask_network().parameters())
    maps = shot.predictions.points1, shot.predictions.conf1
    depth = sum(pixels * x.itemsize for x in maps if x is not None)
    read = 2 * pixels * (2 if half else 4) + pixels + depth + 6 * n * h * w
    assert read + network <= transfers.bytes_to_device < read + network + 4 * h * w


def test_the_second_motion_pass_stays_on_the_device() -> None:
    """The background model and its network: only the probability comes back."""
    images, found = walls(sideways(6))
    n, h, w = found.depth.shape
    random = np.random.default_rng(0)
    refined = np.zeros((n, h, w), np.float32)
    refined[:, 5:30, 40:60] = 1
    parts = random.random((n, 7, h, w)).astype(np.float32)
    parts[:, :4] *= refined[:, None]
    evidence = FlowEvidence(refined, refined, np.ones(n), parts)
    clip = clip_from_images(images, size=w)
    look = partial(with_background_model, evidence, clip, found, None)
    here = look(RunContext()).refined
    with fake_device() as transfers:
        there = look(RunContext(device="meta")).refined
    assert here.std() > 0.01
    np.testing.assert_allclose(there, here, atol=1e-5)
    assert transfers.to_host == [n * h * w]
    assert transfers.scalars == 0
    weights = sum(x.numel() for x in load_background_mask_network().parameters())
    numbers = n - 1 + n  # of frames, where medians are ordered; more than that is not needed
    maps = 1 + 1 + 7 + 1 + 3 * 3  # depth, masks, evidence, probability; images three times
    read = weights + 12 * n * (n - 1) + maps * n * h * w
    assert read <= sum(transfers.to_device) <= read + n * numbers


def test_refined_masks_stay_on_the_device() -> None:
    """Votes along the flow and the guided filter: every field goes there once."""
    random = np.random.default_rng(0)
    n, h, w = 4, 32, 48
    images = random.integers(0, 256, (n, h, w, 3), dtype=np.uint8)
    masks = np.zeros((n, h, w), bool)
    masks[:, 8:20, 10:30] = True
    edges = np.array([[t + a, t + 1 - a] for t in range(n - 1) for a in (0, 1)])
    field = random.normal(0, 1, (len(edges), h, w, 2)).astype(np.float16)
    flow = FlowFields(edges, field, random.random((len(edges), h, w)) < 0.9)
    refiner = EdgeRefiner(measured=flow)
    here = refiner.refine(images, masks)
    with fake_device() as transfers:
        there = replace(refiner, device="meta").refine(images, masks)
    np.testing.assert_array_equal(there, here)
    assert (here != masks).any()
    assert transfers.to_host == [n * h * w]
    assert transfers.scalars == 0
    # images, masks, flow both ways and where it is seen
    assert sum(transfers.to_device) == (3 + 1 + 2 * (2 + 1)) * n * h * w


def test_the_test_for_static_points_stays_on_the_device() -> None:
    """Every second pixel goes there; numbers of measurements, and shares of pairs, come back."""
    _, found = walls(sideways(4))
    n, h, w = found.depth.shape
    edges = np.array([[i, j] for i in range(n) for j in range(n) if i != j])
    random = np.random.default_rng(0)
    flow = FlowFields(edges, random.normal(0, 3, (len(edges), h, w, 2)).astype(np.float16))
    masks = np.zeros((n, h, w), bool)
    masks[:3, 5:30, 40:60] = True
    images = random.integers(0, 256, (n, h, w, 3), np.uint8)
    here = static_test(masks, images, found, flow)
    agreement = flow_agreement(found, masks, flow)
    with fake_device() as transfers:
        there = static_test(masks, images, found, flow, "meta")
    with fake_device() as others:
        shares = flow_agreement(found, masks, flow, "meta")
    np.testing.assert_allclose(shares.static, agreement.static)
    pairs = len(agreement.edges)
    assert (others.to_host, others.scalars) == ([2 * pairs], 0)
    samples = h * w // 4
    assert sum(others.to_device) == pairs * (2 * samples + 12) + 2 * n * samples
    for one, other in zip(there, here):
        np.testing.assert_array_equal(one, other)
    assert here.static.sum() > 0
    assert transfers.to_host == [2 * n * samples]
    assert transfers.scalars == 0
    pairs = int((edges[neighbouring_rows(edges), 0] < 3).sum())
    # masks; flow, and cameras; depth and images of the frames with masks
    read = n * samples + pairs * (2 * samples + 12) + 3 * (samples + 3 * h * w)
    assert sum(transfers.to_device) == read


def test_the_photometric_test_stays_on_the_device() -> None:
    """Images and flow of masked pixels go there; one number of each such pixel comes back."""
    images, found = walls(sideways(4))
    n, h, w = found.depth.shape
    edges = np.array([[i, j] for i in range(n) for j in range(n) if 0 < abs(i - j) < 3])
    random = np.random.default_rng(0)
    flow = FlowFields(edges, random.normal(0, 3, (len(edges), h, w, 2)).astype(np.float16))
    masks = np.zeros((n, h, w), bool)
    masks[:3, 6:30, 40:60] = True
    here = better_static(masks, images, found, flow, 1.2, 2)
    with fake_device() as transfers:
        there = better_static(masks, images, found, flow, 1.2, 2, "meta")
    np.testing.assert_array_equal(there, here)
    assert here.any()
    tested = 12 * 10
    assert transfers.to_host == 3 * [tested]
    assert transfers.scalars == 0
    pairs = int((edges[:, 0] < 3).sum())
    compared = tested + -(-(h * w // 4 - tested) // 8)  # some of the background as well
    # images; cameras and flow of every pair; places twice, once as indices, and depth of pixels
    read = 3 * n * h * w + pairs * (12 + 2 * compared) + 3 * (2 * compared + tested)
    assert read <= sum(transfers.to_device) <= read + 3 * compared + 100


def adjusted_on_both(frames: int, adjust: Any) -> tuple[Any, Any, Any]:
    """A geometry adjusted on the CPU and on the device, and the transfers."""
    truth = made_up(frames, (32, 48), noise=0.1)
    start = replace(disturbed(truth), camera_sigma=(0.1, 0.2))
    dynamic = np.zeros(truth.depth.shape, bool)
    dynamic[:, :8, :8] = True
    options = BundleAdjustmentOptions(iterations=3)
    work = partial(adjust, start, truth.images, truth.flow, dynamic=dynamic, options=options)
    here = work()
    with fake_device() as transfers:
        there = work(device="meta")
    assert here.parallax is not None
    return here, there, transfers


@pytest.mark.parametrize("adjust", [bundle_adjust, calibrated_bundle_adjust])
def test_bundle_adjustment_stays_on_the_device(adjust: Any, monkeypatch) -> None:
    """Samples of flow, images and priors go there; cameras, numbers and depth come back."""
    monkeypatch.setattr("dyn3r.bundle_adjustment.solver.ROTATION_ONLY_ITERATIONS", 2)
    monkeypatch.setattr("dyn3r.bundle_adjustment.camera_solution.CONSTANT_DEPTH_ITERATIONS", 2)
    monkeypatch.setattr("dyn3r.bundle_adjustment.calibrated.CONSTANT_DEPTH_ITERATIONS", 2)
    counts = []
    for frames in (3, 5) if adjust is bundle_adjust else (3,):
        here, there, transfers = adjusted_on_both(frames, adjust)
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
        for name in ("depth", "T_world_camera", "K"):
            close(getattr(there, name), getattr(here, name), err_msg=name)
        assert there.parallax == pytest.approx(here.parallax, abs=1e-4)
        assert [x for x in transfers.to_host if x > 100] == [here.depth.size]
        counts.append((len(transfers.to_device), len(transfers.to_host)))
    limit = 50 if adjust is bundle_adjust else 80  # pairs are read again where some are left out
    assert max(there for there, _ in counts) < limit
    assert max(back for _, back in counts) < limit / 4
    assert abs(counts[0][0] - counts[-1][0]) < 5  # groups of frames with other numbers of pairs


def test_the_adjustment_of_key_frames_stays_on_the_device() -> None:
    truth = made_up(4, (32, 48), noise=0.1)
    edges = truth.flow.edges
    work = partial(
        adjust_from_start, disturbed(truth), truth.images, truth.flow,
        dynamic=np.zeros(truth.depth.shape, bool), focal_sigma=0.05,
        left_out=(np.sort(edges, 1) == (1, 2)).all(1),
    )  # fmt: skip
    here = work()
    with fake_device() as transfers:
        there = work(device="meta")
    assert here is not None
    assert there is not None
    assert here.is_better
    for name in ("T_world_camera", "log_scale", "scale_sigma", "log_focal", "left_out_cost"):
        one, other = getattr(there, name), getattr(here, name)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=name)
    assert max(transfers.to_host) <= 16 * 4  # cameras; the depths of samples stay


def test_bundle_adjustment_of_a_device_without_float64_is_on_the_cpu() -> None:
    truth = made_up(3, (24, 32))
    inputs = adjustment_inputs(
        disturbed(truth), truth.images, truth.flow, None, None, None, "mps:0"
    )
    assert inputs.device == "cpu"


def test_multi_view_depth_stays_on_the_device() -> None:
    """One transfer back for the choice of source frames, and one with the result."""
    images, found = walls(sideways())
    n, h, w = found.depth.shape
    dynamic = np.zeros((n, h, w), bool)
    dynamic[:, 5:30, 40:60] = True
    here = multi_view_depth(found, images, dynamic=dynamic).depth
    with fake_device() as transfers:
        there = multi_view_depth(found, images, dynamic=dynamic, device="meta").depth
    np.testing.assert_allclose(there, here, rtol=1e-5)
    choice = 2 * n + 2 * n * (n - 1)  # ranges of depth; overlap and parallax of pairs
    assert transfers.to_host == [choice, n * h * w]
    assert transfers.scalars == 0
    weights = sum(x.numel() for x in load_depth_network().parameters())
    cameras = 12 * n * (n - 1)
    constants = 15 * n  # depths around the depth before, of the network
    # images, depth, depth at the ground contact, masks
    assert sum(transfers.to_device) == weights + cameras + constants + 6 * n * h * w


def test_the_last_stage_stays_on_the_device() -> None:
    """Uncertainty, fusion and rejected pixels: the result comes back once."""
    images, found = walls(sideways())
    n, h, w = found.depth.shape
    random = np.random.default_rng(0)
    before = replace(found, depth=found.depth * np.exp(random.normal(0, 0.02, (n, h, w))))
    rough = replace(found, depth=found.depth * np.exp(random.normal(0, 0.02, (n, 1, 1))))
    dynamic = np.zeros((n, h, w), bool)
    dynamic[:, 5:30, 40:60] = True
    last = partial(finalise, rough, clip_from_images(images, size=w), dynamic, before)
    here = last()
    with fake_device() as transfers:
        there = last(device="meta")
    for name in ("depth", "sigma_log_depth", "valid", "confidence"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-5)
    pairs = n * (n - 1)
    # median differences of pairs; depth, its uncertainty and valid pixels
    assert transfers.to_host == [2 * pairs, *[n * h * w] * 3]
    assert transfers.scalars == 0
    cameras, maps = 3 * 12 * n * n + n, 4 * n * h * w  # depth of two stages, masks, confidence
    assert cameras + maps <= sum(transfers.to_device) < cameras + maps + h * w


def test_every_stage_is_told_the_device_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import dyn3r.bundle_adjustment.stated_focal
    import dyn3r.motion.cue
    import dyn3r.motion.flow_residual
    import dyn3r.pipeline

    told: dict[str, str] = {}

    def record(module: Any, name: str, device_of: Any) -> None:
        original = getattr(module, name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            told[name] = device_of(args, kwargs)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, recorded)

    record(dyn3r.pipeline, "align", lambda _, kwargs: kwargs["options"].device)
    record(dyn3r.pipeline, "flow_estimator", lambda args, _: args[1])
    record(dyn3r.pipeline, "bundle_adjust", lambda _, kwargs: kwargs["device"])
    record(dyn3r.pipeline, "adjust_with_stated_focal", lambda _, kwargs: kwargs["device"])
    record(
        dyn3r.bundle_adjustment.stated_focal,
        "calibrated_bundle_adjust",
        lambda _, kwargs: kwargs["device"],
    )
    record(dyn3r.pipeline, "multi_view_depth", lambda _, kwargs: kwargs["device"])
    record(dyn3r.pipeline, "finalise", lambda _, kwargs: kwargs["device"])
    record(dyn3r.motion.flow_residual, "rigid_residual", lambda args, _: args[-1])
    record(dyn3r.pipeline, "without_static_components", lambda args, _: args[-1])
    record(dyn3r.pipeline, "judge", lambda args, _: args[-1])
    record(dyn3r.pipeline, "mask_refiner", lambda args, _: args[1])
    record(dyn3r.motion.cue, "background_evidence", lambda args, _: args[-1])
    record(dyn3r.motion.flow_residual, "mask_probability", lambda _, kwargs: kwargs["device"])
    model = prepare_model(tiny_network(), "tiny", device="cpu")
    model = replace(model, device=torch.device("cpu:0"))  # another name of the CPU
    options = Options(method="refined", pairs="swin-1-noncyclic")
    assert len(make_pairs(options.pairs, 3)) == 4
    reconstruct(moving_square(3), model, options, context=RunContext())
    assert told == dict.fromkeys(told, "cpu:0")
    assert set(told) == {
        "adjust_with_stated_focal", "align", "background_evidence", "bundle_adjust",
        "calibrated_bundle_adjust", "finalise", "flow_estimator", "judge", "mask_probability",
        "mask_refiner", "multi_view_depth", "rigid_residual", "without_static_components",
    }  # fmt: skip
