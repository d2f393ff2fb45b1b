"""The two-view network: two images -> two pointmaps in the first camera (DUSt3R; SPEC 1, 4, 5)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import relu

from dyn3r.network.config import PATCH, NetworkConfig
from dyn3r.network.heads import DptHead, LinearHead, ResidualUnit, to_points
from dyn3r.network.layers import DecoderBlock, EncoderBlock
from dyn3r.network.rope import picture_positions, rope_table
from dyn3r.types import Tokens


@dataclass(frozen=True)
class Decoded:
    """The decoder's answer for a batch of pairs; view 1 is the reference camera."""

    points1: Float[Tensor, "b h w 3"] | None
    """Points of view 1 in camera 1; None with `heads=False`."""
    conf1: Float[Tensor, "b h w"] | None
    points2: Float[Tensor, "b h w 3"] | None
    """Points of view 2 in camera 1, at view 2's time."""
    conf2: Float[Tensor, "b h w"] | None
    scores1: Float[Tensor, "b gh gw c"] | None
    """Scores of view 2's tokens, from the view-1 stack (its queries are view 1's)."""
    scores2: Float[Tensor, "b gh gw c"] | None
    """Scores of view 1's tokens, from the view-2 stack."""
    motion1: Float[Tensor, "b h w"] | None
    """Logits: what view 1 shows here moves in the world. None without a motion head."""
    motion2: Float[Tensor, "b h w"] | None
    """The same for view 2."""
    logits: tuple[tuple[Tensor, Tensor], ...] = ()
    """(view-1 stack, view-2 stack) attention before softmax of the layers asked for."""


class PatchEmbedding(nn.Module):
    """16x16 pixels -> one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n dim"]:
        return self.proj(images).flatten(2).transpose(1, 2)


class DetailPyramid(nn.Module):
    """Convolutions from the picture itself: features at 1/2, 1/4 and 1/8, and at 1/16 for tokens.

    A patch is one vector to a transformer; where in it an outline runs is learnt only after very
    many pictures. Convolutions see it at once (Xiao et al. 2021, "Early convolutions help
    transformers see better"). The last layer starts at zero: a network grown from one without a
    pyramid starts where that one stopped.
    """

    def __init__(self, channels: int, dim: int) -> None:
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
        first, *deeper = self.down
        levels = [first(images)]
        for down, refine in zip(deeper, self.refine):
            levels.append(refine(down(relu(levels[-1]))))
        tokens = self.proj(relu(levels[-1])).flatten(2).transpose(1, 2)
        return tokens, (levels[0], levels[1], levels[2])


class PointmapNetwork(nn.Module):
    """Parameter names are the published ones, so that published checkpoints load strictly."""

    def __init__(self, config: NetworkConfig) -> None:
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
        """Frames, normalised to [-1, 1], h and w multiples of 16 -> tokens."""
        grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
        heads = self.config.enc_num_heads
        rope = self._rope(grid, self.config.enc_embed_dim // heads, images.device)
        x = self.patch_embed(images)
        if self.config.position_code:
            x = x + self.enc_position(picture_positions(grid, images.device))
        detail: tuple[Tensor, ...] = ()
        if self.config.detail_features:
            seen, detail = self.detail(images)
            x = x + seen
        for block in self.enc_blocks:
            x = block(x, rope)
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
        """Pairs of encoded frames -> pointmaps, confidences and attention scores.

        `dynamic` = moving tokens of view 1 and of view 2: the re-weighting of SPEC 5, in the view-1
        stack alone. `logit_layers` asks for attention maps (training losses only). Heads run in
        float32 unless `heads_autocast`.
        """
        grid = tokens1.grid_hw
        assert grid == tokens2.grid_hw, "both views must have the same patch grid"
        features1, features2 = tokens1.features, tokens2.features
        head_dim = self.config.dec_embed_dim // self.config.dec_num_heads
        rope = self._rope(grid, head_dim, features1.device)
        x1, x2 = self.decoder_embed(features1), self.decoder_embed(features2)
        if self.config.position_code:
            position = self.dec_position(picture_positions(grid, features1.device))
            x1, x2 = x1 + position, x2 + position
        states1, states2 = [features1], [features2]
        readings1, readings2, logits = [], [], []
        last = self.config.dec_depth - 1
        for layer, (block1, block2) in enumerate(zip(self.dec_blocks, self.dec_blocks2)):
            wanted = layer in logit_layers
            new1, read1 = block1(x1, x2, rope, dynamic, scores, wanted)
            new2, read2 = block2(x2, x1, rope, None, scores, wanted)
            x1, x2 = new1, new2
            readings1.append(read1.scores)
            readings2.append(read2.scores)
            if wanted:
                logits.append((read1.logits, read2.logits))
            # states hold what a head may read; only the last one is normalised
            states1.append(self.dec_norm(x1.float()) if layer == last else x1)
            states2.append(self.dec_norm(x2.float()) if layer == last else x2)
        answer: tuple[Tensor | None, ...] = (None,) * 6
        if heads:
            # float32 means float32, whatever precision the caller runs the transformer in
            device = features1.device.type
            with torch.autocast(device, torch.bfloat16, enabled=heads_autocast):
                detail1, detail2 = tokens1.detail, tokens2.detail
                if not heads_autocast:
                    states1 = [state.float() for state in states1]
                    states2 = [state.float() for state in states2]
                    detail1 = tuple(level.float() for level in detail1)
                    detail2 = tuple(level.float() for level in detail2)
                raw1, moves1 = self.downstream_head1(states1, grid, detail1)
                raw2, moves2 = self.downstream_head2(states2, grid, detail2)
            moves = (None if view is None else view.float() for view in (moves1, moves2))
            answer = (*to_points(raw1.float()), *to_points(raw2.float()), *moves)
        return Decoded(
            points1=answer[0],
            conf1=answer[1],
            points2=answer[2],
            conf2=answer[3],
            scores1=_stack_scores(readings1, grid) if scores else None,
            scores2=_stack_scores(readings2, grid) if scores else None,
            motion1=answer[4],
            motion2=answer[5],
            logits=tuple(logits),
        )

    def _rope(self, grid_hw: tuple[int, int], head_dim: int, device: torch.device) -> Tensor:
        return rope_table(grid_hw, head_dim, self.config.rope_base, device)


def _stack_scores(per_layer: list[Tensor], grid_hw: tuple[int, int]) -> Float[Tensor, "b gh gw c"]:
    """(b, heads, keys) of every layer -> (b, gh, gw, layers*heads), layer-major."""
    stacked = torch.cat(per_layer, dim=1)
    return stacked.transpose(1, 2).reshape(len(stacked), *grid_hw, -1)
