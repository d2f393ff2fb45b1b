"""Optical flow by our network, with visibility and the covariance of its errors."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import pad

from dyn3r.flow.aligned import AlignedFlow
from dyn3r.flow.estimator import MeasuredFlow, check_images, flow_of_pair
from dyn3r.flow.network import CELL, FlowNetwork, FlowPrediction, FrameFeatures
from dyn3r.network.small import load_small

WEIGHTS = "flow.safetensors"
"""File with the weights, in the package and in the folder of a training run."""
MIN_SIDE = 32
"""Shortest side in pixels that the network takes; smaller frames are padded."""
FRAMES_KEPT = 64
"""Frames whose features are kept: those of a pair are mostly near each other in time."""
PIXELS_AT_ONCE = 4 * 128 * 224
"""Pixels of the pairs that are processed at once. Source: run time and memory on a CPU."""
NORMAL_SCALE = 1.6783 / 1.1774
"""Standard error of a normal distribution whose median error is that of the bivariate Laplace
distribution of unit scale: the median of |W e| is 1.6783 (Gamma(2, 1)) instead of 1.1774."""


def load_flow_network(path: str | Path | None = None) -> FlowNetwork:
    """The network of the package, or one that `dyn3r train flow` has trained.

    Raises CheckpointError for a file that does not hold such a network.
    """
    return load_small(FlowNetwork(), path, WEIGHTS, "flow network")


@dataclass(frozen=True)
class CompactFlow:
    """Flow by aligned dense inverse search, corrected by our network.

    It says where a point is seen in the other frame, and how far off its flow may be in each
    direction. The weights are loaded with the first flow.
    """

    weights: str | None = None
    """File of `dyn3r train flow`; None: the weights of the package."""
    device: str = "cpu"
    """PyTorch device of the network; the first flow is measured on the CPU."""

    @property
    def name(self) -> str:
        """`compact`."""
        return "compact"

    @property
    def states_errors(self) -> bool:
        """Return True."""
        return True

    def flow(
        self,
        source: np.ndarray,
        target: np.ndarray,  # shapes: `check_images`
    ) -> Float[np.ndarray, "h w 2"]:
        """See `FlowEstimator.flow`.

        Raises InputError for images of different sizes, CheckpointError if the weights cannot be
        loaded.
        """
        return flow_of_pair(self, source, target)

    def measure(
        self,
        images: np.ndarray,  # (n, h, w, 3)
        pairs: np.ndarray,  # (k, 2)
    ) -> Iterator[tuple[MeasuredFlow, MeasuredFlow]]:
        """See `PairFlowEstimator.measure`."""
        if not len(pairs):
            return
        check_images(images[0], images[0])
        frames = _Frames(self._network, images, self.device)
        first = AlignedFlow().measure(images, pairs)
        at_once = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
        for start in range(0, len(pairs), at_once):
            chunk = pairs[start : start + at_once]
            there, back = zip(*((a.flow, b.flow) for a, b in islice(first, len(chunk))))
            with torch.inference_mode():
                found = self._predict(frames, chunk, [*there, *back])
            yield from found

    def _predict(
        self, frames: _Frames, pairs: np.ndarray, measured: list[np.ndarray]
    ) -> list[tuple[MeasuredFlow, MeasuredFlow]]:
        """Correct the first flow of pairs: of all forward, then of all backward."""
        features = frames.batch([int(i) for i in (*pairs[:, 0], *pairs[:, 1])])
        first = torch.from_numpy(np.stack(measured)).permute(0, 3, 1, 2)
        first = pad(first, frames.padding, mode="replicate").to(self.device)
        found = self._network.both_directions(features, first)
        fields = _fields(found, frames.size_hw)
        return list(zip(fields[: len(pairs)], fields[len(pairs) :]))

    @cached_property
    def _network(self) -> FlowNetwork:
        network = load_flow_network(self.weights).to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Frames:
    """Padded frames with their features, each encoded once while it is among the last used."""

    def __init__(self, network: FlowNetwork, images: np.ndarray, device: str) -> None:
        self.network, self.images, self.device = network, images, device
        self.size_hw: tuple[int, int] = (images.shape[1], images.shape[2])
        h, w = (max(-(-side // CELL) * CELL, MIN_SIDE) for side in self.size_hw)
        self.padding = (0, w - self.size_hw[1], 0, h - self.size_hw[0])
        self.known: OrderedDict[int, FrameFeatures] = OrderedDict()

    def batch(self, frames: list[int]) -> FrameFeatures:
        """Features of frames."""
        return FrameFeatures(*(torch.cat(x) for x in zip(*(self._frame(i) for i in frames))))

    def _frame(self, i: int) -> FrameFeatures:
        if i not in self.known:
            image = torch.from_numpy(np.array(self.images[i])).permute(2, 0, 1)[None].float() / 255
            image = pad(image, self.padding, mode="replicate").to(self.device)
            image = image.contiguous(memory_format=torch.channels_last)
            self.known[i] = self.network.encode(image)
            while len(self.known) > FRAMES_KEPT:
                self.known.popitem(last=False)
        self.known.move_to_end(i)
        return self.known[i]


def _fields(found: FlowPrediction, size_hw: tuple[int, int]) -> list[MeasuredFlow]:
    """Predictions as arrays, without padding."""
    h, w = size_hw
    flow, whitening = (
        x[:, :, :h, :w].permute(0, 2, 3, 1).float().cpu().numpy()
        for x in (found.flow, found.whitening)
    )
    visible = (found.visible[:, :h, :w] > 0).cpu().numpy()
    whitening[..., :2] -= math.log(NORMAL_SCALE)
    return [MeasuredFlow(*rows) for rows in zip(flow, visible, whitening)]
