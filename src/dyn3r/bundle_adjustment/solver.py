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

from dyn3r.bundle_adjustment.problem import Estimate, Measurements, Problem
from dyn3r.bundle_adjustment.residuals import residuals, squared_length
from dyn3r.bundle_adjustment.schur import linearise, step
from dyn3r.types import Progress, no_progress

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
class Solution:
    """The end of an adjustment."""

    estimate: Estimate
    typical_before: float
    typical: float
    """Median error in standard errors, before and after."""
    width: float
    """Where errors begin to count less, at the end."""
    iterations: int


def adjust(
    problem: Problem, start: Estimate, iterations: int = 40, *, progress: Progress = no_progress
) -> Solution:
    """Levenberg-Marquardt on robust errors whose width shrinks to `WIDTH` standard errors.

    Depths are eliminated frame by frame (Schur complement), so a step costs a system of 6 n + 1
    unknowns.
    """
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
