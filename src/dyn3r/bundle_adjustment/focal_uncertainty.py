"""Standard error of the focal length that a bundle adjustment found."""

from __future__ import annotations

import math

import torch

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.schur import depth_inverse, linearise, solve_reduced
from dyn3r.bundle_adjustment.solver import KERNEL_WIDTH, MIN_DAMPING


def focal_sigma(problem: BundleProblem, estimate: Estimate) -> float:
    """Standard error of the log focal length, all cameras and depths unknown; 0: it is known.

    Square root of the last diagonal entry of the inverse of the Fisher information at the robust
    weights. `problem` has the noise of flow that the residuals suggest. If the information is
    singular, the prior's.
    """
    if problem.focal_sigma == 0:
        return 0.0
    system = linearise(problem, estimate, KERNEL_WIDTH)
    unit = torch.zeros_like(system.gradient)
    unit[-1] = 1.0
    diagonal = system.prior + MIN_DAMPING * system.diagonal
    free = torch.cat([~problem.fixed.repeat_interleave(6), torch.tensor([True])])
    column = solve_reduced(
        system, depth_inverse(problem, system, MIN_DAMPING), diagonal, unit, free
    )
    if column is None or not 0 < float(column[-1]) < math.inf:
        return problem.focal_sigma
    return math.sqrt(float(column[-1]))
