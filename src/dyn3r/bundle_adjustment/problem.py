"""Bundle adjustment problem: measurements, priors and unknowns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.bundle_adjustment.camera_prior import CameraPrior
from dyn3r.bundle_adjustment.depth_prior import DepthPrior

BATCH_MEASUREMENTS = 32_000
"""Measurements that are processed at once, about 1 KB each. Source: run time."""
BATCH_MEASUREMENTS_ELSEWHERE = 2**19
"""The same on other devices than the CPU. Source: about 0.5 GB."""
MAX_EMPTY_SHARE = 0.1
"""Largest share of places without a pair in a `FrameGroup`. Source: memory of the mixed second
derivatives, which are the largest part of a system: this much more at most."""


@dataclass(frozen=True)
class FrameGroup:
    """Frames with similar numbers of pairs, whose equations are computed at once.

    Each has as many places for pairs as the one with the most pairs. Places that are left over
    belong to the pair of the frame with itself, and everything in them is 0.
    """

    frames: Int[Tensor, " f"]
    targets: Int[Tensor, "f p"]
    """Frame in which the samples are measured, of every place."""
    rows: Int[Tensor, " r"]
    """Rows of these frames in their batch of measurements, in order."""
    places: tuple[Int[Tensor, " r"], Int[Tensor, " r"]]
    """Index of the frame and place of every row."""


@dataclass(frozen=True)
class Measurements:
    """Positions of the samples of one or more frames in other frames, a row per pair of frames."""

    source: Int[Tensor, " m"]
    """Frame that the samples belong to."""
    target: Int[Tensor, " m"]
    """Frame in which they are measured."""
    uv: Float[Tensor, "m k 2"]
    """Measured pixel coordinates in the target frame."""
    whiten: Float[Tensor, "m k 2 2"]
    """W with W^T W = the inverse covariance of `uv`, in 1 / pixels."""
    weight: Float[Tensor, "m k"]
    """Weight of each measurement; 0 for those that are not visible or dynamic."""

    @cached_property
    def uv_rows(self) -> Float[Tensor, "2 m k"]:
        """`uv` with the samples along the last axis, which arithmetic is fastest on."""
        return self.uv.movedim(-1, 0).contiguous()

    @cached_property
    def whiten_columns(self) -> Float[Tensor, "2 m 2 k"]:
        """The columns of `whiten` with the samples along the last axis."""
        return self.whiten.permute(3, 0, 2, 1).contiguous()

    @cached_property
    def frames(self) -> tuple[Int[Tensor, " f"], Int[Tensor, " m"]]:
        """The source frames in order, and the index among them of every row."""
        frames, index = torch.unique(self.source, return_inverse=True)
        return frames, index

    @cached_property
    def groups(self) -> list[FrameGroup]:
        """The rows by frame, in groups with similar numbers of pairs (MAX_EMPTY_SHARE)."""
        device, rows_of = self.source.device, defaultdict[int, list[int]](list)
        source, targets = torch.stack([self.source, self.target]).tolist()
        for row, i in enumerate(source):
            rows_of[i].append(row)
        return [
            _frame_group({i: rows_of[i] for i in frames}, targets, device)
            for frames in _similar({i: len(rows) for i, rows in rows_of.items()})
        ]

    def with_noise(
        self, weight: Float[Tensor, "m k"], whiten: Float[Tensor, "m k 2 2"] | None = None
    ) -> Measurements:
        """With other weights and covariances; what depends on neither is kept."""
        out = replace(self, weight=weight, whiten=self.whiten if whiten is None else whiten)
        kept = ("uv_rows", "frames", "groups", *(("whiten_columns",) if whiten is None else ()))
        vars(out).update({name: vars(self)[name] for name in kept if name in vars(self)})
        return out


def _similar(counts: dict[int, int]) -> list[list[int]]:
    """Frames with similar numbers of pairs, given that number of every frame."""
    out: list[list[int]] = []
    pairs = 0
    for i in sorted(counts, key=lambda i: -counts[i]):
        places = (len(out[-1]) + 1) * counts[out[-1][0]] if out else 0
        if not out or places - pairs - counts[i] > MAX_EMPTY_SHARE * places:
            out.append([])
            pairs = 0
        out[-1].append(i)
        pairs += counts[i]
    return [sorted(frames) for frames in out]


def _frame_group(
    rows: dict[int, list[int]], targets: list[int], device: torch.device
) -> FrameGroup:
    """The group of frames with these rows of their batch, whose target frames are given."""
    p = max(len(of_frame) for of_frame in rows.values())
    filled = [
        [targets[row] for row in of_frame] + [i] * (p - len(of_frame))
        for i, of_frame in rows.items()
    ]
    at = [
        (row, f, place)
        for f, of_frame in enumerate(rows.values())
        for place, row in enumerate(of_frame)
    ]
    both = torch.tensor([[i, *places] for i, places in zip(rows, filled)], device=device)
    row, frame, place = torch.tensor(sorted(at), device=device).unbind(1)
    return FrameGroup(both[:, 0], both[:, 1:], row, (frame, place))


@dataclass(frozen=True)
class BundleProblem:
    """Given values: samples, measurements, priors and fixed cameras."""

    uv: Float[Tensor, "k 2"]
    """Pixels of the samples; the same in every frame."""
    measurements: Sequence[Measurements]
    """Measurements of the samples of one or more frames each, in order."""
    center: Float[Tensor, "n 2"]
    """Principal points in pixels."""
    focal: Float[Tensor, "n 2"]
    """Initial focal lengths in pixels along x and y."""
    prior: DepthPrior
    """Prior of the log depth of the samples."""
    focal_sigma: float
    """Standard error of the log of the common factor of the focal lengths; 0: they are known."""
    fixed: Bool[Tensor, " n"]
    """Cameras that are known."""
    camera_prior: CameraPrior | None = None
    """Prior of the cameras; None: flow alone places them."""

    @cached_property
    def free(self) -> Bool[Tensor, " u"]:
        """Unknowns that are not known: six of each camera, and the log focal length."""
        focal = self.fixed.new_full((1,), self.focal_sigma > 0)
        return torch.cat([~self.fixed.repeat_interleave(6), focal])

    def with_prior(self, prior: DepthPrior) -> BundleProblem:
        """The problem with another prior; what is computed from the measurements is kept."""
        out = replace(self, prior=prior)
        if "batches" in vars(self):
            vars(out)["batches"] = self.batches
        return out

    @cached_property
    def batches(self) -> list[Measurements]:
        """Measurements of all frames in order, joined into batches (BATCH_MEASUREMENTS)."""
        return in_batches(self.measurements, self.uv.device)

    @cached_property
    def columns(self) -> int:
        """Columns of the regular grid of samples."""
        return len(torch.unique(self.uv[:, 0]))


def in_batches(
    parts: Sequence[Measurements | None], device: torch.device | str
) -> list[Measurements]:
    """The rows of all parts in order, joined into batches for a device."""
    at_once = BATCH_MEASUREMENTS
    if torch.device(device).type != "cpu":
        at_once = BATCH_MEASUREMENTS_ELSEWHERE
    out: list[Measurements] = []
    batch: list[Measurements] = []
    for part in parts:
        if part is None:
            continue
        rows = sum(len(m.target) for m in (*batch, part))
        if batch and rows * part.weight.shape[1] > at_once:
            out.append(join_measurements(batch))
            batch = []
        batch.append(part)
    return [*out, join_measurements(batch)] if batch else out


def join_measurements(parts: list[Measurements]) -> Measurements:
    """The rows of all parts in order."""
    if len(parts) == 1:
        return parts[0]
    names = ("source", "target", "uv", "whiten", "weight")
    return Measurements(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Estimate:
    """Values of the unknowns, float64."""

    R: Float[Tensor, "n 3 3"]
    """World to camera."""
    t: Float[Tensor, "n 3"]
    """World to camera."""
    log_depth: Float[Tensor, "n k"]
    log_focal: Float[Tensor, ""]
    """Logarithm of the factor on all focal lengths."""

    @property
    def T_world_camera(self) -> Float[np.ndarray, "n 4 4"]:
        """Camera to world."""
        T = np.tile(np.eye(4), (len(self.R), 1, 1))
        R, t = self.R.cpu().numpy(), self.t.cpu().numpy()
        T[:, :3, :3] = R.transpose(0, 2, 1)
        T[:, :3, 3] = -np.einsum("nji,nj->ni", R, t)
        return T


Held = TypeVar("Held")


def to_device(held: Held, device: torch.device | str) -> Held:
    """A value with the tensors that it holds on a device: data classes and lists of them."""
    if isinstance(held, Tensor):
        return held.to(device)  # type: ignore[return-value]
    if isinstance(held, list):
        return [to_device(each, device) for each in held]  # type: ignore[return-value]
    if not is_dataclass(held) or isinstance(held, type):
        return held
    moved: dict[str, Any] = {f.name: to_device(getattr(held, f.name), device) for f in fields(held)}
    return replace(held, **moved)
