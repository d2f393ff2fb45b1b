"""Augmentation of frames with evidence, for the training of the mask networks."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.motion.mask_network import PARTS

VELOCITY = slice(5, 7)
"""Channels of the evidence that hold a velocity (u, v)."""
LARGEST_ZOOM, LARGEST_TURN = 2.0, math.radians(12.0)
"""A part of the frame, at least half as wide, is enlarged and turned."""
NO_BACKGROUND = 0.1
"""Share of the frames whose background model, if there is one, has no evidence, as at run time."""


def augmented(
    images: Float[Tensor, "b 3 h w"],
    parts: Float[Tensor, "b p h w"],
    moving: Bool[Tensor, "b h w"],
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b p h w"], Float[Tensor, "b h w"]]:
    """Images (-1..1), evidence and masks after random changes of place, colour and speed.

    Each frame is mirrored, turned and enlarged, and its velocities with it. Red, green and blue
    change places, and colours and contrast vary.
    """
    b = len(images)
    images, parts, moving = _moved(images, parts, moving.float(), rng)
    for k in range(b):
        order = torch.from_numpy(rng.permutation(3))
        images[k] = images[k, order]
        if parts.shape[1] > PARTS:
            parts[k, PARTS + 3 :] = parts[k, PARTS + 3 :][order]
            if rng.random() < NO_BACKGROUND:
                parts[k, PARTS + 1 :] = 0
    colour, contrast, speed = (
        torch.from_numpy(values.astype(np.float32))
        for values in (
            rng.normal(0, 0.15, (b, 3, 1, 1)),
            rng.uniform(0.6, 1.3, (b, 1, 1, 1)),
            rng.uniform(0.6, 1.6, (b, 1, 1, 1)),
        )
    )
    parts[:, VELOCITY] *= speed
    return (images * contrast + colour).clamp(-1, 1), parts, moving


def _moved(
    images: Float[Tensor, "b 3 h w"],
    parts: Float[Tensor, "b p h w"],
    moving: Float[Tensor, "b h w"],
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b p h w"], Float[Tensor, "b h w"]]:
    """Mirror, turn and enlarge each frame about a random place."""
    b, (h, w) = len(images), images.shape[-2:]
    zoom = np.exp(rng.uniform(0, math.log(LARGEST_ZOOM), b))
    turn = rng.uniform(-LARGEST_TURN, LARGEST_TURN, b)
    sign = rng.choice((-1.0, 1.0), b)
    cos, sin = np.cos(turn), np.sin(turn)
    # A: offsets in pixels of the new frame to offsets in the old one; mirrored last
    A = np.array([[sign * cos, sign * -sin], [sin, cos]]).transpose(2, 0, 1) / zoom[:, None, None]
    free = (1 - 1 / zoom)[:, None]  # the part lies inside the frame, apart from turned corners
    centre = rng.uniform(-1, 1, (b, 2)) * free
    half = np.array([w, h]) / 2
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in (h, w)), indexing="ij")
    at = np.einsum("bij,hwj->bhwi", A, np.stack([x, y], -1) * half) / half + centre[:, None, None]
    grid = torch.from_numpy(at.astype(np.float32))
    every = torch.cat([images, parts, moving[:, None]], 1)
    every = grid_sample(every, grid, padding_mode="border", align_corners=False)
    images, parts, moving = every[:, :3], every[:, 3:-1].clone(), (every[:, -1] > 0.5).float()
    inverse = torch.from_numpy(np.linalg.inv(A).astype(np.float32))
    parts[:, VELOCITY] = torch.einsum("bij,bjhw->bihw", inverse, parts[:, VELOCITY])
    return images.clone(), parts, moving
