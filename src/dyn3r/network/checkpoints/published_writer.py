"""Writing of networks in the published `.pth` layout, for the original programs (SPEC 1.1)."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.constructor_text import CONSTRUCTOR
from dyn3r.network.checkpoints.files import write_torch
from dyn3r.network.config import NetworkConfig
from dyn3r.network.network import PointmapNetwork


def published_layout(config: NetworkConfig) -> bool:
    """Whether the published programs can build this network: none of our additions is in it."""
    return config == NetworkConfig.from_published(_keywords(config))


def _keywords(config: NetworkConfig) -> dict[str, object]:
    """Return the keywords of the published constructor that a configuration decides."""
    size = config.image_size
    return {
        "pos_embed": f"RoPE{config.rope_base:g}",
        "img_size": (size, size),
        "head_type": config.head,
        "enc_embed_dim": config.enc_embed_dim,
        "enc_depth": config.enc_depth,
        "enc_num_heads": config.enc_num_heads,
        "dec_embed_dim": config.dec_embed_dim,
        "dec_depth": config.dec_depth,
        "dec_num_heads": config.dec_num_heads,
    }


def constructor_call(config: NetworkConfig) -> str:
    """Return the constructor call of a network as text, as published checkpoints hold it."""
    keywords = ", ".join(f"{name}={value!r}" for name, value in _keywords(config).items())
    return (
        f"{CONSTRUCTOR}({keywords}, patch_embed_cls='ManyAR_PatchEmbed', output_mode='pts3d', "
        "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), landscape_only=False)"
    )


def save_published(path: str | Path, network: PointmapNetwork, *, overwrite: bool = False) -> None:
    """Write weights and constructor call as a published `.pth`, float32, atomically.

    Raises CheckpointError for a network with additions that the published programs lack,
    OutputError if the file exists and `overwrite` is False, or can't be written.
    """
    if not published_layout(network.config):
        raise CheckpointError(
            f"{path}: the published .pth layout has no place for this network: it has a position "
            "embedding, a detail pyramid or another head width"
        )
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
    }
    content = {"args": Namespace(model=constructor_call(network.config)), "model": weights}
    write_torch(path, content, overwrite=overwrite)
