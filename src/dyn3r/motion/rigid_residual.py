"""Residual of measured flow against the static-scene flow fitted to it (ours).

Neither predicted cameras nor the scale of predicted depth are needed: static-scene flow is fitted
to the measured flow (`dyn3r.motion.rigid_flow`), and residuals are judged in units of the standard
error of measured flow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8
from torch import Tensor

from dyn3r.geometry.cameras import pixel_grid
from dyn3r.geometry.filters import window_mean_repeat
from dyn3r.geometry.reprojection import frames_at_once
from dyn3r.geometry.warping import MAX_ROUND_TRIP_PX, sample_at
from dyn3r.io.devices import on_device
from dyn3r.io.memory_map import release_pages
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.residual_means import PairResidual, ResidualMeans
from dyn3r.motion.rigid_flow import centred_grid, fit_static_flow, length_of, nearest_static_flow
from dyn3r.types import FlowFields, PairPredictions, Progress

MIN_VISIBLE = 0.2
"""Share of its pixels that a pair must see of each other; other pairs do not count."""
NOISE_PX = 0.5
"""Standard error in pixels that measured flow always has."""
NOISE_SHARE = 0.05
"""Further standard error as a share of the flow's length."""
NOISE_FACTOR = 3.0
"""Evidence is 1/2 where the residual is this many standard errors."""
COLOR_NOISE = 4.0
"""Difference of colours (0..255) that noise and interpolation alone make."""
COLOR_WINDOW_PX = 5
"""Side of the window over which differences of colours are averaged."""
TYPICAL_STRIDE = 2
"""Every second row and column decides what distance is typical of a pair. Source: run time."""
PAIRS_AT_ONCE = 16
"""Pairs that static-scene flow is fitted to together, on a CPU."""
PAIRS_AT_ONCE_ELSEWHERE = 128
"""The same on other devices."""


def rigid_residual(
    inverse_depth: Float[np.ndarray, "n h w"] | Float[Tensor, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    options: FlowCueOptions,
    progress: Progress,
    device: str = "cpu",
) -> ResidualMeans:
    """Mean residuals of every frame over its pairs. `inverse_depth` has a median of about 1.

    On `device`, which needs double precision: every flow field goes there once, nothing comes back.
    """
    pictures = on_device(images, device)
    if isinstance(inverse_depth, np.ndarray):
        inverse_depth = torch.from_numpy(np.require(inverse_depth, np.float32, ["C", "W"]))
    inverse = inverse_depth.to(device, torch.float32)
    clip = _Clip(inverse, pictures.permute(0, 3, 1, 2).contiguous(), flow, options)
    means = ResidualMeans(images.shape[:3], device)
    step = PAIRS_AT_ONCE if clip.images.is_cpu else PAIRS_AT_ONCE_ELSEWHERE
    at_once = frames_at_once((images.shape[1], images.shape[2]), clip.images.device)
    starts = range(0, len(flow.edges), step)
    threads = threads_on(device)
    fitted = ordered_map(
        lambda start: clip.fit(np.arange(start, min(start + step, len(flow.edges)))), starts,
        threads,
    )  # fmt: skip
    some = (part for pairs in fitted for part in pairs.split(at_once))
    for pairs, found in ordered_map(lambda x: (x, clip.compare(x)), some, threads):
        for k, row in enumerate(pairs.rows.tolist()):
            i, j = flow.edges[row].tolist()
            means.add(i, PairResidual(*(x[k] for x in found)), pairs.visible[k], j - i)
            progress("comparing flow", row + 1, len(flow.edges))
    return means


def mean_inverse_depth(
    predictions: PairPredictions, num_frames: int, size_hw: tuple[int, int], device: str = "cpu"
) -> Float32[Tensor, "n h w"]:
    """Inverse depth of every frame, median 1: mean of log depth over its pairs (i, .).

    Weighted by log confidence, without the scale of each pair. 1 for frames without pairs. On
    `device`, where every map goes once, as it is.
    """
    assert predictions.points1 is not None
    assert predictions.conf1 is not None
    out = torch.ones(num_frames, *size_hw, device=device)
    for t in range(num_frames):
        rows = np.flatnonzero(predictions.edges[:, 0] == t)
        if len(rows):
            depth, confidence = (
                torch.from_numpy(np.ascontiguousarray(x)).to(device).float()
                for x in (predictions.points1[rows, ..., 2], predictions.conf1[rows])
            )
            out[t] = _mean_inverse(depth, confidence)
        release_pages(predictions.points1)  # of a mapped file
        release_pages(predictions.conf1)
    return out


def _mean_inverse(
    depth: Float32[Tensor, "k h w"], confidence: Float32[Tensor, "k h w"]
) -> Float32[Tensor, "h w"]:
    """Inverse depth of a frame from that of its pairs, of any scale."""
    depth = depth.nan_to_num_(nan=1e-6).clamp_(min=1e-6)
    flat = depth.flatten(1)
    middle = ((flat.shape[1] + 1) // 2, flat.shape[1] // 2 + 1)
    low, high = (flat.kthvalue(rank, 1).values for rank in middle)
    weight = confidence.clamp_(min=1).log_().nan_to_num_().add_(1e-3)
    log_depth = (depth / ((low + high) / 2)[:, None, None]).log_()
    total = log_depth.mul_(weight).sum(0, dtype=torch.float64)
    mean = total / weight.sum(0, dtype=torch.float64).clamp(min=1e-9)
    return mean.neg_().exp_().clamp_(0.02, 5.0).float()


class _Pairs(NamedTuple):
    """Some pairs, on the device."""

    rows: Int[np.ndarray, " k"]
    """Their rows in the flow."""
    field: Float32[Tensor, "k 2 h w"]
    """Measured flow in pixels."""
    backward: list[Float32[Tensor, "2 h w"] | None]
    """That of the opposite pairs, where it was measured."""
    visible: Bool[Tensor, "k h w"]
    """Where the flow is to be believed; nowhere in pairs that do not count."""
    P: Float64[Tensor, "k 3 4"]
    """The static-scene flow, see `dyn3r.motion.rigid_flow`."""

    def split(self, count: int) -> list[_Pairs]:
        """The pairs in parts of at most `count`."""
        parts = []
        for start in range(0, len(self.rows), count):
            some = slice(start, start + count)
            parts.append(
                _Pairs(
                    self.rows[some], self.field[some], self.backward[some], self.visible[some],
                    self.P[some],
                )
            )  # fmt: skip
        return parts


class _Clip:
    """Frames on the device, and the flow between them."""

    def __init__(
        self,
        inverse_depth: Float32[Tensor, "n h w"],
        images: UInt8[Tensor, "n 3 h w"],
        flow: FlowFields,
        options: FlowCueOptions,
    ) -> None:
        self.inverse_depth, self.images = inverse_depth, images
        self.flow, self.options = flow, options
        size_hw = (int(images.shape[2]), int(images.shape[3]))
        self.pixels = pixel_grid(size_hw, images.device).movedim(-1, 0).contiguous()
        self.grid = centred_grid(size_hw, images.device)
        self.row_of = {(i, j): row for row, (i, j) in enumerate(flow.edges.tolist())}

    def fit(self, rows: Int[np.ndarray, " k"]) -> _Pairs:
        """Bring pairs to the device and fit static-scene flow to them."""
        edges, device = self.flow.edges[rows].tolist(), self.images.device
        back = [self.row_of.get((j, i)) for i, j in edges]
        others = sorted({row for row in back if row is not None}.difference(rows.tolist()))
        read = [*rows.tolist(), *others]
        fields = torch.from_numpy(np.ascontiguousarray(self.flow.flow[read])).to(device)
        fields = fields.permute(0, 3, 1, 2).float().contiguous()
        at = {row: k for k, row in enumerate(read)}
        visible = np.ones((len(rows), *fields.shape[2:]), bool)
        if self.flow.visible is not None:
            visible = np.array(self.flow.visible[rows], dtype=bool)
        visible[visible.mean((1, 2)) < MIN_VISIBLE] = False
        field, seen = fields[: len(rows)], torch.from_numpy(visible).to(device)
        inverse = self._of_first(self.inverse_depth, rows)
        P = fit_static_flow(field, seen, inverse, NOISE_PX)
        seen &= P.isfinite().all(2).all(1)[:, None, None]
        backward = [None if row is None else fields[at[row]] for row in back]
        return _Pairs(rows, field, backward, seen, P)

    def compare(self, pairs: _Pairs) -> PairResidual:
        """Residuals of all pairs together."""
        field = pairs.field
        inverse = self._of_first(self.inverse_depth, pairs.rows)
        tolerance = self.options.depth_tolerance
        static = nearest_static_flow(pairs.P, field, inverse, tolerance, self.grid)
        ends = self.pixels + field
        residual = _residual(pairs, static, ends)
        if not self.options.photometric:
            return residual
        edges = self.flow.edges[pairs.rows].tolist()
        source, target = (
            torch.stack([self.images[edge[k]] for edge in edges]).float() for k in (0, 1)
        )
        return _with_colors(residual, source, target, self.pixels + static, ends)

    def _of_first(self, values: Tensor, rows: Int[np.ndarray, " k"]) -> Tensor:
        """Values of the first frame of every pair."""
        return torch.stack([values[i] for i in self.flow.edges[rows, 0].tolist()])


def _residual(
    pairs: _Pairs, static: Float32[Tensor, "k 2 h w"], ends: Float32[Tensor, "k 2 h w"]
) -> PairResidual:
    """Residuals with evidence s^2 / (s^2 + k^2), s = distance / standard error.

    `static`: the nearest flow of a static scene. `ends`: where the measured flow leads to.
    """
    off_px = pairs.field - static
    distance_px = length_of(off_px)
    squared = pairs.field.square().sum(1).mul_(NOISE_SHARE**2).add_(NOISE_PX**2)
    noise_px = squared.add_(_squared_round_trip(pairs, ends)).sqrt_()
    # where the whole pair fits badly (wrong depth, failed flow) only outliers count
    some = (slice(None), *(slice(None, None, TYPICAL_STRIDE),) * 2)
    seen = torch.where(pairs.visible[some], distance_px[some], torch.nan)
    typical = seen.flatten(1).nanmedian(1).values
    noise_px = torch.maximum(noise_px, 1.48 * typical[:, None, None])
    squared = (distance_px / (NOISE_FACTOR * noise_px)).square()
    evidence = squared / (squared + 1)
    return PairResidual(evidence, distance_px, evidence, torch.ones_like(evidence), off_px)


def _squared_round_trip(
    pairs: _Pairs, ends: Float32[Tensor, "k 2 h w"]
) -> Float32[Tensor, "k h w"]:
    """Squared forward-backward error of each pixel; 0 where the way back is not known.

    The error is at most MAX_ROUND_TRIP_PX pixels.
    """
    known = [x is not None for x in pairs.backward]
    opposite = [-here if x is None else x for here, x in zip(pairs.field, pairs.backward)]
    returned = sample_at(torch.stack(opposite), ends)
    miss = returned.add_(pairs.field).square_().sum(1)
    miss = miss.nan_to_num_(MAX_ROUND_TRIP_PX**2).clamp_(max=MAX_ROUND_TRIP_PX**2)
    for at, here in zip(miss, known):
        if not here:
            at.zero_()
    return miss


def _with_colors(
    residual: PairResidual,
    source: Float32[Tensor, "k 3 h w"],
    target: Float32[Tensor, "k 3 h w"],
    ends_static: Float32[Tensor, "k 2 h w"],
    ends: Float32[Tensor, "k 2 h w"],
) -> PairResidual:
    """Geometric mean of the evidence and of how much worse static-scene flow explains the colours.

    The latter is a^2 / (a^2 + 2 (b^2 + noise^2)), where a and b are the mean differences of colours
    after warping the target by static-scene and by measured flow: 1/3 where both are equally bad,
    near 0 where both are good.
    """
    warped = (sample_at(target, at) for at in (ends_static, ends))
    differences = ((x - source).abs_().mean(1) for x in warped)
    a, b = (window_mean_repeat(x, COLOR_WINDOW_PX) for x in differences)
    by_color = a.square() / (a.square() + 2 * (b.square() + COLOR_NOISE**2))
    return residual._replace(evidence=(residual.evidence * by_color).sqrt(), by_color=by_color)
