"""Many-view networks from published folders (`config.json` and `model.safetensors`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.files import CheckpointContent
from dyn3r.network.checkpoints.strict import check_weights
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import ManyViewConfig

PREFIX = "model."
"""Every published name begins with it."""
RECOMMENDED = {"motion_cue": "flow", "bundle": "on", "stereo": "off", "refine": "edges"}
"""Facts that recommend the processing (`dyn3r.network.checkpoints.recommendation`): motion from
flow, which needs no trained attention, and bundle adjustment. Multi-view depth is off: it was
trained to correct a network that errs more. Published files state none. Source: simulated
predictions (docs/results.md); the published weights could not be run where this was developed."""

_SHARED = "head.scratch.output_conv2_aux.{}.2.{}"
"""The norm that the four ray outputs share. Files hold it once, under level 0; level 3 is the one
that is evaluated."""


def load_many_view(content: CheckpointContent, path: Path) -> ManyViewNetwork:
    """Build the network of a published folder, with its weights.

    Raises CheckpointError with one line for another class or size, for missing, unknown or
    misshapen weights, and for copies of a shared weight that differ.
    """
    with torch.device("meta"):
        network = ManyViewNetwork(ManyViewConfig.from_published(content.config["config"]))
    foreign = [name for name in content.tensors if not name.startswith(PREFIX)]
    if foreign:
        raise CheckpointError(f"{path}: {len(foreign)} unknown weights, e.g. {foreign[0]:.80}")
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in content.tensors.items()}
    tensors = _with_shared_norm(tensors, path)
    check_weights(tensors, network, path)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _with_shared_norm(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights with the shared norm under all its names: stated once, or in equal copies."""
    names = {
        _SHARED.format(level, part): _SHARED.format(0, part)
        for level in (1, 2, 3)
        for part in ("weight", "bias")
    }
    stated = [name for name in names if name in tensors]
    if not stated:
        copies = {name: tensors[first] for name, first in names.items() if first in tensors}
        return {**tensors, **copies}
    for name in stated:
        first = tensors.get(names[name])
        if first is not None and not torch.equal(first, tensors[name]):
            raise CheckpointError(f"{path}: {name} differs from {names[name]}; they are one weight")
    return tensors


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
