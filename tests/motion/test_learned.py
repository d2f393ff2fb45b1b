"""What the motion head says: gathered over pairs, fused with flow, and through a whole run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.factories import tiny_network

import dyn3r
from dyn3r.cli.run import Run
from dyn3r.errors import InputError
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.motion import (
    LearnedMotionOptions,
    flow_evidence,
    flow_residual_motion,
    fuse_motion,
    learned_motion,
)
from dyn3r.motion.flow_residual import FlowEvidence
from dyn3r.motion.learned import SUREST, fused_score, learned_probability, log_odds
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.pair_graph import make_pairs
from dyn3r.network.predict import InferenceOptions, encode_frames, predict_pairs
from dyn3r.scene.explanation import Explanation
from dyn3r.streaming import FeedForwardOptions, feedforward
from dyn3r.types import Clip, PairPredictions

H, W = 48, 64


def said(edges: list[list[int]], frames: int, first, second) -> PairPredictions:
    """Predictions of nothing but motion; `first`, `second`: one value or map for each pair."""
    maps = [
        np.stack([np.broadcast_to(np.float16(v), (H, W)) for v in values])
        for values in (first, second)
    ]
    return PairPredictions(np.array(edges), frames, motion1=maps[0], motion2=maps[1])


def evidence_of(maps: np.ndarray, typical: list[float] | None = None) -> FlowEvidence:
    typical_px = np.array(typical or [9.0] * len(maps), np.float32)
    return FlowEvidence(maps, maps.astype(np.float32), typical_px)


def test_the_pairs_that_show_a_frame_vote_on_it() -> None:
    edges = [[0, 1], [1, 0], [0, 2], [2, 2]]
    predictions = said(edges, 4, (0.9, 0.2, 0.3, 1.0), (0.4, 0.6, 0.8, 1.0))
    probability = learned_probability(predictions)
    assert probability.shape == (4, H, W)
    assert probability.dtype == np.float32
    # frame 0 is view 1 of two pairs and view 2 of one; frame 2's pair with itself says nothing
    expected = [(0.9 + 0.3 + 0.6) / 3, (0.2 + 0.4) / 2, 0.8, np.nan]
    np.testing.assert_allclose(probability[:, 5, 7], expected, atol=1e-3)


def test_above_a_half_moves() -> None:
    square = np.full((H, W), 0.1)
    square[:16, :16] = 0.95
    motion = learned_motion(said([[0, 1], [1, 0]], 2, (square, 0.1), (0.2, square)))
    assert motion.has_motion
    assert motion.threshold == 0.5
    np.testing.assert_array_equal(motion.masks[0], square > 0.5)
    assert not motion.masks[1].any()
    expected = np.full((3, 4), 0.1)
    expected[0, 0] = 0.95
    np.testing.assert_allclose(motion.refined_map[0], expected, atol=1e-3)
    np.testing.assert_array_equal(motion.clusters, np.zeros((2, 3, 4)))
    assert "the motion head: 4.2% of the clip's pixels" in motion.reason
    surer = LearnedMotionOptions(threshold=0.97)
    still = learned_motion(said([[0, 1]], 2, (square,), (square,)), options=surer)
    assert not still.masks.any()
    assert not still.has_motion
    assert math.isinf(still.threshold)
    assert "0.97" in still.reason


def test_most_of_the_picture_is_the_background() -> None:
    predictions = said([[0, 1]], 2, (0.9,), (0.9,))
    motion = learned_motion(predictions)
    assert not motion.masks.any()
    assert "background" in motion.reason
    assert learned_motion(predictions, options=LearnedMotionOptions(max_share=1.0)).masks.all()


def test_what_says_nothing() -> None:
    alone = learned_motion(said([[0, 0]], 1, (0.9,), (0.9,)))
    assert not alone.masks.any()
    assert "pair of different frames" in alone.reason
    without = PairPredictions(np.array([[0, 1]]), 2)
    with pytest.raises(InputError, match="no motion head"):
        learned_motion(without)
    for wrong in ({"threshold": -1.0}, {"flow_weight": math.nan}, {"max_share": -0.1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            LearnedMotionOptions(**wrong)
    assert LearnedMotionOptions(bias=-2.0).bias == -2.0


def test_the_sum_of_log_odds_decides() -> None:
    """Neutral weights: odds are multiplied. 0.3/0.7 * 0.8/0.2 = 1.7 moves, 0.1/0.9 * 4 does not."""
    evidence = np.full((2, H, W), 0.1)
    evidence[:, :, :16] = 0.3
    predictions = said([[0, 1]], 2, (0.8,), (0.8,))
    motion = fuse_motion(evidence_of(evidence), learned_probability(predictions))
    np.testing.assert_array_equal(motion.masks, evidence == 0.3)
    odds = 0.3 / 0.7 * 0.8 / 0.2
    np.testing.assert_allclose(motion.refined_map[0, :, 0], odds / (1 + odds), rtol=2e-3)
    assert "together" in motion.reason
    more = fuse_motion(
        evidence_of(evidence), learned_probability(predictions),
        options=LearnedMotionOptions(bias=1.0, max_share=1.0),
    )  # fmt: skip
    assert more.masks.all()


def test_a_cue_without_weight_has_no_say() -> None:
    random = np.random.default_rng(0)
    one, two = random.random((2, 3, H, W)).astype(np.float32)
    for options, alone in (
        (LearnedMotionOptions(learned_weight=0.0), one),
        (LearnedMotionOptions(flow_weight=0.0), two),
    ):
        np.testing.assert_array_equal(fused_score(one, two, options) > 0, log_odds(alone) > 0)
    np.testing.assert_array_equal(log_odds(one) > 0, one > 0.5)
    # no cue is ever so sure that the other has nothing to say
    assert log_odds(np.array([0.0, 1.0])).tolist() == pytest.approx(
        [math.log(SUREST / (1 - SUREST)), -math.log(SUREST / (1 - SUREST))], rel=1e-5
    )
    with pytest.raises(InputError, match="different clips"):
        fused_score(one, two[:2], LearnedMotionOptions())


def test_where_no_flow_could_be_compared_the_head_decides() -> None:
    square = np.full((H, W), 0.2)
    square[:16, :16] = 0.7
    predictions = said([[0, 1], [1, 2]], 4, (square, square), (square, square))
    nothing = np.zeros((4, H, W))
    motion = fuse_motion(
        evidence_of(nothing, [1.0, np.nan, 1.0, np.nan]), learned_probability(predictions)
    )
    np.testing.assert_array_equal(motion.masks[1], square > 0.5)
    assert not motion.masks[[0, 2, 3]].any()


# -- with a network -----------------------------------------------------------------------------


def with_head(seed: int = 0) -> Model:
    """Untrained; its motion head says something else of every pixel."""
    network = PointmapNetwork(replace(tiny_network().config, motion_head=True))
    initialise(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for head in (network.downstream_head1, network.downstream_head2):
        torch.nn.init.normal_(head.dpt.motion[2].weight, std=5.0, generator=generator)
    model = prepare_model(network, "with head", device="cpu", precision="float32")
    tokens = encode_frames(model, clip_of(2))
    out = network.decode(tokens[:1], tokens[1:])
    for head, logits in zip(
        (network.downstream_head1, network.downstream_head2), (out.motion1, out.motion2)
    ):
        head.dpt.motion[2].bias.data -= logits.median()
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return with_head()


@pytest.fixture(scope="module")
def plain() -> Model:
    return prepare_model(tiny_network(), "plain", device="cpu")


def clip_of(frames: int) -> Clip:
    random = np.random.default_rng(0)
    wall = random.integers(0, 256, (H, W + 4 * frames, 3), dtype=np.uint8)
    images = np.stack([wall[:, 2 * t : 2 * t + W] for t in range(frames)])
    for t in range(frames):
        images[t, 6:22, 4 * t : 4 * t + 16] = (200, 30, 30)
    return dyn3r.clip_from_images(images, size=W, fps=10.0)


@pytest.mark.parametrize("storage", ["half", "full"])
def test_predictions_hold_probabilities(model: Model, storage) -> None:
    clip, edges = clip_of(3), np.array([[0, 1], [1, 2], [2, 0]])
    options = InferenceOptions(batch_pairs=2, storage=storage)
    out = predict_pairs(model, clip, edges, options=options)
    tokens = encode_frames(model, clip)
    decoded = model.network.decode(tokens[edges[:, 0]], tokens[edges[:, 1]])
    for ours, logits in ((out.motion1, decoded.motion1), (out.motion2, decoded.motion2)):
        assert ours.shape == (3, H, W)
        assert ours.dtype == (np.float16 if storage == "half" else np.float32)
        np.testing.assert_allclose(ours, logits.sigmoid(), atol=1e-3)
        assert 0.05 < (ours > 0.5).mean() < 0.95
    assert np.abs(out.motion1[0] - out.motion2[2]).max() > 0.01  # two heads, two pairs


def test_nothing_is_said_without_heads_or_motion_head(model: Model, plain: Model) -> None:
    clip, edges = clip_of(2), np.array([[0, 1]])
    assert predict_pairs(model, clip, edges, heads=False).motion1 is None
    assert predict_pairs(plain, clip, edges).motion2 is None


def first_pass(clip: Clip, model: Model) -> PairPredictions:
    edges = make_pairs("swinstride-5-noncyclic", len(clip))
    return predict_pairs(model, clip, edges)


def test_a_run_by_the_motion_head(model: Model) -> None:
    clip, seen = clip_of(4), []
    free = dyn3r.Options(
        motion="learned", learned_motion=LearnedMotionOptions(max_share=1.0),
        flow_term=False, bundle=False,
    )  # fmt: skip
    scene = dyn3r.reconstruct(clip, model, free, progress=lambda stage, *_: seen.append(stage))
    expected = learned_motion(first_pass(clip, model), options=free.learned_motion)
    assert expected.masks.any()
    np.testing.assert_array_equal(scene.dynamic, expected.masks)
    assert scene.metadata["notes"][0] == f"motion: {expected.reason}"
    assert scene.metadata["options"]["learned_motion"]["threshold"] == 0.5
    assert {"first pass", "second pass"} <= set(seen)
    assert "measuring flow" not in seen
    # the file of a model may recommend it
    recommends = replace(model, facts={"motion_cue": "learned"})
    auto = dyn3r.reconstruct(clip, recommends, replace(free, motion="auto"))
    np.testing.assert_array_equal(auto.dynamic, scene.dynamic)
    # and it may look for motion on behalf of a model that can't
    plain = prepare_model(tiny_network(), "plain", device="cpu")
    other = dyn3r.reconstruct(clip, plain, free, motion_model=model)
    np.testing.assert_array_equal(other.dynamic, scene.dynamic)
    given = dyn3r.reconstruct(clip, plain, free, masks=expected.masks)
    np.testing.assert_array_equal(other.depth, given.depth)


def test_flow_and_motion_head_in_one_run(model: Model) -> None:
    clip, found = clip_of(3), []
    loose = LearnedMotionOptions(max_share=1.0, flow_weight=0.5)
    options = dyn3r.Options(
        motion="flow+learned", learned_motion=loose, flow_term=False, bundle=False
    )
    scene = dyn3r.reconstruct(clip, model, options, on_findings=found.append)
    (seen,) = found
    assert seen.cue == "flow+learned"
    np.testing.assert_array_equal(seen.motion.masks, scene.dynamic)

    first = first_pass(clip, model)
    measured = measure_flow(clip.images, first.edges, flow_estimator("dis"))
    fused = fuse_motion(
        flow_evidence(first, clip.images, measured), learned_probability(first), options=loose
    )
    np.testing.assert_array_equal(scene.dynamic, fused.masks)
    by_flow = flow_residual_motion(first, clip.images, measured)
    np.testing.assert_array_equal(seen.flow.masks, by_flow.masks)
    by_head = learned_motion(first, options=loose)
    np.testing.assert_array_equal(seen.learned.masks, by_head.masks)
    assert not np.array_equal(fused.masks, by_head.masks)  # flow has a say
    assert f"learned: {by_head.reason}" in Explanation(seen, scene).text()


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("motion", ["learned", "flow+learned"])
def test_short_clips(model: Model, motion: str, frames: int) -> None:
    scene = dyn3r.reconstruct(clip_of(frames), model, dyn3r.Options(motion=motion))  # type: ignore[arg-type]
    assert len(scene) == frames
    if frames == 1:
        assert not scene.dynamic.any()
        assert "one frame" in scene.metadata["notes"][0]


@pytest.mark.parametrize("motion", ["learned", "flow+learned"])
def test_a_model_without_the_head_is_refused_in_one_line(
    plain: Model, motion: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="plain has no motion head") as caught:
        dyn3r.reconstruct(clip_of(2), plain, dyn3r.Options(motion=motion))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    save_network(tmp_path / "plain.safetensors", tiny_network(), {})
    (tmp_path / "frames").mkdir()
    for t, image in enumerate(clip_of(2).images):
        Image.fromarray(image).save(tmp_path / "frames" / f"{t}.png")
    run = Run(
        tmp_path / "frames", tmp_path / "out", model=str(tmp_path / "plain.safetensors"),
        motion=motion, quiet=True,
    )  # fmt: skip
    with pytest.raises(InputError, match="no motion head"):
        run()
    assert not (tmp_path / "out").exists()


def test_feedforward_takes_flow_where_the_head_is_recommended(model: Model) -> None:
    recommends = replace(model, facts={"motion_cue": "flow+learned"})
    clip = clip_of(3)
    auto = list(feedforward(clip, recommends))
    flow = list(feedforward(clip, model, FeedForwardOptions(motion="flow")))
    for one, two in zip(auto, flow):
        np.testing.assert_array_equal(one.dynamic, two.dynamic)
