"""Transformer blocks of the encoder and of the two-view decoder (SPEC 1, 4, 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from dyn3r.network.rope import rotate

FEW_TOKENS = 1024
"""Up to so many tokens, attention is written out when training on a CPU. Beyond, its memory grows
too large. Source: run time of both passes on 2 cores."""


def attend(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads k d"],
    v: Float[Tensor, "b heads k d"],
    keep: Bool[Tensor, "b k"] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """Compute softmax attention: PyTorch's fused kernel, except when training on a CPU.

    keep: keys that take part in the softmax; None: all of them.
    The backward pass of the fused kernel is slow on CPUs: it took a third of a training step at 140
    tokens. Written out, with few tokens, it is several times as fast (measured on 2 cores).
    """
    if keep is not None:
        if len(keep) == 1:  # leaving keys out is cheaper than masking them
            return scaled_dot_product_attention(q, k[:, :, keep[0]], v[:, :, keep[0]])
        return scaled_dot_product_attention(q, k, v, keep[:, None, None])
    training = torch.is_grad_enabled() and q.requires_grad
    if training and q.device.type == "cpu" and q.shape[2] <= FEW_TOKENS:
        weights: Tensor = (q @ (k * q.shape[-1] ** -0.5).transpose(-1, -2)).softmax(-1)
        return weights.to(v.dtype) @ v
    return scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between; the hidden layer is four times as wide."""

    def __init__(self, dim: int) -> None:
        """Create the layers for tokens of width `dim`."""
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        """Map tokens (b, n, dim) to (b, n, dim)."""
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


QueriesKeys = Callable[[Tensor, Tensor], None]
"""Called with queries and keys, (b, heads, n, head width), as they enter the softmax."""


class SelfAttention(nn.Module):
    """Multi-head attention of a view's tokens to themselves."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False) -> None:
        """Create the layers for tokens of width `dim`; qk_norm: normalise queries and keys."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.qk_norm = qk_norm
        if qk_norm:
            self.q_norm = nn.LayerNorm(dim // heads)
            self.k_norm = nn.LayerNorm(dim // heads)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        rope: Float[Tensor, "2 n head_dim"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
        read: QueriesKeys | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Map tokens (b, n, dim) to (b, n, dim).

        rope: `rope_table` of the tokens; None: no rotary embedding. keep: tokens that act as keys.
        read: receives queries and keys.
        """
        b, n, dim = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if read is not None:
            read(q, k)
        heads = attend(q, k, v, keep)
        out: Tensor = self.proj(heads.transpose(1, 2).reshape(b, n, dim))
        return out


class AttentionReadout(NamedTuple):
    """Statistics of a cross-attention besides its output."""

    scores: Float[Tensor, "b heads keys"] | None
    """Mean over the queries of q.k / sqrt(head width): one number per head and key token."""
    logits: Float[Tensor, "b heads queries keys"] | None
    """Attention before its softmax; for training losses on small networks only."""


class CrossAttention(nn.Module):
    """Multi-head attention of one view's tokens to the other view's."""

    def __init__(self, dim: int, heads: int) -> None:
        """Create the layers for tokens of width `dim`."""
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        y: Float[Tensor, "b k dim"],
        rope: Float[Tensor, "2 n head_dim"],
        dynamic: tuple[Bool[Tensor, "b n"], Bool[Tensor, "b k"]] | None = None,
        *,
        want_scores: bool = False,
        want_logits: bool = False,
    ) -> tuple[Float[Tensor, "b n dim"], AttentionReadout]:
        """Attend from x (b, n, dim) to y (b, k, dim), both on the same patch grid.

        dynamic: masks of dynamic query and key tokens. Static queries then get nothing from dynamic
        keys (SPEC 5). The weights are those of the full softmax, so this equals attention with the
        values of the dynamic keys set to zero, and no attention map is formed.
        Returns tokens (b, n, dim) and the statistics asked for.
        """
        b, n, dim = x.shape
        q = self.projq(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = (
            proj(y).view(b, y.shape[1], self.heads, -1).transpose(1, 2)
            for proj in (self.projk, self.projv)
        )
        q, k = rotate(q, rope), rotate(k, rope)
        out = attend(q, k, v)
        if dynamic is not None:
            dynamic_query, dynamic_key = dynamic
            static_value = v.masked_fill(dynamic_key[:, None, :, None], 0)
            static_only = attend(q, k, static_value)
            out = torch.where(dynamic_query[:, None, :, None], out, static_only)
        scale = q.shape[-1] ** -0.5
        # mean_q (q . k) = (mean q) . k : the statistic of SPEC 4 without a token-by-token map
        scores = (
            torch.einsum("bhd,bhkd->bhk", q.float().mean(2) * scale, k.float())
            if want_scores
            else None
        )
        logits = scale * q @ k.transpose(-1, -2) if want_logits else None
        return self.proj(out.transpose(1, 2).reshape(b, n, dim)), AttentionReadout(scores, logits)


class LayerScale(nn.Module):
    """Learned factor per channel (CaiT, Touvron et al. 2021)."""

    def __init__(self, dim: int) -> None:
        """Create `dim` factors of 1."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Scale every channel."""
        return x * self.gamma


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        eps: float = 1e-6,
        qk_norm: bool = False,
        layer_scale: bool = False,
    ) -> None:
        """Create the layers for tokens of width `dim`.

        eps: of both norms. qk_norm: see `SelfAttention`. layer_scale: scale both residuals.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n dim"], rope: Float[Tensor, "2 n head_dim"] | None = None
    ) -> Float[Tensor, "b n dim"]:
        """Map tokens (b, n, dim) to (b, n, dim); rope: `rope_table` of their grid."""
        return self.feed_forward(self.attention(x, rope))

    def attention(
        self,
        x: Float[Tensor, "b n dim"],
        rope: Float[Tensor, "2 n head_dim"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
        read: QueriesKeys | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Add the attention residual to tokens; see `SelfAttention.forward`."""
        residual: Tensor = self.ls1(self.attn(self.norm1(x), rope, keep, read))
        return x + residual

    def feed_forward(self, x: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        """Add the perceptron's residual to tokens."""
        residual: Tensor = self.ls2(self.mlp(self.norm2(x)))
        return x + residual


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other view, perceptron; all pre-norm."""

    def __init__(self, dim: int, heads: int) -> None:
        """Create the layers for tokens of width `dim`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, heads)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)
        self.norm_y = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        y: Float[Tensor, "b n dim"],
        rope: Float[Tensor, "2 n head_dim"],
        dynamic: tuple[Bool[Tensor, "b n"], Bool[Tensor, "b n"]] | None = None,
        *,
        want_scores: bool = False,
        want_logits: bool = False,
    ) -> tuple[Float[Tensor, "b n dim"], AttentionReadout]:
        """Map tokens x (b, n, dim), given those of the other view y; see `CrossAttention`."""
        x = x + self.attn(self.norm1(x), rope)
        crossed, readout = self.cross_attn(
            self.norm2(x),
            self.norm_y(y),
            rope,
            dynamic,
            want_scores=want_scores,
            want_logits=want_logits,
        )
        x = x + crossed
        return x + self.mlp(self.norm3(x)), readout
