"""Training batches of the synthetic world or of data sets, made ahead by other processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from dyn3r.errors import Dyn3rError, InputError
from dyn3r.training.options import TrainOptions
from dyn3r.training.pair_task import PAIRS
from dyn3r.training.sets.mixture import Mixture
from dyn3r.training.sets.sources import LoadedSet, load_set, parse_data, split_held_out
from dyn3r.training.task import Batch, Task

HELD_OUT_PAIRS = 4
"""Pairs of a held-out batch of data."""


def frame_size(options: TrainOptions, index: int, key: int) -> tuple[int, int]:
    """Return the frame size of batch `index` of the run; `key` decides among the sizes."""
    coarse = index < options.coarse_share * options.steps * options.accumulate
    sizes = options.coarse_sizes_hw if coarse else options.sizes_hw
    # a hash, so that sizes are not correlated with the seeds of the scenes
    return sizes[key * 2654435761 % 2**32 % len(sizes)]


class _Batches:
    """Batches of the synthetic world: a pure function of the options, the index and the rank."""

    def __init__(self, options: TrainOptions, rank: int = 0, task: Task = PAIRS) -> None:
        """Prepare the batches of one process; worlds are created when first needed."""
        self.options, self.task = options, task
        self.seed = options.seed + 1_000_003 * rank
        self.worlds: dict[tuple[int, int], Any] = {}
        self.rendered: tuple[tuple[int, tuple[int, int]], Any] | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.options.steps * self.options.accumulate

    def __getitem__(self, index: int) -> Batch:
        """Render a batch, or take the scenes rendered last in another way."""
        return self.batch(index, frame_size(self.options, index, index // self.options.reuse))

    def batch(self, index: int, size: tuple[int, int]) -> Batch:
        """Render batch `index` with a frame size."""
        options = self.options
        group, repetition = divmod(index, options.reuse)
        if self.rendered is None or self.rendered[0] != (group, size):
            if size not in self.worlds:
                self.worlds[size] = _world(
                    options, size, self.task.frames_of_scene(options), self.seed
                )
            sample = self.worlds[size].sample(options.scenes_per_step, group)
            self.rendered = ((group, size), sample)
        seed = self.seed * 7919 + index
        scenes = self.rendered[1]
        return self.task.of_scenes(scenes, options, seed, mirror=repetition % 2 == 1)


def _world(options: TrainOptions, size_hw: tuple[int, int], frames: int, seed: int) -> Any:
    """Create the world of a frame size."""
    from dyn3r.training.synthetic.world import World, WorldOptions

    settings = WorldOptions(
        size_hw=size_hw, frames=frames, dynamic_share=options.dynamic_share, photos=options.photos
    )
    return World(settings, seed=seed)


class _SceneGroups(Dataset):
    """Batches that share scenes, as one item, so that every scene is rendered by one worker."""

    def __init__(self, batches: _Batches, first_batch: int) -> None:
        """Group `batches` from `first_batch` on."""
        self.batches, self.first_batch = batches, first_batch

    def __getitem__(self, group: int) -> list[Batch]:
        """Return the batches that share the scenes of `group`."""
        reuse = self.batches.options.reuse
        start, end = max(group * reuse, self.first_batch), (group + 1) * reuse
        return [self.batches[index] for index in range(start, min(end, len(self.batches)))]


class _SetBatches(Dataset):
    """Batches of data sets, one as an item; several processes take the batches in turn.

    A pure function of the options, the index, and the number and rank of the processes. Batches of
    the synthetic world are spread evenly among them. The sets are opened in each worker, at its
    first batch.
    """

    def __init__(self, options: TrainOptions, rank: int, processes: int, task: Task) -> None:
        """Prepare the batches of one process."""
        self.options, self.rank, self.processes, self.task = options, rank, processes, task
        self.mixture: Mixture | None = None
        self.synthetic = _Batches(options, task=task)

    def __getitem__(self, index: int) -> list[Batch] | InputError:
        """Read a batch. An error is returned, so that a worker passes it on as it is."""
        options = self.options
        number = index * self.processes + self.rank
        size = frame_size(options, index, number)
        rendered = int(number * options.synthetic_share)  # so many of the earlier batches
        if int((number + 1) * options.synthetic_share) > rendered:
            return [self.synthetic.batch(rendered, size)]
        try:
            if self.mixture is None:
                self.mixture = Mixture(training_sets(options), options.seed)
            batch = self.task.of_sets(self.mixture, number - rendered, options, size)
        except Dyn3rError as error:
            return InputError(str(error))
        return [batch]


def batch_loader(
    options: TrainOptions,
    first_step: int,
    rank: int = 0,
    processes: int = 1,
    task: Task = PAIRS,
) -> Iterator[Batch]:
    """Yield the batches in order from `first_step` on, made by `options.data_workers` processes.

    `options.accumulate` batches belong to each step. They do not depend on the number of workers.
    rank, processes: of the training processes. Raises InputError for unreadable data.
    """
    first, last = (step * options.accumulate for step in (first_step, options.steps))
    dataset: Dataset
    order: Iterable[int]
    if options.data:
        dataset, order = _SetBatches(options, rank, processes, task), range(first, last)
    else:
        dataset = _SceneGroups(_Batches(options, rank, task), first)
        order = range(first // options.reuse, math.ceil(last / options.reuse))
    workers = 1 if options.data_workers is None else options.data_workers
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    for batches in loader:
        if isinstance(batches, InputError):
            raise batches
        yield from batches


def training_sets(options: TrainOptions) -> list[LoadedSet]:
    """Open the data sets to train on, without what is held out. Raises InputError."""
    sets = [load_set(parse_data(text)) for text in options.data]
    return sets if options.validation else [split_held_out(loaded)[0] for loaded in sets]


def held_out_sets(options: TrainOptions) -> list[LoadedSet]:
    """Open the held-out data sets; empty if nothing can be held out. Raises InputError."""
    if options.validation:
        return [load_set(parse_data(text)) for text in options.validation]
    parts = [split_held_out(load_set(parse_data(text)))[1] for text in options.data]
    return [part for part in parts if part is not None]


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs of one data set, or of scenes of the synthetic world."""

    name: str
    batches: Callable[[], Iterable[Batch]]
    """Makes the batches, the same every time."""


def held_out(options: TrainOptions, task: Task = PAIRS) -> list[HeldOut]:
    """Return held-out parts of what is trained on: every data set, and the synthetic world.

    Raises InputError.
    """
    parts = [
        HeldOut(f"{s.spec.name}/{s.spec.path.name}", partial(_read_held_out, s, options, task))
        for s in held_out_sets(options)
    ]
    if not options.data or options.synthetic_share > 0:
        rendered = held_out_batches(options, task=task)
        parts.append(HeldOut("synthetic", lambda: rendered))
    return parts


def _read_held_out(loaded: LoadedSet, options: TrainOptions, task: Task) -> Iterator[Batch]:
    """Read pairs, or samples that begin with them, spread evenly over a set."""
    there = len(loaded.pairs)
    count = min(options.validation_pairs, there)
    rows = np.unique(np.linspace(0, there - 1, count).round().astype(int)).tolist()
    for k in range(0, len(rows), HELD_OUT_PAIRS):
        yield task.held_out(loaded, rows[k : k + HELD_OUT_PAIRS], options)


def held_out_batches(options: TrainOptions, count: int = 2, task: Task = PAIRS) -> list[Batch]:
    """Render scenes that no run trains on, the same for all runs: 8 scenes, 32 pairs a batch."""
    options = replace(options, dynamic_share=0.5, pairs_per_scene=4)
    world = _world(options, options.sizes_hw[0], 4, 987_654_321)
    return [
        task.of_scenes(world.sample(8, step), options, step, mirror=False) for step in range(count)
    ]
