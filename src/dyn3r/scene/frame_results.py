"""Results of feed-forward mode: one value a frame, and the Scene of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError
from dyn3r.scene.scene import Scene
from dyn3r.types import FrameMapping
from dyn3r.types.input_report import InputReport


@dataclass(frozen=True)
class FrameResult:
    """Depth and camera of one frame. The world is the reference camera."""

    index: int
    """0 for the first frame of the stream."""
    name: str
    time_s: float
    """Seconds since the start of the source."""
    image: UInt8[np.ndarray, "h w 3"]
    """The prepared frame, RGB."""
    depth: Float[np.ndarray, "h w"]
    """z along the optical axis, in units of the reference's depth; 0 where it is unknown."""
    confidence: Float[np.ndarray, "h w"]
    """Above 1, larger is surer; 0 where the depth is unknown."""
    dynamic: Bool[np.ndarray, "h w"]
    """True on pixels of moving objects."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics of the prepared frame in pixels; the same for all frames."""
    T_world_camera: Float[np.ndarray, "4 4"]
    """Maps camera to world."""
    quality: float
    """Share of the points that agree with the camera; 1 for the reference, 0 for a lost frame,
    which keeps the camera of the frame before."""
    mapping: FrameMapping
    """Prepared pixels <-> source pixels; the same for all frames."""
    report: InputReport = field(default_factory=InputReport)
    """What was found in the input up to this frame."""
    shot: int = 0
    """Number of the shot; each has a world of its own, the camera of its reference."""


def scene_from_frames(
    results: Sequence[FrameResult], *, fps: float = 0.0, metadata: dict[str, Any] | None = None
) -> Scene:
    """A `Scene` of the results so far. Raises InputError if there are none."""
    if not results:
        raise InputError("there are no frames to make a scene of")
    return Scene(
        images=np.stack([r.image for r in results]),
        depth=np.stack([r.depth for r in results]),
        confidence=np.stack([r.confidence for r in results]),
        dynamic=np.stack([r.dynamic for r in results]),
        K=np.stack([r.K for r in results]),
        T_world_camera=np.stack([r.T_world_camera for r in results]),
        mapping=results[0].mapping,
        names=tuple(r.name for r in results),
        times_s=np.array([r.time_s for r in results]),
        fps=fps,
        metadata=metadata or {},
        frame_quality=np.array([r.quality for r in results]),
    )
