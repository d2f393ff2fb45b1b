"""Standard error of the focal length that a bundle adjustment found."""

from __future__ import annotations

import math

import torch

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.schur import depth_inverse, linearise, solve_reduced
from dyn3r.bundle_adjustment.solver import KERNEL_WIDTH, MIN_DAMPING

SYSTEMATIC = 7.5
"""The error of a focal length over its standard error from independent errors of flow: the root
mean square over 35 development clips (docs/experiments.md, The noise of flow). Errors of flow are
correlated between pairs."""


def focal_sigma(problem: BundleProblem, estimate: Estimate) -> float:
    """Standard error of the log focal length, all cameras and depths unknown; 0: it is known.

    SYSTEMATIC times the square root of the last diagonal entry of the inverse of the Fisher
    information at the robust weights, and at most the prior's. `problem` has the noise of flow that
    the residuals suggest.
    """
    if problem.focal_sigma == 0:
        return 0.0
    system = linearise(problem, estimate, KERNEL_WIDTH)
    unit = torch.zeros_like(system.gradient)
    unit[-1] = 1.0
    diagonal = system.prior + MIN_DAMPING * system.diagonal
    inverse = depth_inverse(problem, system, MIN_DAMPING)
    right = (unit, torch.zeros_like(system.depth))
    column = solve_reduced(system, inverse, diagonal, right, problem.free)
    if column is None or not 0 < float(column[-1]) < math.inf:
        return problem.focal_sigma
    return min(SYSTEMATIC * math.sqrt(float(column[-1])), problem.focal_sigma)
