"""Multi-view depth of every frame with the cameras fixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dyn3r.geometry.ground_contact import snap_to_ground_contact
from dyn3r.geometry.inpainting import inpaint_depth
from dyn3r.io.workers import ordered_map
from dyn3r.mvs.depth_network import (
    FRAME_CHANNELS,
    MAX_LOG_INVERSE,
    MIN_LOG_INVERSE,
    DepthNetwork,
)
from dyn3r.mvs.plane_sweep import Sweep, SweepFeatures, log_plane_spacing, plane_sweep
from dyn3r.network.small import load_small
from dyn3r.types import Geometry, Priors, Progress, no_progress

WEIGHTS = "multi-view-depth.safetensors"
"""File of the network in the package."""
STAGE = "multi-view depth"
"""Name of the stage in progress reports."""


def multi_view_depth(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    overlay: Bool[np.ndarray, "h w"] | None = None,
    priors: Priors | None = None,
    network: DepthNetwork | None = None,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Geometry:
    """The geometry with depth re-estimated from several frames; cameras stay.

    Every frame is compared with others by a plane sweep (`dyn3r.mvs.plane_sweep`). A small network
    estimates depth from the matching costs, the depth before and the image. `dynamic` pixels and
    those of an `overlay`, which is part of no surface, are not compared; what the overlay hides is
    as far away as what is beside it. Depth that `priors` fix is kept. `network` replaces that of
    the package; it is moved to `device`. Sweeps are computed on the CPU.
    """
    network = (load_depth_network() if network is None else network).to(device)
    dynamic = np.zeros(images.shape[:3], bool) if dynamic is None else dynamic
    fixed = (priors or Priors()).fixes_depth(geometry.depth.shape)
    depth = geometry.depth.astype(np.float32)
    snapped = snap_to_ground_contact(depth, dynamic, fixed)
    if overlay is not None:
        dynamic = dynamic | overlay
    features = SweepFeatures(images)
    out = np.empty_like(depth)

    def swept(i: int) -> Sweep:
        return plane_sweep(features, i, geometry.K, geometry.T_world_camera, depth, dynamic)

    with torch.inference_mode():
        for i, sweep in enumerate(ordered_map(swept, range(len(images)))):
            progress(STAGE, i, len(images))
            frame = frame_channels(
                images[i], depth[i], snapped[i], dynamic[i], geometry.K[i], sweep
            )
            channels = sweep.channels[None].to(device)
            log_inverse_depth = network(frame[None].to(device), channels)[0]
            log_inverse_depth = log_inverse_depth.clamp(MIN_LOG_INVERSE, MAX_LOG_INVERSE)
            found = torch.exp(-log_inverse_depth) / sweep.max_inverse_depth
            out[i] = found.cpu().numpy()
    progress(STAGE, len(images), len(images))
    if overlay is not None:
        out = inpaint_depth(out, np.broadcast_to(overlay, out.shape))
    return replace(geometry, depth=np.where(fixed, geometry.depth, out).astype(np.float32))


def frame_channels(
    image: UInt8[np.ndarray, "h w 3"],
    depth: Float[np.ndarray, "h w"],
    snapped: Float[np.ndarray, "h w"],
    dynamic: Bool[np.ndarray, "h w"],
    K: Float[np.ndarray, "3 3"],
    sweep: Sweep,
) -> Float[Tensor, "9 h w"]:
    """Full-resolution input of the network; see `dyn3r.mvs.depth_network.FRAME_CHANNELS`.

    `snapped` is the depth with moving objects at their ground contact.
    """
    h, w = depth.shape
    out = np.empty((FRAME_CHANNELS, h, w), np.float32)
    out[:3] = image.transpose(2, 0, 1) / np.float32(127.5) - 1
    out[3] = log_inverse(depth * sweep.max_inverse_depth)
    out[4] = log_inverse(snapped * sweep.max_inverse_depth)
    out[5] = dynamic
    out[6] = (np.arange(w) - K[0, 2]) / K[0, 0]
    out[7] = ((np.arange(h) - K[1, 2]) / K[1, 1])[:, None]
    out[8] = log_plane_spacing(sweep.plane_spacing_px)
    return torch.from_numpy(out)


def log_inverse(depth: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Log inverse depth within the range of the network; `depth` in units of the last plane."""
    return np.asarray(np.clip(-np.log(np.maximum(depth, 1e-9)), MIN_LOG_INVERSE, MAX_LOG_INVERSE))


def load_depth_network(path: str | Path | None = None) -> DepthNetwork:
    """The network of the package, or one that `dyn3r.training.mvs_training` has trained.

    Raises CheckpointError for a file that does not hold such a network.
    """
    return load_small(DepthNetwork(), path, WEIGHTS, "depth network")
