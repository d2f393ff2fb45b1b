"""Backbone of the many-view network: a vision transformer whose odd late blocks see all views.

Depth Anything 3, section 3: a DINOv2 transformer; from block `alt_start` on, even blocks attend
within a view and odd ones over the tokens of all views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from dyn3r.network.layers import EncoderBlock
from dyn3r.network.many_view.reference_view import (
    FEWEST_VIEWS,
    choose_reference,
    reference_first,
)
from dyn3r.network.many_view.view_config import VIEW_PATCH, ManyViewConfig
from dyn3r.network.rope import grid_positions, rope_at

ROPE_BASE = 100.0
"""Base of the frequencies of the rotary embedding."""
TRAINED_GRID = 37
"""Rows and columns of the grid of learned position codes: 518 pixels, as DINOv2 was trained."""
GRID_OFFSET = 0.1
"""Added to the sides of the wanted grid, whose ratio to `TRAINED_GRID` is the sampling scale of
the position codes. Source: as published."""
TOKENS_AT_ONCE = 4096
"""Tokens that pass through a perceptron or an attention within views at once: its hidden layer then
stays small. Source: run time and memory on 2 CPU cores."""


@dataclass
class Readout:
    """What is collected on the way through the backbone; all in the original order of the views."""

    query_layers: tuple[int, ...]
    """Global blocks whose queries are wanted."""
    key_layers: tuple[int, ...]
    """Global blocks whose keys are wanted."""
    queries: dict[int, Float[Tensor, "s p c"]] = field(default_factory=dict)
    """Queries of the patch tokens by block, after norm and rotary embedding, heads joined."""
    keys: dict[int, Float[Tensor, "s p c"]] = field(default_factory=dict)
    """Keys of the patch tokens, likewise."""
    tokens: Float[Tensor, "s p c"] | None = None
    """Patch tokens before the first block that sees other views."""


@dataclass(frozen=True)
class Features:
    """Output of the backbone, views in their original order."""

    dense: tuple[Float[Tensor, "s p d"], ...]
    """Patch tokens of the four output blocks; d = 2C: last block within views, then this block."""
    camera: Float[Tensor, "s d"]
    """Camera token of the last output block, not normalised."""
    reference: int
    """Index of the reference view; -1 with fewer than three views or with given cameras."""


@dataclass(frozen=True)
class Encoded:
    """Views after the blocks that see one view each: a second pass over them may start here."""

    tokens: Float[Tensor, "s n c"]
    """Class and patch tokens, the reference view first."""
    dense: tuple[Float[Tensor, "s p d"], ...]
    """Patch tokens of the output blocks among these, views in their original order."""
    order: list[int]
    """Order of the views in `tokens`."""
    reference: int
    """See `Features`."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return sum(x.numel() * x.element_size() for x in (self.tokens, *self.dense))


class PatchProjection(nn.Module):
    """Linear embedding of 14x14 pixels as one token."""

    def __init__(self, dim: int) -> None:
        """Create the layer for tokens of width `dim`."""
        super().__init__()
        self.proj = nn.Conv2d(3, dim, VIEW_PATCH, stride=VIEW_PATCH)

    def forward(self, images: Float[Tensor, "s 3 h w"]) -> Float[Tensor, "s p c"]:
        """Map images (s, 3, h, w) to tokens (s, p, c)."""
        tokens: Tensor = self.proj(images)
        return tokens.flatten(2).transpose(1, 2)


class ViewTransformer(nn.Module):
    """Transformer over the tokens of all views."""

    checkpointing = False
    """Compute activations again in the backward pass, in place of keeping them."""

    def __init__(self, config: ManyViewConfig) -> None:
        """Create the layers for the sizes of `config`."""
        super().__init__()
        self.config, dim = config, config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.camera_token = nn.Parameter(torch.zeros(1, 2, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_GRID**2, dim))
        self.patch_embed = PatchProjection(dim)
        self.blocks = nn.ModuleList(
            EncoderBlock(dim, config.num_heads, qk_norm=i >= config.qknorm_start, layer_scale=True)
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        images: Float[Tensor, "s 3 h w"],
        encoded: Encoded,
        camera_tokens: Float[Tensor, "s c"] | None = None,
        masking: Masking | None = None,
        readout: Readout | None = None,
        after_block: Callable[[int], None] | None = None,
    ) -> Features:
        """Map views that were encoded to features; `images` give the size.

        camera_tokens: of given cameras. masking: tokens that are no keys. readout: filled on the
        way. after_block: called with the number of every block that is done.
        """
        ropes = self._ropes(_grid(images), len(images), images.device)
        order, back = encoded.order, torch.tensor(encoded.order).argsort()
        local, dense, camera = encoded.tokens, list(encoded.dense), encoded.tokens[:, 0]
        x = self._with_camera_tokens(encoded.tokens, camera_tokens)
        if readout is not None:
            readout.tokens = encoded.tokens[back][:, 1:]
        for i in range(self.config.alt_start, self.config.depth):
            block, rope = self.blocks[i], self._rope_of(i, ropes)
            keep = None if masking is None or i not in masking.layers else masking.keep[order]
            if self.config.is_global(i):
                reader = _Reader(readout, i, back, len(images))
                x = self.run(_attend_globally, block, x, rope, keep, reader)
            else:
                local = x = self.run(_attend_locally, block, x, rope, keep)
            if i in self.config.out_layers:
                dense.append(self._dense(local, x)[back])
                camera = torch.cat([local[:, 0], x[:, 0]], dim=-1)[back]
            if after_block is not None:
                after_block(i)
        return Features(tuple(dense), camera, encoded.reference)

    def encode(
        self,
        images: Float[Tensor, "s 3 h w"],
        reference: str | None,
        after_block: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Apply the blocks that see one view each to normalised images.

        reference: see `choose_reference`; None keeps the order of the views, as given cameras ask.
        """
        views, config = len(images), self.config
        rope = self._ropes(_grid(images), views, images.device)[0]
        chosen, order, dense = -1, list(range(views)), []
        x = self._tokens(images)
        for i in range(config.alt_start):
            if i == config.alt_start - 1 and views >= FEWEST_VIEWS and reference is not None:
                chosen = choose_reference(x[:, 0], reference)
                order = reference_first(chosen, views)
                x = x[order]
            block_rope = rope if i >= config.rope_start else None
            x = self.run(_attend_locally, self.blocks[i], x, block_rope, None)
            if i in config.out_layers:
                dense.append(self._dense(x, x)[torch.tensor(order).argsort()])
            if after_block is not None:
                after_block(i)
        return Encoded(x, tuple(dense), order, chosen)

    def _dense(
        self, local: Float[Tensor, "s n c"], x: Float[Tensor, "s n c"]
    ) -> Float[Tensor, "s p d"]:
        """Patch tokens of an output block; the norm acts on the second half only."""
        return torch.cat([local[:, 1:], self.norm(x[:, 1:])], dim=-1)

    def _rope_of(self, block: int, ropes: tuple[Tensor, Tensor]) -> Tensor | None:
        """Rotary table of a block."""
        if block < self.config.rope_start:
            return None
        return ropes[self.config.is_global(block)]

    def run(self, part: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
        """Run a part, with its activations kept or, in training, computed again."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(
                part, *inputs, use_reentrant=False, preserve_rng_state=False, **settings
            )
        return part(*inputs, **settings)

    def _tokens(self, images: Float[Tensor, "s 3 h w"]) -> Float[Tensor, "s n c"]:
        """Class token and patch tokens of every view, with their position codes."""
        patches = self.patch_embed(images).float()
        first = self.cls_token.expand(len(patches), -1, -1)
        return torch.cat([first, patches], dim=1) + self.position_codes(_grid(images))

    def position_codes(self, grid_hw: tuple[int, int]) -> Float[Tensor, "1 n c"]:
        """Learned codes of the class token and of a patch grid, resampled from the trained grid.

        The sampling scale is (side + 0.1) / 37, not the ratio of the sides (as published).
        """
        if grid_hw == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.float().transpose(1, 2).reshape(1, -1, TRAINED_GRID, TRAINED_GRID)
        scale = tuple((side + GRID_OFFSET) / TRAINED_GRID for side in grid_hw)
        grid = interpolate(grid, scale_factor=scale, mode="bicubic")
        assert grid.shape[2:] == grid_hw
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)

    def _with_camera_tokens(
        self, x: Float[Tensor, "s n c"], given: Float[Tensor, "s c"] | None
    ) -> Float[Tensor, "s n c"]:
        """Tokens whose class token is replaced: by the given ones, or by first and others."""
        if given is None:
            given = self.camera_token[0, [0] + [1] * (len(x) - 1)]
        return torch.cat([given[:, None].to(x.dtype), x[:, 1:]], dim=1)

    def _ropes(
        self, grid_hw: tuple[int, int], views: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Rotary tables of blocks within a view and over all views.

        Within a view patches are at (row + 1, column + 1); over all views every patch is at (1, 1).
        The camera token is at (0, 0).
        """
        width = self.config.embed_dim // self.config.num_heads
        patches = grid_positions(grid_hw, device) + 1
        camera = patches.new_zeros(1, 2)
        local = rope_at(torch.cat([camera, patches]), width, ROPE_BASE)
        alike = rope_at(torch.cat([camera, torch.ones_like(patches)]), width, ROPE_BASE)
        return local, alike.repeat(1, views, 1)


def _grid(images: Float[Tensor, "s 3 h w"]) -> tuple[int, int]:
    """Rows and columns of patches."""
    return int(images.shape[-2]) // VIEW_PATCH, int(images.shape[-1]) // VIEW_PATCH


@dataclass(frozen=True)
class Masking:
    """Tokens that are left out of keys and values (early masking of VGGT4D)."""

    keep: Bool[Tensor, "s n"]
    """False: not a key. The camera token, which comes first, must be kept."""
    layers: tuple[int, ...]
    """Blocks in which this holds, of those from `alt_start` on."""


@dataclass(frozen=True)
class _Reader:
    """Collector of queries and keys of a block over all views."""

    readout: Readout | None
    layer: int
    back: Tensor
    views: int

    def __call__(self, queries: Tensor, keys: Tensor) -> None:
        """Keep the patch tokens' queries and keys (1, heads, s n, d) as (s, p, heads d)."""
        if self.readout is None:
            return
        wanted = (
            (self.readout.query_layers, self.readout.queries, queries),
            (self.readout.key_layers, self.readout.keys, keys),
        )
        for layers, store, values in wanted:
            if self.layer not in layers:
                continue
            joined = values[0].transpose(0, 1).flatten(1)
            by_view = joined.reshape(self.views, -1, joined.shape[-1])
            store[self.layer] = by_view[self.back][:, 1:].float()


def _attend_locally(
    block: EncoderBlock,
    x: Float[Tensor, "s n c"],
    rope: Tensor | None,
    keep: Bool[Tensor, "s n"] | None,
) -> Float[Tensor, "s n c"]:
    """Apply a block to every view on its own."""
    at_once = max(1, TOKENS_AT_ONCE // x.shape[1])
    kept: Sequence[Tensor | None] = [None] * len(x)
    if keep is not None:
        kept = torch.split(keep, at_once)
    parts = [
        block.feed_forward(block.attention(part, rope, mask))
        for part, mask in zip(torch.split(x, at_once), kept)
    ]
    return torch.cat(parts)


def _attend_globally(
    block: EncoderBlock,
    x: Float[Tensor, "s n c"],
    rope: Tensor | None,
    keep: Bool[Tensor, "s n"] | None,
    read: _Reader,
) -> Float[Tensor, "s n c"]:
    """Apply a block to the tokens of all views as one sequence."""
    joined = x.flatten(0, 1)[None]
    kept = None if keep is None else keep.flatten()[None]
    joined = block.attention(joined, rope, kept, read)
    parts = [block.feed_forward(part) for part in torch.split(joined, TOKENS_AT_ONCE, dim=1)]
    return torch.cat(parts, dim=1)[0].view_as(x)
