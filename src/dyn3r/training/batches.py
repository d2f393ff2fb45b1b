"""Training batches, rendered ahead by other processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch, mirrored, sample_pairs


class _Batches:
    """Batch of every step: a pure function of the options, the step and the rank."""

    def __init__(self, options: TrainOptions, rank: int = 0) -> None:
        """Prepare the batches of one process; worlds are created when first needed."""
        self.options = options
        self.seed = options.seed + 1_000_003 * rank
        self.worlds: dict[tuple[int, int], Any] = {}
        self.rendered: tuple[tuple[int, tuple[int, int]], Any] | None = None

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.options.steps

    def __getitem__(self, step: int) -> PairBatch:
        """Render the batch of a step, or take other pairs of the scenes rendered last."""
        options = self.options
        coarse = step < options.coarse_share * options.steps
        sizes = options.coarse_sizes_hw if coarse else options.sizes_hw
        group, repetition = divmod(step, options.reuse)
        # a hash, so that sizes are not correlated with the seeds of the scenes
        size = sizes[group * 2654435761 % 2**32 % len(sizes)]
        if self.rendered is None or self.rendered[0] != (group, size):
            if size not in self.worlds:
                self.worlds[size] = _world(options, size, options.frames_per_scene, self.seed)
            sample = self.worlds[size].sample(options.scenes_per_step, group)
            self.rendered = ((group, size), sample)
        seed = self.seed * 7919 + step
        pairs = sample_pairs(self.rendered[1], options.pairs_per_scene, seed=seed)
        return mirrored(pairs) if repetition % 2 else pairs


def _world(options: TrainOptions, size_hw: tuple[int, int], frames: int, seed: int) -> Any:
    """Create the world of a frame size."""
    from dyn3r.training.synthetic.world import World, WorldOptions

    settings = WorldOptions(
        size_hw=size_hw, frames=frames, dynamic_share=options.dynamic_share, photos=options.photos
    )
    return World(settings, seed=seed)


class _SceneGroups(Dataset):
    """Batches that share scenes, as one item, so that every scene is rendered by one worker."""

    def __init__(self, batches: _Batches, first_step: int) -> None:
        """Group `batches` from `first_step` on."""
        self.batches, self.first_step = batches, first_step

    def __getitem__(self, group: int) -> list[PairBatch]:
        """Return the batches of the steps that share the scenes of `group`."""
        reuse = self.batches.options.reuse
        start, end = max(group * reuse, self.first_step), (group + 1) * reuse
        return [self.batches[step] for step in range(start, min(end, len(self.batches)))]


def batch_loader(options: TrainOptions, first_step: int, rank: int = 0) -> Iterator[PairBatch]:
    """Yield batches in order from `first_step` on, rendered by `options.data_workers` processes.

    They do not depend on the number of workers.
    """
    workers = 1 if options.data_workers is None else options.data_workers
    loader = DataLoader(
        _SceneGroups(_Batches(options, rank), first_step),
        batch_size=None,
        sampler=range(first_step // options.reuse, math.ceil(options.steps / options.reuse)),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    for batches in loader:
        yield from batches


def held_out_batches(options: TrainOptions, count: int = 2) -> list[PairBatch]:
    """Render scenes that no run trains on, the same for all runs: 8 scenes, 32 pairs a batch."""
    world = _world(replace(options, dynamic_share=0.5), options.sizes_hw[0], 4, 987_654_321)
    return [sample_pairs(world.sample(8, step), 4, seed=step) for step in range(count)]
