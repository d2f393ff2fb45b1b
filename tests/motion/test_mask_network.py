"""Mask networks: their input (parts of the evidence), their files, and where they are used."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import dyn3r.motion.flow_residual
from dyn3r.errors import CheckpointError, InputError
from dyn3r.evaluation.mask_metrics import region_similarity
from dyn3r.motion.background_model import BackgroundEvidence
from dyn3r.motion.flow_residual import flow_evidence, flow_residual_motion
from dyn3r.motion.mask_network import (
    BACKGROUND_PARTS,
    BACKGROUND_WEIGHTS,
    PARTS,
    WEIGHTS,
    MaskNetwork,
    background_mask_inputs,
    load_background_mask_network,
    load_mask_network,
    mask_probability,
    prepare,
)
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.rigid_residual import COLOR_NOISE
from dyn3r.types import FlowFields

H, W = 32, 48
STILL = np.array([2.0, 0.0])
OWN = np.array([3.0, -2.0])


@pytest.fixture(scope="module")
def network() -> MaskNetwork:
    torch.manual_seed(0)
    return MaskNetwork().eval().requires_grad_(False)


def anything(n: int = 3, h: int = H, w: int = W) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (n, h, w, 3), dtype=np.uint8)
    return images, random.random((n, PARTS, h, w)).astype(np.float32)


@pytest.mark.parametrize("size_hw", [(32, 48), (48, 32), (16, 16), (64, 16)])
def test_one_logit_a_pixel_for_any_frame_of_patches(
    network: MaskNetwork, size_hw: tuple[int, int]
) -> None:
    images, parts = anything(2, *size_hw)
    logits = network(*prepare(images, parts))
    assert logits.shape == (2, *size_hw)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_the_image_and_every_part_of_the_evidence_are_read(network: MaskNetwork) -> None:
    images, parts = anything(1)
    before = mask_probability(network, images, parts)
    assert not np.array_equal(mask_probability(network, 255 - images, parts), before)
    for k in range(PARTS):
        other = parts.copy()
        other[:, k] += 1
        assert not np.array_equal(mask_probability(network, images, other), before), k


def test_prepare_scales_the_images_to_minus_one_and_one() -> None:
    images = np.zeros((1, H, W, 3), np.uint8)
    images[0, 3, 5] = (255, 0, 51)
    scaled, parts = prepare(images, np.ones((1, PARTS, H, W), np.float16))
    assert scaled.shape == (1, 3, H, W)
    np.testing.assert_allclose(scaled[0, :, 3, 5], [1, -1, -0.6], atol=1e-6)
    assert float(scaled.min()) == -1
    assert parts.dtype == torch.float32
    assert (parts == 1).all()


def test_probabilities_do_not_depend_on_the_batch(network: MaskNetwork) -> None:
    images, parts = anything(5)
    whole = mask_probability(network, images, parts)
    assert whole.shape == (5, H, W)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 1
    for batch in (1, 2):
        np.testing.assert_allclose(
            mask_probability(network, images, parts, batch), whole, atol=1e-5
        )
    assert mask_probability(network, images[:0], parts[:0]).shape == (0, H, W)


def save(network: MaskNetwork, path: Path, leave_out: str = "") -> Path:
    state = {k: v.half().contiguous() for k, v in network.state_dict().items() if k != leave_out}
    save_file(state, path)
    return path


def test_a_file_of_halves_gives_the_network_back(network: MaskNetwork, tmp_path: Path) -> None:
    back = load_mask_network(save(network, tmp_path / "masks.safetensors"))
    assert not back.training
    for name, value in back.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[name].half().float()), name
    images, parts = anything()
    np.testing.assert_allclose(
        mask_probability(back, images, parts), mask_probability(network, images, parts), atol=5e-3
    )


@pytest.mark.parametrize("what", ["missing", "corrupt", "empty", "other", "part", "folder"])
def test_files_that_are_no_mask_network(network: MaskNetwork, tmp_path: Path, what: str) -> None:
    file = tmp_path / "masks.safetensors"
    if what == "corrupt":
        file.write_bytes(b"\x10" * 400)
    elif what == "empty":
        file.write_bytes(b"")
    elif what == "other":
        save_file({"weight": torch.zeros(3)}, file)
    elif what == "part":
        save(network, file, leave_out="out.bias")
    elif what == "folder":
        file.mkdir()
    with pytest.raises(CheckpointError, match="holds no mask network") as caught:
        load_mask_network(file)
    assert "masks.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_options_use_the_network_and_their_limits() -> None:
    predicted = FlowCueOptions(masks="network", threshold=0.3)
    assert predicted.uses_mask_network
    assert predicted.limit == 0.5
    plain = FlowCueOptions(masks="evidence", threshold=0.3)
    assert not plain.uses_mask_network
    assert plain.limit == 0.3
    published = FlowCueOptions(method="published", masks="network", threshold=0.3)
    assert not published.uses_mask_network
    assert published.limit == 0.3
    assert not FlowCueOptions(photometric=False).uses_mask_network
    assert not FlowCueOptions.monst3r().uses_mask_network
    with pytest.raises(InputError, match="masks is network or evidence, not 'hand'"):
        FlowCueOptions(masks="hand")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="method is robust or published, not 'hand'"):
        FlowCueOptions(method="hand")  # type: ignore[arg-type]


def shot(
    edges: list[tuple[int, int]], visible: np.ndarray | None = None
) -> tuple[np.ndarray, FlowFields, np.ndarray]:
    """Frames of noise in which all moves by STILL pixels a frame, a block by OWN more; (frames,
    flow, the block's mask)."""
    random = np.random.default_rng(5)
    n = 1 + max(max(edge) for edge in edges)
    moving = np.zeros((n, H, W), bool)
    fields = np.empty((len(edges), H, W, 2), np.float32)
    for t in range(n):
        moving[t, 16 - 2 * t : 26 - 2 * t, 8 + 5 * t : 20 + 5 * t] = True
    for row, (i, j) in enumerate(edges):
        fields[row] = (STILL + OWN * moving[i][..., None]) * (j - i)
    images = random.integers(0, 256, (n, H, W, 3), dtype=np.uint8)
    return images, FlowFields(np.array(edges), fields, visible), moving


OPTIONS = FlowCueOptions(masks="evidence", depth_tolerance=1.0, smoothing=0.0)


def parts_of(images: np.ndarray, flow: FlowFields) -> np.ndarray:
    evidence = flow_evidence(
        None, images, flow, inverse_depth=np.ones(images.shape[:3]), options=OPTIONS
    )
    assert evidence.parts is not None
    return evidence.parts


def slow_colour_difference(source: np.ndarray, target: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Whole-pixel flow only. Means over 5x5; the picture goes on as in a mirror."""
    difference = np.empty((H, W))
    for v in range(H):
        for u in range(W):
            du, dv = (round(float(x)) for x in field[v, u])
            there = target[np.clip(v + dv, 0, H - 1), np.clip(u + du, 0, W - 1)]
            difference[v, u] = np.abs(there.astype(float) - source[v, u].astype(float)).mean()
    wide = np.pad(difference, 2, mode="symmetric")
    return np.array([[wide[v : v + 5, u : u + 5].mean() for u in range(W)] for v in range(H)])


def slow_parts(images: np.ndarray, flow: FlowFields) -> np.ndarray:
    """From the definition, with the still scene's flow as known."""
    rows = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    said: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in images]
    for (i, j), row in rows.items():
        field, seen = flow.flow[row], np.asarray(flow.visible)[row]
        if seen.mean() < 0.2:
            continue
        still = np.broadcast_to(STILL * (j - i), field.shape)
        distance = np.linalg.norm(field - still, axis=-1)
        miss = np.zeros((H, W))
        for v in range(H):
            for u in range(W):
                du, dv = (int(x) for x in field[v, u])
                there = np.clip(v + dv, 0, H - 1), np.clip(u + du, 0, W - 1)
                miss[v, u] = np.linalg.norm(field[v, u] + flow.flow[rows[j, i]][there])
        length = np.linalg.norm(field, axis=-1)
        noise = np.sqrt(0.5**2 + (0.05 * length) ** 2 + miss**2)
        by_distance = 1 - 1 / (1 + (distance / (3 * noise)) ** 2)
        a = slow_colour_difference(images[i], images[j], still)
        b = slow_colour_difference(images[i], images[j], field)
        colours = a**2 / (a**2 + 2 * (b**2 + COLOR_NOISE**2))
        evidence = np.sqrt(by_distance * colours)
        velocity = np.clip((field - still) / (j - i) * 100 / W, -20, 20)
        said[i].append(
            (np.stack([evidence, by_distance, colours, *velocity.T.swapaxes(1, 2)]), seen)
        )
    out = np.zeros((len(images), PARTS, H, W))
    for t, pairs in enumerate(said):
        for v in range(H):
            for u in range(W):
                here = np.array([values[:, v, u] for values, seen in pairs if seen[v, u]])
                if len(here):
                    mean, spread = here.mean(0), here[:, 0].std()
                    out[t, :, v, u] = [*mean[:3], spread, len(here) / len(pairs), *mean[3:]]
    return out


@pytest.mark.slow
def test_parts_against_a_slow_computation() -> None:
    edges = [(i, j) for i in range(3) for j in range(3) if i != j]
    visible = np.random.default_rng(2).random((len(edges), H, W)) < 0.7
    visible[:, :3, :4] = False  # seen by nobody
    visible[edges.index((1, 2))] = False  # a pair that sees nothing does not count
    images, flow, moving = shot(edges, visible)
    fast, slow = parts_of(images, flow), slow_parts(images, flow)
    assert fast.shape == (3, PARTS, H, W)
    assert fast.dtype == np.float32
    for k in range(PARTS):
        np.testing.assert_allclose(fast[:, k], slow[:, k], atol=0.02, err_msg=f"part {k}")
    assert (fast[:, :, :3, :4] == 0).all()
    assert set(np.unique(fast[1, 4])) == {0.0, 1.0}
    assert slow[0, 1][moving[0] & visible[0]].max() > 0.3  # the case is no empty one


@pytest.mark.parametrize("edge", [(0, 1), (1, 0), (0, 2), (2, 1)])
def test_velocity_is_in_percent_of_the_width_per_frame(edge: tuple[int, int]) -> None:
    images, flow, moving = shot([edge])
    velocity = parts_of(images, flow)[edge[0], 5:]
    block = moving[edge[0]]
    expected = OWN * 100 / W
    np.testing.assert_allclose(
        velocity[:, block], np.tile(expected[:, None], block.sum()), atol=0.05
    )
    np.testing.assert_allclose(velocity[:, ~block], 0, atol=0.05)
    unseen = [t for t in range(len(images)) if t != edge[0]]
    assert (parts_of(images, flow)[unseen] == 0).all()


class Stub(MaskNetwork):
    """Predicts motion where the evidence of the distance alone is high."""

    def forward(self, images: Tensor, parts: Tensor) -> Tensor:
        assert images.min() >= -1
        return torch.where(parts[:, 1] > 0.1, 4.0, -4.0)


def test_the_network_predicts_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dyn3r.motion.flow_residual, "load_mask_network", Stub)
    images, flow, moving = shot([(0, 1), (1, 0)])
    depth, options = np.ones(images.shape[:3]), FlowCueOptions(masks="network", depth_tolerance=1.0)
    evidence = flow_evidence(None, images, flow, inverse_depth=depth, options=options)
    plain = flow_evidence(None, images, flow, inverse_depth=depth, options=OPTIONS)
    assert evidence.parts is not None
    assert plain.parts is not None
    np.testing.assert_array_equal(evidence.parts, plain.parts)
    np.testing.assert_array_equal(evidence.raw, plain.raw)
    assert not np.array_equal(evidence.refined, plain.refined)
    motion = flow_residual_motion(None, images, flow, inverse_depth=depth, options=options)
    np.testing.assert_array_equal(motion.masks, plain.parts[:, 1] > 0.1)
    assert region_similarity(motion.masks, moving).mean() > 0.6
    assert "probability above 0.5" in motion.reason


def test_frames_without_evidence_get_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    class Everything(Stub):
        def forward(self, images: Tensor, parts: Tensor) -> Tensor:
            return torch.full_like(parts[:, 0], 3.0)

    monkeypatch.setattr(dyn3r.motion.flow_residual, "load_mask_network", Everything)
    images, flow, _ = shot([(0, 1), (0, 2)])
    options = FlowCueOptions(masks="network", still_test=False)
    depth = np.ones(images.shape[:3])
    motion = flow_residual_motion(None, images, flow, inverse_depth=depth, options=options)
    assert motion.masks[0].all()
    assert not motion.masks[1:].any()


def test_the_published_method_has_no_parts_and_asks_no_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dyn3r.types import PairPredictions

    monkeypatch.delattr(dyn3r.motion.flow_residual, "load_mask_network")
    images, flow, _ = shot([(0, 1), (1, 0)])
    points = np.random.default_rng(0).uniform(1, 2, (2, H, W, 3)).astype(np.float32)
    sure = np.full((2, H, W), 2.0, np.float32)
    predictions = PairPredictions(flow.edges, 2, points, sure, points, sure)
    options = FlowCueOptions(method="published", masks="network")
    assert flow_evidence(predictions, images, flow, options=options).parts is None


shipped = Path(str(resources.files("dyn3r") / "assets" / "weights" / WEIGHTS))


@pytest.mark.skipif(not shipped.exists(), reason="the mask network is not trained yet")
@pytest.mark.parametrize("size_hw", [(96, 128), (128, 96)])
def test_the_shipped_network_segments_a_clearly_moving_blob(size_hw: tuple[int, int]) -> None:
    import cv2

    h, w = size_hw
    random = np.random.default_rng(4)
    rough = random.normal(110, 25, (h // 8, w // 8, 3)).astype(np.float32)
    picture = cv2.resize(rough, (w, h), interpolation=cv2.INTER_CUBIC)
    v, u = np.mgrid[:h, :w]
    blob = ((v - 0.55 * h) / 22) ** 2 + ((u - 0.4 * w) / 14) ** 2 < 1
    picture[blob] = np.array([190, 60, 40]) + random.normal(0, 6, (blob.sum(), 3))
    images = picture.clip(0, 255).astype(np.uint8)[None]
    parts = np.zeros((1, PARTS, h, w), np.float32)
    parts[0, 4] = 1
    parts[0, :, blob] = (0.8, 0.9, 0.7, 0.1, 1, 3, 0.5)
    found = mask_probability(load_mask_network(), images, parts) > 0.5
    assert region_similarity(found, blob[None]).mean() > 0.5


def background_of(color_difference: np.ndarray, colour: float) -> BackgroundEvidence:
    difference = torch.from_numpy(color_difference)
    shown = torch.where(difference.isfinite(), colour, torch.nan)
    return BackgroundEvidence(difference, shown[:, None].expand(-1, 3, -1, -1))


def second_inputs(
    parts: np.ndarray, probability: np.ndarray, images: np.ndarray, background: BackgroundEvidence
) -> torch.Tensor:
    given = (torch.from_numpy(x) for x in (parts, probability, images))
    return background_mask_inputs(*given, background)


def test_what_the_second_network_reads() -> None:
    _, parts = anything()
    probability = np.random.default_rng(2).random((3, H, W)).astype(np.float32)
    color_difference = np.full((3, H, W), np.nan, np.float32)
    color_difference[1], color_difference[2] = 0.0, 255.0
    dark = np.full((3, H, W, 3), 20, np.uint8)
    dark[2, ..., 1:] = 255
    read = second_inputs(parts, probability, dark, background_of(color_difference, 80.0)).numpy()
    assert read.shape == (3, BACKGROUND_PARTS, H, W)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[:, :PARTS], parts)
    np.testing.assert_array_equal(read[:, PARTS], probability)
    assert read[:, PARTS + 1, 0, 0].tolist() == pytest.approx([0, 0, np.log(256) / 3])
    assert read[:, PARTS + 2, 0, 0].tolist() == [0, 1, 1]
    assert read[0, PARTS + 3 :].tolist() == np.zeros((3, H, W)).tolist()
    assert read[1, PARTS + 3 :, 0, 0].tolist() == pytest.approx([np.log(90 / 30)] * 3)
    assert read[2, PARTS + 3 :, 0, 0].tolist() == pytest.approx(
        [np.log(90 / 30), *[np.log(90 / 265)] * 2]
    )


def test_the_second_network_is_shipped_and_is_not_the_first() -> None:
    network = load_background_mask_network()
    images, parts = anything()
    color_difference = np.full((3, H, W), np.nan, np.float32)
    nothing = background_of(color_difference, 0.0)
    said = mask_probability(network, images, second_inputs(parts, parts[:, 0], images, nothing))
    assert said.shape == (3, H, W)
    assert np.isfinite(said).all()
    folder = resources.files("dyn3r.assets.weights")
    with (
        resources.as_file(folder / WEIGHTS) as first,
        pytest.raises(CheckpointError, match="mask network for the background model"),
    ):
        load_background_mask_network(first)
    with (
        resources.as_file(folder / BACKGROUND_WEIGHTS) as second,
        pytest.raises(CheckpointError, match="mask network"),
    ):
        load_mask_network(second)
