"""What a reconstruction does: the options of all its stages in one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from dyn3r.alignment import AlignmentOptions
from dyn3r.bundle_adjustment import BundleOptions
from dyn3r.errors import InputError
from dyn3r.motion import FlowMotionOptions, LearnedMotionOptions, MotionOptions, mask_refiner
from dyn3r.network.predict import InferenceOptions
from dyn3r.types import Priors

CUES = ("attention", "flow", "both", "learned", "flow+learned")


@dataclass(frozen=True)
class Options:
    """What a reconstruction does; every stage has its own options."""

    graph: str = "auto"
    """Which pairs of frames are compared. `auto`: swinstride-5-noncyclic, and width 4 above 95
    frames. Wider windows cost time and make the cameras steadier."""
    motion: Literal["auto", "attention", "flow", "both", "learned", "flow+learned", "none"] = "auto"
    """How what moves is found, to be ignored in a second pass. `attention`: in the network's own
    attention (Easi3R); `flow`: where measured optical flow contradicts a still scene; `both`: what
    either says; `learned`: what the network's motion head says, if it has one; `flow+learned`: flow
    and motion head weighed against each other; `none`: one pass, everything is static. `auto`: what
    the file of the model that looks for motion recommends, else attention."""
    flow: str = "dis"
    """How optical flow is measured, where it is: `dis` (no weights), `raft`, `raft-small`."""
    refine: str = "auto"
    """How the masks found are made better: `none`; `edges`: by a vote over time and along the edges
    of the pictures; `sam2`, `sam2:WEIGHTS`: by SAM 2; `auto`: masks from flow as the file of the
    model that looks for motion recommends, others not. The alignment leaves out what either the
    masks found or the refined ones cover; the scene gets the refined ones (SPEC 8)."""
    second_pass: bool | None = None
    """Points are predicted once more with what moves ignored (SPEC 5; Easi3R), when it was looked
    for by the same model. False: those of the first pass. None: yes, but not where bundle
    adjustment, which the model's file recommends, makes depth and cameras agree with flow, and flow
    or the motion head says what moves: there the same results come of either."""
    flow_term: bool = True
    """Cameras must agree with measured optical flow as well (MonST3R's third loss, weight
    `alignment.flow_weight`), from three frames on. Where flow and pointmaps contradict each other
    too much the term switches itself off."""
    bundle: bool | None = None
    """After the alignment, cameras, focal length and depth are made to agree with measured flow
    (bundle adjustment, `dyn3r.bundle_adjustment`), and flow is judged once more with that depth. From two
    frames on. False: what the pointmaps and the alignment alone say, as published. None: as the
    model's file recommends, else False; what it does to the predictions of large published
    networks, which need it less, has not been measured."""
    mover_depth: Literal["auto", "network", "ground"] = "auto"
    """How far away moving things are, of which flow says nothing. `network`: as predicted, relative
    to what is around them, or as `stereo` draws them; `ground`: as far as the still surface below
    them, where that is nearer (`dyn3r.bundle_adjustment.stand_on_ground`). `auto`: with `bundle`, what the
    model's file recommends; else `network`."""
    stereo: bool | None = None
    """At the end, depth is drawn anew from all frames at once with the cameras found (plane sweep
    and a small network, `dyn3r.mvs`): sharper, and finer than flow. False: as the alignment or
    bundle adjustment left it. None: on where `bundle` is and the model's file recommends that."""
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    motion_options: MotionOptions = field(default_factory=MotionOptions)
    flow_motion: FlowMotionOptions = field(default_factory=FlowMotionOptions)
    learned_motion: LearnedMotionOptions = field(default_factory=LearnedMotionOptions)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    bundle_options: BundleOptions = field(default_factory=BundleOptions)

    def __post_init__(self) -> None:
        if self.motion not in ("auto", *CUES, "none"):
            raise InputError(
                f"motion is auto, {', '.join(CUES)} or none, not {self.motion!r}; "
                "give masks as an argument"
            )
        if self.mover_depth not in ("auto", "network", "ground"):
            raise InputError(
                f"mover_depth is auto, network or ground, not {self.mover_depth!r:.40}"
            )
        if self.refine not in ("none", "auto"):
            mask_refiner(self.refine)  # refuses unknown names

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it: of known cameras and depth only that they were given."""
        priors = self.alignment.priors
        bare = asdict(replace(self, alignment=replace(self.alignment, priors=Priors())))
        bare["alignment"]["priors"] = {
            name: "given" if isinstance(value, np.ndarray) else value
            for name, value in vars(priors).items()
        }
        return bare
