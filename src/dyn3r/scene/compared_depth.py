"""Depth of every pixel compared with that of the frames around it, on any device of PyTorch.

Depth is z in camera coordinates, in the scene's unit of length, 0 where unknown. A pixel is looked
up at the nearest pixel of another frame. Only static pixels are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.geometry.filters import lowest_first, masked_median
from dyn3r.geometry.reprojection import MIN_DEPTH, FramesAround, places
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.scene.visibility_rule import SLACK, neighbours

LARGEST = 0.5
"""Log disagreement (a factor of 1.65) at which comparisons are clipped: beyond it, its size no
longer says how wrong a depth is. Source: bounded influence (Huber 1964)."""
SPARSE = 4
"""Scales of frames are compared on every 4th pixel of every 4th row. Source: time."""
LEAST_OVERLAP = 0.02
"""Share of a frame that another must see for their scales to be compared. Source: about
45 of the pixels compared at 224 x 160, enough for a stable median."""


class ComparedDepth:
    """Depth of a clip, rounded as files store it, and its cameras."""

    def __init__(
        self,
        depth: Float32[Tensor, "n h w"],
        dynamic: Bool[Tensor, "n h w"],
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
    ) -> None:
        self.depth, self.dynamic = stored(depth), dynamic
        self.static = self.depth.clamp(min=0).masked_fill(dynamic, 0)  # 0: not compared
        n, h, w = depth.shape
        near = [sorted([t, *neighbours(t, n)]) for t in range(n)]
        ranges = [range(frames[0], frames[-1] + 1) for frames in near]
        self.around = FramesAround(K, T_world_camera, ranges, (h, w), depth.device)

    def _seen(
        self, i: int, values: Float32[Tensor, "n c h w"], step: int = 1
    ) -> Iterator[tuple[slice, Float32[Tensor, "k h w"], Float32[Tensor, "k c h w"]]]:
        """Some frames near frame i, z of its pixels there, and values of theirs; 0 outside.

        Of every `step`-th row and column of frame i.
        """
        own = self.static[i, step // 2 :: step, step // 2 :: step]
        for P, others in self.around.parts(i, step * step):
            at, z = places(P, own, step // 2, step)
            grid = at.permute(0, 2, 3, 1)
            yield others, z, grid_sample(values[others], grid, "nearest", align_corners=True)

    def scales(self) -> Float[np.ndarray, " n"]:
        """Log scale of every frame's depth, median 0.

        The least squares solution of scale[i] - scale[j] = median log disagreement of frames i and
        j (scale synchronisation). Medians of all pairs come to the host once.
        """
        from scipy.linalg import solveh_banded

        n, (rows, columns) = len(self.static), self.static[0, ::SPARSE, ::SPARSE].shape
        medians = [self._typical(i) for i in range(n)]
        value, count = torch.cat(medians, 1).cpu().double().numpy()
        pairs = [(i, j) for i, near in enumerate(self.around.near) for j in near if j != i]
        laplacian, right = np.zeros((max(map(len, self.around.near)), n)), np.zeros(n)  # banded
        laplacian[0] = 1e-6  # holds what no pair determines
        for (i, j), apart, seen in zip(pairs, value, count):
            if seen > LEAST_OVERLAP * rows * columns:
                laplacian[0, [i, j]] += 1
                laplacian[abs(i - j), min(i, j)] -= 1
                right[[i, j]] += apart, -apart
        scale = solveh_banded(laplacian, right, lower=True)
        return np.asarray(scale - np.median(scale))

    def _typical(self, i: int) -> Float32[Tensor, "2 m"]:
        """Median log depth of frame i less that of each frame near it, and how many pixels."""
        own = self.static[i, SPARSE // 2 :: SPARSE, SPARSE // 2 :: SPARSE]
        found = [torch.empty(2, 0, device=own.device)]
        for _, z, there in self._seen(i, self.static[:, None], SPARSE):
            known = (there[:, 0] > 0) & (z > MIN_DEPTH) & (own > 0)
            known, apart = known.flatten(1), (z / there[:, 0]).log().flatten(1)
            found.append(torch.stack([masked_median(apart, known), known.sum(1)]))
        return torch.cat(found, 1)

    def disagreement(
        self, i: int, scale: Float32[Tensor, " n"]
    ) -> tuple[Float32[Tensor, "h w"], Bool[Tensor, "h w"]]:
        """Median over the frames near frame i of |log| disagreement of depth, at most `LARGEST`.

        The log `scale` of the frames apart. Also the static pixels of frame i that are static and
        known in another frame at all (0 elsewhere).
        """
        count = torch.zeros_like(self.static[i])
        rows: list[Tensor] = []
        for others, z, there in self._seen(i, self.static[:, None]):
            apart = (z / there[:, 0]).log_()  # inf where nothing is there
            apart.sub_((scale[i] - scale[others])[:, None, None]).abs_()
            known = (apart < torch.inf) & (z > MIN_DEPTH)
            rows += apart.clamp_(max=LARGEST).div_(known).unbind()  # inf where not known
            for one in known:
                count += one
        seen = (count > 0) & (self.static[i] > 0)
        if not rows:
            return count, seen
        half = (len(rows) + 1) // 2
        ordered = torch.stack(lowest_first(rows, half)[:half])
        median = ordered.gather(0, (count.long() - 1).clamp(min=0)[None] >> 1)[0]
        return torch.where(seen, median, 0), seen

    def floating(self, i: int, values: Float32[Tensor, "n 2 h w"]) -> Bool[Tensor, "h w"]:
        """Static pixels of frame i that float in front of another. `values`: depth and sigma."""
        own = values[i, 1]
        squared, floats = own.square(), torch.zeros_like(own, dtype=torch.bool)
        for _, z, found in self._seen(i, values):
            there, theirs = found.unbind(1)
            behind = (there / z).log_()  # -inf where nothing is there
            limit = theirs.square().add_(squared).sqrt_().mul_(SLACK)
            for one in (behind > limit) & (theirs < own) & (z > MIN_DEPTH):
                floats |= one
        return floats & (self.static[i] > 0)


def visible(compared: ComparedDepth, sigma: Float32[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Pixels with a depth that do not float in front of what other frames see (SPEC 6, Cleaning).

    A static pixel floats if it projects, to the nearest pixel, onto a static pixel of a
    neighbouring frame that has a smaller sigma and lies behind it by more than `SLACK` standard
    deviations of the difference of the two log depths. Every pixel is judged by itself: the result
    depends neither on the order of the frames nor on what else is rejected.
    """
    valid = compared.depth > 0
    values = torch.stack([compared.static, stored(sigma)], 1)
    found = ordered_map(
        lambda i: compared.floating(i, values), range(len(valid)), threads_on(valid.device)
    )
    for i, floats in enumerate(found):
        valid[i] &= ~floats
    return valid


def stored(values: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Values >= 0 rounded as by `dyn3r.scene.visibility_rule.as_stored`."""
    bits = values.contiguous().view(torch.int32)
    bits = bits + (((bits >> 13) & 1) + 0xFFF)
    return (bits & ~0x1FFF).view(torch.float32)
