"""Random starting weights for training from scratch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from dyn3r.network.config import PATCH, NetworkConfig
from dyn3r.network.network import PointmapNetwork


def initialise(network: PointmapNetwork, seed: int) -> None:
    """Set Xavier-uniform matrices and zero biases (as in CroCo v2), in place and repeatable.

    The second decoder and head start as copies of the first, as published. The last layer of a head
    starts small and with a positive depth: first points lie in front of the camera, first
    confidences are near 2.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        _initialise_layer(module, generator)
    patches = network.patch_embed.proj.weight
    nn.init.xavier_uniform_(patches.view(len(patches), -1), generator=generator)
    for block in [*network.dec_blocks, *network.enc_blocks]:
        for layer in (block.attn.proj, block.mlp.fc2):  # keeps the deep residual sum small
            layer.weight.data.mul_((2 * len(network.enc_blocks)) ** -0.5)
    if network.config.detail_features:
        nn.init.zeros_(network.detail.proj.weight)
        for name, weight in network.downstream_head1.named_parameters():
            if name.startswith("dpt.detail."):
                nn.init.zeros_(weight)
    last = "dpt.head.4" if network.config.head == "dpt" else "proj"
    pixels = 1 if network.config.head == "dpt" else PATCH * PATCH
    network.downstream_head1.get_parameter(f"{last}.weight").data.mul_(0.1)
    network.downstream_head1.get_parameter(f"{last}.bias").data[2 * pixels : 3 * pixels] = 0.5
    network.dec_blocks2.load_state_dict(network.dec_blocks.state_dict())
    network.downstream_head2.load_state_dict(network.downstream_head1.state_dict())


def _initialise_layer(module: nn.Module, generator: torch.Generator) -> None:
    """Set the weights of a linear or convolutional layer; leave any other module as it is."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight, generator=generator)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, a=1.0, generator=generator)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def grow(network: PointmapNetwork, config: NetworkConfig, seed: int) -> PointmapNetwork:
    """Add the parts of `config` that `network` lacks: position embedding and detail pyramid.

    The new parts have no effect at first. Returns `network` itself if it lacks nothing, or if it
    differs from `config` in any other way.
    """
    old = network.config
    if old.head != config.head:
        return network
    wanted = replace(
        old,
        position_code=old.position_code or config.position_code,
        detail_features=old.detail_features or config.detail_features,
        image_size=config.image_size,
    )
    if wanted != config or wanted == old:
        return network
    grown = PointmapNetwork(config)
    initialise(grown, seed)
    if config.position_code and not old.position_code:
        nn.init.zeros_(grown.enc_position.weight)
        nn.init.zeros_(grown.dec_position.weight)
    grown.load_state_dict({**grown.state_dict(), **network.state_dict()})
    return grown
