"""Options of the global alignment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dyn3r.errors import InputError
from dyn3r.io.devices import float64_device

DEFAULT_PIXELS = 1536
"""Pixels per frame that cameras are estimated from where `AlignmentOptions.pixels` is 0.
Source: more lower the objective but rarely improve the cameras (docs/experiments.md)."""


@dataclass(frozen=True)
class AlignmentOptions:
    """Objective and solver of the global alignment."""

    iterations: int = 0
    """Largest number of iterations per level and window; 0: 40. The solver usually ends earlier."""
    shared_focal: bool = True
    """One focal length for all frames. off: one per frame, for zooming cameras or photographs of
    several cameras."""
    smoothness_weight: float = 0.0
    """Weight of the camera movement between neighbouring frames. Larger: a smoother path that lags
    behind fast rotations. Easi3R: 0; MonST3R: 0.01."""
    translation_weight: float = 1.0
    """Weight of the translation (scene units) against the rotation (radians) in that movement."""
    flow_weight: float = 0.01
    """Weight of the flow term where flow is given. Larger: cameras follow flow more than
    pointmaps."""
    depth_prior_weight: float = 0.0
    """Weight of the change of depth since the initialisation, up to scale; dynamic pixels count
    twice. Larger: stiffer depth."""
    dynamic_weight: float = 1.0
    """Weight of dynamic pixels in the pair term while cameras are estimated, 0..1. 1: the published
    objective. Reported terms are always those of the published objective."""
    pixels: int = 0
    """Pixels per frame that cameras are estimated from. Larger: closer to the full objective and
    slower in proportion. 0: 1536."""
    chunk_observations: int = 250_000
    """Pixels times pairs whose depth each thread computes at once, about 100 bytes each. Larger:
    more memory; faster on accelerators."""
    window: int = 100
    """Frames that the alignment solves together, or that a many-view network sees at once, if a
    window of the run (--windows.frames) has more; 0: all. Larger: less drift, more memory, and for
    a many-view network more time (attention grows with the square)."""
    overlap: float = 0.5
    """Share of a window that the next window takes over unchanged (many-view networks: sees
    again). Larger: less drift, more windows."""
    device: str = "auto"
    """PyTorch device of the computation: cpu, cuda, cuda:1, ... `auto`: that of the network, or the
    CPU if it has no float64 (mps)."""

    def on(self, device: str) -> AlignmentOptions:
        """These options with `device` in place of `auto`."""
        if self.device != "auto":
            return self
        return replace(self, device=float64_device(device))

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        weights = (self.smoothness_weight, self.flow_weight, self.depth_prior_weight)
        if min(*weights, self.translation_weight, self.dynamic_weight) < 0:
            raise InputError("weights of the alignment must not be negative")
        too_few = self.pixels < 16 and self.pixels != 0
        if too_few or self.chunk_observations < 1 or self.iterations < 0:
            raise InputError(
                "alignment needs pixels >= 16 (or 0), chunk_observations >= 1, iterations >= 0"
            )
        if self.window < 0 or self.window == 1 or not 0 < self.overlap < 1:
            raise InputError("alignment needs a window of 0 or 2 and more, 0 < overlap < 1")
