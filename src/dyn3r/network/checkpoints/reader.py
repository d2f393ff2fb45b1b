"""Reading networks from checkpoint files, and writing them (SPEC 1.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.files import (
    CONFIG_KEY,
    FORMAT_KEY,
    CheckpointContent,
    read_checkpoint,
    read_hub_files,
    write_checkpoint,
)
from dyn3r.network.checkpoints.many_view_files import (
    RECOMMENDED,
    describe_many_view,
    holds_many_view,
    load_many_view,
    save_many_view,
)
from dyn3r.network.checkpoints.strict import check_weights
from dyn3r.network.config import NetworkConfig, has_retired_head
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import is_many_view
from dyn3r.network.network import PointmapNetwork

_RETIRED_TENSOR = re.compile(r"downstream_head[12]\.dpt\.motion\.")
"""Names of the weights of the retired motion head."""


def describe_checkpoint(path: str | Path) -> list[str]:
    """Describe a checkpoint file in lines of text. Raises CheckpointError."""
    content = read_checkpoint(path)
    if holds_many_view(content):
        lines = describe_many_view(load_many_view(content, Path(path)))
        lines += [f"{name:<11} {value}" for name, value in _own_facts(content).items()]
        return _about_weights(path, content, content.tensors) + lines
    config, tensors = _config(content, path), _current_tensors(content)
    lines = [
        *_about_weights(path, content, tensors),
        f"encoder     {config.enc_depth} blocks of {config.enc_embed_dim}, "
        f"{config.enc_num_heads} heads",
        f"decoder     2 x {config.dec_depth} blocks of {config.dec_embed_dim}, "
        f"{config.dec_num_heads} heads",
        f"head        {config.head}",
        f"frames      trained with a long side of {config.image_size} pixels",
    ]
    return lines + [f"{name:<11} {value}" for name, value in facts_of(content).items()]


def _about_weights(
    path: str | Path, content: CheckpointContent, tensors: Mapping[str, Tensor]
) -> list[str]:
    """Describe layout and weights in lines of text."""
    numbers = sum(t.numel() for t in tensors.values())
    types = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})
    return [
        f"checkpoint  {path} ({content.origin})",
        f"weights     {numbers / 1e6:.1f} M numbers in {len(tensors)} tensors, " + ", ".join(types),
    ]


def facts_of(content: CheckpointContent) -> dict[str, str]:
    """Return the free entries of a checkpoint's metadata: licence, training and so on."""
    hidden = (FORMAT_KEY, CONFIG_KEY)
    return {name: str(v) for name, v in content.extras.items() if name not in hidden}


def _own_facts(content: CheckpointContent) -> dict[str, str]:
    """Facts of our own layout; the metadata of published files holds none."""
    return facts_of(content) if content.origin == "dyn3r-safetensors" else {}


def _config(content: CheckpointContent, path: str | Path) -> NetworkConfig:
    """Read the configuration of any layout; `path` is for messages."""
    try:
        if content.origin == "dyn3r-safetensors":
            return NetworkConfig.from_dict(content.config)
        return NetworkConfig.from_published(content.config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _current_tensors(content: CheckpointContent) -> dict[str, Tensor]:
    """Return the weights without those of the retired motion head, in files that declare it."""
    if content.origin != "dyn3r-safetensors" or not has_retired_head(content.config):
        return dict(content.tensors)
    return {n: t for n, t in content.tensors.items() if not _RETIRED_TENSOR.match(n)}


def load_network(path: str | Path) -> tuple[PointmapNetwork | ManyViewNetwork, dict[str, str]]:
    """Load a network of either family, and the facts in its file (licence, training, ...).

    Reads a published `.pth`, a hub folder or one of our safetensors files, strictly. The weights
    keep the precision of the file; no memory is allocated before they replace the network's own.
    Raises CheckpointError with one line if the file is not a checkpoint of these families, or has
    missing, unknown or misshapen weights.
    """
    content = read_checkpoint(path)
    if holds_many_view(content):
        return load_many_view(content, Path(path)), {**RECOMMENDED, **_own_facts(content)}
    with torch.device("meta"):
        network = PointmapNetwork(_config(content, path))
    tensors = _complete(_current_tensors(content), network)
    check_weights(tensors, network, Path(path))
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False), facts_of(content)


def load_two_view(path: str | Path) -> tuple[PointmapNetwork, dict[str, str]]:
    """Load a two-view network; see `load_network`. Raises CheckpointError for a many-view one."""
    network, facts = load_network(path)
    if not isinstance(network, PointmapNetwork):
        raise CheckpointError(f"{path} is a many-view network; a two-view network is needed here")
    return network, facts


def check_hub_weights(weights: Path, config: Path | None) -> None:
    """Check that weights of the hub's layout are whole, finite, and fit their configuration.

    config: file of the configuration; None: of another kind of network, which is not checked.
    Raises CheckpointError.
    """
    content = read_hub_files(weights, config)
    if config is None:
        return
    if is_many_view(content.config):
        load_many_view(content, weights)
        return
    with torch.device("meta"):
        network = PointmapNetwork(_config(content, weights))
    check_weights(_complete(dict(content.tensors), network), network, weights)


def _complete(tensors: dict[str, Tensor], network: PointmapNetwork) -> dict[str, Tensor]:
    """Add weights that files may leave out because they repeat others."""
    if not any(name.startswith("dec_blocks2.") for name in tensors):
        copies = {
            name.replace("dec_blocks.", "dec_blocks2.", 1): tensor
            for name, tensor in tensors.items()
            if name.startswith("dec_blocks.")
        }
        tensors = {**tensors, **copies}
    for name in network.state_dict():
        # one tensor with two names: safetensors files keep only one of them
        if name not in tensors and (twin := _twin(name)) and twin in tensors:
            tensors[name] = tensors[twin]
    # both names must be the same parameter; the later name takes precedence (SPEC 1)
    for name in list(tensors):
        if ".scratch.layer_rn." in name and (twin := _twin(name)):
            tensors[twin] = tensors[name]
    return tensors


def _twin(name: str) -> str | None:
    """Return the other name of a tensor: `scratch.layer1_rn` <-> `scratch.layer_rn.0`, etc."""
    for level in range(4):
        first, second = f".scratch.layer{level + 1}_rn.", f".scratch.layer_rn.{level}."
        if first in name:
            return name.replace(first, second)
        if second in name:
            return name.replace(second, first)
    return None


def save_network(
    path: str | Path,
    network: PointmapNetwork | ManyViewNetwork,
    facts: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write our safetensors layout: every weight once, configuration and facts in the metadata.

    facts: free text entries (training steps, licence, date). dtype: precision of the stored
    weights. Raises OutputError if the file exists and `overwrite` is False.
    """
    if isinstance(network, ManyViewNetwork):
        save_many_view(path, network, facts, dtype=dtype, overwrite=overwrite)
        return
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if ".scratch.layer_rn." not in name  # twins of layerN_rn
    }
    write_checkpoint(path, tensors, network.config.to_dict(), dict(facts), overwrite=overwrite)
