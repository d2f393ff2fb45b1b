"""Bundle adjustment on optical flow: cameras, one focal length and the depth of samples.

Unknowns are the cameras (world to camera), the logarithm of a common factor of the focal lengths,
and the log depth of every sample in its own frame. Measurements say where a sample is seen in other
frames; the depth and focal length before are priors. Sources: bundle adjustment (Triggs et al.
2000); depth per pixel from dense flow, eliminated by the Schur complement (DROID-SLAM, Teed and
Deng 2021); priors on depth and focal length where parallax is small (MegaSaM, Li et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
FAR_OFF = 1e6
"""The squared error of a point behind the camera."""


@dataclass(frozen=True)
class Measurements:
    """Where the samples of one frame are seen in other frames."""

    frames: Int[Tensor, " m"]
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
    """Measurements that start in one frame, linearised, in standard errors."""

    error: Float[Tensor, "m k 2"]
    """Predicted minus measured."""
    front: Bool[Tensor, "m k"]
    """The point lies in front of the other camera."""
    J: Float[Tensor, "m k 2 13"] | None
    """By the camera of this frame (6: shift, turn), of the other (6), and the log focal length."""
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


def residuals(problem: Problem, now: Estimate, i: int, *, by: str = "everything") -> Residuals:
    """Errors of the measurements that start in frame i. `by`: derivatives by "everything",
    "depth" alone, or "nothing"."""
    seen = problem.seen[i]
    assert seen is not None
    j, focal = seen.frames, problem.focal * now.log_focal.exp()
    bearing = (problem.uv - problem.centre[i]) / focal[i]
    depth = now.log_depth[i].exp()
    X_i = torch.cat([bearing, torch.ones_like(bearing[:, :1])], -1) * depth[:, None]
    R = now.R[j] @ now.R[i].T
    turned = X_i @ R.transpose(-1, -2)
    X = turned + (now.t[j] - now.t[i] @ R.transpose(-1, -2))[:, None]
    near = FRONT * depth.median()
    front = X[..., 2] > near
    z = torch.maximum(X[..., 2], near)[..., None]
    slope, scale = X[..., :2] / z, focal[j][:, None]
    whiten = seen.whiten.double()
    error = slope * scale + problem.centre[j][:, None] - seen.target
    error = (whiten @ error[..., None])[..., 0]
    if by == "nothing":
        return Residuals(error, front, None, None)
    J_point = error.new_zeros(*slope.shape, 3)
    J_point[..., 0, 0] = J_point[..., 1, 1] = 1.0
    J_point[..., 2] = -slope
    J_point = whiten @ (J_point * (scale / z)[..., None])
    J_depth = (J_point @ turned[..., None])[..., 0]
    if by == "depth":
        return Residuals(error, front, None, J_depth)
    J = error.new_empty(*slope.shape, 13)
    back = -(J_point @ R[:, None])
    J[..., :3], J[..., 6:9] = back, J_point
    J[..., 3:6] = torch.linalg.cross(X_i[None, :, None].expand_as(back), back, dim=-1)
    J[..., 9:12] = torch.linalg.cross(X[:, :, None].expand_as(J_point), J_point, dim=-1)
    sideways = torch.cat([X_i[:, :2], torch.zeros_like(X_i[:, :1])], -1) @ R.transpose(-1, -2)
    longer = (whiten @ (slope * scale)[..., None])[..., 0]
    J[..., 12] = longer - (J_point @ sideways[..., None])[..., 0]
    return Residuals(error, front, J, J_depth)


def robust_weight(seen: Measurements, found: Residuals, width: float) -> Float[Tensor, "m k"]:
    """Weight of each measurement in a step (Geman and McClure)."""
    squared = found.error.square().sum(-1)
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
    for i, mine in enumerate(problem.seen):
        if mine is None:
            seen.append(None)
            continue
        errors = residuals(problem, now, i, by="nothing").error.norm(dim=-1)
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
    for i, seen in enumerate(problem.seen):
        if seen is None:
            continue
        found = residuals(problem, now, i, by="nothing")
        squared = torch.where(found.front, found.error.square().sum(-1), FAR_OFF)
        total += float((seen.weight * (width**2 * squared / (width**2 + squared))).sum())
    return total


def typical_error(problem: Problem, now: Estimate) -> float:
    """Median error of what counts, in standard errors; 0 if nothing does."""
    errors = [
        residuals(problem, now, i, by="nothing").error.norm(dim=-1)[seen.weight > 0]
        for i, seen in enumerate(problem.seen)
        if seen is not None
    ]
    every = torch.cat(errors) if errors else torch.zeros(0)
    return float(every.median()) if len(every) else 0.0
