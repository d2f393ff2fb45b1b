"""Random starting weights for training from scratch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from dyn3r.network.config import PATCH, NetworkConfig
from dyn3r.network.network import PointmapNetwork

MOTION_PRIOR = -2.0
"""Logit of motion that an untrained motion head gives everywhere: one pixel in eight moves."""


def initialise(network: PointmapNetwork, seed: int) -> None:
    """Xavier-uniform matrices, zero biases (as in CroCo v2), in place and repeatable.

    The second decoder stack and head start as copies of the first, as published. The last
    layer of a head starts small and looking forward: first points lie in front of the camera, first
    confidences are near 2.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=1.0, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    patches = network.patch_embed.proj.weight
    nn.init.xavier_uniform_(patches.view(len(patches), -1), generator=generator)
    for block in [*network.dec_blocks, *network.enc_blocks]:
        for layer in (block.attn.proj, block.mlp.fc2):  # a deep residual sum that starts calm
            layer.weight.data.mul_((2 * len(network.enc_blocks)) ** -0.5)
    if network.config.detail_features:
        nn.init.zeros_(network.detail.proj.weight)
        for name, weight in network.downstream_head1.named_parameters():
            if name.startswith("dpt.detail."):
                nn.init.zeros_(weight)
    if network.config.motion_head:
        nn.init.zeros_(network.downstream_head1.get_parameter("dpt.motion.2.weight"))
        nn.init.constant_(network.downstream_head1.get_parameter("dpt.motion.2.bias"), MOTION_PRIOR)
    last = "dpt.head.4" if network.config.head == "dpt" else "proj"
    pixels = 1 if network.config.head == "dpt" else PATCH * PATCH
    network.downstream_head1.get_parameter(f"{last}.weight").data.mul_(0.1)
    network.downstream_head1.get_parameter(f"{last}.bias").data[2 * pixels : 3 * pixels] = 0.5
    network.dec_blocks2.load_state_dict(network.dec_blocks.state_dict())
    network.downstream_head2.load_state_dict(network.downstream_head1.state_dict())


def grow(network: PointmapNetwork, config: NetworkConfig, seed: int) -> PointmapNetwork:
    """`network` with the parts of `config` that it lacks, if these are only our additions (position
    code, detail pyramid, motion head); otherwise `network` itself. The new parts start without
    effect; a new motion head says `MOTION_PRIOR` everywhere."""
    old = network.config
    if old.head != config.head:
        return network
    wanted = replace(
        old,
        position_code=old.position_code or config.position_code,
        detail_features=old.detail_features or config.detail_features,
        motion_head=old.motion_head or config.motion_head,
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
