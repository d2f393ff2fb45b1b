"""Size of a network as data: one network class serves every published and embedded size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dyn3r.errors import CheckpointError

PATCH = 16
"""Side of a patch in pixels; the same for every network of this family."""

RETIRED_MOTION_HEAD = "motion_head"
"""Retired configuration entry (bool), still present in older files: see `has_retired_head`."""

_SIZES = ("embed_dim", "depth", "num_heads")
_LARGEST_WIDTH = 8192
_LARGEST_DEPTH = 96


@dataclass(frozen=True)
class NetworkConfig:
    """Widths, depths and head of a two-view pointmap network (DUSt3R, section 3; SPEC 1).

    Raises CheckpointError for an implausible value: configurations come from untrusted files.
    """

    enc_embed_dim: int = 1024
    """Encoder width; cost grows with its square."""
    enc_depth: int = 24
    """Number of encoder blocks."""
    enc_num_heads: int = 16
    """Encoder attention heads; the width of a head must be a multiple of 4 (rotary embedding)."""
    dec_embed_dim: int = 768
    """Decoder width."""
    dec_depth: int = 12
    """Number of blocks in each of the two decoders."""
    dec_num_heads: int = 12
    """Decoder attention heads; the width of a head must be a multiple of 4."""
    head: Literal["dpt", "linear"] = "dpt"
    """`dpt`: convolutional fusion of four states, smooth maps; `linear`: one layer, blocky maps."""
    rope_base: float = 100.0
    """Base of the frequencies of the rotary position embedding."""
    position_code: bool = False
    """Adds an absolute position embedding to every token. Not in the published networks, which
    have the relative rotary embedding only."""
    detail_features: int = 0
    """Channels at 1/4 resolution of a convolutional pyramid beside the patch embedding, which
    feeds the encoder and the head with fine image detail; even. 0: none, as published."""
    image_size: int = 512
    """Long side in pixels of the training frames; default size when frames are prepared."""
    dpt_features: int = 256
    """Channels of the DPT head's fusion; 256 in the published heads."""
    dpt_layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the DPT head's four adapters, fine to coarse."""

    def __post_init__(self) -> None:
        """Check every value."""
        self._check_sizes()
        self._check_attention_heads("enc")
        self._check_attention_heads("dec")
        self._check_head()

    def _check_sizes(self) -> None:
        """Check that every number lies in its range."""
        sizes = ("enc_embed_dim", "enc_depth", "dec_embed_dim", "dec_depth", "dpt_features")
        ranges = {
            **dict.fromkeys(sizes, (1, _LARGEST_WIDTH)),
            "image_size": (PATCH, _LARGEST_WIDTH),
            "detail_features": (0, 512),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value <= high):
                raise _refused(f"{name}={value!r:.40} is out of range")
        if not (isinstance(self.rope_base, int | float) and 1 < self.rope_base < 1e9):
            raise _refused(f"rope_base={self.rope_base!r:.40} is out of range")
        if max(self.enc_depth, self.dec_depth) > _LARGEST_DEPTH:
            raise _refused(f"more than {_LARGEST_DEPTH} blocks is not plausible")

    def _check_attention_heads(self, stack: str) -> None:
        """Check that the width of a stack, `enc` or `dec`, splits into its attention heads."""
        dim, heads = getattr(self, f"{stack}_embed_dim"), getattr(self, f"{stack}_num_heads")
        if heads < 1 or dim % heads or (dim // heads) % 4:
            raise _refused(
                f"{stack} width {dim} does not split into {heads} heads of a multiple of 4 channels"
            )

    def _check_head(self) -> None:
        """Check the head and what depends on it."""
        dims = self.dpt_layer_dims
        four = isinstance(dims, tuple) and len(dims) == 4
        if not four or not all(isinstance(d, int) and 1 <= d <= _LARGEST_WIDTH for d in dims):
            raise _refused(f"dpt_layer_dims={dims!r:.60} are not four plausible widths")
        _known_head(self.head)
        if self.head == "dpt" and self.dec_depth < 4:
            raise _refused("a dpt head needs at least 4 blocks")
        if self.detail_features % 2 or (self.detail_features and self.head != "dpt"):
            raise _refused("detail_features must be even and needs a dpt head")

    @property
    def score_channels(self) -> int:
        """Channels of the attention statistic: decoder layers x heads."""
        return self.dec_depth * self.dec_num_heads

    @property
    def dpt_states(self) -> tuple[int, int, int, int]:
        """Indices of the decoder states that the DPT head reads: 0, L/2, 3L/4, L."""
        return (0, self.dec_depth // 2, self.dec_depth * 3 // 4, self.dec_depth)

    @classmethod
    def from_published(cls, keywords: Mapping[str, Any]) -> NetworkConfig:
        """Read the keywords of a published constructor call (SPEC 1.1).

        Raises CheckpointError for output modes, patch sizes or values that are not supported.
        """
        base = _rope_base(str(keywords.get("pos_embed", "RoPE100")))
        modes = {
            "output_mode": ("pts3d", keywords.get("output_mode", "pts3d")),
            "depth_mode": (("exp", -math.inf, math.inf), keywords.get("depth_mode")),
            "conf_mode": (("exp", 1, math.inf), keywords.get("conf_mode")),
        }
        for name, (supported, given) in modes.items():
            given = tuple(given) if isinstance(given, list) else given
            if given is not None and given != supported:
                raise CheckpointError(
                    f"this checkpoint has {name}={given}; only {supported} is supported"
                )
        if keywords.get("patch_size", PATCH) != PATCH:
            raise CheckpointError(f"patch size {keywords['patch_size']} is not supported, only 16")
        size = keywords.get("img_size", 512)
        names = [f"{stack}_{suffix}" for stack in ("enc", "dec") for suffix in _SIZES]
        sizes = {name: keywords[name] for name in names if name in keywords}
        if any(isinstance(v, bool) or not isinstance(v, int) for v in sizes.values()):
            raise _refused("widths and depths must be whole numbers")
        return cls(
            **sizes,
            head=_known_head(keywords.get("head_type", "dpt")),
            rope_base=base,
            image_size=_long_side(size),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Read the output of `to_dict`; the retired entry `motion_head` is ignored.

        Raises CheckpointError for unknown entries and implausible values.
        """
        has_retired_head(values)
        values = {name: value for name, value in values.items() if name != RETIRED_MOTION_HEAD}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise _refused(f"unknown entries {', '.join(unknown)}")
        if isinstance(values.get("dpt_layer_dims"), list):
            values["dpt_layer_dims"] = tuple(values["dpt_layer_dims"])
        try:
            return cls(**values)
        except TypeError as problem:
            raise _refused(str(problem).splitlines()[0]) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def has_retired_head(values: Mapping[str, Any]) -> bool:
    """Whether a configuration of ours says that its file holds weights of the retired motion head.

    Raises CheckpointError if the entry is present and no bool.
    """
    value = values.get(RETIRED_MOTION_HEAD, False)
    if not isinstance(value, bool):
        raise _refused(f"{RETIRED_MOTION_HEAD}={value!r:.40} must be true or false")
    return value


def _refused(reason: str) -> CheckpointError:
    """Return the error for a configuration that is not accepted."""
    return CheckpointError(f"network configuration: {reason}")


def _known_head(name: Any) -> Literal["dpt", "linear"]:
    """Return the name of a head. Raises CheckpointError for any other value."""
    if name == "dpt":
        return "dpt"
    if name == "linear":
        return "linear"
    raise _refused(f"unknown head {name!r:.40}")


def _long_side(size: Any) -> int:
    """Return the long side in pixels of a published `img_size`, one number or two."""
    sides = tuple(size) if isinstance(size, tuple | list) else (size,)
    if not sides or any(isinstance(s, bool) or not isinstance(s, int) for s in sides):
        raise _refused(f"img_size={size!r:.40} is not a size")
    return int(max(sides))


def _rope_base(name: str) -> float:
    """Parse the frequency base of a position embedding: `RoPE100` gives 100."""
    if not name.startswith("RoPE"):
        raise CheckpointError(f"position embedding {name!r} is not supported, only RoPE<base>")
    try:
        return float(name[4:])
    except ValueError:
        raise CheckpointError(f"position embedding {name!r}: no number after RoPE") from None
