"""Values on a device of PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def float64_device(device: str) -> str:
    """The device, or the CPU where that has no double precision (mps)."""
    return "cpu" if device.startswith("mps") else device


def on_device(
    values: Shaped[np.ndarray, "*shape"], device: torch.device | str
) -> Shaped[Tensor, "*shape"]:
    """An array as a tensor on a device, with its type. On a CPU they share memory where it can be.

    An array that is read-only or not contiguous is copied first.
    """
    import torch

    return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)
