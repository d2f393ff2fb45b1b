"""Depth of every pixel from all frames at once, the cameras held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dyn3r.geometry.ground_contact import stand_on_ground
from dyn3r.mvs.depth_network import FARTHEST, NEAREST, DepthNetwork
from dyn3r.mvs.plane_sweep import Sweep, SweepFeatures, log_step, plane_sweep
from dyn3r.network.small import load_small
from dyn3r.types import Geometry, Priors, Progress, no_progress

WEIGHTS = "multi-view-depth.safetensors"
STAGE = "multi-view depth"


def multi_view_depth(
    alignment: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    *,
    moving: Bool[np.ndarray, "n h w"] | None = None,
    priors: Priors | None = None,
    network: DepthNetwork | None = None,
    progress: Progress = no_progress,
) -> Geometry:
    """The alignment with depth drawn anew: cameras and intrinsics stay.

    Every frame is compared with others on a set of planes (`dyn3r.mvs.plane_sweep`); a small network
    draws depth from that, the depth before and the picture. `moving`: what moves, which other
    frames say nothing about. Depth that `priors` hold is held. `network`: another than the
    package's.
    """
    network = load_depth_network() if network is None else network
    moving = np.zeros(images.shape[:3], bool) if moving is None else moving
    known = (priors or Priors()).fixes_depth(alignment.depth.shape)
    depth = alignment.depth.astype(np.float32)
    standing = stand_on_ground(depth, moving, known)
    features = SweepFeatures(images)
    out = np.empty_like(depth)
    with torch.inference_mode():
        for i in range(len(images)):
            progress(STAGE, i, len(images))
            sweep = plane_sweep(features, i, alignment.K, alignment.T_world_camera, depth, moving)
            frame = frame_channels(
                images[i], depth[i], standing[i], moving[i], alignment.K[i], sweep
            )
            log = network(frame[None], sweep.channels[None])[0].clamp(FARTHEST, NEAREST)
            out[i] = (torch.exp(-log) / sweep.nearest).numpy()
    progress(STAGE, len(images), len(images))
    return replace(alignment, depth=np.where(known, alignment.depth, out).astype(np.float32))


def frame_channels(
    image: UInt8[np.ndarray, "h w 3"],
    depth: Float[np.ndarray, "h w"],
    standing: Float[np.ndarray, "h w"],
    moving: Bool[np.ndarray, "h w"],
    K: Float[np.ndarray, "3 3"],
    sweep: Sweep,
) -> Float[Tensor, "9 h w"]:
    """What the network reads at full resolution; see `dyn3r.mvs.depth_network.FRAME`."""
    h, w = depth.shape
    out = np.empty((9, h, w), np.float32)
    out[:3] = image.transpose(2, 0, 1) / np.float32(127.5) - 1
    out[3] = log_inverse(depth * sweep.nearest)
    out[4] = log_inverse(standing * sweep.nearest)
    out[5] = moving
    out[6] = (np.arange(w) - K[0, 2]) / K[0, 0]
    out[7] = ((np.arange(h) - K[1, 2]) / K[1, 1])[:, None]
    out[8] = log_step(sweep.step_px)
    return torch.from_numpy(out)


def log_inverse(depth: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Log inverse depth, within what the network can say; `depth` in units of the last plane's."""
    return np.clip(-np.log(np.maximum(depth, 1e-9)), FARTHEST, NEAREST)


def load_depth_network(path: str | Path | None = None) -> DepthNetwork:
    """The network inside the package, or one that was trained by `dyn3r.training.mvs_training`.

    Raises CheckpointError for a file that is no such network.
    """
    return load_small(DepthNetwork(), path, WEIGHTS, "depth network")
