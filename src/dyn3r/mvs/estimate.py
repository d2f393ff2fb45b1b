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
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.mvs.depth_network import (
    FRAME_CHANNELS,
    MAX_LOG_INVERSE,
    MIN_LOG_INVERSE,
    DepthNetwork,
)
from dyn3r.mvs.plane_sweep import Sweep, SweepFrames, log_plane_spacing, plane_sweep
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
    the package. Sweeps and the network are computed on `device`; the ground contact of moving
    objects is found on the CPU.
    """
    network = (load_depth_network() if network is None else network).to(device)
    dynamic = np.zeros(images.shape[:3], bool) if dynamic is None else dynamic
    fixed = (priors or Priors()).fixes_depth(geometry.depth.shape)
    depth = geometry.depth.astype(np.float32)
    snapped = torch.from_numpy(snap_to_ground_contact(depth, dynamic, fixed)).to(device)
    if overlay is not None:
        dynamic = dynamic | overlay
    frames = SweepFrames(images, geometry.K, geometry.T_world_camera, depth, dynamic, device)
    found = torch.empty_like(frames.depth)

    @torch.no_grad()
    def estimate(i: int) -> None:
        sweep = plane_sweep(frames, i)
        inputs = frame_channels(frames, i, snapped[i], sweep)
        log_inverse_depth = network(inputs[None], sweep.channels[None])[0]
        log_inverse_depth = log_inverse_depth.clamp(MIN_LOG_INVERSE, MAX_LOG_INVERSE)
        found[i] = torch.exp(-log_inverse_depth) / sweep.max_inverse_depth

    progress(STAGE, 0, len(images))
    for i, _ in enumerate(ordered_map(estimate, range(len(images)), threads_on(device))):
        progress(STAGE, i + 1, len(images))
    out = found.cpu().numpy()
    if overlay is not None:
        out = inpaint_depth(out, np.broadcast_to(overlay, out.shape))
    return replace(geometry, depth=np.where(fixed, geometry.depth, out).astype(np.float32))


def frame_channels(
    frames: SweepFrames, i: int, snapped: Float[Tensor, "h w"], sweep: Sweep
) -> Float[Tensor, "9 h w"]:
    """Full-resolution input of the network for frame i, on the device of the frames.

    See `dyn3r.mvs.depth_network.FRAME_CHANNELS`. `snapped` is the depth with moving objects at
    their ground contact.
    """
    (h, w), K = frames.size_hw, frames.K[i]
    out = torch.empty(FRAME_CHANNELS, h, w, device=snapped.device)
    out[:3] = frames.images[i].permute(2, 0, 1) / 127.5 - 1
    out[3] = log_inverse(frames.depth[i] * sweep.max_inverse_depth)
    out[4] = log_inverse(snapped * sweep.max_inverse_depth)
    out[5] = frames.dynamic[i]
    columns, rows = (torch.arange(side, device=snapped.device) for side in (w, h))
    out[6] = (columns - float(K[0, 2])) / float(K[0, 0])
    out[7] = ((rows - float(K[1, 2])) / float(K[1, 1]))[:, None]
    out[8] = log_plane_spacing(sweep.plane_spacing_px)
    return out


def log_inverse(depth: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Log inverse depth within the range of the network; `depth` in units of the last plane."""
    return depth.clamp(min=1e-9).log().neg().clamp(MIN_LOG_INVERSE, MAX_LOG_INVERSE)


def load_depth_network(path: str | Path | None = None) -> DepthNetwork:
    """The network of the package, or one that `dyn3r.training.mvs_training` has trained.

    Raises CheckpointError for a file that does not hold such a network.
    """
    return load_small(DepthNetwork(), path, WEIGHTS, "depth network")
