"""Clips for the training of the multi-view depth network: its input and the true depth."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn.functional import interpolate

from dyn3r.errors import GeometryError
from dyn3r.geometry.ground_contact import snap_to_ground_contact
from dyn3r.mvs.depth_network import MIN_LOG_INVERSE
from dyn3r.mvs.estimate import frame_channels, log_inverse
from dyn3r.mvs.plane_sweep import Sweep, SweepFrames, plane_sweep
from dyn3r.network.model import Model
from dyn3r.training.clip_cache import BASELINES, Clip, images_of, world_factory, write_clips
from dyn3r.training.mask_clips import perturbed_inverse_depth

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import World

logger = logging.getLogger(__name__)

LONG_BASELINES = (0.5, 0.75, 1.0)
"""Largest camera distances of perturbed clips in turn; see `WorldOptions.max_baseline`."""
EMPTY_MASKS = 0.15
"""Share of perturbed clips with empty masks."""
ROTATION_NOISE, POSITION_NOISE = 1e-3, 0.02
"""Largest standard deviations of perturbed cameras: radians, and share of the path."""
MIN_SPACING_PX = 0.2
"""Plane spacing in pixels below which a sweep does not confirm depth."""
CONFIRMED_LOG_DEPTH = 0.1
"""Log depth difference below which a sweep confirms depth."""


@dataclass(frozen=True)
class DepthTraining:
    """Options that determine a run."""

    reconstructed: int = 400
    """Number of clips that are reconstructed as in a run (8 s each)."""
    perturbed: int = 800
    """Number of clips with perturbed true cameras and depth (2 s each), on longer paths. Every
    seventeenth of all clips is held out."""
    frames: int = 10
    """Frames per clip."""
    sizes_hw: tuple[tuple[int, int], ...] = ((160, 224), (128, 224), (176, 224), (224, 160))
    """Frame sizes, taken in turn."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 8
    """Frames per step, all of one size."""
    learning_rate: float = 2e-3
    """Peak of the cosine."""
    start: str | None = None
    """Weights of an earlier run to start from."""
    photos: str | None = None
    """Folder of photographs for textures."""
    seed: int = 4711
    """Seed of scenes and weights."""


def reconstructed_clip(index: int, world: World, model: Model) -> Clip:
    """Render and reconstruct one clip; network input and true depth.

    Raises GeometryError where nothing can be reconstructed.
    """
    from dyn3r.io.clip import clip_from_images
    from dyn3r.options import Options, RefinementOptions
    from dyn3r.pipeline import reconstruct

    sample = world.sample(1, index, with_flow=False)
    images = images_of(sample)
    clip = clip_from_images(list(images), size=max(images.shape[1:3]))
    # the geometry that the network receives in a run
    refinement = RefinementOptions(multi_view_depth=False, ground_contact=False)
    scene = reconstruct(clip, model, Options(refinement=refinement))
    return training_sample(
        {
            "images": images, "depth": scene.depth, "dynamic": scene.dynamic, "K": scene.K,
            "T": scene.T_world_camera, "true_depth": sample.depth[0].numpy(),
            "moving": sample.moving[0].numpy(),
        }
    )  # fmt: skip


def perturbed_clip(index: int, options: DepthTraining, world: World) -> Clip:
    """Render one clip and perturb the truth; network input and true depth.

    Cameras are noisy; depth is blurred, noisy and without moving objects; masks are too large, too
    small or empty.
    """
    rng = np.random.default_rng((options.seed, index))
    sample = world.sample(1, index, with_flow=False)
    true, moving = sample.depth[0].numpy(), sample.moving[0].numpy()
    depth = 1 / perturbed_inverse_depth(true, moving, rng)
    static = (true > 0) & ~moving
    if static.any():
        depth *= float(np.median(true[static] / depth[static]))
    dynamic = _perturbed_masks(moving, rng)
    T = sample.T_world_camera[0].numpy().astype(np.float64)
    path = np.linalg.norm(T[:, :3, 3] - T[0, :3, 3], axis=1).max()
    scale = rng.random()
    rotation = Rotation.from_rotvec(rng.normal(0, scale * ROTATION_NOISE, (len(T), 3)))
    T[:, :3, :3] = T[:, :3, :3] @ rotation.as_matrix()
    T[:, :3, 3] += rng.normal(0, scale * POSITION_NOISE * path, (len(T), 3))
    return training_sample(
        {
            "images": images_of(sample), "dynamic": dynamic, "T": T,
            "depth": depth.astype(np.float32), "K": sample.K[0].numpy().astype(np.float64),
            "true_depth": true, "moving": moving,
        }
    )  # fmt: skip


def _perturbed_masks(moving: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dilate or erode masks (n, h, w) by up to 3 pixels, or empty all of them."""
    import cv2

    rim = int(rng.integers(-3, 4))
    kernel = np.ones((2 * abs(rim) + 1,) * 2, np.uint8)
    change = cv2.dilate if rim > 0 else cv2.erode
    masks = np.stack([change(mask.astype(np.uint8), kernel) > 0 for mask in moving])
    return np.asarray(masks & (rng.random() > EMPTY_MASKS))


def training_sample(found: Clip) -> Clip:
    """Compute network input and target, log inverse depth in sweep units, of a clip.

    found: images (n,h,w,3), depth and dynamic (n,h,w), K, T (world from camera), and the truth:
    true_depth in metres (0: sky) and moving (n,h,w).
    """
    depth, dynamic, K, T = (found[name] for name in ("depth", "dynamic", "K", "T"))
    clip = SweepFrames(found["images"], K, T, depth, dynamic)
    sweeps = [plane_sweep(clip, i) for i in range(len(depth))]
    snapped = torch.from_numpy(snap_to_ground_contact(depth, dynamic).astype(np.float32))
    unit = units_per_metre(found, sweeps)
    frames, targets = [], []
    for i, sweep in enumerate(sweeps):
        channels = frame_channels(clip, i, snapped[i], sweep)
        frames.append(channels.numpy().astype(np.float16))
        true = torch.from_numpy(found["true_depth"][i] * unit * sweep.max_inverse_depth)
        target = torch.where(true > 0, log_inverse(true), MIN_LOG_INVERSE)
        targets.append(target.numpy().astype(np.float16))
    costs = [(sweep.channels * 255).round().to(torch.uint8).numpy() for sweep in sweeps]
    return {
        "frame": np.stack(frames),
        "sweep": np.stack(costs),
        "true": np.stack(targets),
        "moving": found["moving"],
    }


def units_per_metre(found: Clip, sweeps: list[Sweep]) -> float:
    """Compute the scale of the reconstruction: its units of length per metre.

    The median ratio of depth over static pixels that the sweeps confirm, or over all static pixels
    if few are confirmed. The baseline is not used: with a wrong focal length it fits other depths.
    """
    depth, true = found["depth"], found["true_depth"]
    static = (true > 0) & ~found["moving"]
    static = static if static.any() else true > 0
    confirmed = np.zeros_like(static)
    for i, sweep in enumerate(sweeps):
        if sweep.plane_spacing_px > MIN_SPACING_PX:
            best = interpolate(sweep.channels[None, -2:-1], depth.shape[1:], mode="bilinear")
            difference = np.log(best[0, 0].numpy() * sweep.max_inverse_depth * depth[i] + 1e-9)
            confirmed[i] = np.abs(difference) < CONFIRMED_LOG_DEPTH
    if (confirmed & static).mean() > 0.05:
        static &= confirmed
    return float(np.median(depth[static] / true[static]))


def render_clips(
    folder: Path, options: DepthTraining, model: Model, first: int = 0, stride: int = 1
) -> None:
    """Write missing clips to FOLDER/clips/*.npz; several processes may share the folder."""
    world_of = world_factory(
        options.sizes_hw, options.seed, frames=options.frames, photos=options.photos
    )

    def render(index: int) -> Clip | None:
        if index >= options.reconstructed:
            return perturbed_clip(index, options, world_of(index, LONG_BASELINES))
        try:
            return reconstructed_clip(index, world_of(index, BASELINES), model)
        except GeometryError as problem:
            logger.info("clip %d left out: %s", index + 1, problem)
            return None

    write_clips(folder, options.reconstructed + options.perturbed, render, first, stride)
