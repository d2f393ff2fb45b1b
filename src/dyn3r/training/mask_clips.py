"""Clips for the training of the mask networks: frames, flow evidence and true masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import interpolate

from dyn3r.training.clip_cache import BASELINES, Clip, images_of, world_factory, write_clips

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import World


@dataclass(frozen=True)
class MaskTraining:
    """Options that determine a run."""

    clips: int = 400
    """Number of clips; every seventeenth is held out."""
    frames: int = 12
    """Frames per clip."""
    following_share: float = 0.45
    """Share of clips with motion whose camera follows an object."""
    sizes_hw: tuple[tuple[int, int], ...] = ((112, 224), (160, 224), (224, 128))
    """Frame sizes, taken in turn: 16:9, 4:3 and portrait at the embedded model's long side."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 12
    """Frames per step, all of one size."""
    learning_rate: float = 2e-3
    """Peak of the cosine."""
    start: str | None = None
    """Weights of an earlier run to start from; None: random weights."""
    photos: str | None = None
    """Folder of photographs for textures."""
    seed: int = 77
    """Seed of scenes, perturbations and weights."""


def render_clip(index: int, options: MaskTraining, world: World) -> Clip:
    """Render one clip: frames, flow evidence and true masks."""
    from dyn3r.flow import flow_estimator
    from dyn3r.flow.fields import measure_flow
    from dyn3r.motion.cue import REFINED_DEPTH_TOLERANCE
    from dyn3r.motion.flow_residual import flow_evidence
    from dyn3r.motion.options import FlowCueOptions
    from dyn3r.network.pair_graph import make_pairs

    sample = world.sample(1, index, with_flow=False)
    images = images_of(sample)
    moving, depth = sample.moving[0].numpy(), sample.depth[0].numpy()
    edges = make_pairs("swinstride-5-noncyclic", len(images))
    flow = measure_flow(images, edges, flow_estimator("aligned-dis"))
    rng = np.random.default_rng((options.seed, index))
    inverse = perturbed_inverse_depth(depth, moving, rng)
    # evidence only: the network that would refine it is the one to be trained
    cue = FlowCueOptions(masks="evidence", depth_tolerance=REFINED_DEPTH_TOLERANCE)
    evidence = flow_evidence(None, images, flow, inverse_depth=inverse, options=cue)
    assert evidence.parts is not None
    return {"images": images, "parts": evidence.parts.astype(np.float16), "moving": moving}


def perturbed_inverse_depth(
    depth: Float[np.ndarray, "n h w"], moving: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "n h w"]:
    """Perturb depth as bundle adjustment leaves it; inverse depth with median 1."""
    log = perturbed_log_inverse_depth(
        depth, moving, rng, blur_px=(1.0, 8.0), noise_sigma=(0.02, 0.3)
    )
    inverse = np.exp(log)
    return np.asarray(inverse / np.median(inverse), dtype=np.float64)


def perturbed_log_inverse_depth(
    depth: Float[np.ndarray, "n h w"],
    moving: np.ndarray,
    rng: np.random.Generator,
    *,
    blur_px: tuple[float, float],
    noise_sigma: tuple[float, float],
) -> Float[np.ndarray, "n h w"]:
    """Perturb depth and return the logarithm of its inverse.

    Moving objects are filled with the nearest static pixel; then log inverse depth is blurred, and
    smooth noise is added. blur_px, noise_sigma: ranges of the blur and of the standard deviation of
    log inverse depth, sampled once per clip. Depth 0 is very far. A frame that moves everywhere has
    constant depth.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    h, w = depth.shape[1:]
    known = depth > 0
    far = np.where(known, depth, depth[~moving].max(initial=0) * 3 + 1e-6)
    log, blur = -np.log(far), math.exp(rng.uniform(*np.log(blur_px)))
    sigma = math.exp(rng.uniform(*np.log(noise_sigma)))
    out = np.empty_like(log)
    for t in range(len(depth)):
        nearest = distance_transform_edt(moving[t], return_distances=False, return_indices=True)
        filled = np.zeros((h, w)) if moving[t].all() else log[t][tuple(nearest)]
        smooth = cv2.GaussianBlur(filled.astype(np.float32), (0, 0), blur)
        noise = torch.from_numpy(rng.normal(0, sigma, (1, 1, 4, 5)).astype(np.float32))
        out[t] = smooth + interpolate(noise, (h, w), mode="bicubic")[0, 0].numpy()
    return out


def clip_worlds(options: MaskTraining) -> Callable[[int], World]:
    """Return a function that maps the index of a clip to its world."""
    world_of = world_factory(
        options.sizes_hw, options.seed, frames=options.frames, photos=options.photos,
        dynamic_share=0.85, following_share=options.following_share,
    )  # fmt: skip
    return lambda index: world_of(index, BASELINES)


def render_clips(folder: Path, options: MaskTraining, first: int = 0, stride: int = 1) -> None:
    """Write missing clips to FOLDER/clips/*.npz; several processes may share the folder."""
    world_of = clip_worlds(options)

    def render(index: int) -> Clip:
        return render_clip(index, options, world_of(index))

    write_clips(folder, options.clips, render, first, stride)
