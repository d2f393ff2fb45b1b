"""Two-view network: two images to two pointmaps in the first camera (DUSt3R; SPEC 1, 4, 5)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint

from dyn3r.network.config import PATCH, NetworkConfig
from dyn3r.network.heads import DptHead, LinearHead, ResidualUnit, to_points
from dyn3r.network.layers import DecoderBlock, EncoderBlock
from dyn3r.network.rope import image_positions, rope_table
from dyn3r.types import Tokens


@dataclass(frozen=True)
class Decoded:
    """Output of the decoder for a batch of pairs; view 1 is the reference camera."""

    points1: Float[Tensor, "b h w 3"] | None
    """Points of view 1 in camera 1; None with `heads=False`."""
    conf1: Float[Tensor, "b h w"] | None
    """Confidence of points1, above 1."""
    points2: Float[Tensor, "b h w 3"] | None
    """Points of view 2 in camera 1, at view 2's time."""
    conf2: Float[Tensor, "b h w"] | None
    """Confidence of points2, above 1."""
    scores1: Float[Tensor, "b gh gw c"] | None
    """Attention scores of view 2's tokens, from the view-1 decoder (its queries are view 1's)."""
    scores2: Float[Tensor, "b gh gw c"] | None
    """Attention scores of view 1's tokens, from the view-2 decoder."""
    logits: tuple[tuple[Tensor, Tensor], ...] = ()
    """Attention before softmax of the layers asked for: (view-1 decoder, view-2 decoder) each."""


class PatchEmbedding(nn.Module):
    """Linear embedding of 16x16 pixels as one token."""

    def __init__(self, dim: int) -> None:
        """Create the layer for tokens of width `dim`."""
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n dim"]:
        """Map images (b, 3, h, w) to tokens (b, n, dim)."""
        tokens: Tensor = self.proj(images)
        return tokens.flatten(2).transpose(1, 2)


class DetailPyramid(nn.Module):
    """Convolutional features of the image at 1/2, 1/4 and 1/8, and at 1/16 for the tokens.

    The linear embedding of a patch keeps little of where an edge lies within it; convolutions keep
    it (Xiao et al. 2021, "Early convolutions help transformers see better"). The last layer starts
    at zero, so that a network grown from one without a pyramid starts with the same output.
    """

    def __init__(self, channels: int, dim: int) -> None:
        """Create the layers: `channels` at 1/4 of the frame, tokens of width `dim`."""
        super().__init__()
        widths = (3, channels // 2, channels, 2 * channels, 4 * channels)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.refine = nn.ModuleList(ResidualUnit(width) for width in widths[2:])
        self.proj = nn.Conv2d(widths[-1], dim, 1)

    def forward(
        self, images: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n tokens dim"], tuple[Tensor, Tensor, Tensor]]:
        """Map images (n, 3, h, w) to tokens (n, tokens, dim) and levels at 1/2, 1/4, 1/8."""
        first, *deeper = self.down
        levels = [first(images)]
        for down, refine in zip(deeper, self.refine):
            levels.append(refine(down(relu(levels[-1]))))
        tokens = self.proj(relu(levels[-1])).flatten(2).transpose(1, 2)
        return tokens, (levels[0], levels[1], levels[2])


class PointmapNetwork(nn.Module):
    """Encoder, two decoders and two heads.

    Parameter names are the published ones, so that published checkpoints load strictly.
    """

    float32_parts = ("downstream_head",)
    """Parts that run in float32 in any case."""
    checkpointing = False
    """Whether training computes activations of blocks and heads again instead of keeping them."""

    def __init__(self, config: NetworkConfig) -> None:
        """Create the layers for the sizes of `config`; their weights are random."""
        super().__init__()
        self.config = config
        enc, dec = config.enc_embed_dim, config.dec_embed_dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.patch_embed = PatchEmbedding(enc)
        if config.detail_features:
            self.detail = DetailPyramid(config.detail_features, enc)
        if config.position_code:
            self.enc_position = nn.Linear(18, enc, bias=False)
            self.dec_position = nn.Linear(18, dec, bias=False)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc, config.enc_num_heads) for _ in range(config.enc_depth)
        )
        self.enc_norm = nn.LayerNorm(enc, eps=1e-6)
        self.decoder_embed = nn.Linear(enc, dec)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(dec, config.dec_num_heads) for _ in range(config.dec_depth)
        )
        self.dec_norm = nn.LayerNorm(dec, eps=1e-6)
        self.dec_blocks2 = nn.ModuleList(
            DecoderBlock(dec, config.dec_num_heads) for _ in range(config.dec_depth)
        )
        head = DptHead if config.head == "dpt" else LinearHead
        self.downstream_head1 = head(config)
        self.downstream_head2 = head(config)

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Tokens:
        """Encode frames, normalised to [-1, 1], h and w multiples of 16."""
        grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
        heads = self.config.enc_num_heads
        rope = self._rope(grid, self.config.enc_embed_dim // heads, images.device)
        x = self.patch_embed(images)
        if self.config.position_code:
            x = x + self.enc_position(image_positions(grid, images.device))
        detail: tuple[Tensor, ...] = ()
        if self.config.detail_features:
            detail_tokens, detail = self.detail(images)
            x = x + detail_tokens
        for block in self.enc_blocks:
            x = self._run(block, x, rope)
        return Tokens(self.enc_norm(x.float()), grid, detail)

    def decode(
        self,
        tokens1: Tokens,
        tokens2: Tokens,
        dynamic: tuple[Bool[Tensor, "b n"], Bool[Tensor, "b n"]] | None = None,
        *,
        heads: bool = True,
        scores: bool = True,
        logit_layers: tuple[int, ...] = (),
        heads_autocast: bool = False,
    ) -> Decoded:
        """Decode pairs of encoded frames to pointmaps, confidences and attention scores.

        dynamic: masks of the dynamic tokens of view 1 and of view 2, for the attention re-weighting
        of SPEC 5, which acts in the view-1 decoder alone. heads, scores: whether pointmaps and
        attention scores are computed. logit_layers: layers whose attention is returned (training
        losses only). heads_autocast: run the heads in bfloat16 instead of float32.
        """
        grid = tokens1.grid_hw
        assert grid == tokens2.grid_hw, "both views must have the same patch grid"
        features1, features2 = tokens1.features, tokens2.features
        head_dim = self.config.dec_embed_dim // self.config.dec_num_heads
        rope = self._rope(grid, head_dim, features1.device)
        x1, x2 = self._decoder_inputs(features1, features2, grid)
        states1, states2 = [features1], [features2]
        readouts1, readouts2, logits = [], [], []
        last = self.config.dec_depth - 1
        for layer, (block1, block2) in enumerate(zip(self.dec_blocks, self.dec_blocks2)):
            wanted = {"want_scores": scores, "want_logits": layer in logit_layers}
            new1, readout1 = self._run(block1, x1, x2, rope, dynamic, **wanted)
            new2, readout2 = self._run(block2, x2, x1, rope, None, **wanted)
            x1, x2 = new1, new2
            readouts1.append(readout1.scores)
            readouts2.append(readout2.scores)
            if layer in logit_layers:
                logits.append((readout1.logits, readout2.logits))
            # inputs of the heads; only the last state is normalised
            states1.append(self.dec_norm(x1.float()) if layer == last else x1)
            states2.append(self.dec_norm(x2.float()) if layer == last else x2)
        maps: tuple[Tensor | None, ...] = (None,) * 4
        if heads:
            # float32 in any case, also if the caller runs the transformer in bfloat16
            device = features1.device.type
            with torch.autocast(device, torch.bfloat16, enabled=heads_autocast):
                raw1 = self._run_head(self.downstream_head1, states1, tokens1, half=heads_autocast)
                raw2 = self._run_head(self.downstream_head2, states2, tokens2, half=heads_autocast)
            maps = (*to_points(raw1.float()), *to_points(raw2.float()))
        return Decoded(
            points1=maps[0],
            conf1=maps[1],
            points2=maps[2],
            conf2=maps[3],
            scores1=_stack_scores(readouts1, grid) if scores else None,
            scores2=_stack_scores(readouts2, grid) if scores else None,
            logits=tuple(logits),
        )

    def _decoder_inputs(
        self, features1: Tensor, features2: Tensor, grid_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Project encoder tokens (b, n, enc) of both views to decoder tokens (b, n, dec)."""
        x1, x2 = self.decoder_embed(features1), self.decoder_embed(features2)
        if self.config.position_code:
            position = self.dec_position(image_positions(grid_hw, features1.device))
            x1, x2 = x1 + position, x2 + position
        return x1, x2

    def _rope(self, grid_hw: tuple[int, int], head_dim: int, device: torch.device) -> Tensor:
        """Compute the rotary table of a patch grid."""
        return rope_table(grid_hw, head_dim, self.config.rope_base, device)

    def _run(self, part: nn.Module, *inputs: Any, **settings: Any) -> Any:
        """Run a block or head, with its activations kept or, in training, computed again."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(
                part, *inputs, use_reentrant=False, preserve_rng_state=False, **settings
            )
        return part(*inputs, **settings)

    def _run_head(
        self, head: nn.Module, states: list[Tensor], tokens: Tokens, *, half: bool
    ) -> Float[Tensor, "b 4 h w"]:
        """Run a head on the decoder states of its view; converts inputs to float32 unless half."""
        detail = tokens.detail
        if not half:
            states = [state.float() for state in states]
            detail = tuple(level.float() for level in detail)
        raw: Tensor = self._run(head, states, tokens.grid_hw, detail)
        return raw


def _stack_scores(per_layer: list[Tensor], grid_hw: tuple[int, int]) -> Float[Tensor, "b gh gw c"]:
    """Join the scores (b, heads, keys) of all layers as (b, gh, gw, layers*heads), layer-major."""
    stacked = torch.cat(per_layer, dim=1)
    return stacked.transpose(1, 2).reshape(len(stacked), *grid_hw, -1)
