"""Options of bundle adjustment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dyn3r.errors import InputError

FOCAL_SIGMA = 0.3 / 300.0**0.5
"""0.0173. Source: a focal length that is wrong by 0.3 (log), weighted as 300 measurements; chosen
on the synthetic world."""


@dataclass(frozen=True)
class BundleAdjustmentOptions:
    """Priors on the initial depth and focal length, and limits of the solver."""

    depth_sigma: float = 0.5
    """Standard error of the log depth before. Larger: flow decides more. Source: chosen on the
    synthetic world."""
    focal_sigma: float = FOCAL_SIGMA
    """Standard error of the log focal length before. Larger: flow decides more."""
    prior_inflation: float = 4.0
    """Factor on both standard errors while cameras are estimated, if flow shows parallax: the
    errors of a network are correlated over the image, not independent between samples. 1: none.
    Source: chosen on the synthetic world."""
    mask_margin: float = 0.045
    """Flow within this distance of dynamic pixels is left out while cameras are estimated, as a
    share of the long side: smooth flow of a moving object extends beyond its outline. Source:
    chosen on ten clips of the synthetic world."""
    noise_inflation: float = 5.0
    """Factor on the standard errors of flow while masks are not final: what they miss, and errors
    that neighbours share, count less. Source: with 1 the cameras of a development clip follow a
    large moving object that the first masks miss (docs/experiments.md). The calibrated adjustment
    has 1, and estimates the noise."""
    iterations: int = 40
    """Largest number of iterations of one adjustment."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        for name, value in vars(self).items():
            allowed = value >= 0 if name == "mask_margin" else value > 0
            if not math.isfinite(value) or not allowed:
                raise InputError(
                    f"bundle adjustment option {name} must be a positive number, not {value}"
                )
        if self.prior_inflation < 1:
            raise InputError(
                f"bundle adjustment option prior_inflation is 1 or more, not {self.prior_inflation}"
            )
        if self.mask_margin > 1:
            raise InputError("bundle adjustment option mask_margin is a share, 0 to 1")
