"""The size of a network as data: one class of network serves every published and embedded size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dyn3r.errors import CheckpointError

_SIZES = ("embed_dim", "depth", "num_heads")
PATCH = 16
"""Pixels along a patch's side; the same for every network of this family."""


@dataclass(frozen=True)
class NetworkConfig:
    """Widths, depths and head of a two-view pointmap network (DUSt3R, section 3; SPEC 1)."""

    enc_embed_dim: int = 1024
    """Encoder width; larger sees finer differences and costs its square."""
    enc_depth: int = 24
    """Encoder blocks."""
    enc_num_heads: int = 16
    """Encoder attention heads; the width of one must be a multiple of 4 (rotary code)."""
    dec_embed_dim: int = 768
    """Decoder width."""
    dec_depth: int = 12
    """Blocks in each of the two decoder stacks."""
    dec_num_heads: int = 12
    """Decoder attention heads; the width of one must be a multiple of 4."""
    head: Literal["dpt", "linear"] = "dpt"
    """`dpt`: convolutions over four depths, smooth maps; `linear`: one layer, cheap and blocky."""
    rope_base: float = 100.0
    """Base of the rotary position code's frequencies."""
    position_code: bool = False
    """Tell every token where in the picture it lies (ours; the published networks only know
    positions relative to each other, through the rotary code, and learn the rest slowly)."""
    detail_features: int = 0
    """Channels at 1/4 of the frame of a small convolutional pyramid beside the patch embedding,
    which feeds the encoder and shows the head where outlines run (ours); 0: none, as published."""
    motion_head: bool = False
    """A branch of every DPT head that says of each pixel whether it shows something that moves in
    the world (ours); the published networks have none."""
    image_size: int = 512
    """Long side in pixels the network was trained for; the default when frames are prepared."""
    dpt_features: int = 256
    """Channels of the DPT head's fusion; the published heads have 256."""
    dpt_layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the DPT head's four adapters, fine to coarse."""

    def __post_init__(self) -> None:
        for field in ("enc_embed_dim", "enc_depth", "dec_embed_dim", "dec_depth", "dpt_features"):
            value = getattr(self, field)
            if not (isinstance(value, int) and 1 <= value <= 8192):
                raise CheckpointError(f"network configuration: {field}={value!r} is out of range")
        if not (isinstance(self.image_size, int) and 16 <= self.image_size <= 8192):
            raise CheckpointError(
                f"network configuration: image_size={self.image_size!r:.40} is out of range"
            )
        if not (isinstance(self.rope_base, int | float) and 1 < self.rope_base < 1e9):
            raise CheckpointError(
                f"network configuration: rope_base={self.rope_base!r:.40} is out of range"
            )
        if not (isinstance(self.detail_features, int) and 0 <= self.detail_features <= 512):
            raise CheckpointError(
                "network configuration: "
                f"detail_features={self.detail_features!r:.40} is out of range"
            )
        if self.detail_features % 2 or (self.detail_features and self.head != "dpt"):
            raise CheckpointError(
                "network configuration: detail_features must be even, and need a dpt head"
            )
        if not isinstance(self.motion_head, bool) or (self.motion_head and self.head != "dpt"):
            raise CheckpointError(
                "network configuration: motion_head is true or false, and needs a dpt head"
            )
        dims = self.dpt_layer_dims
        if not (isinstance(dims, tuple) and len(dims) == 4) or any(
            not (isinstance(d, int) and 1 <= d <= 8192) for d in dims
        ):
            raise CheckpointError(
                f"network configuration: dpt_layer_dims={dims!r:.60} are no four plausible widths"
            )
        for part in ("enc", "dec"):
            dim, heads = getattr(self, f"{part}_embed_dim"), getattr(self, f"{part}_num_heads")
            if heads < 1 or dim % heads or (dim // heads) % 4:
                raise CheckpointError(
                    f"network configuration: {part} width {dim} does not split into {heads} heads "
                    "of a multiple of 4 channels"
                )
        if self.enc_depth > 96 or self.dec_depth > 96:
            raise CheckpointError("network configuration: more than 96 blocks is not plausible")
        if self.head not in ("dpt", "linear"):
            raise CheckpointError(f"network configuration: unknown head {self.head!r}")
        if self.head == "dpt" and self.dec_depth < 4:
            raise CheckpointError("network configuration: a dpt head needs at least 4 blocks")

    @property
    def score_channels(self) -> int:
        """Channels of the attention statistic: decoder layers x heads."""
        return self.dec_depth * self.dec_num_heads

    @property
    def dpt_states(self) -> tuple[int, int, int, int]:
        """Which decoder states the DPT head reads: 0, L/2, 3L/4, L."""
        return (0, self.dec_depth // 2, self.dec_depth * 3 // 4, self.dec_depth)

    @classmethod
    def from_published(cls, keywords: Mapping[str, Any]) -> NetworkConfig:
        """Read a published constructor call's keywords (SPEC 1.1); unknown behaviour is refused."""
        base = _rope_base(str(keywords.get("pos_embed", "RoPE100")))
        modes = {
            "output_mode": ("pts3d", keywords.get("output_mode", "pts3d")),
            "depth_mode": (("exp", -math.inf, math.inf), keywords.get("depth_mode")),
            "conf_mode": (("exp", 1, math.inf), keywords.get("conf_mode")),
        }
        for name, (ours, theirs) in modes.items():
            theirs = tuple(theirs) if isinstance(theirs, list) else theirs
            if theirs is not None and theirs != ours:
                raise CheckpointError(f"this checkpoint has {name}={theirs}; only {ours} is known")
        if keywords.get("patch_size", PATCH) != PATCH:
            raise CheckpointError(f"patch size {keywords['patch_size']} is not supported, only 16")
        size = keywords.get("img_size", 512)
        names = [f"{part}_{what}" for part in ("enc", "dec") for what in _SIZES]
        sizes = {name: keywords[name] for name in names if name in keywords}
        if any(isinstance(v, bool) or not isinstance(v, int) for v in sizes.values()):
            raise CheckpointError("network configuration: widths and depths must be whole numbers")
        return cls(
            **sizes,
            head=keywords.get("head_type", "dpt"),
            rope_base=base,
            image_size=_long_side(size),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Read what `to_dict` wrote; unknown keys are refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise CheckpointError(f"network configuration: unknown entries {', '.join(unknown)}")
        values = dict(values)
        if isinstance(values.get("dpt_layer_dims"), list):
            values["dpt_layer_dims"] = tuple(values["dpt_layer_dims"])
        try:
            return cls(**values)
        except TypeError as problem:
            raise CheckpointError(f"network configuration: {problem}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def _long_side(size: Any) -> int:
    """`img_size` of a published constructor, one number or two -> pixels."""
    sides = size if isinstance(size, tuple | list) else (size,)
    if not sides or any(isinstance(s, bool) or not isinstance(s, int) for s in sides):
        raise CheckpointError(f"network configuration: img_size={size!r:.40} is no size")
    return max(sides)


def _rope_base(name: str) -> float:
    """`RoPE100` -> 100."""
    if not name.startswith("RoPE"):
        raise CheckpointError(f"position code {name!r} is not supported, only RoPE<base>")
    try:
        return float(name[4:])
    except ValueError:
        raise CheckpointError(f"position code {name!r}: no number after RoPE") from None
