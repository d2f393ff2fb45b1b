"""Mixture of data sets: the endless order of their pairs, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.geometry.cameras import pixel_grid, project, transform, unproject
from dyn3r.training.pairs import PairBatch
from dyn3r.training.sets.sources import LoadedSet
from dyn3r.training.sets.views import Augmentation, View, fit_view, sample_augmentation

EPOCH_SEED = 777
"""Source: DATASETS.md, 3.0."""
LEAST_KNOWN_PX = 64
"""Pixels with known depth that a view must have; otherwise another pair is drawn."""
MOST_DRAWS = 20
DEPTH_TOLERANCE = 0.03
"""Largest relative difference of depth at which a point counts as visible in the other view."""

ViewPair = tuple[View, View]


@dataclass(frozen=True)
class Mixture:
    """Pairs of several sets, in an order that depends on the seed alone."""

    sets: list[LoadedSet]
    seed: int

    def __len__(self) -> int:
        """Pairs per epoch."""
        return sum(s.spec.count for s in self.sets)

    def at(self, position: int) -> tuple[int, int]:
        """Return set and row of the pair at a position of the endless order.

        Every epoch has `count` pairs of each set: a new permutation of all its pairs, cut, or
        repeated in rotation where the set is smaller.
        """
        epoch, offset = divmod(position, len(self))
        which, row = _epoch_order(
            tuple((s.spec.count, len(s.pairs)) for s in self.sets), self.seed, epoch
        )[offset]
        return int(which), int(row)


@lru_cache(maxsize=2)
def _epoch_order(sizes: tuple[tuple[int, int], ...], seed: int, epoch: int) -> np.ndarray:
    """Return rows (set, pair) of one epoch; sizes: pairs wanted and pairs there are, per set."""
    rng = np.random.default_rng((EPOCH_SEED + epoch, seed))
    rows = []
    for which, (count, there) in enumerate(sizes):
        order = np.resize(rng.permutation(there), count)
        rows.append(np.stack([np.full(count, which), order], axis=1))
    whole = np.concatenate(rows)
    return whole[rng.permutation(len(whole))]


def sample_batch(
    mixture: Mixture, batch: int, pairs: int, size_hw: tuple[int, int], *, flow: bool
) -> PairBatch:
    """Read batch number `batch` of `pairs` pairs, with augmentation; each in both orders.

    size_hw: height and width, or the reverse where the first image is portrait. flow: also the
    correspondences of static points, for the matching loss. Raises InputError.
    """
    out: list[ViewPair] = []
    for k in range(pairs):
        rng = np.random.default_rng((mixture.seed, batch, k))
        found = _pair_with_depth(mixture, batch * pairs + k, rng)
        if not out:
            size_hw = oriented(size_hw, found[0])
        out.append(
            (
                fit_view(found[0], size_hw, sample_augmentation(rng)),
                fit_view(found[1], size_hw, sample_augmentation(rng)),
            )
        )
    return pair_batch(out, flow=flow)


def held_out_batch(
    loaded: LoadedSet, rows: list[int], size_hw: tuple[int, int], *, flow: bool = False
) -> PairBatch:
    """Read pairs of a set without augmentation, each in both orders. Raises InputError."""
    views = [loaded.views(row) for row in rows]
    size_hw = oriented(size_hw, views[0][0])
    plain = Augmentation()
    return pair_batch(
        [(fit_view(a, size_hw, plain), fit_view(b, size_hw, plain)) for a, b in views], flow=flow
    )


def oriented(size_hw: tuple[int, int], view: View) -> tuple[int, int]:
    """Return the frame size in the orientation of an image."""
    short, long = sorted(size_hw)
    h, w = view.size_hw
    return (long, short) if h > w else (short, long)


def _pair_with_depth(mixture: Mixture, position: int, rng: np.random.Generator) -> ViewPair:
    """Read the pair at a position; one without known depth is replaced by another of its set."""
    which, row = mixture.at(position)
    loaded = mixture.sets[which]
    for _ in range(MOST_DRAWS):
        views = loaded.views(row)
        if all((view.depth > 0).sum() >= LEAST_KNOWN_PX for view in views):
            return views
        row = int(rng.integers(len(loaded.pairs)))
    raise InputError(
        f"{loaded.spec.path}: {MOST_DRAWS} pairs in a row have fewer than {LEAST_KNOWN_PX} pixels "
        "of known depth"
    )


def pair_batch(pairs: list[ViewPair], *, flow: bool) -> PairBatch:
    """Make a batch of view pairs of one size, in both orders.

    The points of both views are in the camera of the first. flow: fill the correspondences of
    static points; otherwise none is visible.
    """
    n = len(pairs)
    views = [pair[k] for k in (0, 1) for pair in pairs]
    images = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2)
    depth, moving = (
        torch.from_numpy(np.stack([getattr(view, name) for view in views]))
        for name in ("depth", "moving")
    )
    K, T = (
        torch.from_numpy(np.stack([getattr(view, name) for view in views])).double()
        for name in ("K", "T_world_camera")
    )
    first = torch.arange(2 * n)
    second = first.roll(n)
    own = unproject(depth.double(), K)
    to_first = torch.linalg.inv(T[first]) @ T[second]
    h, w = depth.shape[1:]
    points2 = transform(to_first, own[second].flatten(1, 2)).unflatten(1, (h, w))
    forward = torch.zeros(2 * n, h, w, 2), torch.zeros(2 * n, h, w, dtype=torch.bool)
    if flow:
        forward = static_matches(own, depth, K, T, second)
        forward = (forward[0], forward[1] & ~moving)
    return PairBatch(
        images=images.float() / 127.5 - 1,
        first=first,
        second=second,
        points1=own.float(),
        points2=points2.float(),
        valid1=depth > 0,
        valid2=depth[second] > 0,
        flow12=forward[0],
        visible12=forward[1],
        flow21=forward[0][second],
        visible21=forward[1][second],
    )


def static_matches(
    points: Tensor, depth: Tensor, K: Tensor, T_world_camera: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute where the static points of views lie in their partners, and whether they show there.

    points (n,h,w,3) in their own cameras, depth (n,h,w), K, T_world_camera, second: partner of
    each. Returns displacements in pixels (n,h,w,2) and masks (n,h,w): inside the partner, and of
    its depth.
    """
    n, h, w = depth.shape
    to_second = torch.linalg.inv(T_world_camera[second]) @ T_world_camera
    there = transform(to_second, points.flatten(1, 2))
    uv = project(there, K[second])
    column, row = uv.round().long().unbind(-1)
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h) & (there[..., 2] > 0)
    index = (row * w + column).where(inside, 0)
    z = depth[second].flatten(1).gather(1, index)
    same = (z > 0) & ((there[..., 2] - z).abs() <= DEPTH_TOLERANCE * z)
    visible = inside & same & (depth.flatten(1) > 0)
    flow = (uv.float().unflatten(1, (h, w)) - pixel_grid((h, w))) * visible.view(n, h, w, 1)
    return flow, visible.view(n, h, w)
