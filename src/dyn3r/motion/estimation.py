"""Looking for what moves: one model over all pairs of a clip, its attention, and optical flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.motion import (
    FlowMotionOptions,
    combine_motion,
    find_motion,
    flow_evidence,
    flow_residual_motion,
    fuse_motion,
    learned_motion,
    motion_from_masks,
    other_frames,
    with_more,
)
from dyn3r.motion.flow_residual import FlowEvidence, mean_inverse_depth, motion_from_evidence
from dyn3r.motion.implausible_depth import farther_than_predicted
from dyn3r.motion.learned import learned_probability
from dyn3r.motion.mask_network import load_second_network, mask_probability, second_parts
from dyn3r.network.model import Model
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.options import Options
from dyn3r.types import Clip, FlowFields, Geometry, Motion, PairPredictions, Progress, no_progress


@dataclass(frozen=True)
class Findings:
    """What was seen while motion was looked for. `dyn3r.scene.explanation` draws it.

    Both cues are here, also the one that had no say.
    """

    cue: str
    """Which cue decided, one of `dyn3r.options.CUES`; `given` if the masks were, `none` if nobody
    asked."""
    motion: Motion | None
    """What was decided, before any refinement of the masks; None if nobody asked."""
    attention: Motion
    """According to the attention of the model that looks for motion, in its last pass."""
    flow: Motion
    """According to optical flow."""
    steps: FlowFields | None
    """Flow from every frame to the next (from the last to the one before); None for one frame."""
    inverse_depth: Float[np.ndarray, "n h w"]
    """The depth that the flow was judged by, inverse, median 1."""
    flow_options: FlowMotionOptions
    """How the flow was judged."""
    learned: Motion | None = None
    """According to the motion head; None unless the cue is one that asks it."""


OnFindings = Callable[[Findings], None]


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.laps[stage] = self.laps.get(stage, 0.0) + time.monotonic() - start


class Watcher:
    """One model over the pairs of one clip; every frame is encoded once, when it is made."""

    def __init__(
        self,
        clip: Clip,
        model: Model,
        edges: Int[np.ndarray, "m 2"],
        options: Options,
        progress: Progress,
    ) -> None:
        self.clip, self.model, self.edges = clip, model, edges
        self.options, self.progress = options, progress
        self.tokens = encode_frames(model, clip, progress=progress)

    def predict(
        self, stage: str, motion: Motion | None, *, heads: bool, scores: bool
    ) -> PairPredictions:
        """One pass over all pairs; with motion, static tokens ignore what moves (SPEC 5)."""
        moving = motion.masks if motion is not None and motion.masks.any() else None
        return predict_pairs(
            self.model, self.clip, self.edges, moving,
            tokens=self.tokens, heads=heads, scores=scores,
            options=self.options.inference, progress=self.progress, stage=stage,
        )  # fmt: skip

    def by_attention(self, predictions: PairPredictions) -> Motion:
        """What moves according to the attention of a pass with scores."""
        assert predictions.scores1 is not None
        assert predictions.scores2 is not None
        return find_motion(
            predictions.scores1, predictions.scores2, self.edges,
            self.tokens.features.float().cpu(), self.clip.size_hw,
            options=self.options.motion_options, num_frames=len(self.clip),
        )  # fmt: skip

    def measure_flow(self) -> FlowFields:
        """Optical flow of all pairs, both ways."""
        limits = self.options.inference
        return measure_flow(
            self.clip.images, self.edges, flow_estimator(self.options.flow),
            memory_gb=limits.memory_gb, spill_folder=limits.spill_folder, progress=self.progress,
        )  # fmt: skip

    def by_flow(self, predictions: PairPredictions, measured: FlowFields) -> Motion:
        """What moves according to measured flow and a pass with heads; of one frame: nothing."""
        if len(self.clip) == 1:
            return self._one_frame()
        return flow_residual_motion(
            predictions, self.clip.images, measured,
            options=self.options.flow_motion, progress=self.progress,
        )  # fmt: skip

    def by_motion_head(self, predictions: PairPredictions) -> Motion:
        """What moves according to the motion head in a first pass with heads."""
        if len(self.clip) == 1:
            return self._one_frame()
        return learned_motion(predictions, options=self.options.learned_motion)

    def by_flow_and_motion_head(
        self,
        predictions: PairPredictions,
        measured: FlowFields,
        probability: Float[np.ndarray, "n h w"] | None,
    ) -> tuple[Motion, Motion | None]:
        """What moves according to flow alone, and according to flow and motion head together."""
        if len(self.clip) == 1:
            return self._one_frame(), self._one_frame()
        judged = self.options.flow_motion
        evidence = flow_evidence(
            predictions, self.clip.images, measured, options=judged, progress=self.progress
        )
        return self._by_evidence(evidence, measured, probability, judged)

    def by_solved_depth(
        self,
        solved: Geometry,
        measured: FlowFields,
        probability: Float[np.ndarray, "n h w"] | None,
        behind: Bool[np.ndarray, "n h w"] | None = None,
    ) -> tuple[Motion, Motion | None]:
        """As `by_flow_and_motion_head`, with depth and cameras that flow has had a say in, by which
        all frames are compared. `behind`: moves anyhow."""
        judged = self.options.flow_motion
        judged = replace(judged, depth_slack=judged.solved_slack)
        inverse = 1 / np.maximum(solved.depth.astype(np.float64), 1e-9)
        evidence = flow_evidence(
            None, self.clip.images, measured, inverse_depth=inverse / np.median(inverse),
            options=judged, progress=self.progress,
        )  # fmt: skip
        if judged.drawn and judged.seen_again:
            evidence = seen_again(
                evidence, self.clip.images, solved, behind, progress=self.progress
            )
        return self._by_evidence(evidence, measured, probability, judged)

    def _by_evidence(
        self,
        evidence: FlowEvidence,
        measured: FlowFields,
        probability: Float[np.ndarray, "n h w"] | None,
        judged: FlowMotionOptions,
    ) -> tuple[Motion, Motion | None]:
        """What moves according to flow alone; and with the motion head, if it said anything."""
        flow = motion_from_evidence(evidence, measured, options=judged)
        if probability is None:
            return flow, None
        return flow, fuse_motion(evidence, probability, options=self.options.learned_motion)

    def _one_frame(self) -> Motion:
        still = motion_from_masks(np.zeros(self.clip.images.shape[:3], bool))
        return replace(still, reason="one frame says nothing about motion")


class Search:
    """What moves in a clip according to one cue, or two; kept up to date from pass to pass."""

    def __init__(
        self, watcher: Watcher, cue: str, seconds: Stopwatch, *, keep_flow: bool = False
    ) -> None:
        self.watcher, self.cue, self.seconds = watcher, cue, seconds
        self.keep_flow = keep_flow
        """For `flow_of_all_pairs` and `explain`; the flow of all pairs is large."""
        self.attends, self.flows = cue in ("attention", "both"), "flow" in cue or cue == "both"
        self.learns = "learned" in cue
        self._attention: Motion | None = None
        self._flow: Motion | None = None
        self._learned: Motion | None = None
        self._fused: Motion | None = None
        self._probability: Float[np.ndarray, "n h w"] | None = None
        self._measured: FlowFields | None = None
        self._behind: Bool[np.ndarray, "n h w"] | None = None

    def first_pass(self, *, points: bool = False) -> tuple[Motion, PairPredictions]:
        """Look for motion as if everything stood still. `points`: they are wanted in any case."""
        with self.seconds("first pass"):
            # else they are only needed to tell parallax from motion in measured flow
            heads = points or self.flows or self.learns
            first = self.watcher.predict("first pass", None, heads=heads, scores=self.attends)
        with self.seconds("motion"):
            if self.learns:
                self._learned = self.watcher.by_motion_head(first)
                self._probability = learned_probability(first)
            if self.flows:
                measured = self.watcher.measure_flow()
                if self.learns:
                    pair = self.watcher.by_flow_and_motion_head(first, measured, self._probability)
                    self._flow, self._fused = pair
                else:
                    self._flow = self.watcher.by_flow(first, measured)
                self._measured = measured if self.keep_flow else None
        return self.update(first), first

    def second_pass(self, motion: Motion) -> Motion:
        """Look again, ignoring what moves; for a model that makes no points (SPEC 5)."""
        if not self.attends:
            return motion  # flow and motion head stay with what they said
        with self.seconds("second look"):
            again = self.watcher.predict("second look", motion, heads=False, scores=True)
        return self.update(again)

    def update(self, predictions: PairPredictions) -> Motion:
        """Read the attention of another pass, if attention has a say."""
        with self.seconds("motion"):
            if self.attends:
                self._attention = self.watcher.by_attention(predictions)
            return self._decided()

    def _decided(self) -> Motion:
        if self._attention is not None and self._flow is not None:
            return combine_motion(self._attention, self._flow)
        motion = self._fused or self._attention or self._flow or self._learned
        assert motion is not None
        return motion

    def look_again(self, solved: Geometry, predicted: Float[np.ndarray, "n h w"]) -> Motion | None:
        """Judge flow by the depth of the solved scene, and that by the depth before; None where
        flow has no say or is judged as published, by the network's own depth and cameras."""
        robust = self.watcher.options.flow_motion.method == "robust"
        if not (self.flows and robust) or self._measured is None:
            return None
        with self.seconds("motion"):
            found = self.watcher.by_solved_depth(
                solved, self._measured, self._probability, self._behind
            )
            self._flow, self._fused = found
            motion = self._decided()
            behind = farther_than_predicted(predicted, solved.depth, motion.masks)
            if self._behind is not None:
                behind |= self._behind  # left out of the adjustment, nothing puts it there now
            self._behind = behind
            if not behind.any():
                return motion
            return with_more(motion, behind, "is put behind the scene by it")

    def flow_of_all_pairs(self) -> FlowFields | None:
        """Measured flow, measured now unless it was kept; None where nothing is optimised."""
        if len(self.watcher.clip) < 2:
            return None
        with self.seconds("motion"):
            self._measured = self._measured or self.watcher.measure_flow()
        return self._measured

    def explain(
        self,
        cue: str,
        motion: Motion | None,
        predictions: PairPredictions,
        solved_depth: Float[np.ndarray, "n h w"] | None = None,
    ) -> Findings:
        """Everything that can be seen, also by the cues that had no say.

        `predictions`: the last pass, with heads; its scores are used where there are some.
        `solved_depth`: what flow was judged by in the end, if not by the predictions.
        """
        with self.seconds("explanation"):
            if self._attention is None:
                if predictions.scores1 is None:
                    again = self.watcher.predict("second look", motion, heads=False, scores=True)
                else:
                    again = predictions
                self._attention = self.watcher.by_attention(again)
            measured = self._measured or self.watcher.measure_flow()
            self._measured = None
            if self._flow is None:
                self._flow = self.watcher.by_flow(predictions, measured)
            n = predictions.num_frames
            judged = self.watcher.options.flow_motion
            if solved_depth is None:
                inverse_depth = mean_inverse_depth(predictions, n, predictions.size_hw)
            else:
                inverse_depth = np.median(solved_depth) / np.maximum(solved_depth, 1e-9)
                judged = replace(judged, depth_slack=judged.solved_slack)
            return Findings(
                cue=cue,
                motion=motion,
                attention=self._attention,
                flow=self._flow,
                steps=_steps(measured, n),
                inverse_depth=inverse_depth.astype(np.float32),
                flow_options=judged,
                learned=self._learned,
            )


def seen_again(
    evidence: FlowEvidence,
    images: UInt8[np.ndarray, "n h w 3"],
    solved: Geometry,
    behind: Bool[np.ndarray, "n h w"] | None = None,
    *,
    progress: Progress = no_progress,
) -> FlowEvidence:
    """Evidence with the masks drawn once more, by a network that also sees what other frames show
    in the place of each pixel, with the cameras and depth of `solved`. Probability stays 0 in
    frames without evidence."""
    assert evidence.parts is not None
    moving = evidence.refined > 0.5
    if behind is not None:
        moving |= behind
    others = other_frames(images, solved.depth, moving, solved.K, solved.T_world_camera, progress)
    parts = second_parts(evidence.parts, evidence.refined, images, others)
    refined = mask_probability(load_second_network(), images, parts)
    refined[~np.isfinite(evidence.typical_px)] = 0.0
    return replace(evidence, refined=refined)


def _steps(measured: FlowFields, num_frames: int) -> FlowFields | None:
    """From every frame to the next one it is compared with; else to the last such before it."""
    rows = []
    for t in range(num_frames):
        mine = np.flatnonzero(measured.edges[:, 0] == t)
        if not len(mine):
            return None
        ahead = measured.edges[mine, 1] - t
        # the next frame is nearest; going back is worse than any step ahead
        rows.append(mine[np.argmin(np.where(ahead > 0, ahead, num_frames - ahead))])
    visible = measured.visible
    return FlowFields(
        measured.edges[rows], measured.flow[rows], None if visible is None else visible[rows]
    )
