"""Protocols of optical flow estimators, and the checks that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError


@runtime_checkable
class FlowEstimator(Protocol):
    """Estimator of dense optical flow between two images."""

    @property
    def name(self) -> str:
        """Name for messages and results."""
        ...

    def flow(
        self, source: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"]
    ) -> Float[np.ndarray, "h w 2"]:
        """Displacement (u, v) in pixels of every source pixel.

        The pixel (x, y) of the source is at (x + u, y + v) in the target. Both images are RGB,
        0..255, of one size.
        """
        ...


@dataclass(frozen=True)
class MeasuredFlow:
    """Flow from one frame to another, with what the estimator knows about it."""

    flow: Float[np.ndarray, "h w 2"]
    """Displacement (u, v) in pixels."""
    visible: Bool[np.ndarray, "h w"] | None = None
    """Whether the point is seen in the other frame; None: unknown."""
    whitening: Float[np.ndarray, "h w 3"] | None = None
    """See `FlowFields.whitening`; None: unknown."""


@runtime_checkable
class PairFlowEstimator(FlowEstimator, Protocol):
    """Estimator that measures many pairs at once, each in both directions."""

    @property
    def states_errors(self) -> bool:
        """Whether it knows visibility and errors of its flow (`MeasuredFlow`)."""
        ...

    def measure(
        self, images: UInt8[np.ndarray, "n h w 3"], pairs: np.ndarray
    ) -> Iterator[tuple[MeasuredFlow, MeasuredFlow]]:
        """Flow from the first to the second frame of each pair (k, 2), and back, in order."""
        ...


def flow_of_pair(
    estimator: PairFlowEstimator, source: np.ndarray, target: np.ndarray
) -> Float[np.ndarray, "h w 2"]:
    """Flow between two images by an estimator of pairs. Raises InputError: see `check_images`."""
    check_images(source, target)
    ((forward, _),) = estimator.measure(np.stack([source, target]), np.array([[0, 1]]))
    return forward.flow


def check_images(source: np.ndarray, target: np.ndarray) -> None:
    """Raise InputError unless both are RGB images (h, w, 3) of uint8 and of one size."""
    for image in (source, target):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                "optical flow needs RGB images (h, w, 3) of uint8, not "
                f"{tuple(image.shape)} of {image.dtype}"
            )
    if source.shape != target.shape:
        raise InputError(
            f"optical flow needs two images of one size, not {tuple(source.shape[:2])} and "
            f"{tuple(target.shape[:2])}"
        )
