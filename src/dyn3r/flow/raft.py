"""Optical flow by RAFT (Teed and Deng 2020) from torchvision (extra `raft`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.flow.estimator import check_images

MIN_SIDE = 128
"""Shortest side in pixels. Source: the correlation pyramid of RAFT needs 16 cells of 8 pixels."""


@dataclass(frozen=True)
class RaftFlow:
    """Flow by RAFT; the network is built and its weights are downloaded with the first flow."""

    size: Literal["large", "small"] = "large"
    """`small` is several times faster and less accurate."""
    weights: str | None = "default"
    """`default`: the best published weights of torchvision, which downloads and caches them;
    another of its names (`C_T_V2`, ...); the path of a safetensors file; None: random weights, for
    tests."""
    device: str = "cpu"
    """PyTorch device of the network."""
    updates: int = 12
    """Iterative updates per pair. More: slower and more accurate, up to 32."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.size not in ("large", "small"):
            raise InputError(f"the size of RAFT is 'large' or 'small', not '{self.size}'")
        if self.updates < 1:
            raise InputError(f"RAFT needs at least one update, not {self.updates}")

    @property
    def name(self) -> str:
        """`raft` or `raft-small`."""
        return "raft" if self.size == "large" else "raft-small"

    def flow(
        self,
        source: np.ndarray,
        target: np.ndarray,  # shapes: `check_images`
    ) -> Float[np.ndarray, "h w 2"]:
        """See `FlowEstimator.flow`.

        Raises InputError for images of different sizes, MissingExtraError without torchvision,
        CheckpointError if the weights cannot be loaded.
        """
        check_images(source, target)
        height, width = source.shape[:2]
        padding = _padding(height, width)
        with torch.inference_mode():
            a, b = (self._prepare(image, padding) for image in (source, target))
            field = self._network(a, b, num_flow_updates=self.updates)[-1][0]
        left, _, top, _ = padding
        inner = field[:, top : top + height, left : left + width]
        return np.asarray(inner.permute(1, 2, 0).float().cpu().numpy())

    def _prepare(self, image: np.ndarray, padding: tuple[int, int, int, int]) -> torch.Tensor:
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self.device)
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
        return network.to(self.device).eval().requires_grad_(requires_grad=False)


def _build(build: Any, known: Any, weights: str | None) -> Any:
    """Network with weights by name, from a file, or random."""
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
    except (OSError, RuntimeError) as problem:  # no connection, no disk space, damaged download
        raise CheckpointError(
            f"RAFT's weights '{weights}' cannot be downloaded ({problem}); download them with an "
            "internet connection, or choose the flow estimator dis"
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
    """Left, right, top, bottom padding to multiples of 8 and to MIN_SIDE."""
    extra = [max(-(-side // 8) * 8, MIN_SIDE) - side for side in (width, height)]
    return (extra[0] // 2, extra[0] - extra[0] // 2, extra[1] // 2, extra[1] - extra[1] // 2)
