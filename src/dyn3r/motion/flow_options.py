"""What can be chosen about motion from optical flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dyn3r.errors import InputError


@dataclass(frozen=True)
class FlowMotionOptions:
    """Choices of `flow_residual_motion`. `FlowMotionOptions.monst3r()` is the published recipe.

    The numbers of the robust method were chosen on clips of the synthetic world (docs/flow.md).
    """

    method: Literal["robust", "published"] = "robust"
    """`robust`: fit the still scene's flow to the measured flow, judge in units of the noise;
    `published`: trust the pair's predicted depth and camera, min-max normalise (SPEC 7)."""
    geometry: Literal["predicted", "flat"] = "predicted"
    """For `robust`: the shape of the predicted depth, or none: then parallax counts as motion."""
    threshold: float = 0.25
    """A pixel moves where its evidence (0..1) exceeds this. Larger: fewer pixels. MonST3R: 0.35."""
    masks: Literal["network", "evidence"] = "network"
    """For `robust`: who draws masks from the evidence. `network`: a small network that sees the
    picture as well (`dyn3r.motion.mask_network`), a pixel moves above a probability of 1/2;
    `evidence`: smoothing, then `threshold`."""
    seen_again: bool = True
    """Where a network draws the masks, in looks after bundle adjustment: it also sees how unlike
    its place in all other frames a pixel looks (`dyn3r.motion.other_frames`)."""
    depth_slack: float = 1.5
    """Predicted depth may be wrong by this factor before a pixel counts as moving. Larger: fewer
    false alarms, but what moves along epipolar lines is missed."""
    solved_slack: float = 1.0
    """The same for depth after bundle adjustment, where the clip is judged once more."""
    noise_px: float = 0.5
    """Standard error of measured flow that is always there, in pixels."""
    noise_share: float = 0.05
    """The same as a share of the flow's length."""
    noise_factor: float = 3.0
    """Evidence is 1/2 where the flow is wrong by so many standard errors."""
    photometric: bool = True
    """For `robust`: also ask whether the still scene's flow explains the colours as well as the
    measured flow does. Takes away most of the rim of dragged flow around moving things."""
    smoothing: float = 0.027
    """Radius of the edge-preserving smoothing of the evidence, as a share of the long side; 0 is
    none. Larger: fewer specks, small things fade."""
    max_share: float = 0.5
    """A mask over more than this share of the clip's pixels is the background, not a thing."""
    still_test: bool = True
    """Whether a clip may be called still because of `max_share`, or because its flow agrees with a
    still scene to within the noise."""

    def __post_init__(self) -> None:
        if self.method not in ("robust", "published"):
            raise InputError(f"method is 'robust' or 'published', not '{self.method}'")
        if self.masks not in ("network", "evidence"):
            raise InputError(f"masks is 'network' or 'evidence', not '{self.masks}'")
        if self.geometry not in ("predicted", "flat"):
            raise InputError(f"geometry is 'predicted' or 'flat', not '{self.geometry}'")
        for name, least in (
            ("threshold", 0), ("depth_slack", 1), ("solved_slack", 1),
            ("noise_px", 1e-3), ("noise_share", 0), ("noise_factor", 1e-3),
            ("smoothing", 0), ("max_share", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                raise InputError(f"{name} must be a finite number of at least {least}, not {value}")

    @property
    def drawn(self) -> bool:
        """Whether a network draws the masks. It knows evidence with the colours' part only."""
        return self.method == "robust" and self.masks == "network" and self.photometric

    @property
    def limit(self) -> float:
        """A pixel moves where the map that decides exceeds this."""
        return 0.5 if self.drawn else self.threshold

    @classmethod
    def monst3r(cls) -> FlowMotionOptions:
        """The published recipe to the letter: no smoothing, no still test."""
        return cls(
            method="published", masks="evidence", threshold=0.35, smoothing=0.0, still_test=False
        )
