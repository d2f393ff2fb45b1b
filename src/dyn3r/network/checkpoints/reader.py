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
from dyn3r.network.config import NetworkConfig, has_retired_head
from dyn3r.network.network import PointmapNetwork

_RETIRED_TENSOR = re.compile(r"downstream_head[12]\.dpt\.motion\.")
"""Names of the weights of the retired motion head."""


def describe_checkpoint(path: str | Path) -> list[str]:
    """Describe a checkpoint file in lines of text. Raises CheckpointError."""
    content = read_checkpoint(path)
    config, tensors = _config(content, path), _current_tensors(content)
    numbers = sum(t.numel() for t in tensors.values())
    types = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})
    lines = [
        f"checkpoint  {path} ({content.origin})",
        f"weights     {numbers / 1e6:.1f} M numbers in {len(tensors)} tensors, " + ", ".join(types),
        f"encoder     {config.enc_depth} blocks of {config.enc_embed_dim}, "
        f"{config.enc_num_heads} heads",
        f"decoder     2 x {config.dec_depth} blocks of {config.dec_embed_dim}, "
        f"{config.dec_num_heads} heads",
        f"head        {config.head}",
        f"frames      trained with a long side of {config.image_size} pixels",
    ]
    return lines + [f"{name:<11} {value}" for name, value in facts_of(content).items()]


def facts_of(content: CheckpointContent) -> dict[str, str]:
    """Return the free entries of a checkpoint's metadata: licence, training and so on."""
    hidden = (FORMAT_KEY, CONFIG_KEY)
    return {name: str(v) for name, v in content.extras.items() if name not in hidden}


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


def load_network(path: str | Path) -> tuple[PointmapNetwork, dict[str, str]]:
    """Load a network, and the facts in its file (licence, training, ...).

    Reads a published `.pth`, a hub folder or one of our safetensors files, strictly. The weights
    keep the precision of the file; no memory is allocated before they replace the network's own.
    Raises CheckpointError with one line if the file is not a checkpoint of this family, or has
    missing, unknown or misshapen weights.
    """
    content = read_checkpoint(path)
    with torch.device("meta"):
        network = PointmapNetwork(_config(content, path))
    tensors = _complete(_current_tensors(content), network)
    _check(tensors, network, Path(path))
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False), facts_of(content)


def check_hub_weights(weights: Path, config: Path | None) -> None:
    """Check that weights of the hub's layout are whole, finite, and fit their configuration.

    config: file of the configuration; None: of another kind of network, which is not checked.
    Raises CheckpointError.
    """
    content = read_hub_files(weights, config)
    if config is None:
        return
    with torch.device("meta"):
        network = PointmapNetwork(_config(content, weights))
    _check(_complete(dict(content.tensors), network), network, weights)


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


def _check(tensors: Mapping[str, Tensor], network: PointmapNetwork, path: Path) -> None:
    """Raise CheckpointError with one line, instead of PyTorch's list of hundreds of names."""
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(set(tensors) - set(expected))
    wrong = [n for n, shape in expected.items() if n in tensors and tensors[n].shape != shape]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing, e.g. {missing[0]}")
    if surplus:
        raise CheckpointError(f"{path}: {len(surplus)} unknown weights, e.g. {surplus[0]}")
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} has shape {tuple(tensors[wrong[0]].shape)}, "
            f"the configuration requires {expected[wrong[0]]}"
        )


def save_network(
    path: str | Path,
    network: PointmapNetwork,
    facts: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write our safetensors layout: every weight once, configuration and facts in the metadata.

    facts: free text entries (training steps, licence, date). dtype: precision of the stored
    weights. Raises OutputError if the file exists and `overwrite` is False.
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if ".scratch.layer_rn." not in name  # twins of layerN_rn
    }
    write_checkpoint(path, tensors, network.config.to_dict(), dict(facts), overwrite=overwrite)
