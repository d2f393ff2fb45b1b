"""Many-view networks in files: published folders (`config.json`, `model.safetensors`) and ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dyn3r.errors import CheckpointError
from dyn3r.io.atomic import atomic_file
from dyn3r.network.checkpoints.files import CheckpointContent, write_checkpoint, write_tensors
from dyn3r.network.checkpoints.strict import check_weights
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import OWN_KEY, ManyViewConfig, is_many_view

PREFIX = "model."
"""Every published name begins with it."""
RECOMMENDED = {"motion_cue": "flow", "bundle": "on", "stereo": "off", "refine": "edges"}
"""Facts that recommend the processing (`dyn3r.network.checkpoints.recommendation`): motion from
flow, which needs no trained attention, and bundle adjustment. Multi-view depth is off: it was
trained to correct a network that errs more. Published files state none. Source: simulated
predictions (docs/experiments.md); the published weights could not be run where this was
developed."""

SHARED = {
    f"head.scratch.output_conv2_aux.{level}.2.{part}": f"head.scratch.output_conv2_aux.0.2.{part}"
    for level in (1, 2, 3)
    for part in ("bias", "weight")
}
"""Other names of the norm that the four ray outputs share, and its name in files: level 0. Level 3
is the one that is evaluated."""


def holds_many_view(content: CheckpointContent) -> bool:
    """Whether a file holds a many-view network, in the published layout or in ours."""
    if content.origin == "dyn3r-safetensors":
        return OWN_KEY in content.config
    return content.origin == "hub-folder" and is_many_view(content.config)


def load_many_view(content: CheckpointContent, path: Path) -> ManyViewNetwork:
    """Build the network of a published folder or of one of our files, with its weights.

    Raises CheckpointError with one line for another class or size, for missing, unknown or
    misshapen weights, and for copies of a shared weight that differ.
    """
    ours = content.origin == "dyn3r-safetensors"
    if ours:
        config = ManyViewConfig.from_dict(content.config)
    else:
        config = ManyViewConfig.from_published(content.config["config"])
    with torch.device("meta"):
        network = ManyViewNetwork(config)
    prefix = "" if ours else PREFIX
    foreign = [name for name in content.tensors if not name.startswith(prefix)]
    if foreign:
        raise CheckpointError(f"{path}: {len(foreign)} unknown weights, e.g. {foreign[0]:.80}")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in content.tensors.items()}
    tensors = _with_shared_norm(tensors, path)
    check_weights(tensors, network, path)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _with_shared_norm(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights with the shared norm under all its names: stated once, or in equal copies."""
    stated = [name for name in SHARED if name in tensors]
    if not stated:
        copies = {name: tensors[first] for name, first in SHARED.items() if first in tensors}
        return {**tensors, **copies}
    for name in stated:
        first = tensors.get(SHARED[name])
        if first is not None and not torch.equal(first, tensors[name]):
            raise CheckpointError(
                f"{path}: {name} differs from {SHARED[name]}; they are one weight"
            )
    return tensors


def save_many_view(
    path: str | Path,
    network: ManyViewNetwork,
    facts: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write our layout: one safetensors file with every weight once, configuration and facts.

    Raises OutputError as `write_checkpoint` does.
    """
    tensors = _stored(network, dtype)
    write_checkpoint(path, tensors, network.config.to_dict(), dict(facts), overwrite=overwrite)


def save_published_many_view(
    folder: str | Path, network: ManyViewNetwork, model_name: str, *, overwrite: bool = False
) -> None:
    """Write the published layout, float32: `config.json` and `model.safetensors` in a folder.

    Each file is written atomically. Raises OutputError for files that are there, unless
    `overwrite`.
    """
    folder = Path(folder)
    config = json.dumps(network.config.to_published(model_name), indent=2)
    with atomic_file(folder / "config.json", overwrite=overwrite) as part:
        part.write_text(config, encoding="utf-8")
    tensors = {PREFIX + name: tensor for name, tensor in _stored(network, torch.float32).items()}
    shared = {PREFIX + name: PREFIX + first for name, first in SHARED.items()}
    write_tensors(folder / "model.safetensors", tensors, shared, overwrite=overwrite)


def _stored(network: ManyViewNetwork, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights as files hold them: every weight once."""
    return {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if name not in SHARED
    }


def describe_many_view(network: ManyViewNetwork) -> list[str]:
    """Describe a network in lines of text."""
    config = network.config
    layers = ", ".join(map(str, config.global_layers))
    return [
        f"backbone    {config.depth} blocks of {config.embed_dim}, {config.num_heads} heads; "
        f"blocks {layers} see all views",
        f"head        depth and rays, {config.features} channels",
        f"frames      a long side of {config.image_size} pixels by default",
    ]
