"""Training pairs from frames of synthetic scenes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import Sample


@dataclass(frozen=True)
class PairBatch:
    """Frames, each encoded once, and directed pairs of them with ground truth."""

    images: Float[Tensor, "n 3 h w"]
    """Normalised to [-1, 1]."""
    first: Int[Tensor, " m"]
    """Index into `images` of view 1 of each pair."""
    second: Int[Tensor, " m"]
    """Index into `images` of view 2 of each pair."""
    points1: Float[Tensor, "m h w 3"]
    """True points of view 1 in camera 1."""
    points2: Float[Tensor, "m h w 3"]
    """True points of view 2, at its own time, in camera 1."""
    valid1: Bool[Tensor, "m h w"]
    """Pixels of view 1 with known points (no sky)."""
    valid2: Bool[Tensor, "m h w"]
    """Pixels of view 2 with known points (no sky)."""
    flow12: Float[Tensor, "m h w 2"]
    """Displacement in pixels of the surface points of view 1 to view 2."""
    visible12: Bool[Tensor, "m h w"]
    """Whether that surface point is visible in view 2."""
    flow21: Float[Tensor, "m h w 2"]
    """Displacement in pixels of the surface points of view 2 to view 1."""
    visible21: Bool[Tensor, "m h w"]
    """Whether that surface point is visible in view 1."""

    def to(self, device: str) -> PairBatch:
        """Return the batch on another device."""
        return PairBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def sample_pairs(sample: Sample, pairs_per_scene: int, seed: int) -> PairBatch:
    """Sample `pairs_per_scene` different ordered pairs (i, j), i != j, from every scene."""
    assert sample.flow is not None
    assert sample.visible is not None
    scenes, views = sample.depth.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    ordered = torch.tensor([(i, j) for i in range(views) for j in range(views) if i != j])
    order = torch.rand(scenes, len(ordered), generator=generator).argsort(dim=1)
    chosen = ordered[order[:, :pairs_per_scene]].reshape(-1, 2)
    i, j = chosen[:, 0], chosen[:, 1]
    scene = torch.arange(scenes).repeat_interleave(min(pairs_per_scene, len(ordered)))
    points = unproject_depth(sample.depth, sample.K)
    to_first = torch.linalg.inv(sample.T_world_camera[scene, i]) @ sample.T_world_camera[scene, j]
    points2 = points[scene, j] @ to_first[:, None, :3, :3].transpose(-1, -2)
    points2 = points2 + to_first[:, None, None, :3, 3]
    return PairBatch(
        images=sample.images.flatten(0, 1) * 2 - 1,
        first=scene * views + i,
        second=scene * views + j,
        points1=points[scene, i],
        points2=points2,
        valid1=sample.valid[scene, i],
        valid2=sample.valid[scene, j],
        flow12=sample.flow[scene, i, j],
        visible12=sample.visible[scene, i, j],
        flow21=sample.flow[scene, j, i],
        visible21=sample.visible[scene, j, i],
    )


def mirrored(batch: PairBatch) -> PairBatch:
    """Mirror pairs left to right; exact for a principal point in the image centre."""
    signs: dict[str, tuple[float, ...]] = {
        "points1": (-1.0, 1.0, 1.0),
        "points2": (-1.0, 1.0, 1.0),
        "flow12": (-1.0, 1.0),
        "flow21": (-1.0, 1.0),
    }
    out = {}
    for entry in fields(batch):
        values = getattr(batch, entry.name)
        if entry.name in signs:
            values = values.flip(2) * values.new_tensor(signs[entry.name])
        elif entry.name == "images":
            values = values.flip(3)
        elif values.ndim == 3:
            values = values.flip(2)
        out[entry.name] = values
    return PairBatch(**out)


def unproject_depth(
    depth: Float[Tensor, "b v h w"], K: Float[Tensor, "b v 3 3"]
) -> Float[Tensor, "b v h w 3"]:
    """Unproject z depth to points in each frame's own camera; integer pixels are pixel centres."""
    h, w = depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x = (u - K[..., 0, 2, None, None]) / K[..., 0, 0, None, None]
    y = (v - K[..., 1, 2, None, None]) / K[..., 1, 1, None, None]
    return torch.stack([x * depth, y * depth, depth], dim=-1)
