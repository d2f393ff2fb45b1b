"""Evaluation of a network on held-out data, with pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from dyn3r.scene.drawing import write_picture
from dyn3r.training.batches import HeldOut
from dyn3r.training.tasks import task_of


def evaluate_sets(network: nn.Module, sets: list[HeldOut], device: str) -> dict[str, float]:
    """Evaluate on every held-out set; means over the sets, and of several sets those of each."""
    task = task_of(network)
    by_set = {part.name: task.evaluate(network, part.batches(), device) for part in sets}
    by_set = {name: values for name, values in by_set.items() if values}
    scores: dict[str, float] = {}
    for score in next(iter(by_set.values()), {}):
        scores[score] = sum(values[score] for values in by_set.values()) / len(by_set)
    if len(by_set) > 1:
        for name, values in by_set.items():
            scores |= {f"{score} {name}": value for score, value in values.items()}
    return scores


def write_validation_pictures(
    network: nn.Module, sets: list[HeldOut], device: str, path: Path
) -> None:
    """Draw the first items of every held-out set: frames, true and predicted depth; one PNG.

    Raises OutputError.
    """
    task = task_of(network)
    rows = []
    for part in sets:
        rows += task.pictures(network, next(iter(part.batches())), device, part.name)
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
    write_picture(np.concatenate(rows), path, overwrite=True)
