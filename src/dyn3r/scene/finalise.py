"""The last stage: uncertainty, fused depth, rejected pixels, confidence and up of the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32

from dyn3r.geometry.gravity import find_up
from dyn3r.io.devices import on_device
from dyn3r.mvs.fusion import fuse_depth
from dyn3r.scene.compared_depth import ComparedDepth, stored, visible
from dyn3r.scene.depth_uncertainty import Stage, log_depth_sigma, stage_fit
from dyn3r.scene.visibility_rule import as_stored
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
    (`dyn3r.scene.compared_depth.visible`). Confidence is 1 / sigma (20: known to 5 %).
    Overlays of the clip are not valid. All but up is computed
    on `device`: depth of both stages, masks and confidence go there once, the result comes back.
    """
    cameras = geometry.K, geometry.T_world_camera
    depth, moving = geometry.depth.astype(np.float32), on_device(dynamic, device)
    final = on_device(depth, device)
    network = geometry.confidence
    uncertain = log_depth_sigma(
        ComparedDepth(final, moving, *cameras),
        None if before is None else _stage(depth, before, dynamic, device),
        None if network is None else on_device(network.astype(np.float32), device),
    )
    if before is not None:
        fused = fuse_depth(final, *cameras, moving, progress)
        final = fused if fixed is None else torch.where(on_device(fixed, device), final, fused)
    rated = stored(uncertain)
    kept = visible(ComparedDepth(final, moving, *cameras), rated)
    depth, sigma, valid = (x.cpu().numpy() for x in (final, rated, kept))
    if clip.overlay is not None:
        valid &= ~clip.overlay
    confidence = as_stored(np.where(valid, 1 / sigma, 0))
    up = find_up(clip.images, *cameras, depth, valid, dynamic, confidence)
    return replace(
        geometry, depth=depth, sigma_log_depth=sigma, valid=valid, confidence=confidence,
        up_world=up.up_world, ground_height=up.ground_height,
    )  # fmt: skip


def _stage(
    depth: Float32[np.ndarray, "n h w"],
    before: Geometry,
    dynamic: Bool[np.ndarray, "n h w"],
    device: str,
) -> Stage | None:
    """The stage before, on the device; None if nothing static is known in both."""
    earlier = before.depth.astype(np.float32)
    fit = stage_fit(depth, earlier, dynamic)
    return None if fit is None else Stage(on_device(earlier, device), *fit)
