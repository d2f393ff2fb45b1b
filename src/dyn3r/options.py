"""What is asked of a reconstruction (`Options`), and what is done (`Plan`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from dyn3r.alignment.clip_windows import (
    LARGEST_WINDOW,
    WindowOptions,
    WindowPlan,
    can_be_windowed,
    plan_windows,
)
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.errors import InputError
from dyn3r.io.arguments import check_type
from dyn3r.io.numbers import check_finite
from dyn3r.motion.options import AttentionCueOptions, Cue, FlowCueOptions, MotionOptions
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.network.options import InferenceOptions
from dyn3r.network.pair_graph import parse_graph
from dyn3r.types import Clip, Priors

Method = Literal["dust3r", "monst3r", "easi3r", "vggt4d", "refined"]
METHODS: tuple[Method, ...] = ("dust3r", "monst3r", "easi3r", "vggt4d", "refined")
MANY_VIEW_METHODS: tuple[Method, ...] = ("vggt4d", "refined")
"""Methods for many-view networks; two-view networks have all but `vggt4d`."""

MONST3R_SMOOTHNESS = 0.01
"""Weight of the camera smoothness term. Source: MonST3R; SPEC 6."""
INITIAL_PIXELS = 384
"""Pixels a frame that the alignment uses where bundle adjustment follows. Source: the same cameras
after it as with 1536 on the development clips (docs/experiments.md)."""
INITIAL_PAIRS = "swinstride-3-noncyclic-alternating"
"""Pairs that the network compares where bundle adjustment follows and attention is not read.
Source: depth, cameras and masks after it as with more pairs (docs/experiments.md)."""
LONG_CLIP = LARGEST_WINDOW
"""Frames above which the pair graph is narrower. Source: the published DAVIS protocol, SPEC 3."""


@dataclass(frozen=True)
class FlowOptions:
    """Measured optical flow."""

    estimator: str = "aligned-dis"
    """`aligned-dis`: dense inverse search with and without alignment by a homography, no weights;
    `dis`: without; `compact`: our network, which corrects the first and states its errors, or a
    .safetensors file of `dyn3r train flow`; `raft`, `raft-small`: torchvision's networks."""
    pairs: str = "auto"
    """Pairs of frames between which flow is measured, both ways, with names as in `Options.pairs`.
    `auto`: those that the network compares; before bundle adjustment, if these are the default
    ones, swinstride-5-noncyclic, width 4 above 95 frames. Bundle adjustment adds neighbours."""
    in_alignment: bool | None = None
    """Use the flow term of the alignment (MonST3R's third loss, weight `alignment.flow_weight`),
    for the pairs that the network compares and for neighbours. auto: as the method says; all but
    `dust3r` have it."""

    def __post_init__(self) -> None:
        check_type(self.pairs, str, "flow.pairs")
        if self.pairs != "auto":
            parse_graph(self.pairs)  # refuses unknown names


@dataclass(frozen=True)
class RefinementOptions:
    """What is done after the alignment. auto: as the method and the checkpoint say."""

    bundle_adjustment: bool | None = None
    """Adjust cameras, focal length and depth to measured flow."""
    ground_correction: bool = True
    """Where a clip has no parallax, reduce disparity shift until the ground is level."""
    multi_view_depth: bool | None = None
    """Re-estimate depth from all frames with the cameras found (plane sweep and a network)."""
    ground_contact: bool | None = None
    """Place moving objects at the depth of the ground they stand on, where that is nearer."""


@dataclass(frozen=True)
class Options:
    """What is asked of a reconstruction; every stage has its own options."""

    method: Literal["auto", "dust3r", "monst3r", "easi3r", "vggt4d", "refined"] = "auto"
    """The recipe. `dust3r`: one pass, static scene; `monst3r`: motion from flow, flow and
    smoothness terms; `easi3r`: motion from attention, second pass; `vggt4d`: the same for many-view
    networks, whose second pass gives cameras only; `refined`: motion from flow, bundle adjustment,
    multi-view depth. `auto`: what the checkpoint recommends, else `easi3r` with a test for still
    clips. Many-view networks have `vggt4d` and `refined` only."""
    pairs: str = "auto"
    """Which pairs of frames the network compares: complete, swin-W, swinstride-W, swin2stride-W,
    logwin-W (each also -noncyclic) or oneref-R. `auto`: swinstride-5-noncyclic, width 4 above 95
    frames; before bundle adjustment swinstride-3-noncyclic-alternating, each pair in one direction,
    unless attention is read. Wider windows cost time and give steadier cameras."""
    motion: MotionOptions = field(default_factory=MotionOptions)
    flow: FlowOptions = field(default_factory=FlowOptions)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    refinement: RefinementOptions = field(default_factory=RefinementOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    windows: WindowOptions = field(default_factory=WindowOptions)
    """Windows of a long clip that go through all stages one after the other."""
    priors: Priors = field(default_factory=Priors)
    """Known cameras, intrinsics and depth."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("pairs", str), ("motion", MotionOptions), ("flow", FlowOptions),
            ("alignment", AlignmentOptions), ("refinement", RefinementOptions),
            ("inference", InferenceOptions), ("windows", WindowOptions), ("priors", Priors),
        ):  # fmt: skip
            check_type(getattr(self, name), kind, name)
        check_finite(self)
        if self.method not in ("auto", *METHODS):
            raise InputError(f"method is auto, {', '.join(METHODS)}, not {self.method!r:.40}")
        if self.pairs != "auto":
            parse_graph(self.pairs)  # refuses unknown names


@dataclass(frozen=True)
class Plan:
    """Every decision of a reconstruction, made once by `resolve`."""

    method: Method
    pairs: str
    flow_pairs: str
    cue: Cue | Literal["given"]
    attention_cue: AttentionCueOptions
    flow_cue: FlowCueOptions
    second_pass: bool
    mask_refiner: str
    flow_estimator: str
    measure_flow: bool
    flow_in_alignment: bool
    alignment: AlignmentOptions
    bundle_adjustment: bool
    ground_correction: bool
    multi_view_depth: bool
    ground_contact: bool
    inference: InferenceOptions
    priors: Priors

    @property
    def reads_attention(self) -> bool:
        """Whether motion is read from attention."""
        return self.cue in ("attention", "both")

    @property
    def reads_flow(self) -> bool:
        """Whether motion is read from flow."""
        return self.cue in ("flow", "both")

    def to_json(self) -> dict[str, Any]:
        """Values for JSON; of known cameras and depth only that they were given."""
        out = asdict(replace(self, priors=Priors()))
        out["priors"] = {
            name: "given" if isinstance(value, np.ndarray) else value
            for name, value in vars(self.priors).items()
        }
        return out

    def __str__(self) -> str:
        """One decision a line."""
        return "\n".join(f"{name:<20} {value}" for name, value in self.to_json().items())


class RecommendingModel(Protocol):
    """A model that may recommend how it is used."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def recommendation(self) -> Recommendation:
        """Read and validated where the checkpoint was read."""
        ...

    @property
    def is_many_view(self) -> bool:
        """Whether the network sees all frames at once, not pairs."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Size of the parameters."""
        ...


def resolve(
    options: Options,
    model: RecommendingModel,
    clip: Clip,
    *,
    motion_model: RecommendingModel | None = None,
    masks_given: bool = False,
) -> Plan:
    """Turn every "auto" and None into a decision. Pure: the same inputs give the same plan.

    `motion_model`: finds motion; `model` then makes the geometry only. `masks_given`: motion is
    known. Raises InputError where the options contradict each other.
    """
    from dyn3r.flow import checked_name  # imports PyTorch, which options alone do without

    advice = model.recommendation
    method = _method(options, model)
    _check_family(options, method, model, motion_model)
    cue = _cue(options, method, (motion_model or model).recommendation, masks_given=masks_given)
    if motion_model is not None and cue in ("none", "given"):
        raise InputError("a motion model has no effect when motion is not estimated")
    several = len(clip) > 1
    adjust = several and _or(options.refinement.bundle_adjustment, method == "refined")
    aligned = not model.is_many_view
    flow_in_alignment = aligned and _or(options.flow.in_alignment, method != "dust3r")
    mvs = method == "refined" and adjust and (advice.mvs or not advice.refinement)
    attends = cue in ("attention", "both")
    exact = options.method in ("easi3r", "monst3r", "vggt4d")
    pairs, flow_pairs = _pair_graphs(options, len(clip), initial=adjust and not attends)
    return Plan(
        method=method,
        pairs=pairs,
        flow_pairs=flow_pairs,
        cue=cue,
        attention_cue=_attention_cue(options, exact=exact),
        flow_cue=_flow_cue(options),
        second_pass=_second_pass(
            options, method, wanted=aligned and (attends or not adjust), cue=cue
        ),
        mask_refiner=_mask_refiner(
            options,
            (motion_model or model).recommendation,
            ours=cue in ("flow", "both") and not exact,
        ),
        flow_estimator=checked_name(options.flow.estimator),
        measure_flow=several and (flow_in_alignment or adjust or cue in ("flow", "both")),
        flow_in_alignment=flow_in_alignment,
        alignment=_alignment(options, method, adjust=adjust, mixed=clip.mapping.is_mixed),
        bundle_adjustment=adjust,
        ground_correction=options.refinement.ground_correction,
        multi_view_depth=several and _or(options.refinement.multi_view_depth, mvs),
        ground_contact=_or(options.refinement.ground_contact, adjust and advice.ground_contact),
        inference=options.inference,
        priors=options.priors,
    )


def windows_of(
    options: Options,
    model: RecommendingModel,
    clip: Clip,
    motion_model: RecommendingModel | None = None,
) -> WindowPlan | None:
    """Windows of a long clip; None if all its frames are reconstructed together.

    The published recipes, and graphs with pairs over the whole clip, are not divided unless memory
    or `options.windows.frames` says so. Raises InputError for windows that were asked for and
    cannot be.
    """
    sliding = options.pairs == "auto" or "-noncyclic" in options.pairs
    free = sliding and _method(options, model) == "refined"
    plan = plan_windows(
        len(clip), clip.size_hw, options.windows, largest=LARGEST_WINDOW if free else 10**6,
        parameter_bytes=sum(m.memory_bytes for m in (model, motion_model) if m is not None),
    )  # fmt: skip
    if plan is None:
        return None
    if can_be_windowed(options.priors, plan) and not options.pairs.startswith("oneref"):
        return plan
    if not options.windows.frames:
        return None
    raise InputError(
        "windows.frames can't be combined with oneref pairs, nor with known cameras or depth of "
        "some frames after the first window"
    )


def _or(asked: bool | None, default: bool) -> bool:  # noqa: FBT001 (a choice of two values)
    return default if asked is None else asked


def _method(options: Options, model: RecommendingModel) -> Method:
    if options.method != "auto":
        return options.method
    if model.recommendation.refinement:
        return "refined"
    return "vggt4d" if model.is_many_view else "easi3r"


def _check_family(
    options: Options,
    method: Method,
    model: RecommendingModel,
    motion_model: RecommendingModel | None,
) -> None:
    """Refuse what the family of the network does not have."""
    if motion_model is not None and (model.is_many_view or motion_model.is_many_view):
        raise InputError(
            "a motion model needs two-view networks for geometry and for motion; give masks of "
            "another run instead (--save-masks, --known.masks)"
        )
    if not model.is_many_view and method == "vggt4d":
        raise InputError(f"method vggt4d needs a many-view network, and {model.name} is none")
    if model.is_many_view and method not in MANY_VIEW_METHODS:
        raise InputError(
            f"method {method} needs a two-view network: {model.name} is a many-view network, for "
            f"{' and '.join(MANY_VIEW_METHODS)}"
        )
    if model.is_many_view and options.flow.in_alignment:
        raise InputError("flow in the alignment has no effect with a many-view network")


def _cue(
    options: Options, method: Method, advice: Recommendation, *, masks_given: bool
) -> Cue | Literal["given"]:
    if masks_given:
        return "given"
    if options.motion.cue != "auto":
        return options.motion.cue
    if options.method == "auto":
        return advice.cue
    by_method: dict[Method, Cue] = {
        "dust3r": "none", "monst3r": "flow", "easi3r": "attention", "vggt4d": "attention",
    }  # fmt: skip
    return by_method.get(method, advice.cue if advice.refinement else "flow")


def _second_pass(options: Options, method: Method, *, wanted: bool, cue: str) -> bool:
    """Refinement on flow makes it superfluous where attention has no say (docs/experiments.md)."""
    if cue in ("none", "given"):
        return False
    default = {"dust3r": False, "monst3r": False, "easi3r": True, "vggt4d": True}
    return _or(options.motion.second_pass, default.get(method, wanted))


def _attention_cue(options: Options, *, exact: bool) -> AttentionCueOptions:
    recipe = AttentionCueOptions.easi3r() if exact else AttentionCueOptions()
    return replace(recipe, still_test=_or(options.motion.still_test, recipe.still_test))


def _flow_cue(options: Options) -> FlowCueOptions:
    recipe = FlowCueOptions.monst3r() if options.method == "monst3r" else FlowCueOptions()
    return replace(recipe, still_test=_or(options.motion.still_test, recipe.still_test))


def _mask_refiner(options: Options, advice: Recommendation, *, ours: bool) -> str:
    if options.motion.refine != "auto":
        return options.motion.refine
    return advice.mask_smoothing if ours else "none"


def _alignment(options: Options, method: Method, *, adjust: bool, mixed: bool) -> AlignmentOptions:
    """The alignment's options; 0 pixels and weight 0 stand for the method's own.

    Images of different sizes (`mixed`) have a focal length each.
    """
    chosen = options.alignment
    if adjust and chosen.pixels == 0:  # only the initial value of bundle adjustment
        chosen = replace(chosen, pixels=INITIAL_PIXELS)
    if method == "monst3r" and chosen.smoothness_weight == 0:
        chosen = replace(chosen, smoothness_weight=MONST3R_SMOOTHNESS)
    return replace(chosen, shared_focal=False) if mixed else chosen


def _pair_graphs(options: Options, num_frames: int, *, initial: bool) -> tuple[str, str]:
    """Pairs that the network compares, and pairs between which flow is measured.

    The published default for video (SPEC 3); where the pointmaps are only the `initial` value of
    bundle adjustment, fewer for the network.
    """
    published = f"swinstride-{5 if num_frames <= LONG_CLIP else 4}-noncyclic"
    automatic = options.pairs == "auto"
    pairs = (INITIAL_PAIRS if initial else published) if automatic else options.pairs
    if options.flow.pairs != "auto":
        return pairs, options.flow.pairs
    return pairs, published if automatic else pairs
