"""What can be asked of bundle adjustment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dyn3r.errors import InputError


@dataclass(frozen=True)
class BundleOptions:
    """How far measured flow may move cameras and depth. The weights were chosen on the synthetic
    world (docs/bundle.md)."""

    samples: int = 350
    """About as many samples of a frame, on a grid, find the cameras. More: slower, steadier."""
    depth_samples: int = 2500
    """About as many find the depth, when the cameras are found. More: finer and slower."""
    depth_sigma: float = 0.5
    """How wrong the depth before may be: standard error of its logarithm. Larger: flow decides."""
    loosening: float = 4.0
    """Where flow shows parallax, cameras are found with depth and focal length before this many
    times less sure: a network's errors are alike all over, not as independent as the samples."""
    focal_sigma: float = 0.3
    """How wrong the focal length before may be: standard error of its logarithm."""
    noise_px: float = 0.3
    """Standard error of flow, in pixels, on a perfect texture."""
    noise_share: float = 0.05
    """Standard error of flow as a share of its length."""
    noise_grey: float = 30.0
    """Difference in brightness (0..255) that is no movement, over a patch. Larger: flow counts less
    where, or along which, the picture is plain."""
    independence: float = 0.25
    """Measurements are alike where they are near each other: the share of them that counts."""
    focal_count: float = 300.0
    """For how many measurements the focal length before counts."""
    moving_weight: float = 0.0
    """Weight of flow on what moves."""
    margin: float = 0.045
    """How far around what moves flow is left out too when cameras are found, as a share of the long
    side: smooth flow drags along what is next to it."""
    smoothness: float = 1000.0
    """Stiffness of the change of depth between neighbouring pixels: 1 / variance of its step."""
    edge: float = 10.0
    """Difference of neighbouring pixels' colours (0..255) at which this stiffness falls to a third:
    depth may jump at the edges of the picture."""
    iterations: int = 40
    """Most steps."""
    level_ground: bool = True
    """Of a camera that only turns: relief is made weaker where the ground would be tilted else."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            may_be_nothing = name in ("moving_weight", "margin", "level_ground")
            if not math.isfinite(value) or value < 0 or (not may_be_nothing and value == 0):
                raise InputError(f"bundle option {name} must be a positive number, not {value}")
        if self.loosening < 1:
            raise InputError(f"bundle option loosening is 1 or more, not {self.loosening}")
        if not 0 < self.independence <= 1 or max(self.moving_weight, self.margin) > 1:
            raise InputError(
                "bundle options independence, moving_weight, margin are shares, 0 to 1"
            )
