"""Options of motion segmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dyn3r.errors import InputError

Cue = Literal["attention", "flow", "both", "none"]
CUES: tuple[Cue, ...] = ("attention", "flow", "both", "none")


@dataclass(frozen=True)
class MotionOptions:
    """How moving objects are found; decided by `dyn3r.options.resolve` where it says auto."""

    cue: Literal["auto", "attention", "flow", "both", "none"] = "auto"
    """Where motion is read from. `attention`: the network's attention (Easi3R; VGGT4D for many
    views); `flow`: residuals of measured optical flow against a static scene; `both`: the union of
    the two; `none`: the scene is static. `auto`: the method's, or what the checkpoint recommends.
    """
    second_pass: bool | None = None
    """Predict pointmaps a second time with dynamic tokens masked (Easi3R); with a many-view
    network, cameras only (VGGT4D). auto: as the method says; `refined` leaves it out with the cue
    `flow`, where it changes nothing, and with a many-view network."""
    still_test: bool | None = None
    """Whether a clip may be classified as still. auto: yes, but not in the published recipes, which
    find motion in every clip."""
    refine: str = "auto"
    """How motion masks are refined. `none`; `edges`: temporal voting and a guided filter; `sam2`,
    `sam2:FOLDER`: SAM 2 with its weights. `auto`: what the checkpoint recommends for flow."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.cue not in ("auto", *CUES):
            raise InputError(f"motion.cue is auto, {', '.join(CUES)}, not {self.cue!r:.40}")
        kind = self.refine.partition(":")[0]
        named = kind == "sam2" and self.refine != "sam2:"
        if kind not in ("auto", "none", "edges", "sam2") or (":" in self.refine and not named):
            raise InputError(
                f"motion.refine is auto, none, edges, sam2 or sam2:FOLDER, not {self.refine!r:.40}"
            )


@dataclass(frozen=True)
class AttentionCueOptions:
    """The published attention recipe, or ours, which recognises still clips."""

    still_test: bool = True
    """Whether a clip whose pairs agree, or whose mask covers most of it, is classified as still."""
    inherit_single_pairs: bool = True
    """Frames with a single pair have deviation 0, so their dynamic map is 0. True: their tokens
    inherit the mean of their cluster over the other frames; if no frame has two pairs, the mean
    attention alone decides. False: the zeros count as evidence of a static scene (published)."""

    @classmethod
    def easi3r(cls) -> AttentionCueOptions:
        """The published recipe (SPEC 4)."""
        return cls(still_test=False, inherit_single_pairs=False)


@dataclass(frozen=True)
class FlowCueOptions:
    """The published flow recipe (MonST3R), or ours, which is robust to wrong predictions."""

    method: Literal["robust", "published"] = "robust"
    """`robust`: fit the static scene's flow to the measured flow, judge residuals in units of the
    noise; `published`: use the pair's predicted depth and camera, min-max normalised (SPEC 7)."""
    masks: Literal["network", "evidence"] = "network"
    """For `robust`: `network`: masks predicted by a small network from the evidence and the image
    (`dyn3r.motion.mask_network`); `evidence`: smoothed evidence above `threshold`."""
    background_model: bool = True
    """For `network`, after bundle adjustment: also compare every pixel with what other frames show
    at its place (`dyn3r.motion.background_model`)."""
    threshold: float = 0.25
    """A pixel is dynamic where its smoothed evidence (0..1) exceeds this. MonST3R: 0.35."""
    depth_tolerance: float = 1.5
    """Factor by which depth may be wrong before a residual along the epipolar line counts."""
    photometric: bool = True
    """For `robust`: also test whether the static scene's flow explains the colours as well as the
    measured flow does, which removes most of the rim of flow dragged along by moving objects."""
    smoothing: float = 0.027
    """Radius of the guided filter on the evidence, as a share of the long side; 0: none."""
    still_test: bool = True
    """Whether a clip may be classified as still: its flow agrees with a static scene to within the
    noise, or the mask covers most of it."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.method not in ("robust", "published"):
            raise InputError(f"method is robust or published, not {self.method!r:.40}")
        if self.masks not in ("network", "evidence"):
            raise InputError(f"masks is network or evidence, not {self.masks!r:.40}")
        for name, least in (("threshold", 0), ("depth_tolerance", 1), ("smoothing", 0)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                raise InputError(f"{name} must be a finite number of at least {least}, not {value}")

    @property
    def uses_mask_network(self) -> bool:
        """Whether a network predicts the masks; it was trained on photometric evidence only."""
        return self.method == "robust" and self.masks == "network" and self.photometric

    @property
    def limit(self) -> float:
        """A pixel is dynamic where the map that decides exceeds this."""
        return 0.5 if self.uses_mask_network else self.threshold

    @classmethod
    def monst3r(cls) -> FlowCueOptions:
        """The published recipe (SPEC 7): no smoothing, no still test."""
        return cls(
            method="published", masks="evidence", threshold=0.35, smoothing=0.0, still_test=False
        )
