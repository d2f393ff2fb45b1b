"""From a clip to a scene: the whole method on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from dyn3r.alignment import Alignment, AlignmentOptions, Presets, align
from dyn3r.errors import InputError
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.long_clips import go_on
from dyn3r.motion import (
    FlowMotionOptions,
    MotionOptions,
    combine_motion,
    find_motion,
    flow_residual_motion,
    motion_from_masks,
)
from dyn3r.network.model import Model
from dyn3r.network.predict import InferenceOptions, encode_frames, predict_pairs
from dyn3r.pairs import make_pairs
from dyn3r.scene import Scene
from dyn3r.types import Clip, Motion, PairPredictions, Progress, no_progress

CUES = ("attention", "flow", "both")


@dataclass(frozen=True)
class Options:
    """What a reconstruction does; every stage has its own options."""

    graph: str = "auto"
    """Which pairs of frames are compared. `auto`: swinstride-5-noncyclic, and width 4 above 95
    frames. Wider windows cost time and make the cameras steadier."""
    motion: Literal["auto", "attention", "flow", "both", "none"] = "auto"
    """How what moves is found, to be ignored in a second pass. `attention`: in the network's own
    attention (Easi3R); `flow`: where measured optical flow contradicts a still scene; `both`: what
    either says; `none`: one pass, everything is static. `auto`: what the model's file recommends,
    else attention."""
    flow: str = "dis"
    """How optical flow is measured, where it is: `dis` (no weights), `raft`, `raft-small`."""
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    motion_options: MotionOptions = field(default_factory=MotionOptions)
    flow_motion: FlowMotionOptions = field(default_factory=FlowMotionOptions)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)

    def __post_init__(self) -> None:
        if self.motion not in ("auto", *CUES, "none"):
            raise InputError(
                f"motion is auto, attention, flow, both or none, not {self.motion!r}; "
                "give masks as an argument"
            )


def reconstruct(
    clip: Clip,
    model: Model,
    options: Options | None = None,
    *,
    masks: Bool[np.ndarray, "n h w"] | None = None,
    continue_from: Scene | None = None,
    progress: Progress = no_progress,
) -> Scene:
    """Depth, cameras, motion masks and confidence for every frame of a clip.

    `masks`: what moves, if it is known already (`read_masks`); then motion is not looked for.
    `continue_from`: an earlier result for the beginning of the clip, which may also start with any
    of its frames; those keep their geometry, and only what follows is computed (`go_on`).
    Clips longer than `options.alignment.window` frames are aligned window by window.
    Raises InputError for options or masks that don't fit the clip, GeometryError where no geometry
    can be found at all.
    """
    options, seconds = options or Options(), _Stopwatch()
    if continue_from is not None:
        rest = go_on(clip, continue_from, options.alignment)
        options = replace(options, alignment=rest.alignment)
        masks = None if masks is None else masks[rest.skipped :]
        return rest.join(reconstruct(rest.clip, model, options, masks=masks, progress=progress))
    edges = make_pairs(_graph(options.graph, len(clip)), len(clip))
    with seconds("encode"):
        tokens = encode_frames(model, clip, progress=progress)

    def predict(stage: str, dynamic: np.ndarray | None, heads: bool, scores: bool) -> Any:
        return predict_pairs(
            model, clip, edges, dynamic,
            tokens=tokens, heads=heads, scores=scores,
            options=options.inference, progress=progress, stage=stage,
        )  # fmt: skip

    def by_attention(predictions: Any) -> Motion:
        return find_motion(
            predictions.scores1, predictions.scores2, edges, tokens.features.float().cpu(),
            clip.size_hw, options=options.motion_options, num_frames=len(clip),
        )  # fmt: skip

    motion = motion_from_masks(masks) if masks is not None else None
    cue = _cue(options.motion, model) if motion is None else "none"
    look, attends = cue != "none", cue in ("attention", "both")
    moved = None
    if look:
        with seconds("first pass"):
            # points are only needed to tell parallax from motion in measured flow
            first = predict("first pass", None, heads=cue != "attention", scores=attends)
        with seconds("motion"):
            if cue != "attention":
                moved = _by_flow(clip, first, options, progress)
            motion = _together(by_attention(first) if attends else None, moved)
        del first
    with seconds("second pass" if look else "prediction"):
        stage = "second pass" if look else "predicting points"
        moving = motion.masks if motion is not None and motion.masks.any() else None
        predictions = predict(stage, moving, heads=True, scores=attends)
    if attends:
        with seconds("motion"):
            motion = _together(by_attention(predictions), moved)
    with seconds("alignment"):
        alignment = align(
            predictions,
            dynamic=None if motion is None else motion.masks,
            options=options.alignment,
            progress=progress,
        )
    return _scene(clip, model, options, motion, alignment, seconds.laps, len(edges))


def _graph(name: str, frames: int) -> str:
    """The published default for video (SPEC 3)."""
    if name != "auto":
        return name
    return "swinstride-5-noncyclic" if frames <= 95 else "swinstride-4-noncyclic"


def _cue(motion: str, model: Model) -> str:
    """What `auto` means for this model: its file may recommend a cue."""
    if motion != "auto":
        return motion
    recommended = model.facts.get("motion_cue", "attention")
    return recommended if recommended in CUES else "attention"


def _by_flow(
    clip: Clip, predictions: PairPredictions, options: Options, progress: Progress
) -> Motion:
    """Motion from measured flow; a clip of one frame has none."""
    if len(clip) == 1:
        still = motion_from_masks(np.zeros(clip.images.shape[:3], bool))
        return replace(still, reason="one frame says nothing about motion")
    flow = measure_flow(
        clip.images, predictions.edges, flow_estimator(options.flow), progress=progress
    )
    return flow_residual_motion(
        predictions, clip.images, flow, options=options.flow_motion, progress=progress
    )


def _together(attention: Motion | None, flow: Motion | None) -> Motion:
    if attention is None or flow is None:
        motion = attention or flow
        assert motion is not None
        return motion
    return combine_motion(attention, flow)


def _scene(
    clip: Clip,
    model: Model,
    options: Options,
    motion: Motion | None,
    alignment: Alignment,
    seconds: dict[str, float],
    pairs: int,
) -> Scene:
    from dyn3r import __version__

    still = np.zeros(clip.images.shape[:3], bool)
    notes = list(alignment.warnings)
    if motion is not None:
        notes.insert(0, f"motion: {motion.reason}")
    return Scene(
        images=clip.images,
        depth=alignment.depth.astype(np.float32),
        confidence=alignment.confidence.astype(np.float32),
        dynamic=still if motion is None else motion.masks,
        K=alignment.K,
        T_world_camera=alignment.T_world_camera,
        mapping=clip.mapping,
        names=clip.names,
        times_s=clip.times_s,
        fps=clip.fps,
        metadata={
            "dyn3r_version": __version__,
            "source": clip.source,
            "model": {"name": model.name, "precision": model.precision, **model.facts},
            "device": str(model.device),
            "options": _plain(options),
            "pairs": pairs,
            "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
            "objective": {name: float(value) for name, value in alignment.terms.items()},
            "notes": notes,
        },
        uncertainty=alignment.uncertainty,
        frame_quality=alignment.frame_quality,
        dynamic_map=None if motion is None else motion.refined_map.astype(np.float32),
    )


def _plain(options: Options) -> dict[str, Any]:
    """The options as JSON can hold them: of known cameras and depth only that they were given."""
    presets = options.alignment.presets
    bare = asdict(replace(options, alignment=replace(options.alignment, presets=Presets())))
    bare["alignment"]["presets"] = {
        name: "given" if isinstance(value, np.ndarray) else value
        for name, value in vars(presets).items()
    }
    return bare


class _Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.laps[stage] = self.laps.get(stage, 0.0) + time.monotonic() - start
