"""Mask networks: motion masks predicted from flow evidence and the image (ours).

Evidence averaged over pairs covers objects in part, extends beyond their outlines and has typical
false positives; the image shows the outlines. A U-Net (Ronneberger et al. 2015) reads both, one
frame at a time, without depth and without categories. After bundle adjustment a second network also
reads the prediction of the first and the background model (`dyn3r.motion.background_model`).

Both are trained on the synthetic world, by `dyn3r.training.mask_training` and
`dyn3r.training.background_mask_training`; their weights are part of the package.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from dyn3r.io.devices import on_device
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.motion.background_model import BackgroundEvidence, smoothed
from dyn3r.network.small import load_small

PARTS = 7
"""Channels of `FlowEvidence.parts`."""
WIDTHS = (16, 32, 64, 96)
"""Channels at 1/2, 1/4, 1/8 and 1/16 of the frame."""
WEIGHTS = "motion-masks.safetensors"
"""File of the package with the first network's weights."""

BACKGROUND_PARTS = PARTS + 6
"""Channels of `background_mask_inputs`: also the first network's probability, the difference of
colours, whether that is known, and log ratios of red, green and blue to other frames."""
DARK = 10.0
"""Added to both sides of a ratio of colours (0..255), which says little for dark pixels."""
DIFFERENCE_SCALE = 3.0
"""Divisor of the logarithm of the colour difference, which brings it to about 0..2."""
BACKGROUND_WIDTHS = (24, 48, 96, 160)
"""As `WIDTHS`, for the network that reads the background model."""
BACKGROUND_WEIGHTS = "motion-masks-second-look.safetensors"
"""File of the package with the weights of the network that reads the background model."""

FRAMES_AT_ONCE = 4
"""Frames that a network takes together on an accelerator."""


class MaskNetwork(nn.Module):
    """U-Net from image and evidence to the logit that a pixel is dynamic. Sides: multiples of 16.

    parts: channels of evidence; widths: channels at 1/2, 1/4, 1/8 and 1/16 of the frame. Names of
    its layers are those of the weights files.
    """

    def __init__(self, parts: int = PARTS, widths: tuple[int, ...] = WIDTHS) -> None:
        """Make the layers with random weights."""
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
        """Logits from images (RGB, -1..1) and evidence."""
        x = inputs = torch.cat([images, parts], 1)
        levels = []
        for down, refine in zip(self.down, self.refine):
            x = relu(down(x))
            x = x + relu(refine(x))
            levels.append(x)
        x = x + self.whole(x.mean((2, 3)))[..., None, None]  # global context
        for up, finer in zip(reversed(self.up), reversed(levels[:-1])):
            x = relu(up(torch.cat([_double(x), finer], 1)))
        x = relu(self.last(torch.cat([_double(x), inputs], 1)))
        return self.out(x)[:, 0]


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def load_mask_network(path: str | Path | None = None) -> MaskNetwork:
    """Load the packaged network, or one trained by `dyn3r.training.mask_training`.

    Raises CheckpointError for a file without such a network.
    """
    return load_small(MaskNetwork(), path, WEIGHTS, "mask network")


def load_background_mask_network(path: str | Path | None = None) -> MaskNetwork:
    """Load the network that reads the background model, from the package or a file.

    Raises CheckpointError for a file without such a network.
    """
    network = MaskNetwork(BACKGROUND_PARTS, BACKGROUND_WIDTHS)
    return load_small(network, path, BACKGROUND_WEIGHTS, "mask network for the background model")


def background_mask_inputs(
    parts: Float[Tensor, "n 7 h w"],
    probability: Float[Tensor, "n h w"],
    images: UInt8[Tensor, "n h w 3"],
    background: BackgroundEvidence,
) -> Float32[Tensor, "n 13 h w"]:
    """Input of the second network, on the device of its parts.

    Evidence, probability of the first network (0..1), colour difference of the background model,
    and log ratios of its red, green and blue to this frame's. In a shadow the three ratios are
    equal.
    """
    known = background.color_difference.isfinite()[:, None]
    difference = background.color_difference[:, None].log1p() / DIFFERENCE_SCALE
    mine = torch.stack([smoothed(image) for image in images])
    brighter = ((background.colour.clamp(0, 255) + DARK) / (mine + DARK)).log()
    compared = [torch.where(known, x, 0) for x in (difference, brighter)]
    more = [probability[:, None], compared[0], known, compared[1]]
    return torch.cat([x.float() for x in (parts, *more)], 1)


def prepare(
    images: UInt8[np.ndarray, "n h w 3"],
    parts: Float[np.ndarray, "n p h w"] | Float[Tensor, "n p h w"],
    device: str = "cpu",
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n p h w"]]:
    """Images (RGB, -1..1) and evidence as float32 tensors on the device, converted there."""
    pictures = on_device(images, device)
    scaled = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    evidence = on_device(parts, device) if isinstance(parts, np.ndarray) else parts.to(device)
    return scaled, evidence.float()


def mask_probability(
    network: MaskNetwork,
    images: UInt8[np.ndarray, "n h w 3"],
    parts: Float[np.ndarray, "n p h w"]
    | Float[Tensor, "n p h w"]
    | Callable[[slice], Float[Tensor, "k p h w"]],
    batch: int | None = None,
    device: str = "cpu",
) -> Float[np.ndarray, "n h w"]:
    """Probability that each pixel is dynamic, 0..1; `batch` frames at once on each thread.

    None: one on a CPU, where more take memory and no less time, and FRAMES_AT_ONCE elsewhere.
    `parts`: evidence of all frames, an array or on the device, or a function that makes it for some
    of them. The network is moved to `device`.
    """
    of = parts if callable(parts) else parts.__getitem__
    step = batch or (1 if torch.device(device).type == "cpu" else FRAMES_AT_ONCE)
    network = network.to(device)
    found = torch.empty(images.shape[:3], device=device)

    @torch.no_grad()
    def predict(start: int) -> None:
        rows = slice(start, start + step)
        found[rows] = network(*prepare(images[rows], of(rows), device)).sigmoid()

    for _ in ordered_map(predict, range(0, len(images), step), threads_on(device)):
        pass
    return np.asarray(found.cpu().numpy())
