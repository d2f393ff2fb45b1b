"""SAM 2 as a refiner, with a tiny network of random weights: the protocol, not the quality."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.motion.sam2 import Sam2Refiner


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as transformers writes it: about a million random parameters, 128x128 pixels."""
    transformers = pytest.importorskip("transformers", "4.56")
    import torch

    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=128,
    )  # fmt: skip
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
        image_size=128, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam2")
    network = transformers.Sam2VideoModel(config)
    with torch.no_grad():  # as made, the weights are so small that masks hardly change anything
        for name, value in network.named_parameters():
            fan_in = max(1, value[0].numel()) if value.dim() > 1 else 1
            value.normal_(0, fan_in**-0.5 if value.dim() > 1 else 0.3)
            if "norm" in name and name.endswith("weight"):
                value.fill_(1)
        network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(30)  # always in the picture
    network.save_pretrained(folder)
    return str(folder)


def clip(n: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (n, 48, 80, 3), dtype=np.uint8)
    masks = np.zeros((n, 48, 80), bool)
    for t in range(n):
        masks[t, 10:30, 10 + 4 * t : 34 + 4 * t] = True
    return images, masks


@pytest.mark.parametrize("n", [2, 5])
def test_even_frames_come_from_odd_masks_and_the_reverse(weights: str, n: int) -> None:
    images, masks = clip(n)
    kept, said = masks.copy(), []
    refiner = Sam2Refiner(weights)
    out = refiner.refine(images, masks, progress=lambda stage, done, total: said.append(done))
    assert out.shape == masks.shape
    assert out.dtype == bool
    np.testing.assert_array_equal(masks, kept)
    assert said[-1] == n
    assert not np.array_equal(out, masks)  # random weights: every mask is SAM 2's, and nonsense
    for parity in (0, 1):
        other = masks.copy()
        other[parity::2] = np.roll(masks[parity::2], 9, axis=1)
        changed = refiner.refine(images, other)
        np.testing.assert_array_equal(changed[parity::2], out[parity::2])
        assert not np.array_equal(changed[1 - parity :: 2], out[1 - parity :: 2])


def test_empty_masks_prompt_nothing(weights: str) -> None:
    images, masks = clip(5)
    refiner = Sam2Refiner(weights)
    masks[3] = False
    assert refiner.refine(images, masks)[3].any()  # it is made from frames 0, 2, 4
    # nothing prompts the even frames: they stay, and the odd ones are made from them
    masks[1::2] = False
    out = refiner.refine(images, masks)
    np.testing.assert_array_equal(out[::2], masks[::2])
    assert out[1::2].any()
    assert not refiner.refine(images, np.zeros_like(masks)).any()
    np.testing.assert_array_equal(refiner.refine(images[:1], masks[:1]), masks[:1])


def test_the_number_of_prompts_is_bounded(weights: str) -> None:
    images, masks = clip(9)
    few, many = (Sam2Refiner(weights, max_prompts=k).refine(images, masks) for k in (2, 8))
    assert not np.array_equal(few, many)
    with pytest.raises(InputError, match="at least 2"):
        Sam2Refiner(max_prompts=1)


def test_weights_that_cannot_be_loaded(weights: str, tmp_path: Path) -> None:
    images, masks = clip(3)
    with pytest.raises(CheckpointError, match=r"config\.json and model"):
        Sam2Refiner(str(tmp_path)).refine(images, masks)
    (tmp_path / "config.json").write_text((Path(weights) / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle, which is never opened")
    with pytest.raises(CheckpointError):
        Sam2Refiner(str(tmp_path)).refine(images, masks)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    images, masks = clip(3)
    with pytest.raises(MissingExtraError, match=r"dyn3r\[sam2\]"):
        Sam2Refiner().refine(images, masks)


def test_an_object_is_found_at_a_point_and_followed_from_a_mask(weights: str) -> None:
    images, masks = clip(5)
    sam2 = Sam2Refiner(weights)
    found = sam2.object_at(images, 2, 20, 30)
    assert found.shape == masks.shape
    assert found.dtype == bool
    assert found.any()
    assert not np.array_equal(found, sam2.object_at(images, 2, 40, 70))  # the point counts
    followed = sam2.follow(images, 1, masks[1])
    np.testing.assert_array_equal(followed[1], masks[1])
    assert not np.array_equal(followed[2], masks[2])  # random weights
    assert not np.array_equal(followed[2], sam2.follow(images, 1, masks[4])[2])
