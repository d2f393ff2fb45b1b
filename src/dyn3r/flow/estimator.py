"""Optical flow estimators: the protocol and the checks they share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from dyn3r.errors import InputError


@runtime_checkable
class FlowEstimator(Protocol):
    """Anything that can say where the pixels of one picture are in another."""

    @property
    def name(self) -> str:
        """What a person calls it, for messages and results."""
        ...

    def flow(
        self, source: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"]
    ) -> Float[np.ndarray, "h w 2"]:
        """Displacement (u, v) in pixels of every source pixel: it is seen at x + u, y + v of the
        target. Both pictures are RGB, 0..255, of one size."""
        ...


def check_pictures(source: np.ndarray, target: np.ndarray) -> None:
    """Raise InputError unless both are RGB pictures (h, w, 3) of bytes and of one size."""
    for picture in (source, target):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise InputError(
                "optical flow needs RGB pictures (h, w, 3) of uint8, not "
                f"{tuple(picture.shape)} of {picture.dtype}"
            )
    if source.shape != target.shape:
        raise InputError(
            f"optical flow needs two pictures of one size, not {tuple(source.shape[:2])} and "
            f"{tuple(target.shape[:2])}"
        )
