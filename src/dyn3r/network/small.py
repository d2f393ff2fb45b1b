"""Weights of the small networks beside the large one; those of ours are in the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from dyn3r.errors import CheckpointError

Network = TypeVar("Network", bound=nn.Module)


def load_small(network: Network, path: str | Path | None, packaged: str, what: str) -> Network:
    """`network`, ready for use, with the weights of `path`, else with the package's `packaged`.

    Raises CheckpointError for a file that holds no such network, which is called `what`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = (
        Path(str(resources.files("dyn3r") / "assets" / "weights" / packaged))
        if path is None
        else Path(path)
    )
    try:
        network.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    except (SafetensorError, OSError, RuntimeError, ValueError) as problem:
        why = " ".join(str(problem).split())[:80]
        raise CheckpointError(f"{file} holds no {what} ({why})") from None
    # a CPU draws masks a quarter to a half faster so
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
