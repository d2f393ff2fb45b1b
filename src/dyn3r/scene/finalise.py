"""The last stage: uncertainty, rejected pixels, confidence and up describe the geometry that ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dyn3r.geometry.gravity import find_up
from dyn3r.scene.depth_uncertainty import final_judgement
from dyn3r.types import Clip, Geometry, RunContext


def finalise(
    geometry: Geometry, clip: Clip, dynamic: Bool[np.ndarray, "n h w"], context: RunContext
) -> Geometry:
    """Geometry with `sigma_log_depth`, `valid`, `confidence` and `up` of its own depth and cameras."""
    with context.stage("finalise"):
        depth = geometry.depth.astype(np.float32)
        final = final_judgement(depth, geometry.K, geometry.T_world_camera, dynamic, clip.images)
        up = find_up(
            clip.images, geometry.K, geometry.T_world_camera, depth, final.valid, dynamic,
            final.confidence,
        )  # fmt: skip
    return replace(
        geometry, depth=depth, sigma_log_depth=final.sigma_log_depth, valid=final.valid, confidence=final.confidence,
        up_world=up.up_world, ground_height=up.ground_height,
    )  # fmt: skip
