"""Motion cues: where motion is read from, and how it is updated when the geometry is refined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.devices import on_device
from dyn3r.motion.attention_cue import find_motion
from dyn3r.motion.background_model import background_evidence
from dyn3r.motion.combine import CombinedEvidence, combine_motion
from dyn3r.motion.flow_residual import (
    FlowEvidence,
    flow_evidence,
    flow_residual_motion,
    motion_from_evidence,
)
from dyn3r.motion.gram_cue import gram_motion
from dyn3r.motion.implausible_depth import implausible_depth_outliers, lasting
from dyn3r.motion.mask_network import (
    background_mask_inputs,
    load_background_mask_network,
    mask_probability,
)
from dyn3r.motion.masks import motion_from_masks, still_motion, with_added_pixels
from dyn3r.motion.options import AttentionCueOptions, FlowCueOptions
from dyn3r.network.many_view.gram_statistics import GramMaps
from dyn3r.types import Clip, FlowFields, Geometry, Motion, PairPredictions, RunContext, Tokens
from dyn3r.types.free_memory import return_free_memory

REFINED_DEPTH_TOLERANCE = 1.0
"""`FlowCueOptions.depth_tolerance` once bundle adjustment has refined depth."""


@dataclass(frozen=True)
class Pass:
    """One pass of the network over a clip."""

    clip: Clip
    """The frames."""
    predictions: PairPredictions | None = None
    """Pointmaps and attention scores, as far as they were asked for; None: a many-view network."""
    tokens: Tokens | None = None
    """Encoder output of every frame; None: a many-view network."""
    inverse_depth: Float[np.ndarray, "n h w"] | None = None
    """Inverse depth of a many-view network, median 1."""
    attention: GramMaps | None = None
    """Statistics of the attention of a many-view network, if they were asked for."""


class MotionCue(ABC):
    """A source of motion masks. What a cue cannot use leaves the motion unchanged."""

    reads_attention: ClassVar[bool] = False
    """Whether the cue needs the attention scores of a pass."""
    reads_flow: ClassVar[bool] = False
    """Whether the cue needs measured flow."""

    @property
    def reads_geometry(self) -> bool:
        """Whether refined geometry updates the motion (`update`)."""
        return False

    @property
    def known(self) -> Motion | None:
        """Motion that is known before any pass."""
        return None

    @abstractmethod
    def detect(self, seen: Pass, flow: FlowFields | None, context: RunContext) -> Motion:
        """Motion after a pass over all pairs; `flow` is None where none was measured."""

    def redetect(self, motion: Motion, seen: Pass) -> Motion:  # noqa: ARG002 - a default
        """Motion after a second pass with re-weighted attention (SPEC 5)."""
        return motion

    def update(
        self,
        motion: Motion,
        clip: Clip,  # noqa: ARG002 - a default
        geometry: tuple[Geometry, Geometry],  # noqa: ARG002
        flow: FlowFields,  # noqa: ARG002
        context: RunContext,  # noqa: ARG002
    ) -> Motion:
        """Motion given the geometry before and after refinement. Asked if `reads_geometry`."""
        return motion


@dataclass(frozen=True)
class KnownMotion(MotionCue):
    """Motion that is known: given masks, or a scene that is taken for static."""

    motion: Motion
    """The known motion."""

    @property
    def known(self) -> Motion:
        """The known motion."""
        return self.motion

    def detect(
        self,
        seen: Pass,  # noqa: ARG002
        flow: FlowFields | None,  # noqa: ARG002
        context: RunContext,  # noqa: ARG002
    ) -> Motion:
        """The known motion."""
        return self.motion


@dataclass(frozen=True)
class AttentionCue(MotionCue):
    """Motion from the attention of the frozen network (Easi3R, SPEC 4; VGGT4D for many views)."""

    options: AttentionCueOptions
    """The recipe."""
    reads_attention = True

    def detect(
        self,
        seen: Pass,
        flow: FlowFields | None,  # noqa: ARG002
        context: RunContext,  # noqa: ARG002
    ) -> Motion:
        """Motion from the attention scores of a pass."""
        if seen.attention is not None:
            return gram_motion(seen.attention, seen.clip.size_hw, self.options)
        predictions = seen.predictions
        assert predictions is not None
        assert seen.tokens is not None
        assert predictions.scores1 is not None
        assert predictions.scores2 is not None
        return find_motion(
            predictions.scores1, predictions.scores2, predictions.edges,
            seen.tokens.features.float().cpu(), seen.clip.size_hw,
            options=self.options, num_frames=len(seen.clip),
        )  # fmt: skip

    def redetect(self, motion: Motion, seen: Pass) -> Motion:  # noqa: ARG002
        """Motion from the statistics of the second pass, which replace those of the first."""
        return self.detect(seen, None, RunContext())


@dataclass(frozen=True)
class FlowCue(MotionCue):
    """Motion from residuals of measured flow against the flow of a static scene."""

    options: FlowCueOptions
    """The recipe."""
    reads_flow = True

    def detect(self, seen: Pass, flow: FlowFields | None, context: RunContext) -> Motion:
        """Motion from flow and the pointmaps of a pass; none for a single frame."""
        images = seen.clip.images
        if flow is None:
            return still_motion(images.shape[:3], "a single frame has no flow")
        return flow_residual_motion(
            seen.predictions, images, flow,
            inverse_depth=seen.inverse_depth, options=self.options, device=context.device,
            progress=context.progress,
        )  # fmt: skip

    @property
    def reads_geometry(self) -> bool:
        """All but the published recipe, which keeps the network's own depth and cameras."""
        return self.options.method != "published"

    def update(
        self,
        motion: Motion,
        clip: Clip,
        geometry: tuple[Geometry, Geometry],
        flow: FlowFields,
        context: RunContext,
    ) -> Motion:
        """Motion from residuals against refined depth, and from depth that is implausible."""
        initial, refined = geometry
        options = replace(self.options, depth_tolerance=REFINED_DEPTH_TOLERANCE)
        before = motion.unreliable
        evidence = flow_evidence(
            None, clip.images, flow, inverse_depth=relative_inverse(refined.depth),
            options=options, device=context.device, progress=context.progress,
        )  # fmt: skip
        if options.uses_mask_network and options.background_model:
            evidence = with_background_model(evidence, clip, refined, before, context)
        evidence = replace(evidence, parts=None)  # large, and not needed any more
        updated = motion_from_evidence(evidence, flow, options=options)
        implausible = implausible_depth_outliers(initial.depth, refined.depth, updated.masks)
        if before is not None:
            implausible |= before  # excluded from the adjustment, nothing can put it there again
        updated = replace(updated, unreliable=implausible)
        return with_added_pixels(
            updated, lasting(implausible), "have implausible depth after refinement"
        )


@dataclass(frozen=True)
class CombinedCue(MotionCue):
    """The union of attention and flow."""

    attention: AttentionCue
    """Cue that reads attention."""
    flow: FlowCue
    """Cue that reads flow."""
    reads_attention = True
    reads_flow = True

    def detect(self, seen: Pass, flow: FlowFields | None, context: RunContext) -> Motion:
        """The union of what both cues detect."""
        by_attention = self.attention.detect(seen, flow, context)
        return combine_motion(by_attention, self.flow.detect(seen, flow, context))

    def redetect(self, motion: Motion, seen: Pass) -> Motion:
        """The union with the attention of the second pass."""
        assert isinstance(motion.evidence, CombinedEvidence)
        return combine_motion(self.attention.redetect(motion, seen), motion.evidence.flow)

    @property
    def reads_geometry(self) -> bool:
        """As the cue from flow."""
        return self.flow.reads_geometry

    def update(
        self,
        motion: Motion,
        clip: Clip,
        geometry: tuple[Geometry, Geometry],
        flow: FlowFields,
        context: RunContext,
    ) -> Motion:
        """The union with the updated motion from flow."""
        assert isinstance(motion.evidence, CombinedEvidence)
        by_flow = self.flow.update(motion.evidence.flow, clip, geometry, flow, context)
        return combine_motion(motion.evidence.attention, by_flow)


def motion_cue(
    name: str,
    attention: AttentionCueOptions,
    flow: FlowCueOptions,
    clip: Clip,
    masks: Bool[np.ndarray, "n h w"] | None = None,
) -> MotionCue:
    """The cue called attention, flow, both, given (with `masks`) or none.

    Raises InputError for masks of another size than the clip's frames.
    """
    if name == "given":
        assert masks is not None
        check_mask_shape(masks, clip)
        return KnownMotion(motion_from_masks(masks))
    if name == "none":
        return KnownMotion(still_motion(clip.images.shape[:3], "the scene is taken for static"))
    cues: dict[str, MotionCue] = {
        "attention": AttentionCue(attention),
        "flow": FlowCue(flow),
        "both": CombinedCue(AttentionCue(attention), FlowCue(flow)),
    }
    return cues[name]


def check_mask_shape(masks: Bool[np.ndarray, "n h w"], clip: Clip) -> None:
    """Raise InputError for masks of another size than the clip's frames."""
    if masks.shape != clip.images.shape[:3]:
        raise InputError(f"the masks have shape {masks.shape}, the frames {clip.images.shape[:3]}")


def with_background_model(
    evidence: FlowEvidence,
    clip: Clip,
    refined: Geometry,
    implausible: Bool[np.ndarray, "n h w"] | None,
    context: RunContext,
) -> FlowEvidence:
    """Evidence with masks predicted again by a network that also sees the background model.

    Probability stays 0 in frames without evidence.
    """
    assert evidence.parts is not None
    dynamic = evidence.refined > 0.5
    if implausible is not None:
        dynamic |= implausible
    device = context.device
    return_free_memory()  # the evidence and its parts are made of many large arrays
    background = background_evidence(
        clip.images, refined.depth, dynamic, refined.K, refined.T_world_camera, context.progress,
        device,
    )  # fmt: skip
    parts, probability, images = (
        on_device(x, device) for x in (evidence.parts, evidence.refined, clip.images)
    )

    def inputs(rows: slice) -> Float[Tensor, "k 13 h w"]:  # of all frames they would be large
        return background_mask_inputs(
            parts[rows], probability[rows], images[rows], background.part(rows)
        )

    refined_map = mask_probability(
        load_background_mask_network(), clip.images, inputs, device=device
    )
    refined_map[~np.isfinite(evidence.typical_px)] = 0.0
    return replace(evidence, refined=refined_map)


def relative_inverse(depth: Float[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n h w"]:
    """Inverse depth with median 1; computed in double precision."""
    inverse = np.maximum(depth, 1e-9, dtype=np.float64)
    np.divide(1, inverse, out=inverse)
    inverse /= np.median(inverse)
    return inverse.astype(np.float32)
