"""Batches for the trainer, rendered ahead by other processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch, mirrored, sample_pairs


class _Batches:
    """The batch of every step: a pure function of the options, the step, and the process' rank."""

    def __init__(self, options: TrainOptions, rank: int = 0) -> None:
        self.options = options
        self.seed = options.seed + 1_000_003 * rank
        self.worlds: dict[tuple[int, int], Any] = {}
        self.kept: tuple[tuple[int, tuple[int, int]], Any] | None = None

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, step: int) -> PairBatch:
        options = self.options
        coarse = step < options.coarse_share * options.steps
        sizes = options.coarse_sizes_hw if coarse else options.sizes_hw
        group, repetition = divmod(step, options.reuse)
        size = sizes[
            group * 2654435761 % 2**32 % len(sizes)
        ]  # a hash: no size keeps pace with data
        if self.kept is None or self.kept[0] != (group, size):
            if size not in self.worlds:
                self.worlds[size] = _world(options, size, options.frames_per_scene, self.seed)
            sample = self.worlds[size].sample(options.scenes_per_step, group)
            self.kept = ((group, size), sample)
        seed = self.seed * 7919 + step
        pairs = sample_pairs(self.kept[1], options.pairs_per_scene, seed=seed)
        return mirrored(pairs) if repetition % 2 else pairs


def _world(options: TrainOptions, size_hw: tuple[int, int], frames: int, seed: int) -> Any:
    from dyn3r.training.synthetic.world import World, WorldOptions

    settings = WorldOptions(
        size_hw=size_hw, frames=frames, dynamic_share=options.dynamic_share, photos=options.photos
    )
    return World(settings, seed=seed)


class _Rounds(Dataset):
    """The batches that share scenes, as one item: so that no scene is rendered by two workers."""

    def __init__(self, batches: _Batches, first_step: int) -> None:
        self.batches, self.first_step = batches, first_step

    def __getitem__(self, group: int) -> list[PairBatch]:
        reuse = self.batches.options.reuse
        start, end = max(group * reuse, self.first_step), (group + 1) * reuse
        return [self.batches[step] for step in range(start, min(end, len(self.batches)))]


def batch_loader(options: TrainOptions, first_step: int, rank: int = 0) -> Iterator[PairBatch]:
    """Batches in order from `first_step` on, rendered ahead by `options.data_workers` processes.

    They are the same for any number of workers.
    """
    workers = options.data_workers
    loader = DataLoader(
        _Rounds(_Batches(options, rank), first_step),
        batch_size=None,
        sampler=range(first_step // options.reuse, math.ceil(options.steps / options.reuse)),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    for batches in loader:
        yield from batches


def held_out_batches(options: TrainOptions, count: int = 2) -> list[PairBatch]:
    """The same unseen scenes for every evaluation of every run: 8 scenes, 32 pairs a batch."""
    world = _world(replace(options, dynamic_share=0.5), options.sizes_hw[0], 4, 987_654_321)
    return [sample_pairs(world.sample(8, step), 4, seed=step) for step in range(count)]
