"""RAFT: learned optical flow (Teed and Deng 2020), through torchvision (extra `raft`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.flow.estimator import check_pictures

MIN_SIDE = 128
"""RAFT's pyramid of correlations needs an eighth of each side to be at least 16."""


@dataclass(frozen=True)
class RaftFlow:
    """Flow by RAFT. The network is made, and its weights are fetched, with the first flow."""

    size: Literal["large", "small"] = "large"
    """`small` is several times faster and less exact."""
    weights: str | None = "default"
    """`default`: torchvision's best published weights, fetched and kept by torchvision; another of
    its names (`C_T_V2`, ...); the path of a safetensors file; None: random numbers, for tests."""
    device: str = "cpu"
    """Where it runs."""
    updates: int = 12
    """Refinements per pair. More: slower, better, 32 at most does any good."""

    def __post_init__(self) -> None:
        if self.size not in ("large", "small"):
            raise InputError(f"the size of RAFT is 'large' or 'small', not '{self.size}'")
        if self.updates < 1:
            raise InputError(f"RAFT needs at least one update, not {self.updates}")

    @property
    def name(self) -> str:
        """`raft` or `raft-small`."""
        return "raft" if self.size == "large" else "raft-small"

    def flow(
        self, source: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"]
    ) -> Float[np.ndarray, "h w 2"]:
        """See `FlowEstimator.flow`.

        Raises InputError for pictures that don't fit each other, MissingExtraError without
        torchvision, CheckpointError if the weights can't be had.
        """
        check_pictures(source, target)
        height, width = source.shape[:2]
        padding = _padding(height, width)
        with torch.inference_mode():
            a, b = (self._prepare(picture, padding) for picture in (source, target))
            field = self._network(a, b, num_flow_updates=self.updates)[-1][0]
        left, _, top, _ = padding
        inner = field[:, top : top + height, left : left + width]
        return inner.permute(1, 2, 0).float().cpu().numpy()

    def _prepare(self, picture: np.ndarray, padding: tuple[int, int, int, int]) -> torch.Tensor:
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(self.device)
        scaled = tensor.float() / 127.5 - 1
        return torch.nn.functional.pad(scaled, padding, mode="replicate")

    @cached_property
    def _network(self) -> Any:
        try:
            models = import_module("torchvision.models.optical_flow")
        except (ImportError, RuntimeError) as problem:
            # RuntimeError: a torchvision that was built for another torch refuses to load
            package = "torchvision (built for your version of torch)"
            raise MissingExtraError(package, "raft", "RAFT flow") from problem
        build = getattr(models, f"raft_{self.size}")
        known = getattr(models, f"Raft_{self.size.capitalize()}_Weights")
        network = _build(build, known, self.weights)
        return network.to(self.device).eval().requires_grad_(False)


def _build(build: Any, known: Any, weights: str | None) -> Any:
    """The network with weights by name, from a file, or random."""
    if weights is None:
        return build(weights=None)
    if weights.endswith(".safetensors"):
        return _load_file(build(weights=None), weights)
    name = "DEFAULT" if weights == "default" else weights.upper()
    if name not in known.__members__:
        raise InputError(
            f"torchvision has no RAFT weights '{weights}'; choose default, "
            f"{', '.join(known.__members__)} or a .safetensors file"
        )
    try:
        return build(weights=known[name])
    except (OSError, RuntimeError) as problem:  # no network, no room, damaged download
        raise CheckpointError(
            f"RAFT's weights '{weights}' can't be fetched ({problem}); fetch them where there is a "
            "network, or choose the flow estimator dis"
        ) from problem


def _load_file(network: Any, path: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not os.path.isfile(path):
        raise InputError(f"there is no file {path}")
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as problem:
        text = " ".join(str(problem).split())[:120]
        raise CheckpointError(f"{path} holds no weights for this RAFT: {text}") from problem
    return network


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: up to multiples of 8 and to the least size RAFT takes."""
    extra = [max(-(-side // 8) * 8, MIN_SIDE) - side for side in (width, height)]
    return (extra[0] // 2, extra[0] - extra[0] // 2, extra[1] // 2, extra[1] - extra[1] // 2)
