"""The network against the published programs' numbers, and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyn3r.errors import CheckpointError
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.layers import CrossAttention
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.rope import rope_table, rotate
from dyn3r.types import Tokens

from .golden_network import GOLDEN, golden_images, golden_masks, golden_network

NAMES = {"points1": "pts1", "conf1": "conf1", "points2": "pts2", "conf2": "conf2"}
EDGES = torch.tensor([[0, 1], [1, 0]])


def close(ours: torch.Tensor, golden: np.ndarray, tolerance: float) -> None:
    """Relative to the size of the golden array."""
    error = np.abs(ours.numpy() - golden).max() / np.abs(golden).max()
    assert error < tolerance, error


def normalised() -> torch.Tensor:
    return (torch.from_numpy(golden_images()).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def tokens_of(tokens: Tokens, rows: torch.Tensor) -> Tokens:
    return tokens[rows]


def token_masks() -> torch.Tensor:
    return torch.from_numpy(golden_masks().reshape(5, 5, 16, 10, 16).any((2, 4)).reshape(5, -1))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_first_pass_agrees_with_golden(head: str) -> None:
    golden, network = np.load(GOLDEN), golden_network(head)
    tokens = network.encode(normalised())
    close(tokens.features[:2].reshape(2, 5, 10, 64), golden["feat1"], 1e-4)
    out = network.decode(tokens_of(tokens, EDGES[:, 0]), tokens_of(tokens, EDGES[:, 1]))
    for ours, theirs in NAMES.items():
        close(getattr(out, ours)[:, ::3, ::3], golden[f"{head}_{theirs}"], 1e-4)
    if head == "linear":
        close(out.scores1, golden["cross_attn_stat1"], 1e-4)
        close(out.scores2, golden["cross_attn_stat2"], 1e-4)


@pytest.mark.slow
def test_second_pass_agrees_with_golden() -> None:
    golden, network, masks = np.load(GOLDEN), golden_network("linear"), token_masks()
    tokens = network.encode(normalised())
    i, j = EDGES.T
    out = network.decode(tokens_of(tokens, i), tokens_of(tokens, j), (masks[i], masks[j]))
    for ours, theirs in NAMES.items():
        close(getattr(out, ours)[:, ::3, ::3], golden[f"masked_linear_{theirs}"], 1e-4)
    unmasked = network.decode(tokens_of(tokens, i), tokens_of(tokens, j))
    assert not torch.allclose(out.points1, unmasked.points1)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_state_names_are_the_published_ones_in_order(head: str) -> None:
    expected = [str(line).split() for line in np.load(GOLDEN)[f"state_keys_{head}"]]
    state = golden_network(head).state_dict()
    assert [name for name, _ in expected] == list(state)
    for name, shape in expected:
        assert "x".join(map(str, state[name].shape)) == shape


def small(head: str = "dpt", **sizes: int) -> PointmapNetwork:
    values = {"enc_embed_dim": 32, "enc_depth": 2, "enc_num_heads": 2, "dec_embed_dim": 24}
    values |= {"dec_depth": 4, "dec_num_heads": 2, "dpt_features": 8, **sizes}
    config = NetworkConfig(**values, dpt_layer_dims=(8, 8, 8, 8), head=head)
    network = PointmapNetwork(config)
    initialise(network, seed=1)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("size_hw", [(48, 80), (80, 48), (16, 16), (112, 64)])
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_batch_equals_its_pairs_one_by_one(head: str, size_hw: tuple[int, int]) -> None:
    """Odd patch grids, portrait, a single patch."""
    network = small(head)
    images = torch.rand(3, 3, *size_hw, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = network.encode(images)
    one, two = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 0])
    whole = network.decode(tokens_of(tokens, one), tokens_of(tokens, two))
    assert whole.points1.shape == (4, *size_hw, 3)
    for k in range(4):
        alone = network.encode(images[one[k : k + 1]])
        part = network.decode(alone, network.encode(images[two[k : k + 1]]))
        for name in (*NAMES, "scores1", "scores2"):
            torch.testing.assert_close(
                getattr(part, name)[0], getattr(whole, name)[k], rtol=1e-3, atol=1e-4
            )


def test_confidence_is_above_one_and_points_are_finite() -> None:
    network = small()
    tokens = network.encode(torch.randn(1, 3, 32, 48))
    out = network.decode(tokens, tokens)
    assert (out.conf1 > 1).all()
    assert out.points1.isfinite().all()


def slow_cross_attention(
    module: CrossAttention, x: torch.Tensor, y: torch.Tensor, rope: torch.Tensor, dynamic: tuple
) -> tuple[torch.Tensor, torch.Tensor]:
    """SPEC 4 and 5 word by word: full maps, weights set to zero after the softmax."""
    b, n, _ = x.shape
    split = lambda t: t.view(b, t.shape[1], module.heads, -1).transpose(1, 2)  # noqa: E731
    q, k = rotate(split(module.projq(x)), rope), rotate(split(module.projk(y)), rope)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = logits.softmax(-1)
    moving_query, moving_key = dynamic
    for item in range(b):
        for query in range(n):
            for key in range(n):
                if not moving_query[item, query] and moving_key[item, key]:
                    weights[item, :, query, key] = 0
    out = (weights @ split(module.projv(y))).transpose(1, 2).reshape(x.shape)
    return module.proj(out), logits.mean(dim=2)


def test_value_masking_and_mean_query_equal_the_written_out_maps() -> None:
    torch.manual_seed(0)
    module = CrossAttention(24, 3).requires_grad_(False)
    x, y = torch.randn(2, 6, 24), torch.randn(2, 6, 24)
    rope = rope_table((2, 3), 8, 100.0)
    dynamic = (torch.rand(2, 6) > 0.6, torch.rand(2, 6) > 0.6)
    out, reading = module(x, y, rope, dynamic, want_scores=True)
    slow_out, slow_scores = slow_cross_attention(module, x, y, rope, dynamic)
    torch.testing.assert_close(out, slow_out, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reading.scores, slow_scores, rtol=1e-5, atol=1e-6)


def test_training_attention_equals_the_fused_kernel() -> None:
    network = small().requires_grad_(True)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        fused = network.encode(images).features
    torch.testing.assert_close(network.encode(images).features, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_that_of_the_formula(dtype: torch.dtype) -> None:
    table = rope_table((3, 4), 16, 100.0)
    x = torch.randn(2, 12, 3, 16, dtype=dtype).transpose(1, 2).requires_grad_()
    first, second, third, fourth = x.float().chunk(4, dim=-1)
    partner = torch.cat([-second, first, -fourth, third], dim=-1)
    slow = (x * table[0] + partner * table[1]).to(dtype)
    fast = rotate(x, table)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, slow, rtol=0, atol=0)
    gradients = [torch.autograd.grad((y.float() ** 3).sum(), x)[0] for y in (fast, slow)]
    torch.testing.assert_close(
        *gradients, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2
    )


def test_rotary_code_turns_by_relative_position() -> None:
    """Scores depend on the difference of positions alone."""
    table = rope_table((5, 7), 16, 100.0)
    q = torch.randn(1, 1, 1, 16).expand(1, 1, 35, 16)
    k = torch.randn(1, 1, 1, 16).expand(1, 1, 35, 16)
    scores = (rotate(q, table) @ rotate(k, table).transpose(-1, -2))[0, 0].view(5, 7, 5, 7)
    torch.testing.assert_close(scores[0, 0, 2, 3], scores[1, 2, 3, 5], rtol=1e-4, atol=1e-4)
    assert not torch.isclose(scores[0, 0, 2, 3], scores[0, 0, 3, 2])


def test_published_configuration_text_is_understood() -> None:
    config = NetworkConfig.from_published(
        {
            "pos_embed": "RoPE100", "img_size": (512, 512), "head_type": "dpt",
            "output_mode": "pts3d", "depth_mode": ("exp", -np.inf, np.inf),
            "conf_mode": ("exp", 1, np.inf), "enc_embed_dim": 1024, "enc_depth": 24,
            "enc_num_heads": 16, "dec_embed_dim": 768, "dec_depth": 12, "dec_num_heads": 12,
            "landscape_only": False, "patch_embed_cls": "ManyAR_PatchEmbed",
        }
    )  # fmt: skip
    assert config == NetworkConfig()
    assert config.dpt_states == (0, 6, 9, 12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"enc_depth": 10**6},
        {"enc_embed_dim": 10**9},
        {"enc_num_heads": 7},
        {"dec_embed_dim": "many"},
        {"pos_embed": "cosine"},
        {"head_type": "magic"},
        {"depth_mode": ("linear", 0, 1)},
        {"patch_size": 14},
    ],
)
def test_absurd_configurations_are_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(CheckpointError) as caught:
        NetworkConfig.from_published(wrong)
    assert "\n" not in str(caught.value)
