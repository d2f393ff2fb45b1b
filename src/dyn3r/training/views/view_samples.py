"""Training samples of many-view networks: N views of one sequence with depth and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.network.many_view.view_config import VIEW_PATCH
from dyn3r.training.sets.mixture import LEAST_KNOWN_PX, MOST_DRAWS, Mixture, oriented
from dyn3r.training.sets.sources import LoadedSet
from dyn3r.training.sets.views import Augmentation, View, fit_view, sample_augmentation
from dyn3r.training.synthetic.world import Sample

FEWEST = 2
"""Views of the smallest sample. Source: Depth Anything 3, section 4: 2 to 18."""
GIVEN_SHARE = 0.2
"""Share of the samples whose cameras are given to the network. Source: Depth Anything 3, section
3.3."""


@dataclass(frozen=True)
class ViewSample:
    """Views of one sequence; the first is the reference."""

    images: Float[Tensor, "s 3 h w"]
    """RGB 0..1."""
    depth: Float[Tensor, "s h w"]
    """z along the optical axis, 0 where unknown."""
    moving: Bool[Tensor, "s h w"]
    """Pixels that move in the world; False where the data set does not say."""
    K: Float[Tensor, "s 3 3"]
    """Intrinsics in pixels; integer coordinates are pixel centres."""
    T_world_camera: Float[Tensor, "s 4 4"]
    """Camera to world, float64, in the unit of the depth."""
    given: bool = False
    """Whether the network is given the cameras."""

    @classmethod
    def of_views(cls, views: Sequence[View], *, given: bool = False) -> ViewSample:
        """The sample of views of one size."""
        images, depth, moving, K, T = (
            torch.from_numpy(np.stack([getattr(view, name) for view in views]))
            for name in ("image", "depth", "moving", "K", "T_world_camera")
        )
        images = images.permute(0, 3, 1, 2) / 255
        return cls(images, depth.float(), moving, K.double(), T.double(), given)

    def mirrored(self) -> ViewSample:
        """The sample mirrored left to right."""
        flip = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
        K = self.K.clone()
        K[:, 0, 2] = self.images.shape[-1] - 1 - K[:, 0, 2]
        return replace(
            self, images=self.images.flip(-1), depth=self.depth.flip(-1),
            moving=self.moving.flip(-1), K=K, T_world_camera=flip @ self.T_world_camera @ flip,
        )  # fmt: skip

    def to(self, device: str) -> ViewSample:
        """The sample on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {n: v.to(device) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ViewBatch:
    """Samples that are seen one after the other; their numbers of views may differ."""

    samples: tuple[ViewSample, ...]

    def to(self, device: str) -> ViewBatch:
        """The batch on another device."""
        return ViewBatch(tuple(sample.to(device) for sample in self.samples))


def patch_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Sides rounded down to multiples of 14, at least one patch."""
    h, w = (max(1, side // VIEW_PATCH) * VIEW_PATCH for side in size_hw)
    return h, w


def sample_views(
    mixture: Mixture, batch: int, samples: int, most: int, size_hw: tuple[int, int]
) -> ViewBatch:
    """Read batch number `batch` of data sets, with augmentation. Raises InputError.

    Every sample has 2 to `most` views. size_hw: turned to the orientation of the first image.
    """
    out: list[ViewSample] = []
    for k in range(samples):
        rng = np.random.default_rng((mixture.seed, batch, k))
        which, row = mixture.at(batch * samples + k)
        count, given = int(rng.integers(FEWEST, most + 1)), bool(rng.random() < GIVEN_SHARE)
        views = _views_with_depth(mixture.sets[which], row, count, rng)
        if not out:
            size_hw = oriented(size_hw, views[0])
        fitted = [fit_view(views[i], size_hw, sample_augmentation(rng))
                  for i in rng.permutation(len(views))]  # fmt: skip
        out.append(ViewSample.of_views(fitted, given=given))
    return ViewBatch(tuple(out))


def held_out_views(
    loaded: LoadedSet, rows: list[int], most: int, size_hw: tuple[int, int]
) -> ViewBatch:
    """Read one sample of `most` views for each row, without augmentation. Raises InputError."""
    out = []
    for row in rows:
        views = [loaded.view(*place) for place in chosen_frames(loaded, row, most)]
        fitted = [fit_view(view, oriented(size_hw, views[0]), Augmentation()) for view in views]
        out.append(ViewSample.of_views(fitted))
    return ViewBatch(tuple(out))


def chosen_frames(loaded: LoadedSet, row: int, count: int) -> list[tuple[int, int]]:
    """Sequence and frame of up to `count` views: a pair of the set, continued at its stride.

    Frames after the second and before the first view of the pair are taken in turn, as far as there
    are any with a pose.
    """
    a, i, b, j = (int(x) for x in loaded.pairs[row])
    stride = max(1, abs(j - i))
    early, late = (a, i), (b, j)
    if (b, j) < (a, i):
        early, late = late, early
    frames = [early, late]
    for k in range(1, max(len(s) for s in loaded.sequences) // stride + 1):
        frames += [(late[0], late[1] + k * stride), (early[0], early[1] - k * stride)]
    there = [place for place in dict.fromkeys(frames) if loaded.has_pose(*place)]
    return there[:count]


def _views_with_depth(
    loaded: LoadedSet, row: int, count: int, rng: np.random.Generator
) -> list[View]:
    """Views of a row that have known depth; a row with fewer than two is replaced by another."""
    for _ in range(MOST_DRAWS):
        views = [loaded.view(*place) for place in chosen_frames(loaded, row, count)]
        views = [view for view in views if (view.depth > 0).sum() >= LEAST_KNOWN_PX]
        if len(views) >= FEWEST:
            return views
        row = int(rng.integers(len(loaded.pairs)))
    raise InputError(
        f"{loaded.spec.path}: {MOST_DRAWS} samples in a row have fewer than {FEWEST} views with "
        f"{LEAST_KNOWN_PX} pixels of known depth"
    )


def views_of_scenes(scenes: Sample, seed: int) -> ViewBatch:
    """One sample of every synthetic scene: 2 to all of its frames, in random order.

    The frames are cropped to multiples of 14 pixels.
    """
    rng = np.random.default_rng((seed, 1))
    frames = scenes.depth.shape[1]
    out = []
    for k in range(len(scenes.depth)):
        order = rng.permutation(frames)[: int(rng.integers(FEWEST, frames + 1))]
        sample = ViewSample(
            scenes.images[k, order],
            torch.where(scenes.valid[k, order], scenes.depth[k, order], 0),
            scenes.moving[k, order],
            scenes.K[k, order].double(),
            scenes.T_world_camera[k, order].double(),
            given=bool(rng.random() < GIVEN_SHARE),
        )
        out.append(_cropped_to_patches(sample))
    return ViewBatch(tuple(out))


def _cropped_to_patches(sample: ViewSample) -> ViewSample:
    """Crop a sample about its centre to multiples of 14 pixels."""
    old = (int(sample.depth.shape[1]), int(sample.depth.shape[2]))
    h, w = patch_size(old)
    top, left = (old[0] - h) // 2, (old[1] - w) // 2
    rows, columns = slice(top, top + h), slice(left, left + w)
    K = sample.K.clone()
    K[:, :2, 2] -= torch.tensor([left, top])
    return replace(
        sample, images=sample.images[..., rows, columns], depth=sample.depth[:, rows, columns],
        moving=sample.moving[:, rows, columns], K=K,
    )  # fmt: skip
