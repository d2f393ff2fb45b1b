"""What a family of networks is trained on: its batches, losses, evaluation and files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from dyn3r.scene.drawing import Picture
from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch
from dyn3r.training.sets.mixture import Mixture
from dyn3r.training.sets.sources import LoadedSet

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import Sample

Batch = Any
"""Batch of a task; it has `to(device)`."""


class Task(Protocol):
    """Training task of a family of networks. Its objects hold nothing, so processes share them."""

    unit: str
    """What a batch has several of."""

    def check(self, options: TrainOptions) -> None:
        """Raise InputError for options that have no meaning for this family."""

    def frames_of_scene(self, options: TrainOptions) -> int:
        """Frames of a scene of the synthetic world."""

    def of_scenes(self, scenes: Sample, options: TrainOptions, seed: int, *, mirror: bool) -> Batch:
        """Batch of rendered scenes."""

    def of_sets(
        self, mixture: Mixture, number: int, options: TrainOptions, size_hw: tuple[int, int]
    ) -> Batch:
        """Batch number `number` of data sets, with augmentation. Raises InputError."""

    def held_out(self, loaded: LoadedSet, rows: list[int], options: TrainOptions) -> Batch:
        """Batch of rows of a held-out set, without augmentation. Raises InputError."""

    def add_gradients(
        self, network: nn.Module, batch: Batch, options: TrainOptions, device: str, count: int
    ) -> dict[str, float]:
        """Add the gradients of one of `count` batches; returns its losses."""

    def evaluate(
        self, network: nn.Module, batches: Iterable[Batch], device: str
    ) -> dict[str, float]:
        """Compute mean loss and errors on held-out batches; empty if no depth is known."""

    def pictures(self, network: nn.Module, batch: Batch, device: str, name: str) -> list[Picture]:
        """Rows of frames, true and predicted depth for the first few items of a batch."""

    def as_pairs(self, batch: Batch) -> PairBatch:
        """Pairs of the batch with matches of static points, for the picture of a dry run."""

    def items(self, batch: Batch) -> str:
        """What the batch holds, in words."""

    def save_published(self, folder: Path, network: nn.Module) -> None:
        """Write the result for the original programs, if they can build the network."""
