"""Exponential moving average of weights, which is the result of every training here."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def update_average(
    average: Iterable[Tensor], weights: Iterable[Tensor], decay: float, step: int
) -> None:
    """Move `average` towards `weights`, in the same order; its window is shorter at first.

    Decay 0: the average is the weights themselves. `step` counts from 0: with (1 + step) / (10 +
    step) in place of a larger decay, the random weights of the start are soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    averaged = list(average)
    torch._foreach_mul_(averaged, decay)
    torch._foreach_add_(averaged, list(weights), alpha=1 - decay)
