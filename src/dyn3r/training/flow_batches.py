"""Batches for the training of the flow network: rendered pairs with exact flow, augmented."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dyn3r.errors import InputError
from dyn3r.flow.aligned import AlignedFlow
from dyn3r.io.numbers import check_finite, checked_whole
from dyn3r.training.clip_cache import images_of
from dyn3r.training.flow_augment import FlowPair, augmented
from dyn3r.training.options import MAX_SEED

LARGEST_MEDIAN = 0.34
"""Pairs whose median displacement is a larger share of the frame's longer side are left out."""
BASELINES = (0.06, 0.2, 0.6)
"""Largest camera distances of scenes; see `WorldOptions.max_baseline`: small, usual, wide."""
ATTEMPTS = 12
"""Pairs sampled until one shows enough in both frames."""
HELD_OUT_SEED = 987_654_321
"""Seed of the textures and scenes of `held_out_flow`."""
LEAST_VISIBLE = 0.15
"""Least share of pixels that both frames show."""


@dataclass(frozen=True)
class FlowTraining:
    """Options that determine a run of `dyn3r train flow`."""

    steps: int = 40_000
    """Optimiser steps; may be changed when a run is resumed."""
    scenes: int = 2
    """Scenes in a batch."""
    pairs: int = 2
    """Pairs per scene, each used in both directions."""
    frames: int = 4
    """Frames rendered per scene."""
    sizes_hw: tuple[tuple[int, int], ...] = (
        (128, 224), (112, 160), (160, 128), (144, 192), (128, 176), (176, 112),
    )  # fmt: skip
    """Frame sizes, multiples of 16, one per step."""
    coarse_sizes_hw: tuple[tuple[int, int], ...] = ((96, 128), (80, 144), (128, 96), (96, 112))
    """Frame sizes of the first part of a run, which costs less."""
    coarse_share: float = 0.5
    """Share of the steps at these sizes."""
    learning_rate: float = 8e-4
    """Peak of the cosine."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the products; positions and errors are float32."""
    start: str | None = None
    """Weights of an earlier run to start from; None: random weights."""
    photos: str | None = None
    """Folder of photographs for textures; None: procedural textures only."""
    seed: int = 0
    """Seed of weights and data."""
    data_workers: int = 1
    """Processes that render ahead; 0: rendering between the steps."""
    evaluate_every: int = 1000
    """Steps between evaluations on held-out pairs."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        check_finite(self)
        checked_whole(self.seed, "training option seed", low=0, high=MAX_SEED)
        for name in ("steps", "scenes", "pairs", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"training option {name} must be 1 or more")
        if self.precision not in ("bfloat16", "float32"):
            raise InputError("training option precision: bfloat16 or float32")
        if self.frames < 2 or self.data_workers < 0 or not 0 <= self.coarse_share <= 1:
            raise InputError(
                "training of flow needs 2 frames or more, a coarse share from 0 to 1, and 0 or "
                "more data workers"
            )
        if not 0 < self.learning_rate < 1 or self.weight_decay < 0:
            raise InputError("the learning rate lies between 0 and 1, weight decay is not negative")


class FlowBatch(NamedTuple):
    """Directed pairs; the opposite direction of pair k is in row (k + b / 2) mod b."""

    images: Float[Tensor, "b 3 h w"]
    """The first frame of each pair, RGB 0..1; the second is that of the opposite direction."""
    first: Float[Tensor, "b 2 h w"]
    """Flow by aligned dense inverse search as at inference, pixels."""
    flow: Float[Tensor, "b 2 h w"]
    """True flow, pixels."""
    visible: Bool[Tensor, "b h w"]
    """Whether the point is seen in the second frame."""
    known: Bool[Tensor, "b h w"]
    """Where the truth is known."""


def flow_pairs(sample: Any, count: int, rng: random.Random) -> list[FlowPair]:
    """Sample `count` pairs of frames of one rendered scene (`World.sample` of one scene)."""
    frames = images_of(sample)
    n, h, w = frames.shape[:3]
    out: list[FlowPair] = []
    for attempt in range(ATTEMPTS * count):
        i, j = rng.sample(range(n), 2)
        pair = _with_sky(sample, frames, i, j)
        length = np.linalg.norm(pair.flow, axis=-1)
        moves = np.median(length[pair.known]) if pair.known.any() else 0.0
        seen = (pair.visible & pair.known).mean()
        last = attempt >= (ATTEMPTS - 1) * count
        if last or (moves <= LARGEST_MEDIAN * max(h, w) and seen >= LEAST_VISIBLE):
            out.append(pair)
        if len(out) == count:
            break
    return out


def _with_sky(sample: Any, frames: np.ndarray, i: int, j: int) -> FlowPair:
    """Take the pair (i, j) of a scene; the flow of the infinitely far sky is that of a rotation."""
    flow, visible = (
        np.stack([array[0, a, b].numpy() for a, b in ((i, j), (j, i))])
        for array in (sample.flow, sample.visible)
    )
    valid = sample.valid[0].numpy()
    h, w = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float64)
    for k, (a, b) in enumerate(((i, j), (j, i))):
        sky = ~valid[a]
        if not sky.any():
            continue
        K = [sample.K[0, index].numpy().astype(np.float64) for index in (a, b)]
        R = [sample.T_world_camera[0, index, :3, :3].numpy().astype(np.float64) for index in (a, b)]
        H = K[1] @ R[1].T @ R[0] @ np.linalg.inv(K[0])
        far = np.concatenate([grid[sky], np.ones((int(sky.sum()), 1))], 1) @ H.T
        ahead = far[:, 2] > 1e-3
        at = far[:, :2] / np.maximum(far[:, 2:], 1e-3)
        inside = ahead & (at >= 0).all(1) & (at[:, 0] <= w - 1) & (at[:, 1] <= h - 1)
        x, y = np.rint(at).astype(int).clip(0, [w - 1, h - 1]).T
        flow[k][sky] = np.where(ahead[:, None], at - grid[sky], 0)
        visible[k][sky] = inside & ~valid[b][y, x]
    known = np.isfinite(flow).all(-1) & (np.abs(flow).max(-1) < 2 * max(h, w))
    return FlowPair(frames[[i, j]], np.where(known[..., None], flow, 0), visible, known)


def batch_of(pairs: list[FlowPair]) -> FlowBatch:
    """Measure the first flow of pairs of one size, and join them."""
    first, both = AlignedFlow(), np.array([[0, 1]])
    measured = [[m.flow for m in next(first.measure(p.images, both))] for p in pairs]

    def joined(arrays: list[Any]) -> Tensor:
        both = np.concatenate([np.stack([a[k] for a in arrays]) for k in range(2)])
        return torch.from_numpy(np.ascontiguousarray(both))

    images = joined([p.images for p in pairs]).permute(0, 3, 1, 2).float() / 255
    return FlowBatch(
        images.contiguous(),
        joined(measured).permute(0, 3, 1, 2).contiguous(),
        joined([p.flow for p in pairs]).permute(0, 3, 1, 2).float().contiguous(),
        joined([p.visible for p in pairs]),
        joined([p.known for p in pairs]),
    )


class _FlowBatches(Dataset):
    """Batch of every step: a pure function of the options and the step."""

    def __init__(self, options: FlowTraining) -> None:
        self.options = options
        self.world: Any = None

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, step: int) -> FlowBatch:
        """Render and augment the batch of a step."""
        import cv2

        cv2.setNumThreads(1)
        options = self.options
        coarse = step < options.coarse_share * options.steps
        sizes = options.coarse_sizes_hw if coarse else options.sizes_hw
        size = sizes[step * 2654435761 % 2**32 % len(sizes)]
        if self.world is None:
            self.world = flow_world(size, options.frames, options.photos, options.seed)
        rng = random.Random(f"flow/{options.seed}/{step}")
        pairs: list[FlowPair] = []
        for scene in range(step * options.scenes, (step + 1) * options.scenes):
            world = self.world.changed(size_hw=size, max_baseline=rng.choice(BASELINES))
            sample = world.sample(1, scene)
            pairs += [augmented(pair, rng) for pair in flow_pairs(sample, options.pairs, rng)]
        return batch_of(pairs)


def held_out_flow(
    photos: str | None, size_hw: tuple[int, int] = (128, 224), count: int = 24
) -> list[FlowBatch]:
    """Render pairs that no run trains on, the same for all runs: `count` pairs, one a batch."""
    world, batches = flow_world(size_hw, 4, photos, HELD_OUT_SEED), []
    for k in range(count):
        rng = random.Random(f"held out/{k}")
        sample = world.changed(max_baseline=BASELINES[k % len(BASELINES)]).sample(1, k)
        batches.append(batch_of([augmented(pair, rng) for pair in flow_pairs(sample, 1, rng)]))
    return batches


def flow_world(size_hw: tuple[int, int], frames: int, photos: str | None, seed: int) -> Any:
    """Create the world of a frame size."""
    from dyn3r.training.synthetic.world import World, WorldOptions

    options = WorldOptions(size_hw=size_hw, frames=frames, dynamic_share=0.7, photos=photos)
    return World(options, seed=seed)


def flow_batches(options: FlowTraining, first_step: int) -> Iterator[FlowBatch]:
    """Yield the batches from `first_step` on; they do not depend on the number of workers."""
    workers = options.data_workers
    yield from DataLoader(
        _FlowBatches(options),
        batch_size=None,
        sampler=range(first_step, options.steps),
        num_workers=workers,
        prefetch_factor=6 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
