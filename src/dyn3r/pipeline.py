"""From a clip to a scene: the method on one page.

Clip -> geometry source -> refinement -> multi-view depth -> finalise

The geometry source is pairs -> two passes -> alignment, or a many-view network.
"""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Int

from dyn3r.alignment.align import align
from dyn3r.alignment.clip_windows import WindowOptions, WindowPlan
from dyn3r.alignment.many_view import KeptStates, many_view_geometry, with_cameras_of
from dyn3r.bundle_adjustment import (
    adjust_with_stated_focal,
    bundle_adjust,
    correct_ground_tilt,
    is_rotation_only,
    known_throughout,
    with_known_cameras,
)
from dyn3r.flow import flow_estimator, measure_flow, with_neighbours
from dyn3r.geometry.ground_contact import snap_to_ground_contact
from dyn3r.io.arguments import check_type
from dyn3r.io.workers import pytorch_threads, workers
from dyn3r.motion.cue import MotionCue, Pass, check_mask_shape, motion_cue, relative_inverse
from dyn3r.motion.mask_refiner import MaskRefiner, refine_masks
from dyn3r.motion.masks import masks_converged
from dyn3r.motion.overlays import with_overlay, without_overlay
from dyn3r.motion.refiners import mask_refiner
from dyn3r.motion.smoothing import reading
from dyn3r.motion.static_clusters import without_static_clusters
from dyn3r.motion.static_components import without_static_components
from dyn3r.mvs import multi_view_depth
from dyn3r.network.model import Model, described
from dyn3r.network.pair_graph import make_pairs
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.options import Options, Plan, resolve, windows_of
from dyn3r.scene import Scene
from dyn3r.scene.assemble import assemble
from dyn3r.scene.draft import Draft
from dyn3r.scene.finalise import finalise
from dyn3r.scene.held_frames import priors_of, with_held_frames
from dyn3r.scene.judge import judge
from dyn3r.scene.known_cameras import K_known_alone, unit_of, with_stated_focal
from dyn3r.scene.mixed_focal import with_common_focal
from dyn3r.scene.resume import continuation
from dyn3r.scene.windows.reconstruct import LongClip, reconstruct_windows
from dyn3r.types import (
    Clip,
    FlowFields,
    Geometry,
    GeometrySource,
    Motion,
    Priors,
    RunContext,
    Tokens,
)

MAX_ROUNDS = 3
"""Motion estimates after refinement, at most. Source: masks converge in two
(docs/experiments.md)."""


def reconstruct(
    clip: Clip,
    model: Model,
    options: Options | None = None,
    *,
    motion_model: Model | None = None,
    masks: Bool[np.ndarray, "n h w"] | None = None,
    refiner: MaskRefiner | None = None,
    context: RunContext | None = None,
) -> Scene:
    """Depth, cameras, motion masks and uncertainty for every frame of a clip.

    `motion_model`: finds motion; `model` then makes the geometry only. `masks`: moving objects, if
    known. `refiner`: replaces the one that the options name. `context`: progress and observer.
    Raises InputError for options or masks that do not fit the clip, GeometryError where no geometry
    can be found.
    """
    check_type(clip, Clip, "the clip")
    check_type(model, Model, "the model")
    if masks is not None:
        check_type(masks, np.ndarray, "masks")
        check_mask_shape(masks, clip)
    context = replace(context or RunContext(), device=str(model.device))
    known = masks is not None
    options = options or Options()
    check_type(options, Options, "the options")
    if clip.unusable is not None and clip.unusable.any():
        kept = np.flatnonzero(~clip.unusable)
        scene = reconstruct(
            replace(clip.part(kept), unusable=None), model,
            replace(options, priors=priors_of(options.priors, kept)), motion_model=motion_model,
            masks=None if masks is None else masks[kept], refiner=refiner, context=context,
        )  # fmt: skip
        return with_held_frames(scene, clip, kept, options.priors)
    plan = resolve(options, model, clip, motion_model=motion_model, masks_given=known)
    if plan.bundle_adjustment:
        plan = replace(plan, priors=with_stated_focal(plan.priors, clip))
    windows = windows_of(options, model, clip, motion_model)
    if windows is not None:
        decided = replace(
            options, pairs=plan.pairs, flow=replace(options.flow, pairs=plan.flow_pairs)
        )
        return _reconstruct_long(
            clip, windows, decided, plan, (model, motion_model), masks, refiner, context
        )
    context.observe("plan", plan)
    cue = motion_cue(plan.cue, plan.attention_cue, plan.flow_cue, clip, masks)
    refiner = refiner or mask_refiner(plan.mask_refiner, str(model.device))
    with pytorch_threads(1):  # for this thread; networks and items side by side have their own
        return carry_out(clip, (model, motion_model), plan, cue, refiner, context)


def _reconstruct_long(
    clip: Clip,
    windows: WindowPlan,
    options: Options,
    plan: Plan,
    models: tuple[Model, Model | None],
    masks: Bool[np.ndarray, "n h w"] | None,
    refiner: MaskRefiner | None,
    context: RunContext,
) -> Scene:
    """The scene of a clip, window by window; `plan`: that of the whole clip."""
    model, motion_model = models
    alone = replace(options, windows=WindowOptions(frames=0))

    def part(rows: slice, priors: Priors, context: RunContext) -> Scene:
        return reconstruct(
            clip.part(rows), model, replace(alone, priors=priors), motion_model=motion_model,
            masks=None if masks is None else masks[rows], refiner=refiner, context=context,
        )  # fmt: skip

    work = LongClip(
        clip, windows, options.priors, shared_focal=plan.alignment.shared_focal,
        states_focal=plan.bundle_adjustment and clip.focal_px is not None,
        flow_estimator=partial(flow_estimator, options.flow.estimator),
        identity=(alone, masks, _identity(refiner), *(m.digest() for m in models if m is not None)),
    )  # fmt: skip
    return reconstruct_windows(work, part, context)


def _identity(refiner: MaskRefiner | None) -> tuple[object, ...]:
    """What of a refiner decides its masks, as far as it says so."""
    return (type(refiner), refiner if is_dataclass(refiner) else getattr(refiner, "name", None))


def carry_out(
    clip: Clip,
    models: tuple[Model, Model | None],
    plan: Plan,
    cue: MotionCue,
    refiner: MaskRefiner | None,
    context: RunContext,
) -> Scene:
    """All stages of a plan."""
    model, motion_model = models
    context.observe("clip", clip)
    pairs = make_pairs(plan.pairs, len(clip))
    flow = measured_flow(clip, plan, context) if plan.measure_flow else None
    refiner = reading(refiner, flow)

    def source(priors: Priors) -> tuple[Geometry, Motion]:
        given = replace(plan, priors=priors)
        geometry_source: GeometrySource = (
            partial(views_geometry, model, cue, refiner, given)
            if model.is_many_view
            else partial(pairwise_geometry, models, pairs, cue, refiner, given)
        )
        geometry, motion = geometry_source(clip, flow, context)
        context.observe("draft", Draft(clip, geometry, motion))
        return geometry, motion

    if plan.bundle_adjustment and flow is not None:
        K = K_known_alone(plan.priors, clip)
        geometry, motion = source(plan.priors if K is None else replace(plan.priors, K=None))
        start = geometry if K is None else replace(geometry, K=K)
        stated = geometry.focal_sigma
        start, held = with_common_focal(start, clip, plan.priors)
        geometry, motion = refine(clip, start, motion, flow, cue, refiner, plan, context)
        if held:
            geometry = replace(geometry, focal_sigma=stated)
        context.observe("draft", Draft(clip, geometry, motion))
        if K is not None and geometry.parallax is None:  # not adjusted: cameras that go with K
            again, _ = source(plan.priors)
            said = [x for x in geometry.diagnostics.notes if x not in again.diagnostics.notes]
            geometry = replace(again, diagnostics=again.diagnostics.added(*said))
    else:
        geometry, motion = source(plan.priors)
    before = geometry if plan.multi_view_depth else None
    geometry = dense_depth(clip, geometry, motion, plan, context)
    motion = without_overlay(motion, clip)
    with context.stage("finalise"):
        geometry = finalise(
            geometry, clip, motion.masks, before,
            fixed=plan.priors.fixes_depth(geometry.depth.shape), device=context.device,
            progress=context.progress,
        )  # fmt: skip
        verdict = judge(
            geometry, clip.images, motion.masks, flow, plan.priors, clip.names, context.device
        )
    about = {
        "plan": plan.to_json(), "pairs": len(pairs), **unit_of(plan.priors),
        **described(model, motion_model),
    }  # fmt: skip
    if verdict is not None:
        about["verdict"] = verdict.to_json()
    return assemble(clip, geometry, motion, about, context)


def resume(
    clip: Clip,
    earlier: Scene,
    model: Model,
    options: Options | None = None,
    *,
    motion_model: Model | None = None,
    masks: Bool[np.ndarray, "n h w"] | None = None,
    context: RunContext | None = None,
) -> Scene:
    """The earlier scene, kept exactly, followed by the frames of `clip` that it does not have.

    The clip begins with a frame of the earlier scene, identified by its name, has all that follow,
    and then new ones. Other arguments as for `reconstruct`. Raises InputError if they share no
    frames, the shared frames differ, or nothing is new.
    """
    options = options or Options()
    window = options.alignment.window or 100
    rest = continuation(
        clip, earlier, options.priors,
        overlap_frames=round(window * options.alignment.overlap),
        shared_focal=options.alignment.shared_focal and not clip.mapping.is_mixed,
    )  # fmt: skip
    new_masks = None if masks is None else masks[rest.skipped :]
    options = replace(options, priors=rest.priors)
    later = reconstruct(
        rest.clip, model, options, motion_model=motion_model, masks=new_masks, context=context
    )
    return rest.append(later)


def measured_flow(clip: Clip, plan: Plan, context: RunContext) -> FlowFields:
    """Optical flow of the pairs of the plan, both ways; measured once and used by every stage."""
    pairs = make_pairs(plan.flow_pairs, len(clip))
    if plan.bundle_adjustment:
        pairs = with_neighbours(pairs, len(clip))
    with context.stage("flow"):
        flow = measure_flow(
            clip.images, pairs, flow_estimator(plan.flow_estimator, context.device),
            ignored=clip.overlay, memory_gb=plan.inference.memory_gb,
            spill_folder=plan.inference.spill_folder, progress=context.progress,
        )  # fmt: skip
    context.observe("flow", flow)
    return flow


def pairwise_geometry(
    models: tuple[Model, Model | None],
    pairs: Int[np.ndarray, "m 2"],
    cue: MotionCue,
    refiner: MaskRefiner | None,
    plan: Plan,
    clip: Clip,
    flow: FlowFields | None,
    context: RunContext,
) -> tuple[Geometry, Motion]:
    """The pairwise geometry source: pointmaps of pairs, motion, and global alignment (SPEC 6)."""
    model, motion_model = models
    context.observe("motion model", motion_model or model)
    seen, motion = two_pass(
        motion_model or model, pairs, cue, plan, clip, flow, context, points=motion_model is None
    )
    context.observe("motion pass", seen)
    if motion_model is not None:
        seen = _predict(model, pairs, clip, plan, context, motion=motion)
    if not plan.bundle_adjustment:
        with context.stage("mask refinement"):
            motion = refine_masks(clip.images, motion, refiner, context.progress)
    context.observe("pass", seen)
    predictions = seen.predictions
    assert predictions is not None
    del seen  # nothing reads its tokens any more
    with context.stage("alignment"):
        geometry = align(
            predictions,
            dynamic=with_overlay(motion.excluded if motion.has_motion else None, clip),
            flow=flow if plan.flow_in_alignment else None, priors=_priors_of_alignment(plan, clip),
            options=plan.alignment.on(context.device), progress=context.progress,
        )  # fmt: skip
    return geometry, motion


def _priors_of_alignment(plan: Plan, clip: Clip) -> Priors:
    """Known values that the alignment keeps; where all cameras are known, flow places them later.

    See `dyn3r.bundle_adjustment.known_cameras`.
    """
    if plan.bundle_adjustment and known_throughout(plan.priors, clip.images.shape[:3]):
        return replace(plan.priors, T_world_camera=None, fix_T=False)
    return plan.priors


def views_geometry(
    model: Model,
    cue: MotionCue,
    refiner: MaskRefiner | None,
    plan: Plan,
    clip: Clip,
    flow: FlowFields | None,
    context: RunContext,
) -> tuple[Geometry, Motion]:
    """The many-view geometry source: all frames at once, then motion; a second pass for cameras."""
    estimate = partial(
        many_view_geometry, model, clip, priors=plan.priors, options=plan.alignment,
        kept=KeptStates() if plan.second_pass else None, progress=context.progress,
    )  # fmt: skip
    with context.stage("first pass"), pytorch_threads(workers()):
        geometry, attention = estimate(attention=plan.reads_attention)
    seen = Pass(clip, inverse_depth=relative_inverse(geometry.depth), attention=attention)
    context.observe("pass", seen)
    with context.stage("motion"):
        motion = cue.known or cue.detect(seen, flow, context)
    context.observe("motion", motion)
    if plan.second_pass and motion.has_motion:
        if plan.priors.T_world_camera is None:
            with context.stage("second pass"), pytorch_threads(workers()):
                static, _ = estimate(dynamic=motion.masks)
            geometry = with_cameras_of(geometry, static, motion.masks)
        if plan.cue == "attention":
            with context.stage("motion"):
                motion = without_static_clusters(motion, clip.images, geometry)
    if not plan.bundle_adjustment:
        with context.stage("mask refinement"):
            motion = refine_masks(clip.images, motion, refiner, context.progress)
    return geometry, motion


def two_pass(
    model: Model,
    pairs: Int[np.ndarray, "m 2"],
    cue: MotionCue,
    plan: Plan,
    clip: Clip,
    flow: FlowFields | None,
    context: RunContext,
    *,
    points: bool = True,
) -> tuple[Pass, Motion]:
    """Easi3R: predict all pairs, detect motion, predict again with dynamic tokens masked (SPEC 5).

    Known motion is masked in the first pass. Without a second pass the first one counts. `points`:
    whether pointmaps are wanted; else the model only finds motion.
    """
    if cue.known is not None:
        return _predict(model, pairs, clip, plan, context, motion=cue.known), cue.known
    # flow is judged by predicted depth
    heads = cue.reads_flow or (points and not plan.second_pass)
    first = _predict(model, pairs, clip, plan, context, heads=heads)
    context.observe("first pass", first)
    with context.stage("motion"):
        motion = cue.detect(first, flow, context)
    context.observe("motion", motion)
    if not plan.second_pass or not (points or cue.reads_attention):  # nothing would be read
        return first, motion
    second = _predict(
        model, pairs, clip, plan, context, motion=motion, heads=points, tokens=first.tokens
    )
    with context.stage("motion"):
        return second, cue.redetect(motion, second)


def _predict(
    model: Model,
    pairs: Int[np.ndarray, "m 2"],
    clip: Clip,
    plan: Plan,
    context: RunContext,
    *,
    motion: Motion | None = None,
    heads: bool = True,
    tokens: Tokens | None = None,
) -> Pass:
    """One pass over all pairs; static tokens ignore the dynamic tokens of `motion`."""
    stage = "first pass" if motion is None else "predicting points"
    stage = stage if tokens is None else "second pass"
    for_motion = motion is None or tokens is not None  # else the masks are final
    with context.stage(stage):
        tokens = tokens or encode_frames(model, clip, progress=context.progress)
        predictions = predict_pairs(
            model, clip, pairs, motion.masks if motion is not None and motion.has_motion else None,
            tokens=tokens, heads=heads, scores=plan.reads_attention and for_motion,
            options=plan.inference, progress=context.progress, stage=stage,
        )  # fmt: skip
    return Pass(clip, predictions, tokens)


def refine(
    clip: Clip,
    initial: Geometry,
    motion: Motion,
    flow: FlowFields,
    cue: MotionCue,
    refiner: MaskRefiner | None,
    plan: Plan,
    context: RunContext,
) -> tuple[Geometry, Motion]:
    """Alternate: cameras, focal length and depth given what is static; what is static given those.

    Every adjustment starts from the initial geometry, which is also its prior. The last one is
    calibrated; what is static with its cameras leaves the masks.
    """
    initial = with_known_cameras(
        initial, clip.images, flow, dynamic=motion.excluded, priors=plan.priors,
        device=context.device,
    )  # fmt: skip
    adjust = partial(
        bundle_adjust, initial, clip.images, flow, priors=plan.priors, progress=context.progress,
        device=context.device,
    )  # fmt: skip
    for _ in range(MAX_ROUNDS if cue.reads_geometry else 0):
        with context.stage("bundle adjustment"):
            refined = adjust(dynamic=motion.excluded)
        with context.stage("motion"):
            updated = cue.update(motion, clip, (initial, refined), flow, context)
        context.observe("motion depth", refined.depth)
        context.observe("motion", updated)
        before, motion = motion, updated
        if masks_converged(motion.masks, before.masks):
            break
    with context.stage("mask refinement"):
        motion = refine_masks(clip.images, motion, refiner, context.progress)
    with context.stage("bundle adjustment"):
        refined = adjust_with_stated_focal(
            initial, clip.images, flow, dynamic=motion.excluded, priors=plan.priors,
            progress=context.progress, device=context.device,
        )  # fmt: skip
    if cue.known is None:
        with context.stage("motion"):
            motion = without_static_components(motion, clip.images, refined, flow, context.device)
    fixed = plan.priors.fixes_depth(refined.depth.shape)
    if plan.ground_correction and is_rotation_only(refined) and not fixed.any():
        refined = correct_ground_tilt(refined, clip.images, motion.masks)
    return refined, motion


def dense_depth(
    clip: Clip, geometry: Geometry, motion: Motion, plan: Plan, context: RunContext
) -> Geometry:
    """Depth from all frames with the cameras found; moving objects on the ground they stand on."""
    masks = motion.masks if motion.has_motion else None
    if plan.multi_view_depth:
        with context.stage("multi-view depth"):
            geometry = multi_view_depth(
                geometry, clip.images, dynamic=masks, overlay=clip.overlay, priors=plan.priors,
                device=context.device, progress=context.progress,
            )  # fmt: skip
    if not plan.ground_contact or masks is None:
        return geometry
    fixed = plan.priors.fixes_depth(geometry.depth.shape)
    return replace(geometry, depth=snap_to_ground_contact(geometry.depth, masks, fixed))
