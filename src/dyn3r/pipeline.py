"""From a clip to a scene: the whole method on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from dyn3r.alignment import Alignment, AlignmentOptions, align
from dyn3r.errors import InputError
from dyn3r.motion import MotionOptions, find_motion, motion_from_masks
from dyn3r.network.model import Model
from dyn3r.network.predict import InferenceOptions, encode_frames, predict_pairs
from dyn3r.pairs import make_pairs
from dyn3r.scene import Scene
from dyn3r.types import Clip, Motion, Progress, no_progress


@dataclass(frozen=True)
class Options:
    """What a reconstruction does; every stage has its own options."""

    graph: str = "auto"
    """Which pairs of frames are compared. `auto`: swinstride-5-noncyclic, and width 4 above 95
    frames. Wider windows cost time and make the cameras steadier."""
    motion: Literal["attention", "none"] = "attention"
    """`attention`: find what moves (Easi3R) and ignore it in a second pass; `none`: one pass."""
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    motion_options: MotionOptions = field(default_factory=MotionOptions)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)

    def __post_init__(self) -> None:
        if self.motion not in ("attention", "none"):
            raise InputError(
                f"motion is 'attention' or 'none', not {self.motion!r}; give masks as an argument"
            )


def reconstruct(
    clip: Clip,
    model: Model,
    options: Options | None = None,
    *,
    masks: Bool[np.ndarray, "n h w"] | None = None,
    progress: Progress = no_progress,
) -> Scene:
    """Depth, cameras, motion masks and confidence for every frame of a clip.

    `masks`: what moves, if it is known already (`read_masks`); then motion is not looked for.
    Raises InputError for options or masks that don't fit the clip, GeometryError where no geometry
    can be found at all.
    """
    options, seconds = options or Options(), _Stopwatch()
    edges = make_pairs(_graph(options.graph, len(clip)), len(clip))
    with seconds("encode"):
        tokens = encode_frames(model, clip, progress=progress)

    def predict(stage: str, dynamic: np.ndarray | None, heads: bool, scores: bool) -> Any:
        return predict_pairs(
            model, clip, edges, dynamic,
            tokens=tokens, heads=heads, scores=scores,
            options=options.inference, progress=progress, stage=stage,
        )  # fmt: skip

    def motion_of(predictions: Any) -> Motion:
        return find_motion(
            predictions.scores1, predictions.scores2, edges, tokens.features.float().cpu(),
            clip.size_hw, options=options.motion_options, num_frames=len(clip),
        )  # fmt: skip

    motion = motion_from_masks(masks) if masks is not None else None
    look = motion is None and options.motion == "attention"
    if look:
        with seconds("first pass"):
            first = predict("first pass: attention", None, heads=False, scores=True)
        with seconds("motion"):
            motion = motion_of(first)
        del first
    with seconds("second pass" if look else "prediction"):
        stage = "second pass: points" if look else "predicting points"
        moving = motion.masks if motion is not None and motion.masks.any() else None
        predictions = predict(stage, moving, heads=True, scores=look)
    if look:
        with seconds("motion"):
            motion = motion_of(predictions)
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
            "options": asdict(options),
            "pairs": pairs,
            "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
            "objective": {name: float(value) for name, value in alignment.terms.items()},
            "notes": notes,
        },
        uncertainty=alignment.uncertainty,
        frame_quality=alignment.frame_quality,
        dynamic_map=None if motion is None else motion.refined_map.astype(np.float32),
    )


class _Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.laps[stage] = self.laps.get(stage, 0.0) + time.monotonic() - start
