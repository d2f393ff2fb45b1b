"""Optical flow by dense inverse search (Kroeger et al. 2016) in OpenCV's implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.flow.estimator import check_images

MIN_SIDE = 32
"""Shortest side in pixels; smaller images are enlarged. Source: patches are 8 pixels wide."""


@dataclass(frozen=True)
class DisFlow:
    """Flow by dense inverse search; deterministic, needs no weights."""

    finest_scale: int = 0
    """Pyramid level at which the search ends; each level halves the sides. 0 is full resolution:
    two thirds of the error of level 1 in three times its time (docs/experiments.md)."""
    iterations: int = 16
    """Gradient descent steps per patch. More: slower, better on large displacements."""
    stride: int = 4
    """Pixels between patches. Smaller: slower, smoother fields."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.finest_scale < 0 or self.iterations < 1 or not 1 <= self.stride <= 8:
            raise InputError(
                "DIS flow needs finest_scale >= 0, iterations >= 1 and a stride of 1 to 8 pixels"
            )

    @property
    def name(self) -> str:
        """`dis`."""
        return "dis"

    def flow(
        self,
        source: np.ndarray,
        target: np.ndarray,  # shapes: `check_images`
    ) -> Float[np.ndarray, "h w 2"]:
        """See `FlowEstimator.flow`. Raises InputError for images of different sizes."""
        import cv2

        check_images(source, target)
        height, width = source.shape[:2]
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (source, target)]
        enlarge = max(1.0, MIN_SIDE / min(height, width))
        if enlarge > 1:
            size = (round(width * enlarge), round(height * enlarge))
            grey = [cv2.resize(g, size, interpolation=cv2.INTER_LINEAR) for g in grey]
        search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(self.finest_scale)
        search.setGradientDescentIterations(self.iterations)
        search.setPatchStride(self.stride)
        field = search.calc(grey[0], grey[1], None)
        if enlarge > 1:
            size_hw = field.shape[:2]
            field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
            field = field * np.array([width / size_hw[1], height / size_hw[0]], np.float32)
        return np.asarray(field, dtype=np.float32)
