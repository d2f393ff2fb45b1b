"""From a clip to a scene: the whole method on one page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from dyn3r.alignment import align
from dyn3r.bundle_adjustment import bundle_adjust, level_ground, only_turns
from dyn3r.errors import InputError
from dyn3r.geometry.ground_contact import stand_on_ground
from dyn3r.motion import MaskRefiner, mask_refiner, motion_from_masks
from dyn3r.motion.estimation import OnFindings, Search, Stopwatch, Watcher
from dyn3r.mvs import multi_view_depth
from dyn3r.network.model import Model
from dyn3r.network.pair_graph import make_pairs
from dyn3r.options import CUES, Options
from dyn3r.scene import Scene
from dyn3r.scene.resume import go_on
from dyn3r.types import (
    Clip,
    Geometry,
    Motion,
    PairPredictions,
    Progress,
    no_progress,
    package_version,
)

LOOKS = 3
"""Most times that flow is judged by the depth of an adjustment."""
ALIKE = 0.7
"""Masks of two looks that overlap so far (intersection over union) are the same."""

START_PIXELS = 384
"""Pixels per frame that cameras are found from if bundle adjustment follows."""

__all__ = ["CUES", "Options", "reconstruct"]


def reconstruct(
    clip: Clip,
    model: Model,
    options: Options | None = None,
    *,
    motion_model: Model | None = None,
    masks: Bool[np.ndarray, "n h w"] | None = None,
    refiner: MaskRefiner | None = None,
    continue_from: Scene | None = None,
    on_findings: OnFindings | None = None,
    progress: Progress = no_progress,
) -> Scene:
    """Depth, cameras, motion masks and confidence for every frame of a clip.

    `motion_model`: another model that looks for motion; `model` then makes the geometry alone.
    `masks`: what moves, if it is known already (`read_masks`); then motion is not looked for.
    `refiner`: makes the masks better, instead of the one that `options.refine` names.
    `continue_from`: an earlier result for the beginning of the clip, which may also start with any
    of its frames; those keep their geometry, and only what follows is computed (`go_on`).
    `on_findings`: called once, at the end, with what was seen of motion, for pictures
    (`dyn3r.scene.explanation`); costs time and changes nothing.
    Clips longer than `options.alignment.window` frames are aligned window by window.
    Raises InputError for options or masks that don't fit the clip, GeometryError where no geometry
    can be found at all.
    """
    options, seconds = options or Options(), Stopwatch()
    if continue_from is not None:
        rest = go_on(clip, continue_from, options.alignment)
        options = replace(options, alignment=rest.alignment)
        masks = None if masks is None else masks[rest.skipped :]
        return rest.join(
            reconstruct(
                rest.clip, model, options, motion_model=motion_model, masks=masks, refiner=refiner,
                on_findings=on_findings, progress=progress,
            )
        )  # fmt: skip
    cue = "none" if masks is not None else _cue(options.motion, motion_model or model)
    if motion_model is not None and cue == "none":
        raise InputError("a model for motion is of no use where motion is not looked for")
    edges = make_pairs(_graph(options.graph, len(clip)), len(clip))
    with seconds("encode"):
        geometry = watcher = Watcher(clip, model, edges, options, progress)
        if motion_model is not None:
            watcher = Watcher(clip, motion_model, edges, options, progress)
    wants_bundle = _wants_bundle(options, model)
    uses_flow = options.flow_term or wants_bundle
    search = Search(watcher, cue, seconds, keep_flow=uses_flow or on_findings is not None)
    motion = motion_from_masks(masks) if masks is not None else None
    predictions: PairPredictions | None = None
    if cue != "none":
        once = watcher is geometry and not _wants_second_pass(options, model, search.attends)
        motion, predictions = search.first_pass(points=once)
        if not once:
            predictions = None  # memory
        if watcher is not geometry:
            motion = search.second_pass(motion)
    if predictions is None:
        with seconds("second pass" if cue != "none" else "prediction"):
            stage = "second pass" if cue != "none" else "predicting points"
            scores = watcher is geometry and (search.attends or on_findings is not None)
            predictions = geometry.predict(stage, motion, heads=True, scores=scores)
        if watcher is geometry and search.attends:
            motion = search.update(predictions)
    flow = search.flow_of_all_pairs() if uses_flow else None
    how = options.refine
    if how == "auto":
        how = watcher.model.facts.get("refine", "none") if search.flows else "none"
    if refiner is None and how != "none":
        refiner = mask_refiner(how, str(model.device))
    better = _Refinement(clip, refiner, seconds, progress)
    bundling = wants_bundle and flow is not None
    moving = better.left_out(motion, refine=not bundling)
    how_to_align = options.alignment
    if bundling and how_to_align.pixels == 0:  # it is no more than where the adjustment starts
        how_to_align = replace(how_to_align, pixels=START_PIXELS)
    with seconds("alignment"):
        alignment = align(
            predictions, dynamic=moving, flow=flow if options.flow_term else None,
            options=how_to_align, progress=progress,
        )  # fmt: skip
    solved_depth = None
    if bundling:
        assert flow is not None

        def bundled(
            moving: Bool[np.ndarray, "n h w"] | None, near: Geometry | None = None
        ) -> Geometry:
            with seconds("bundle adjustment"):
                return bundle_adjust(
                    alignment, clip.images, flow, moving=moving, priors=options.alignment.priors,
                    near=near, options=options.bundle_options, progress=progress,
                )  # fmt: skip

        solved = bundled(moving)
        for look in range(1, LOOKS + 1):  # better cameras show better what moves, and so on
            again = search.look_again(solved, alignment.depth)
            if again is None:
                break
            alike = motion is not None and _alike(again.masks, motion.masks)
            settled = look == LOOKS or motion is None or alike
            motion, solved_depth = again, solved.depth
            solved = bundled(better.left_out(motion, refine=settled), solved if alike else None)
            if settled:
                break
        if solved_depth is None and refiner is not None:
            solved = bundled(better.left_out(motion, refine=True))
        alignment = solved
        held = options.alignment.priors.fixes_depth(alignment.depth.shape)
        if options.bundle_options.level_ground and only_turns(alignment) and not held.any():
            alignment = level_ground(alignment, clip.images, better.masks)
    if len(clip) > 1 and _wants_stereo(options, model, bundling):
        with seconds("multi-view depth"):
            alignment = multi_view_depth(
                alignment, clip.images, moving=better.masks, priors=options.alignment.priors,
                progress=progress,
            )  # fmt: skip
    if _mover_depth(options, model, bundling) == "ground" and better.masks is not None:
        known = options.alignment.priors.fixes_depth(alignment.depth.shape)
        depth = stand_on_ground(alignment.depth, better.masks, known)
        alignment = replace(alignment, depth=depth)
    if on_findings is not None:
        said = "given" if masks is not None else cue
        on_findings(search.explain(said, motion, predictions, solved_depth))
    refined, note = better.masks, better.note
    scene = _scene(clip, alignment, motion, refined, note)
    about = _about(clip, model, motion_model, options, seconds.laps, len(edges))
    return replace(scene, metadata={**about, **scene.metadata})


def _alike(some: Bool[np.ndarray, "n h w"], other: Bool[np.ndarray, "n h w"]) -> bool:
    """Whether two clips of masks are nearly the same."""
    return bool((some & other).sum() >= ALIKE * (some | other).sum())


class _Refinement:
    """Masks made better, once it is asked for; and what the cameras must not rely on."""

    def __init__(
        self, clip: Clip, refiner: MaskRefiner | None, seconds: Stopwatch, progress: Progress
    ) -> None:
        self.clip, self.refiner, self.seconds, self.progress = clip, refiner, seconds, progress
        self.masks: Bool[np.ndarray, "n h w"] | None = None
        self.note: str | None = None

    def left_out(self, motion: Motion | None, *, refine: bool) -> Bool[np.ndarray, "n h w"] | None:
        """What moves according to the masks found or the refined ones (SPEC 8)."""
        self.masks = found = None if motion is None else motion.masks
        if not refine or self.refiner is None or found is None or not found.any():
            return found
        with self.seconds("refinement"):
            refined = self.refiner.refine(self.clip.images, found, progress=self.progress)
        self.masks = refined
        self.note = (
            f"masks refined by {self.refiner.name}: {found.mean():.1%} -> {refined.mean():.1%}"
        )
        return found | refined


def _graph(name: str, frames: int) -> str:
    """The published default for video (SPEC 3)."""
    if name != "auto":
        return name
    return "swinstride-5-noncyclic" if frames <= 95 else "swinstride-4-noncyclic"


def _cue(motion: str, model: Model) -> str:
    """What `auto` means for this model: its file may recommend a cue.

    Raises InputError for a cue that this model can't give.
    """
    if motion == "auto":
        recommended = model.facts.get("motion_cue", "attention")
        motion = recommended if recommended in CUES else "attention"
    if "learned" in motion and not model.network.config.motion_head:
        raise InputError(
            f"{model.name} has no motion head, which motion {motion!r} needs: choose flow, "
            "attention or both, or a model that was trained with one"
        )
    return motion


def _wants_bundle(options: Options, model: Model) -> bool:
    """What None means for this model: its file may recommend it."""
    return model.facts.get("bundle") == "on" if options.bundle is None else options.bundle


def _wants_second_pass(options: Options, model: Model, attends: bool) -> bool:
    """What None means: where flow settles cameras and depth as the model's file recommends, and
    attention says nothing of what moves, a second pass changes nothing."""
    if options.second_pass is not None:
        return options.second_pass
    recommended = model.facts.get("bundle") == "on" and _wants_bundle(options, model)
    return attends or not recommended


def _wants_stereo(options: Options, model: Model, bundling: bool) -> bool:
    """What None means: where flow has settled the cameras as the model's file recommends, unless
    that recommends against it."""
    if options.stereo is not None:
        return options.stereo
    return bundling and model.facts.get("stereo", model.facts.get("bundle")) == "on"


def _mover_depth(options: Options, model: Model, bundling: bool) -> str:
    """What `auto` means: the model's file may recommend a way, if flow has measured the ground."""
    if options.mover_depth != "auto":
        return options.mover_depth
    recommended = model.facts.get("mover_depth") == "ground"
    return "ground" if recommended and bundling else "network"


def _scene(
    clip: Clip,
    alignment: Geometry,
    motion: Motion | None,
    masks: Bool[np.ndarray, "n h w"] | None,
    note: str | None,
) -> Scene:
    """What was found; its metadata lack what was asked."""
    notes = list(alignment.warnings)
    if note is not None:
        notes.insert(0, note)
    if motion is not None:
        notes.insert(0, f"motion: {motion.reason}")
    return Scene(
        images=clip.images,
        depth=alignment.depth.astype(np.float32),
        confidence=alignment.confidence.astype(np.float32),
        dynamic=np.zeros(clip.images.shape[:3], bool) if masks is None else masks,
        K=alignment.K,
        T_world_camera=alignment.T_world_camera,
        mapping=clip.mapping,
        names=clip.names,
        times_s=clip.times_s,
        fps=clip.fps,
        metadata={
            "objective": {name: float(value) for name, value in alignment.terms.items()},
            "notes": notes,
        },
        uncertainty=alignment.uncertainty,
        frame_quality=alignment.frame_quality,
        dynamic_map=None if motion is None else motion.refined_map.astype(np.float32),
    )


def _about(
    clip: Clip,
    model: Model,
    motion_model: Model | None,
    options: Options,
    seconds: dict[str, float],
    pairs: int,
) -> dict[str, Any]:
    """What was asked, of what, and how long it took; for a Scene's metadata."""
    models = {"model": model.about}
    if motion_model is not None:
        models["motion_model"] = motion_model.about
    return {
        "dyn3r_version": package_version(),
        "source": clip.source,
        **models,
        "device": str(model.device),
        "options": options.to_json(),
        "pairs": pairs,
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
    }
