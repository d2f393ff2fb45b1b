"""Size of a many-view network as data, read from the `config.json` of a published folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyn3r.errors import CheckpointError

VIEW_PATCH = 14
"""Side of a patch in pixels."""
OWN_KEY = "many_view"
"""Entry that tells our own configurations from those of two-view networks."""
ROOT_CLASS = "DepthAnything3Net"
"""Class of the network in a published config.json."""

_CLASSES = {"net": "DinoV2", "head": "DualDPT", "cam_enc": "CameraEnc", "cam_dec": "CameraDec"}
_ENTRIES = {
    "net": {"name", "out_layers", "alt_start", "qknorm_start", "rope_start", "cat_token"},
    "head": {"dim_in", "output_dim", "features", "out_channels"},
    "cam_enc": {"dim_out"},
    "cam_dec": {"dim_in"},
}
_SIZES = ("embed_dim", "depth", "num_heads")
_NAMED = {"vits": (384, 12, 6), "vitb": (768, 12, 12)}
"""Width, blocks and attention heads of the backbones whose weights are under Apache-2.0."""
_LARGEST_WIDTH, _LARGEST_DEPTH, _LARGEST_SIDE = 4096, 96, 4096
CAMERA_HEADS = 16
"""Attention heads of the camera encoder, whatever its width."""


@dataclass(frozen=True)
class ManyViewConfig:
    """Widths, depths and layers of a many-view network (Depth Anything 3, section 3).

    Raises CheckpointError for an implausible value: configurations come from untrusted files.
    """

    embed_dim: int = 384
    """Width C of the tokens."""
    depth: int = 12
    """Number of transformer blocks."""
    num_heads: int = 6
    """Attention heads; the width of a head must be a multiple of 4 (rotary embedding)."""
    out_layers: tuple[int, int, int, int] = (5, 7, 9, 11)
    """Blocks whose outputs the head reads; the cameras are read from the last."""
    alt_start: int = 4
    """First block of the part in which odd blocks attend over all views."""
    qknorm_start: int = 4
    """First block that normalises queries and keys."""
    rope_start: int = 4
    """First block with rotary embedding."""
    features: int = 64
    """Channels F of the head's fusion."""
    out_channels: tuple[int, int, int, int] = (48, 96, 192, 384)
    """Channels of the head's four levels, fine to coarse."""
    image_size: int = 512
    """Long side in pixels at which clips are prepared; the network sees the next smaller multiple
    of 14, which is 504, the published default."""

    def __post_init__(self) -> None:
        """Check every value."""
        counts = (self.embed_dim, self.depth, self.num_heads, self.features, *self.out_channels)
        starts = (self.alt_start, self.qknorm_start, self.rope_start)
        if min(counts) < 1 or max(counts) > _LARGEST_WIDTH or self.depth > _LARGEST_DEPTH:
            raise refused("a width or depth is out of range")
        if self.embed_dim % self.num_heads or (self.embed_dim // self.num_heads) % 4:
            raise refused(
                f"width {self.embed_dim} does not split into {self.num_heads} heads of a multiple "
                "of 4 channels"
            )
        if (
            self.embed_dim % CAMERA_HEADS
            or self.features % 8
            or any(channels % 4 for channels in self.out_channels)
        ):
            raise refused("a width does not split as the layers require")
        if not VIEW_PATCH <= self.image_size <= _LARGEST_SIDE:
            raise refused("the size of the frames is out of range")
        if not 2 <= self.alt_start < self.depth or min(starts) < 0 or max(starts) > self.depth:
            raise refused("a starting block is out of range")
        if sorted(set(self.out_layers)) != list(self.out_layers) or not (
            self.out_layers[0] >= 0 and self.out_layers[3] < self.depth
        ):
            raise refused(f"out_layers={self.out_layers} are not four blocks in order")

    def is_global(self, block: int) -> bool:
        """Whether a block attends over the tokens of all views."""
        return block >= self.alt_start and block % 2 == 1

    @property
    def global_layers(self) -> tuple[int, ...]:
        """Blocks that attend over the tokens of all views."""
        return tuple(i for i in range(self.depth) if self.is_global(i))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what the metadata of our own files holds."""
        return {OWN_KEY: True, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ManyViewConfig:
        """Read the output of `to_dict`. Raises CheckpointError for unknown or wrong entries."""
        values = {name: value for name, value in values.items() if name != OWN_KEY}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise refused(f"unknown entries {', '.join(unknown):.80}")
        fours = ("out_layers", "out_channels")
        return cls(
            **{n: _four(v, n) if n in fours else _whole(v, n) for n, v in values.items()}  # type: ignore[arg-type]
        )

    def to_published(self, model_name: str) -> dict[str, Any]:
        """The object of a published `config.json`."""
        width = self.embed_dim
        sizes = {name: getattr(self, name) for name in _SIZES}
        named = [name for name, size in _NAMED.items() if size == tuple(sizes.values())]
        net = {"name": named[0]} if named else {"name": next(iter(_NAMED)), **sizes}
        starts = {name: getattr(self, name) for name in ("alt_start", "qknorm_start", "rope_start")}
        head = {"dim_in": 2 * width, "output_dim": 2, "features": self.features}
        return {
            "model_name": model_name,
            "config": {
                **_label("da3", ROOT_CLASS),
                "net": {
                    **_label("dinov2.dinov2", _CLASSES["net"]), **net,
                    "out_layers": list(self.out_layers), **starts, "cat_token": True,
                },
                "head": {
                    **_label("dualdpt", _CLASSES["head"]), **head,
                    "out_channels": list(self.out_channels),
                },
                "cam_enc": {**_label("cam_enc", _CLASSES["cam_enc"]), "dim_out": width},
                "cam_dec": {**_label("cam_dec", _CLASSES["cam_dec"]), "dim_in": 2 * width},
            },
        }  # fmt: skip

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> ManyViewConfig:
        """Read the object `config` of a published config.json.

        Raises CheckpointError for other classes, missing or unknown entries and parts that do not
        fit together.
        """
        _check_class(config, ROOT_CLASS)
        if unknown := sorted(set(config) - set(_CLASSES) - {"__object__"}):
            raise refused(f"parts that are not supported: {', '.join(unknown):.80}")
        net, head, encoder, decoder = (_part(config, name) for name in _CLASSES)
        starts = ("alt_start", "qknorm_start", "rope_start")
        found = cls(
            **_sizes(net),
            **{name: _whole(net[name], name) for name in starts},
            out_layers=_four(net["out_layers"], "out_layers"),
            features=_whole(head["features"], "features"),
            out_channels=_four(head["out_channels"], "out_channels"),
        )
        width = found.embed_dim
        expected = {
            "net.cat_token": (net["cat_token"], True),
            "head.output_dim": (head["output_dim"], 2),
            "head.dim_in": (head["dim_in"], 2 * width),
            "cam_enc.dim_out": (encoder["dim_out"], width),
            "cam_dec.dim_in": (decoder["dim_in"], 2 * width),
        }
        for name, (given, wanted) in expected.items():
            if given != wanted or isinstance(given, bool) != isinstance(wanted, bool):
                raise refused(f"{name}={given!r:.40} is not supported, only {wanted}")
        return found


def is_many_view(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is laid out as that of a many-view network."""
    return "model_name" in config and isinstance(config.get("config"), dict)


def _label(module: str, name: str) -> dict[str, Any]:
    """Class of a part, as the published program writes it."""
    path = f"depth_anything_3.model.{module}"
    return {"__object__": {"path": path, "name": name, "args": "as_params"}}


def refused(reason: str) -> CheckpointError:
    """Return the error for a configuration that is not accepted."""
    return CheckpointError(f"many-view network configuration: {reason}")


def _check_class(part: Mapping[str, Any], expected: str) -> None:
    """Compare the label of a part with the class that it must have. Nothing is imported by it."""
    label = part.get("__object__")
    name = label.get("name") if isinstance(label, dict) else None
    if name != expected:
        raise refused(f"the class {name!s:.60} is not supported, only {expected}")


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one of the four parts, with exactly the entries that it must have."""
    part = config.get(name)
    if not isinstance(part, dict):
        raise refused(f"the part {name} is missing")
    _check_class(part, _CLASSES[name])
    entries = set(part) - {"__object__"}
    allowed = _ENTRIES[name] | (set(_SIZES) if name == "net" else set())
    if missing := sorted(_ENTRIES[name] - entries):
        raise refused(f"{name} has no {missing[0]}")
    if unknown := sorted(entries - allowed):
        raise refused(f"{name} has the unknown entry {unknown[0]:.40}")
    return part


def _sizes(net: Mapping[str, Any]) -> dict[str, int]:
    """Return width, depth and heads: those of the backbone's name, unless they are stated."""
    named = _NAMED.get(net["name"]) if isinstance(net["name"], str) else None
    if named is None:
        raise refused(
            f"the backbone {net['name']!r:.40} is not supported, only {', '.join(_NAMED)}"
        )
    return {name: _whole(net.get(name, size), name) for name, size in zip(_SIZES, named)}


def _four(values: Any, name: str) -> tuple[int, int, int, int]:
    """Return four whole numbers."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        raise refused(f"{name}={values!r:.60} are not four whole numbers")
    a, b, c, d = (_whole(value, name) for value in values)
    return a, b, c, d


def _whole(value: Any, name: str) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(f"{name}={value!r:.40} is no whole number")
    return value
