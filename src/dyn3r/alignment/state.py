"""Unknowns of the alignment (`State`) and sampled pointmaps (`Observations`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.chunked_io import read_part, row_chunks
from dyn3r.geometry.cameras import pixel_grid, rays
from dyn3r.types import PairPredictions

PAIR_SCALE = 0.5
"""Geometric mean of the pair scales, which fixes the unit of length (SPEC 6)."""
MAX_COORDINATE = 1e6
"""Points with a coordinate beyond this, in the network's unit, are invalid. Source: pointmaps have
coordinates of order 1."""


@dataclass(frozen=True)
class State:
    """Cameras, depth and pair similarities: the arguments of the objective."""

    T_world_camera: Float[Tensor, "n 4 4"]
    """float64."""
    K: Float[Tensor, "n 3 3"]
    """float64."""
    depth: Float[Tensor, "n p"]
    """Depth at the pixels of the observations, float32."""
    pair_scale: Float[Tensor, " m"]
    pair_R: Float[Tensor, "m 3 3"]
    pair_t: Float[Tensor, "m 3"]
    """A pair maps its points x to pair_scale * (pair_R x) + pair_t (s T of SPEC 6 is t here)."""

    def pair_similarity(self) -> Float[Tensor, "m 4 4"]:
        """Pair similarities as matrices."""
        out = torch.zeros(
            len(self.pair_scale), 4, 4, dtype=torch.float64, device=self.pair_t.device
        )
        out[:, :3, :3] = self.pair_scale[:, None, None] * self.pair_R
        out[:, :3, 3] = self.pair_t
        out[:, 3, 3] = 1
        return out

    def rescaled(self, factor: float) -> State:
        """State in another unit of length."""
        T = self.T_world_camera.clone()
        T[:, :3, 3] *= factor
        return replace(
            self,
            T_world_camera=T,
            depth=self.depth * factor,
            pair_scale=self.pair_scale * factor,
            pair_t=self.pair_t * factor,
        )

    def normalised(self) -> State:
        """State whose pair scales have the geometric mean PAIR_SCALE."""
        return self.rescaled(PAIR_SCALE / float(self.pair_scale.log().mean().exp()))


@dataclass(frozen=True)
class Observations:
    """Pointmaps at sampled pixels.

    A view is one side of one pair: view e shows frame i of pair e, view m + e shows frame j.
    """

    num_frames: int
    edges: Int[Tensor, "m 2"]
    frame: Int[Tensor, " v"]
    """Frame that a view shows."""
    pair: Int[Tensor, " v"]
    """Pair that a view belongs to."""
    points: Float[Tensor, "v p 3"]
    """Points in the camera of frame i of the pair; 0 where not usable."""
    weights: Float[Tensor, "v p"]
    """Log confidence; 0 where not usable."""
    uv: Float[Tensor, "p 2"]
    """Sampled pixels, the same in every frame."""
    size_hw: tuple[int, int]
    dynamic: Bool[Tensor, "n p"] | None = None
    """Which of the pixels are dynamic; None: not known."""

    def rays(self, K: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n p 3"]:
        """Viewing rays (z = 1) of every frame at the pixels, float32."""
        return rays(K, self.uv.double()).float()

    def subset(self, frames: Int[Tensor, " k"], pairs: Int[Tensor, " q"]) -> Observations:
        """Observations of some pairs; frames are renumbered by their position in `frames`.

        Not copied if it is all of them, in order.
        """
        if len(frames) == self.num_frames and len(pairs) == len(self.edges):
            ordered = (bool((x.diff() == 1).all()) for x in (frames, pairs))
            if all(ordered):
                return self
        new_index = torch.full((self.num_frames,), -1, device=frames.device)
        new_index[frames] = torch.arange(len(frames), device=frames.device)
        edges = new_index[self.edges[pairs]]
        assert len(pairs) > 0
        assert bool((edges >= 0).all())
        views = torch.cat([pairs, len(self.edges) + pairs])
        rows = torch.arange(len(pairs), device=frames.device)
        return replace(
            self,
            num_frames=len(frames),
            edges=edges,
            frame=torch.cat([edges[:, 0], edges[:, 1]]),
            pair=torch.cat([rows, rows]),
            points=self.points[views],
            weights=self.weights[views],
            dynamic=None if self.dynamic is None else self.dynamic[frames],
        )

    def views_of(self, frame: int) -> Int[Tensor, " k"]:
        """Views that show a frame."""
        return torch.nonzero(self.frame == frame)[:, 0]


def usable_weights(points: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights w = log C, both 0 where not usable (SPEC 6)."""
    good = (points.abs() < MAX_COORDINATE).all(-1) & torch.isfinite(confidence) & (confidence > 1)
    weights = torch.where(good, confidence, torch.ones_like(confidence)).log()
    return torch.where(good[..., None], points, torch.zeros_like(points)), weights


def sample_grid(size_hw: tuple[int, int], pixels: int) -> tuple[slice, slice]:
    """Rows and columns of a regular grid of about `pixels` pixels, centred in the image."""
    height, width = size_hw
    step = max(1, round((height * width / pixels) ** 0.5))
    step = min(step, max(1, min(height, width) // 4))
    return slice(((height - 1) % step) // 2, None, step), slice(
        ((width - 1) % step) // 2, None, step
    )


def sample(
    predictions: PairPredictions,
    pixels: int,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    device: torch.device | str = "cpu",
) -> Observations:
    """Pointmaps at a grid of about `pixels` pixels per frame; read in chunks."""
    rows, columns = sample_grid(predictions.size_hw, pixels)
    uv = pixel_grid(predictions.size_hw, device)[rows, columns].reshape(-1, 2)
    count, m = len(uv), len(predictions.edges)
    points = torch.empty(2 * m, count, 3, device=device)
    weights = torch.empty(2 * m, count, device=device)
    sides = (
        (predictions.points1, predictions.conf1),
        (predictions.points2, predictions.conf2),
    )
    for side, (side_points, side_confidence) in enumerate(sides):
        assert side_points is not None
        assert side_confidence is not None
        for chunk in row_chunks(side_points):
            some_points = read_part(side_points, chunk, rows, columns).astype(np.float32)
            some_confidence = read_part(side_confidence, chunk, rows, columns).astype(np.float32)
            out = slice(side * m + chunk.start, side * m + chunk.stop)
            points[out], weights[out] = usable_weights(
                torch.from_numpy(some_points.reshape(-1, count, 3)).to(device),
                torch.from_numpy(some_confidence.reshape(-1, count)).to(device),
            )
    edges = torch.from_numpy(np.array(predictions.edges, dtype=np.int64)).to(device)
    dynamic_samples = None
    if dynamic is not None:
        dynamic_samples = torch.from_numpy(
            np.ascontiguousarray(dynamic[:, rows, columns]).reshape(-1, count)
        ).to(device)
    rows_of_pairs = torch.arange(len(edges), device=device)
    return Observations(
        num_frames=predictions.num_frames,
        edges=edges,
        frame=torch.cat([edges[:, 0], edges[:, 1]]),
        pair=torch.cat([rows_of_pairs, rows_of_pairs]),
        points=points,
        weights=weights,
        uv=uv,
        size_hw=predictions.size_hw,
        dynamic=dynamic_samples,
    )
