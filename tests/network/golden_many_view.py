"""The tiny many-view network with weights by formula, and its files as published."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import ManyViewConfig
from dyn3r.network.many_view.view_images import normalised

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "many_view.npz")
TINY = ManyViewConfig(64, 10, 4, (3, 5, 7, 9), 2, 2, 2, 32, (12, 24, 48, 96))
SHARED = "model.head.scratch.output_conv2_aux.{}.2.{}"


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights as a function of their name and shape."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    n = random.standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith(("_token", "pos_embed")):
        n = 0.5 * n
    elif name.endswith("fc_fov.0.bias"):
        n = 1 + 0.02 * n
    elif name.endswith("fc_fov.0.weight"):
        n = 0.3 * n / np.sqrt(shape[1])
    elif len(shape) > 1:
        n = n / np.sqrt(np.prod(shape[1:]))
    else:
        n = 1 + 0.1 * n if name.endswith((".weight", ".gamma")) else 0.02 * n
    return torch.from_numpy(n.astype(np.float32))


def listed(which: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file: `state_keys` (tiny), `keys_small`, `keys_base`."""
    lines = bytes(GOLDEN[which]).decode().splitlines()
    return {name: tuple(map(int, shape.split("x"))) for name, shape in map(str.split, lines)}


@cache
def tiny_weights() -> dict[str, torch.Tensor]:
    """Weights of the golden network as its file holds them. Copy the dictionary to change it."""
    return {name: formula(name, shape) for name, shape in listed("state_keys").items()}


def golden_many_view(weights: dict[str, torch.Tensor] | None = None) -> ManyViewNetwork:
    """The golden network, or one with other weights."""
    network = ManyViewNetwork(TINY)
    weights = dict(weights or tiny_weights())
    for level in (1, 2, 3):
        for part in ("weight", "bias"):
            weights[SHARED.format(level, part)] = weights[SHARED.format(0, part)]
    network.load_state_dict({n.removeprefix("model."): t for n, t in weights.items()})
    return network.eval().requires_grad_(False)


def labelled(module: str, cls: str, **entries: Any) -> dict[str, Any]:
    """One part of a published config.json."""
    path = f"depth_anything_3.model.{module}"
    return {"__object__": {"path": path, "name": cls, "args": "as_params"}, **entries}


def published_config(config: ManyViewConfig, model_name: str, **net: Any) -> dict[str, Any]:
    """A published config.json."""
    width = config.embed_dim
    return {
        "model_name": model_name,
        "config": {
            **labelled("da3", "DepthAnything3Net"),
            "net": labelled(
                "dinov2.dinov2", "DinoV2", **net, out_layers=list(config.out_layers),
                alt_start=config.alt_start, qknorm_start=config.qknorm_start,
                rope_start=config.rope_start, cat_token=True,
            ),
            "head": labelled(
                "dualdpt", "DualDPT", dim_in=2 * width, output_dim=2, features=config.features,
                out_channels=list(config.out_channels),
            ),
            "cam_enc": labelled("cam_enc", "CameraEnc", dim_out=width),
            "cam_dec": labelled("cam_dec", "CameraDec", dim_in=2 * width),
        },
    }  # fmt: skip


def tiny_config() -> dict[str, Any]:
    """The config.json of the golden network."""
    sizes = {"name": "vits", "embed_dim": 64, "depth": 10, "num_heads": 4}
    return published_config(TINY, "da3-tiny", **sizes)


def save_folder(
    folder: Path,
    config: dict[str, Any] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """A published folder: config.json, and every shared tensor once, named in the metadata."""
    folder.mkdir()
    metadata = {
        SHARED.format(level, part): SHARED.format(0, part)
        for level in (1, 2, 3)
        for part in ("weight", "bias")
    }
    save_file(dict(weights or tiny_weights()), folder / "model.safetensors", metadata)
    (folder / "config.json").write_text(json.dumps(config or tiny_config(), indent=2))
    return folder


def golden_views(name: str = "images", count: int | None = None) -> torch.Tensor:
    """Normalised golden images."""
    return normalised(GOLDEN[name][:count])
