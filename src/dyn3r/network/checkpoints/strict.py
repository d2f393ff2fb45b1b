"""Strict comparison of the weights of a file with those that a network needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dyn3r.errors import CheckpointError


def check_weights(tensors: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    """Raise CheckpointError with one line, instead of PyTorch's list of hundreds of names."""
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(set(tensors) - set(expected))
    wrong = [n for n, shape in expected.items() if n in tensors and tensors[n].shape != shape]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing, e.g. {missing[0]}")
    if surplus:
        raise CheckpointError(f"{path}: {len(surplus)} unknown weights, e.g. {surplus[0]:.80}")
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} has shape {tuple(tensors[wrong[0]].shape)}, "
            f"the configuration requires {expected[wrong[0]]}"
        )
