"""Random starting weights for training from scratch."""

from __future__ import annotations

import torch
from torch import nn

from dyn3r.network.config import PATCH
from dyn3r.network.network import PointmapNetwork


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
    last = "dpt.head.4" if network.config.head == "dpt" else "proj"
    pixels = 1 if network.config.head == "dpt" else PATCH * PATCH
    network.downstream_head1.get_parameter(f"{last}.weight").data.mul_(0.1)
    network.downstream_head1.get_parameter(f"{last}.bias").data[2 * pixels : 3 * pixels] = 0.5
    network.dec_blocks2.load_state_dict(network.dec_blocks.state_dict())
    network.downstream_head2.load_state_dict(network.downstream_head1.state_dict())
