"""Running a network over a clip's pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.errors import CheckpointError, InputError
from dyn3r.io.workers import at_most
from dyn3r.network import predict
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model, load_model, prepare_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.options import InferenceOptions
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.types import Clip, FrameMapping

from ..factories import tiny_network
from .golden_network import GOLDEN, golden_images, golden_masks, golden_network

FULL = InferenceOptions(storage="full")
EDGES = np.array([[0, 1], [1, 0], [2, 4], [3, 0], [4, 4]])


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(golden_network("linear"), "golden", device="cpu", precision="float32")


@pytest.mark.slow
def test_agrees_with_golden_in_both_passes(model: Model) -> None:
    golden = np.load(GOLDEN)
    for prefix, dynamic in (("linear", None), ("masked_linear", golden_masks())):
        out = predict_pairs(model, golden_images(), EDGES[:2], dynamic, options=FULL)
        for ours, theirs in (("points1", "pts1"), ("conf1", "conf1"), ("points2", "pts2")):
            expected = golden[f"{prefix}_{theirs}"]
            error = np.abs(getattr(out, ours)[:, ::3, ::3] - expected).max()
            assert error < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_images_may_be_arrays_tensors_or_a_clip(model: Model) -> None:
    images = golden_images()
    mapping = FrameMapping((80, 160), (80, 160), (0, 0), (80, 160))
    clip = Clip(images, mapping, tuple("abcde"), np.arange(5.0), "memory", 1.0)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    results = [
        predict_pairs(model, frames, EDGES, options=FULL) for frames in (images, tensor, clip)
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.points2, results[0].points2, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_size_changes_nothing(model: Model, batch: int) -> None:
    whole = predict_pairs(model, golden_images(), EDGES, golden_masks(), options=FULL)
    options = InferenceOptions(batch_pairs=batch, storage="full")
    parts = predict_pairs(model, golden_images(), EDGES, golden_masks(), options=options)
    for name in ("points1", "conf2", "scores1", "scores2"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), 1e-3, 1e-4)


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_bits(model: Model) -> None:
    options = InferenceOptions(batch_pairs=2, storage="full")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with at_most(1):
            alone = predict_pairs(model, golden_images(), EDGES, golden_masks(), options=options)
    finally:
        torch.set_num_threads(threads)
    together = predict_pairs(model, golden_images(), EDGES, golden_masks(), options=options)
    for name in ("points1", "conf2", "scores1", "scores2"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))


@pytest.mark.slow
def test_nothing_masked_is_the_first_pass(model: Model) -> None:
    nothing = np.zeros((5, 80, 160), bool)
    plain = predict_pairs(model, golden_images(), EDGES, options=FULL)
    masked = predict_pairs(model, golden_images(), EDGES, nothing, options=FULL)
    np.testing.assert_array_equal(plain.points1, masked.points1)


def test_every_frame_is_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = model.network.encode
    monkeypatch.setattr(model.network, "encode", lambda x: (encoded.append(len(x)), encode(x))[1])
    tokens = encode_frames(model, golden_images())
    predict_pairs(model, golden_images(), EDGES, tokens=tokens, heads=False)
    predict_pairs(model, golden_images(), EDGES, tokens=tokens)
    assert sum(encoded) == 5


def test_first_pass_needs_no_heads(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a head ran")

    monkeypatch.setattr(model.network.downstream_head1, "forward", refuse)
    monkeypatch.setattr(model.network.downstream_head2, "forward", refuse)
    out = predict_pairs(model, golden_images(), EDGES, heads=False)
    assert out.points1 is None
    assert out.scores1 is not None
    with pytest.raises(InputError, match="no pointmaps"):
        next(out.chunks())


def test_half_precision_is_close_and_half_as_large(model: Model) -> None:
    full = predict_pairs(model, golden_images(), EDGES, options=FULL)
    half = predict_pairs(model, golden_images(), EDGES)
    assert half.points1.dtype == np.float16
    np.testing.assert_allclose(half.points1, full.points1, rtol=1e-3, atol=1e-3)
    chunk = next(half.chunks(2))
    assert chunk.points1.dtype == torch.float32
    assert chunk.points1.shape == (2, 80, 160, 3)


@pytest.mark.parametrize("storage", ["half", "full"])
def test_a_very_unsure_prediction_is_still_a_prediction(storage) -> None:
    """1 + exp(raw) rounds to 1 when stored, and confidence 1 would mean that nothing was said."""
    network = tiny_network()
    network.downstream_head1.dpt.head[4].bias.data[3] = -40.0
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    unsure = prepare_model(network, "unsure", device="cpu", precision="float32")
    options = InferenceOptions(storage=storage)
    out = predict_pairs(unsure, images, np.array([[0, 1]]), options=options)
    assert (out.conf1 > 1).all()
    assert (out.conf1 < 1.002).all()


def test_the_detail_pyramid_changes_points_and_follows_its_frame() -> None:
    network = PointmapNetwork(replace(tiny_network().config, detail_features=8))
    initialise(network, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    edges = np.array([[0, 1], [2, 1]])
    before = predict_pairs(
        prepare_model(network, "zero", device="cpu"), images, edges, options=FULL
    )
    for head in (network.downstream_head1, network.downstream_head2):
        for show in head.dpt.detail:
            torch.nn.init.normal_(show.weight, generator=torch.Generator().manual_seed(2))
    model = prepare_model(network, "detail", device="cpu", precision="float32")
    together = predict_pairs(model, images, edges, options=FULL)
    assert np.abs(together.points1 - before.points1).max() > 1e-2
    alone = predict_pairs(model, images[1:], np.array([[1, 0]]), options=FULL)
    np.testing.assert_allclose(together.points1[1], alone.points1[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.points2[1], alone.points2[0], rtol=1e-4, atol=1e-5)


def test_large_predictions_go_to_a_file_that_disappears(model: Model, tmp_path) -> None:
    options = InferenceOptions(memory_gb=1e-6, spill_folder=str(tmp_path))
    out = predict_pairs(model, golden_images(), EDGES, options=options)
    assert isinstance(out.points1, np.memmap)
    assert list(tmp_path.iterdir()) == []
    kept = predict_pairs(model, golden_images(), EDGES)
    np.testing.assert_array_equal(out.points1, kept.points1)


@pytest.mark.slow
def test_bfloat16_differs_from_float32_within_bounds() -> None:
    """The transformer in bfloat16 keeps 8 bits: 4.5 % of the points' size here, measured."""
    single = prepare_model(golden_network("dpt"), "a", device="cpu", precision="float32")
    half = prepare_model(golden_network("dpt"), "b", device="cpu", precision="bfloat16")
    assert half.network.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert half.network.enc_blocks[0].norm1.weight.dtype == torch.float32
    assert half.network.downstream_head1.dpt.head[0].weight.dtype == torch.float32
    one = predict_pairs(single, golden_images(), EDGES, options=FULL)
    two = predict_pairs(half, golden_images(), EDGES, options=FULL)
    error = np.linalg.norm(one.points1 - two.points1) / np.linalg.norm(one.points1)
    assert 1e-5 < error < 0.08
    spread = np.abs(one.scores1 - two.scores1).max() / np.abs(one.scores1).max()
    assert spread < 0.05


@pytest.mark.parametrize(
    ("images", "edges", "dynamic"),
    [
        (golden_images(), np.array([[0, 5]]), None),
        (golden_images(), np.array([[-1, 0]]), None),
        (golden_images(), np.zeros((0, 2), int), None),
        (golden_images()[:, :79], EDGES, None),
        (golden_images()[..., 0], EDGES, None),
        (golden_images(), EDGES, np.zeros((5, 40, 80), bool)),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(model, images, edges, dynamic) -> None:
    with pytest.raises(InputError) as caught:
        predict_pairs(model, images, edges, dynamic)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_exist_is_said_with_the_names_that_do() -> None:
    with pytest.raises(CheckpointError, match="dust3r-512-dpt"):
        load_model("no-such-model")


@pytest.mark.parametrize("device", ["cuda:99", "warp", "meta:3x"])
def test_a_device_that_does_not_exist(device: str) -> None:
    with pytest.raises(InputError, match="--device cpu"):
        prepare_model(golden_network("linear"), "golden", device=device)


def test_batches_shrink_with_the_frame(model: Model) -> None:
    """A batch holds about the same number of tokens whatever the frame size."""
    assert predict._tokens_per_batch(model) // (5 * 10) > predict._tokens_per_batch(model) // 576
