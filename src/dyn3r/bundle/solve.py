"""Bundle adjustment on optical flow: cameras, one focal length and the depth of samples.

Unknowns are the cameras (world to camera), the logarithm of a common factor of the focal lengths,
and the log depth of every sample in its own frame. Measurements say where a sample is seen in other
frames; the depth and focal length before are priors. Sources: bundle adjustment (Triggs et al.
2000); depth per pixel from dense flow, eliminated by the Schur complement (DROID-SLAM, Teed and
Deng 2021); priors on depth and focal length where parallax is small (MegaSaM, Li et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.types import Progress, no_progress

FRONT = 1e-3
"""Points nearer to a camera than this share of the frame's median depth pull at nothing."""
WIDTH = 3.0
"""Errors beyond this many standard errors count less and less (Geman and McClure)."""
STAGE = "bundle adjustment"
MEDIAN_ERROR = 1.18
"""Of the length of an error in two dimensions, in standard errors: sqrt(2 log 2)."""
FAR_AWAY, TURNING_STEPS = 12.0, 15
"""Log depth beyond everything, and steps to find a camera that only turns."""
BATCH = 12_000
"""Measurements that are worked on at once; about 1 KB each."""
FAR_OFF = 1e6
"""The squared error of a point behind the camera."""


@dataclass(frozen=True)
class Measurements:
    """Where the samples of one frame, or of some, are seen in other frames: a row for each pair."""

    first: Int[Tensor, " m"]
    """The frame whose samples these are."""
    frames: Int[Tensor, " m"]
    """The frame in which they are seen."""
    target: Float[Tensor, "m k 2"]
    """Pixels in those frames."""
    whiten: Float[Tensor, "m k 2 2"]
    """W with W^T W = the inverse covariance of the target, in pixels."""
    weight: Float[Tensor, "m k"]
    """0 for what is not visible."""


@dataclass(frozen=True)
class Problem:
    """Everything that is given."""

    uv: Float[Tensor, "k 2"]
    """Pixels of the samples; the same in every frame."""
    seen: list[Measurements | None]
    """Of every frame."""
    centre: Float[Tensor, "n 2"]
    """Principal points in pixels."""
    focal: Float[Tensor, "n 2"]
    """Focal lengths in pixels along x and y, before."""
    log_depth: Float[Tensor, "n k"]
    """Of the samples, before."""
    depth_sigma: Float[Tensor, "n k"]
    """Standard error of that; nearly 0 where depth is known."""
    focal_sigma: float
    """Standard error of the log of the common factor of the focal lengths; 0: they are known."""
    fixed: Bool[Tensor, " n"]
    """Cameras that must not move."""

    @cached_property
    def batches(self) -> list[Measurements]:
        """The measurements of all frames, frame by frame, so many at once that each operation on
        them is worth its call."""
        out: list[Measurements] = []
        some: list[Measurements] = []
        for mine in self.seen:
            if mine is None:
                continue
            if some and sum(len(s.frames) for s in (*some, mine)) * len(self.uv) > BATCH:
                out.append(joined(some))
                some = []
            some.append(mine)
        return [*out, joined(some)] if some else out


def joined(some: list[Measurements]) -> Measurements:
    """The rows of all of them."""
    names = ("first", "frames", "target", "whiten", "weight")
    return Measurements(*(torch.cat([getattr(s, name) for s in some]) for name in names))


@dataclass(frozen=True)
class Estimate:
    """What is sought; float64."""

    R: Float[Tensor, "n 3 3"]
    """World to camera."""
    t: Float[Tensor, "n 3"]
    log_depth: Float[Tensor, "n k"]
    log_focal: Float[Tensor, ""]
    """Logarithm of the factor on all focal lengths."""


@dataclass(frozen=True)
class Residuals:
    """Measurements, linearised, in standard errors."""

    error: Float[Tensor, "m k 2"]
    """Predicted minus measured."""
    front: Bool[Tensor, "m k"]
    """The point lies in front of the other camera."""
    J: Float[Tensor, "m k 2 13"] | None
    """By the camera of the first frame (6: shift, turn), of the other (6), and the log focal
    length."""
    J_depth: Float[Tensor, "m k 2"] | None
    """By the log depth."""


@dataclass(frozen=True)
class Solution:
    """The end of an adjustment."""

    estimate: Estimate
    typical_before: float
    typical: float
    """Median error in standard errors, before and after."""
    width: float
    """Where errors begin to count less, at the end."""
    iterations: int


def residuals(
    problem: Problem, now: Estimate, seen: Measurements, *, by: str = "everything"
) -> Residuals:
    """Errors of measurements. `by`: derivatives by "everything", "depth" alone, or "nothing"."""
    i, j, focal = seen.first, seen.frames, problem.focal * now.log_focal.exp()
    mine, row = i.unique(return_inverse=True)
    bearing = (problem.uv - problem.centre[mine, None]) / focal[mine, None]
    depth = now.log_depth[mine].exp()
    X_i = (torch.cat([bearing, torch.ones_like(bearing[..., :1])], -1) * depth[..., None])[row]
    R = now.R[j] @ now.R[i].transpose(-1, -2)
    turned = X_i @ R.transpose(-1, -2)
    X = turned + (now.t[j] - (R @ now.t[i][..., None])[..., 0])[:, None]
    near = (FRONT * depth.median(dim=1).values)[row, None]
    front = X[..., 2] > near
    z = torch.maximum(X[..., 2], near)[..., None]
    slope, scale = X[..., :2] / z, focal[j][:, None]
    error = _along(seen.whiten, slope * scale + problem.centre[j][:, None] - seen.target)
    if by == "nothing":
        return Residuals(error, front, None, None)
    # a step's direction needs no more than single precision, which is twice as fast
    whiten, slope, R, X, X_i = (x.float() for x in (seen.whiten, slope, R, X, X_i))
    J_point = whiten * (scale / z).float()[..., None, :]
    J_point = torch.cat([J_point, -_along(J_point, slope)[..., None]], -1)
    J_depth = _along(J_point, turned.float())
    if by == "depth":
        return Residuals(error, front, None, J_depth)
    back = -(J_point.flatten(1, 2) @ R).view_as(J_point)
    sideways = X_i[..., :2] @ R[..., :2].transpose(-1, -2)
    longer = _along(whiten, slope * scale.float()) - _along(J_point, sideways)
    J = torch.cat([back, _crossed(X_i, back), J_point, _crossed(X, J_point), longer[..., None]], -1)
    return Residuals(error, front, J, J_depth)


def _along(rows: Float[Tensor, "m k 2 d"], x: Float[Tensor, "m k d"]) -> Float[Tensor, "m k 2"]:
    """The products of rows and x. For so few numbers sums of products are faster than `sum`, and
    than products of many small matrices."""
    out = rows[..., 0] * x[..., None, 0]
    for d in range(1, x.shape[-1]):
        out = out + rows[..., d] * x[..., None, d]
    return out


def squared_length(error: Float[Tensor, "m k 2"]) -> Float[Tensor, "m k"]:
    """|error|^2."""
    return error[..., 0] ** 2 + error[..., 1] ** 2


def _crossed(X: Float[Tensor, "m k 3"], rows: Float[Tensor, "m k 2 3"]) -> Tensor:
    """X x each of the rows."""
    x, y, z = X[:, :, None].unbind(-1)
    a, b, c = rows.unbind(-1)
    return torch.stack([y * c - z * b, z * a - x * c, x * b - y * a], -1)


def robust_weight(seen: Measurements, found: Residuals, width: float) -> Float[Tensor, "m k"]:
    """Weight of each measurement in a step (Geman and McClure)."""
    squared = squared_length(found.error)
    return seen.weight * found.front * (width**2 / (width**2 + squared)) ** 2


def adjust(
    problem: Problem, start: Estimate, iterations: int = 40, *, progress: Progress = no_progress
) -> Solution:
    """Levenberg-Marquardt on robust errors whose width shrinks to `WIDTH` standard errors.

    Depths are eliminated frame by frame (Schur complement), so a step costs a system of 6 n + 1
    unknowns.
    """
    from dyn3r.bundle.system import linearise, step

    now, damping = start, 1e-4
    before = typical_error(problem, now)
    width = max(WIDTH, 4 * before)
    cost, done = total_cost(problem, now, width), 0
    while done < iterations:
        progress(STAGE, done, iterations)
        done += 1
        system = linearise(problem, now, width)
        for _ in range(8):
            trial = step(problem, now, system, damping)
            new = cost if trial is None else total_cost(problem, trial, width)
            if trial is not None and new < cost:
                break
            damping = min(damping * 6, 1e6)
        else:
            trial, new = now, cost
        assert trial is not None
        gain, now, damping = (cost - new) / max(cost, 1e-12), trial, max(damping / 4, 1e-7)
        cost = new
        narrow = width
        if width > WIDTH:
            narrow = max(WIDTH, min(0.7 * width, 4 * typical_error(problem, now)))
        if narrow < 0.999 * width:
            width = narrow
            cost = total_cost(problem, now, width)
        elif gain < 1e-5:
            break
    progress(STAGE, iterations, iterations)
    return Solution(now, before, typical_error(problem, now), width, done)


def doubted(problem: Problem, now: Estimate) -> Problem | None:
    """The problem with larger standard errors for pairs that fit badly as a whole; None if none do.

    Blur or a shake spoils the flow of whole pairs, in ways that its own standard errors do not
    know. Where a pair's median error exceeds what it should be, theirs grow by that factor.
    """
    doubt = False
    seen: list[Measurements | None] = []
    for mine in problem.seen:
        if mine is None:
            seen.append(None)
            continue
        errors = residuals(problem, now, mine, by="nothing").error.norm(dim=-1)
        errors = errors.masked_fill(mine.weight <= 0, torch.nan)
        factor = (errors.nanmedian(dim=1).values / MEDIAN_ERROR).nan_to_num(1.0).clamp(min=1.0)
        doubt |= bool((factor > 1).any())
        seen.append(replace(mine, whiten=mine.whiten / factor[:, None, None, None].float()))
    return replace(problem, seen=seen) if doubt else None


def turning_only(problem: Problem, start: Estimate, progress: Progress = no_progress) -> Estimate:
    """The cameras and focal length that explain flow best if the camera only turns: everything is
    so far away that its place does not matter."""
    far = torch.full_like(problem.log_depth, float(start.log_depth.max()) + FAR_AWAY)
    distant = replace(problem, log_depth=far, depth_sigma=torch.full_like(far, 1e-4))
    start = replace(start, log_depth=far.clone())
    return adjust(distant, start, TURNING_STEPS, progress=progress).estimate


def flow_cost(problem: Problem, now: Estimate) -> float:
    """`total_cost` without the priors, at the final width."""
    return total_cost(replace(problem, log_depth=now.log_depth, focal_sigma=0.0), now, WIDTH)


def total_cost(problem: Problem, now: Estimate, width: float) -> float:
    """What is minimised: robust squared errors, and the priors."""
    total = float(((now.log_depth - problem.log_depth) / problem.depth_sigma).square().sum())
    if problem.focal_sigma > 0:
        total += float(now.log_focal / problem.focal_sigma) ** 2
    for seen in problem.batches:
        found = residuals(problem, now, seen, by="nothing")
        squared = torch.where(found.front, squared_length(found.error), FAR_OFF)
        total += float((seen.weight * (width**2 * squared / (width**2 + squared))).sum())
    return total


def typical_error(problem: Problem, now: Estimate) -> float:
    """Median error of what counts, in standard errors; 0 if nothing does."""
    errors = [
        residuals(problem, now, seen, by="nothing").error.norm(dim=-1)[seen.weight > 0]
        for seen in problem.batches
    ]
    every = torch.cat(errors) if errors else torch.zeros(0)
    return float(every.median()) if len(every) else 0.0
