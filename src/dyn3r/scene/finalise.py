"""The last stage: uncertainty, fused depth, rejected pixels, confidence and up of the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dyn3r.geometry.gravity import find_up
from dyn3r.mvs.fusion import fuse_depth
from dyn3r.scene.depth_uncertainty import log_depth_sigma
from dyn3r.scene.visibility_rule import as_stored, visible
from dyn3r.types import Clip, Geometry, Progress, no_progress


def finalise(
    geometry: Geometry,
    clip: Clip,
    dynamic: Bool[np.ndarray, "n h w"],
    before: Geometry | None = None,
    *,
    fixed: Bool[np.ndarray, "n h w"] | None = None,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Geometry:
    """Geometry with `sigma_log_depth`, `valid`, `confidence` and up of its own depth and cameras.

    `before`: the geometry of the stage before multi-view depth; how far the two differ says how
    uncertain the depth is. With it depth is fused (`dyn3r.mvs.fusion`) after its uncertainty is
    known, except where it is `fixed`. `geometry.confidence` is the network's. Sigma and
    confidence are rounded to what a file in half precision holds, and the rule for `valid` reads
    depth rounded in the same way, so that it gives the same pixels again from the saved scene
    (`dyn3r.scene.visibility_rule.visible`). Confidence is 1 / sigma (20: known to 5 %).
    Overlays of the clip are not valid. Fusion computes on `device`.
    """
    depth = geometry.depth.astype(np.float32)
    cameras = geometry.K, geometry.T_world_camera
    sigma = as_stored(
        log_depth_sigma(
            depth, *cameras, dynamic,
            estimates=() if before is None else (before.depth.astype(np.float32),),
            network_confidence=geometry.confidence,
        )
    )  # fmt: skip
    if before is not None:
        fused = fuse_depth(depth, *cameras, dynamic, progress, device)
        depth = fused if fixed is None else np.where(fixed, depth, fused)
    valid = visible(depth, *cameras, dynamic, sigma)
    if clip.overlay is not None:
        valid &= ~clip.overlay
    confidence = as_stored(np.where(valid, 1 / sigma, 0))
    up = find_up(clip.images, *cameras, depth, valid, dynamic, confidence)
    return replace(
        geometry, depth=depth, sigma_log_depth=sigma, valid=valid, confidence=confidence,
        up_world=up.up_world, ground_height=up.ground_height,
    )  # fmt: skip
