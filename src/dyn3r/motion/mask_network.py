"""A small network that draws masks from the evidence of optical flow and the picture (ours).

Evidence that is averaged over pairs knows parts of a body, bleeds over its rim, and has false
alarms of a kind; where bodies end the picture shows. A U-Net (Ronneberger et al. 2015) reads both.
It sees no depth, no category and one frame at a time; what moves is the evidence's to say.
Once cameras are known, a second one also reads what the first said and how unlike other frames
each pixel looks (`dyn3r.motion.background_model`). They are trained on the synthetic world by
`dyn3r.training.mask_training` and `dyn3r.training.background_mask_training`; their weights are part of the package.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from dyn3r.motion.background_model import OtherFrames, smoothed
from dyn3r.network.small import load_small

PARTS = 7
"""Channels of `FlowEvidence.parts`."""
WIDTHS = (16, 32, 64, 96)
"""Channels at 1/2, 1/4, 1/8 and 1/16 of the frame."""
WEIGHTS = "motion-masks.safetensors"

SECOND_PARTS = PARTS + 6
"""With what the first network said, unlikeness, whether that is known, and by how much brighter
red, green and blue are in other frames."""
DARK = 10.0
"""Grey levels below which a ratio of colours says little."""
SECOND_WIDTHS = (24, 48, 96, 160)
"""As `WIDTHS`, for the second look."""
SECOND_WEIGHTS = "motion-masks-second-look.safetensors"


class MaskNetwork(nn.Module):
    """Frames and evidence in, logits of "this moves" out. Sides must be multiples of 16.

    parts: channels of evidence; widths: channels at 1/2, 1/4, 1/8 and 1/16 of the frame.
    """

    def __init__(self, parts: int = PARTS, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        channels = (3 + parts, *widths)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(channels, widths)
        )
        self.refine = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths)
        self.up = nn.ModuleList(
            nn.Conv2d(coarse + fine, fine, 3, padding=1)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.whole = nn.Linear(widths[-1], widths[-1])
        self.last = nn.Conv2d(widths[0] + 3 + parts, widths[0], 3, padding=1)
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(
        self, images: Float[Tensor, "b 3 h w"], parts: Float[Tensor, "b p h w"]
    ) -> Float[Tensor, "b h w"]:
        """images: -1..1."""
        x = seen = torch.cat([images, parts], 1)
        levels = []
        for down, refine in zip(self.down, self.refine):
            x = relu(down(x))
            x = x + relu(refine(x))
            levels.append(x)
        x = x + self.whole(x.mean((2, 3)))[..., None, None]  # how the whole frame looks
        for up, finer in zip(reversed(self.up), reversed(levels[:-1])):
            x = relu(up(torch.cat([_double(x), finer], 1)))
        x = relu(self.last(torch.cat([_double(x), seen], 1)))
        return self.out(x)[:, 0]


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def load_mask_network(path: str | Path | None = None) -> MaskNetwork:
    """The network inside the package, or one that was trained by `dyn3r.training.mask_training`.

    Raises CheckpointError for a file that is no such network.
    """
    return load_small(MaskNetwork(), path, WEIGHTS, "mask network")


def load_second_network(path: str | Path | None = None) -> MaskNetwork:
    """The network for the second look, from the package or a file.

    Raises CheckpointError for a file that is no such network.
    """
    network = MaskNetwork(SECOND_PARTS, SECOND_WIDTHS)
    return load_small(network, path, SECOND_WEIGHTS, "mask network for the second look")


def second_parts(
    parts: Float[np.ndarray, "n 7 h w"],
    probability: Float[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    others: OtherFrames,
) -> Float[np.ndarray, "n 13 h w"]:
    """What the second network reads: evidence, what the first one made of it (0..1), and what
    `other_frames` says: how unlike they are, and the logarithm of what red, green and blue are
    there over what they are here. In a shadow the three are alike, and follow no outline of the
    place."""
    known = np.isfinite(others.unlike)
    difference = np.log1p(np.where(known, others.unlike, 0)) / 3
    mine = np.stack([smoothed(image) for image in images])
    brighter = np.log((others.colour.clip(0, 255) + DARK) / (mine + DARK))
    brighter = np.where(known[..., None], brighter, 0).transpose(0, 3, 1, 2)
    more = np.stack([probability, np.where(known, difference, 0), known], axis=1)
    return np.concatenate([parts, more, brighter], axis=1, dtype=np.float32, casting="unsafe")


def prepare(
    images: UInt8[np.ndarray, "n h w 3"], parts: Float[np.ndarray, "n p h w"]
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n p h w"]]:
    """What the network reads."""
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures, torch.from_numpy(np.ascontiguousarray(parts, dtype=np.float32))


def mask_probability(
    network: MaskNetwork,
    images: UInt8[np.ndarray, "n h w 3"],
    parts: Float[np.ndarray, "n p h w"],
    batch: int = 8,
) -> Float[np.ndarray, "n h w"]:
    """How likely each pixel moves, 0..1, frame by frame."""
    out = np.empty((len(images), *images.shape[1:3]), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            rows = slice(start, start + batch)
            out[rows] = network(*prepare(images[rows], parts[rows])).sigmoid().numpy()
    return out
