"""A Scene from what the stages found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dyn3r.motion.probability import agreeing
from dyn3r.scene.scene import Scene
from dyn3r.types import Clip, Geometry, Motion, RunContext, package_version


def assemble(
    clip: Clip, geometry: Geometry, motion: Motion, about: Mapping[str, Any], context: RunContext
) -> Scene:
    """The Scene of a clip; `about` (models, plan, pairs) becomes part of its metadata."""
    context.observe("motion", motion)
    estimated = about["plan"]["cue"] != "none"
    notes = [f"motion: {motion.reason}"] if estimated else []
    notes += [] if motion.refinement is None else [motion.refinement]
    if clip.cuts:
        notes.append(
            f"{len(clip.cuts) + 1} shots in one world: their places and scales are guesses"
        )
    metadata = {
        "dyn3r_version": package_version(),
        "source": clip.source,
        **about,
        "seconds": {stage: round(value, 2) for stage, value in context.seconds.items()},
        "objective": {name: float(value) for name, value in geometry.diagnostics.terms.items()},
        "input": clip.report.to_json(),
        "notes": [*notes, *geometry.diagnostics.notes],
    }
    return scene_of(
        clip, geometry, motion, metadata,
        sigma_log_depth=geometry.sigma_log_depth, ground_height=geometry.ground_height,
        frame_quality=geometry.frame_quality,
        dynamic_map=motion.dynamic_map.astype(np.float32) if estimated else None,
    )  # fmt: skip


def scene_of(
    clip: Clip, geometry: Geometry, motion: Motion, metadata: dict[str, Any], **more: Any
) -> Scene:
    """A Scene with depth, cameras and masks; `more`: further fields of the Scene."""
    return Scene(
        images=clip.images,
        depth=geometry.depth.astype(np.float32),
        confidence=geometry.confidence.astype(np.float32),
        dynamic=motion.masks,
        dynamic_probability=agreeing(motion.probability, motion.masks),
        K=geometry.K,
        T_world_camera=geometry.T_world_camera,
        mapping=clip.mapping,
        names=clip.names,
        times_s=clip.times_s,
        fps=clip.fps,
        metadata=metadata,
        up_world=geometry.up_world,
        **more,
    )
