"""Evidence of both motion cues in a run, collected through its context, for explanations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.combine import CombinedEvidence
from dyn3r.motion.cue import REFINED_DEPTH_TOLERANCE, AttentionCue, FlowCue, Pass
from dyn3r.motion.flow_residual import FlowEvidence
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.rigid_residual import mean_inverse_depth
from dyn3r.network.pair_graph import make_pairs
from dyn3r.network.predict import predict_pairs
from dyn3r.types import FlowFields, Motion, RunContext

_FOR_PAGES = ("first pass", "draft")
"""Large values that no explanation reads."""


@dataclass(frozen=True)
class Findings:
    """Evidence of motion in a run, also of the cue that did not decide."""

    cue: str
    """The cue that decided: attention, flow, both, given or none."""
    motion: Motion
    """The motion of the scene."""
    attention: Motion | None
    """Motion from attention, in the last pass of the model that finds motion; None for a many-view
    network whose attention was not read."""
    flow: Motion
    """Motion from optical flow."""
    steps: FlowFields | None
    """Flow from every frame to the next (from the last to the one before); None for one frame."""
    inverse_depth: Float[np.ndarray, "n h w"]
    """Inverse depth of the residuals, median 1."""
    depth_tolerance: float = FlowCueOptions().depth_tolerance
    """See `FlowCueOptions`."""


@dataclass
class Recorder:
    """An observer that keeps what a run passes to it: `RunContext(observe=recorder)`."""

    values: dict[str, Any] = field(default_factory=dict)
    """The last value of every name."""

    def __call__(self, name: str, value: object) -> None:
        """Keep the value."""
        if name not in _FOR_PAGES:
            self.values[name] = value


def collect_findings(recorder: Recorder, context: RunContext) -> Findings:
    """The findings of a finished run; a cue that was not used is computed now."""
    plan, motion = recorder.values["plan"], recorder.values["motion"]
    seen: Pass = recorder.values["pass"]
    with context.stage("explanation"):
        flow: FlowFields | None = recorder.values.get("flow")
        if flow is None and len(seen.clip) > 1:
            estimator = flow_estimator(plan.flow_estimator)
            edges = make_pairs(plan.flow_pairs, len(seen.clip))
            flow = measure_flow(seen.clip.images, edges, estimator, progress=context.progress)
        by_attention, by_flow = _by_cue(motion)
        if by_attention is None and seen.predictions is not None:
            by_attention = AttentionCue(plan.attention_cue).detect(
                _with_scores(recorder, motion, context), None, context
            )
        if by_flow is None:
            by_flow = FlowCue(replace(plan.flow_cue, method="robust")).detect(seen, flow, context)
    refined = recorder.values.get("motion depth")
    if refined is not None:
        inverse_depth = np.median(refined) / np.maximum(refined, 1e-9)
    elif seen.predictions is not None:
        n = seen.predictions.num_frames
        inverse_depth = mean_inverse_depth(seen.predictions, n, seen.predictions.size_hw).numpy()
    else:
        assert seen.inverse_depth is not None
        inverse_depth = seen.inverse_depth
    return Findings(
        cue=plan.cue,
        motion=motion,
        attention=by_attention,
        flow=by_flow,
        steps=None if flow is None else _steps(flow, len(seen.clip)),
        inverse_depth=inverse_depth.astype(np.float32),
        depth_tolerance=(
            plan.flow_cue.depth_tolerance if refined is None else REFINED_DEPTH_TOLERANCE
        ),
    )


def _by_cue(motion: Motion) -> tuple[Motion | None, Motion | None]:
    """Motion from attention and from flow, where the evidence has it."""
    if isinstance(motion.evidence, CombinedEvidence):
        return motion.evidence.attention, motion.evidence.flow
    by_attention = motion if isinstance(motion.evidence, AttentionEvidence) else None
    return by_attention, motion if isinstance(motion.evidence, FlowEvidence) else None


def _with_scores(recorder: Recorder, motion: Motion, context: RunContext) -> Pass:
    """A pass of the model that finds motion, with attention scores."""
    seen: Pass = recorder.values["motion pass"]
    assert seen.predictions is not None
    if seen.predictions.scores1 is not None:
        return seen
    predictions = predict_pairs(
        recorder.values["motion model"], seen.clip, seen.predictions.edges,
        motion.masks if motion.has_motion else None, tokens=seen.tokens, heads=False,
        progress=context.progress, stage="reading attention",
    )  # fmt: skip
    return replace(seen, predictions=predictions)


def _steps(flow: FlowFields, num_frames: int) -> FlowFields | None:
    """From every frame to the next one it is compared with; else to the last such before it."""
    rows = []
    for t in range(num_frames):
        mine = np.flatnonzero(flow.edges[:, 0] == t)
        if not len(mine):
            return None
        ahead = flow.edges[mine, 1] - t
        # the next frame is nearest; going back is worse than any step ahead
        rows.append(mine[np.argmin(np.where(ahead > 0, ahead, num_frames - ahead))])
    return flow.part(np.array(rows, int))
