"""Memory that a training step of the published ViT-L needs, computed without a GPU.

python benchmarks/training_memory.py [--size-hw 288 512] [--pairs 1 2 4] [--whole]

Counts the tensors that PyTorch keeps for the backward pass, on tensors without storage, and adds
weights, averaged weights, gradients and the two moments of AdamW, all float32. With recomputed
activations: the inputs of all blocks and heads, and the largest of these by itself. A GPU needs a
little more: workspaces, and gradients of activations.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dyn3r.network.config import NetworkConfig
from dyn3r.network.network import PointmapNetwork
from dyn3r.training.run_state import FROZEN


class Kept:
    """Bytes of the tensors kept for the backward pass, each storage once, without weights."""

    def __init__(self, network: nn.Module) -> None:
        self.seen = {p.untyped_storage()._cdata for p in network.parameters()}
        self.alive: list[Any] = []  # so that no storage's address is used again
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            self.alive.append(storage)
            self.bytes += storage.nbytes()
        return tensor

    def hooks(self) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(self.add, lambda tensor: tensor)


class Recomputed(PointmapNetwork):
    """Counts what recomputed activations keep: inputs of parts, and the largest part."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.inputs, self.largest = Kept(self), 0

    def _run(self, part: nn.Module, *inputs: Any, **settings: Any) -> Any:
        flat = [x for entry in inputs for x in (entry if isinstance(entry, list) else [entry])]
        for tensor in flat:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                self.inputs.add(tensor)
        inside = Kept(self)
        with inside.hooks():
            out = part(*inputs, **settings)
        self.largest = max(self.largest, inside.bytes)
        return out


def activations(
    kind: type[PointmapNetwork], size_hw: tuple[int, int], pairs: int, frozen: tuple[str, ...]
) -> tuple[PointmapNetwork, int]:
    """The network after a forward pass, and the bytes kept."""
    with torch.device("meta"):
        network = kind(NetworkConfig())
        images = torch.zeros(2 * pairs, 3, *size_hw)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    kept, first = Kept(network), torch.arange(2 * pairs, device="meta")
    # tensors without storage know no autocast; the recipe does not use it
    with kept.hooks(), patch("torch.autocast", lambda *_, **__: nullcontext()):
        tokens = network.encode(images)
        network.decode(tokens[first], tokens[first], scores=False)
    return network, kept.bytes


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-hw", type=int, nargs=2, default=(288, 512))
    parser.add_argument("--pairs", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--whole", action="store_true", help="train the encoder too")
    args = parser.parse_args()
    frozen = () if args.whole else FROZEN
    for pairs in args.pairs:
        network, kept = activations(PointmapNetwork, tuple(args.size_hw), pairs, frozen)
        again, _ = activations(Recomputed, tuple(args.size_hw), pairs, frozen)
        assert isinstance(again, Recomputed)
        weights = 4 * sum(p.numel() for p in network.parameters())
        trained = 4 * sum(p.numel() for p in network.parameters() if p.requires_grad)
        fixed = 2 * weights + 3 * trained  # weights, averages; gradients and two moments
        recomputed = again.inputs.bytes + again.largest
        print(
            f"{pairs} pairs of {args.size_hw[1]}x{args.size_hw[0]}: weights, averages, gradients, "
            f"optimiser {fixed / 1e9:.1f} GB; activations {kept / 1e9:.1f} GB, recomputed "
            f"{recomputed / 1e9:.1f} GB; together {(fixed + kept) / 1e9:.1f} or "
            f"{(fixed + recomputed) / 1e9:.1f} GB"
        )


if __name__ == "__main__":
    main()
