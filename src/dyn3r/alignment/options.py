"""What can be asked of the alignment, and what may be known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

from dyn3r.errors import InputError
from dyn3r.types import Priors

PIXELS = 1536
"""What `AlignmentOptions.pixels` 0 means."""


@dataclass(frozen=True)
class AlignmentOptions:
    """How pairwise predictions are put together."""

    solver: str = "fast"
    """fast: re-weighted Gauss-Newton, coarse to fine, stops by itself. adam: the published one."""
    iterations: int = 0
    """Most iterations of a solver; 0: 300 for adam, 40 per level for fast. More is slower, and
    never worse."""
    tolerance: float = 1e-4
    """fast stops when an iteration lowers the objective by less than this share of it. A larger
    value stops earlier."""
    shared_focal: bool = True
    """One focal length for all frames. False: one each, for zooming cameras or mixed pictures."""
    smoothness_weight: float = 0.0
    """Weight of the camera's movement between neighbouring frames. Larger: a smoother path, which
    falls behind fast turns. Easi3R 0, MonST3R 0.01."""
    translation_weight: float = 1.0
    """Within the smoothness: weight of the step (scene units) against the turn (radians, about)."""
    flow_weight: float = 0.01
    """Weight of measured flow, when flow is given. Larger: cameras follow the flow more and the
    pointmaps less."""
    flow_start: float = 0.1
    """adam only: share of the iterations before flow counts."""
    depth_prior_weight: float = 0.0
    """Weight of staying near the first depth, up to scale; moving pixels twice. Larger: stiffer."""
    dynamic_weight: float = 1.0
    """Weight of moving pixels in the pair term while cameras are found, when masks are given. 1 is
    the published objective; smaller makes cameras rely on still pixels. The reported terms are
    always those of the published objective."""
    pixels: int = 0
    """fast: pixels per frame that the cameras are found from, at the finest level. Larger: closer
    to the full objective, and slower in proportion. 0: 1536, or 384 where bundle adjustment begins
    with the result."""
    chunk_observations: int = 2_000_000
    """Pixels times pairs held in float32 at once while streaming; about 60 bytes each. Larger:
    more memory, slightly faster."""
    window: int = 100
    """Frames whose cameras are found together in a longer clip; 0: all of them. Larger: less drift
    and use of pairs farther apart, more memory."""
    overlap: float = 0.5
    """Share of a window that the next one takes over as it is. Larger: each step is tied to more
    earlier frames, and more windows are solved."""
    clean: bool = True
    """Set the confidence of points to 0 that float in front of another frame's surer depth."""
    clean_slack: float = 2.0
    """How far in front a point must be to be taken away, in units of its own and the other pixel's
    uncertainty; moving points are spared. Larger: more points stay. 0: the published rule (0.1 % of
    the depth, moving points too), which noise turns against good points."""
    clean_frames: int = 24
    """Frames that cleaning compares a frame with: its partners in pairs, then some spread over the
    clip. Larger: fewer floaters, slower in proportion; 0: all (published), quadratic in frames."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    priors: Priors = field(default_factory=Priors)
    """Known cameras and depth."""

    def __post_init__(self) -> None:
        if self.solver not in ("fast", "adam"):
            raise InputError(f"unknown solver '{self.solver}': choose fast or adam")
        weights = (self.smoothness_weight, self.flow_weight, self.depth_prior_weight)
        if min(*weights, self.translation_weight, self.dynamic_weight) < 0:
            raise InputError("weights of the alignment must not be negative")
        few = self.pixels < 16 and self.pixels != 0
        if few or self.chunk_observations < 1 or self.iterations < 0:
            raise InputError(
                "alignment needs pixels >= 16 (or 0), chunk_observations >= 1, iterations >= 0"
            )
        if self.window < 0 or self.window == 1 or not 0 < self.overlap < 1:
            raise InputError("alignment needs a window of 0 or 2 and more, 0 < overlap < 1")
        if self.clean_frames < 0 or self.clean_slack < 0:
            raise InputError("clean_frames must be 0 (all) or more, and clean_slack not negative")
