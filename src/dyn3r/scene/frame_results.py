"""What feed-forward mode may be told, and what it says about every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError
from dyn3r.motion import FlowMotionOptions
from dyn3r.network.model import Model
from dyn3r.scene.scene import Scene
from dyn3r.types import FrameMapping, package_version


@dataclass(frozen=True)
class FeedForwardOptions:
    """What can be chosen about `feedforward`."""

    reference: Literal["first", "middle"] = "first"
    """The frame that all others are paired with, whose camera is the world. `middle` is nearer to
    all of them and needs a whole clip."""
    motion: Literal["auto", "flow", "none"] = "auto"
    """`flow`: what moves is told from optical flow to frames before; `none`: nothing is masked.
    `auto`: flow if the model recommends it (alone or with attention). The attention itself needs
    several pairs a frame and can't be read here."""
    flow: str = "dis"
    """How optical flow is measured."""
    flow_back: tuple[int, ...] = (1, 3)
    """Flow is measured to the frames so many before. More: surer masks, more time."""
    flow_motion: FlowMotionOptions = field(default_factory=FlowMotionOptions)
    size: int | None = None
    """Long side of the prepared frames; None: as the model was trained."""
    min_inliers: float = 0.2
    """A frame is lost if a smaller share of its points agrees with any one camera."""

    def __post_init__(self) -> None:
        if self.reference not in ("first", "middle"):
            raise InputError(f"the reference is first or middle, not {self.reference!r}")
        if self.motion not in ("auto", "flow", "none"):
            raise InputError(
                f"motion in feed-forward mode is auto, flow or none, not {self.motion!r}: "
                "the attention needs several pairs of every frame"
            )
        if not self.flow_back or min(self.flow_back) < 1:
            raise InputError("flow_back needs one number of frames or more, of at least 1 each")
        if not 0 <= self.min_inliers <= 1:
            raise InputError(f"min_inliers lies in 0..1, not {self.min_inliers}")


@dataclass(frozen=True)
class FrameResult:
    """What is known of one frame as soon as it has been seen. The world is the reference camera."""

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
    """True on pixels of what moves."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics of the prepared frame in pixels; the same for all frames."""
    T_world_camera: Float[np.ndarray, "4 4"]
    """Maps camera to world."""
    quality: float
    """Share of the points that agree with the camera; 1 for the reference, 0 for a lost frame,
    which keeps the camera of the frame before."""
    mapping: FrameMapping
    """Prepared pixels <-> source pixels; the same for all frames."""


def feedforward_scene(
    results: Sequence[FrameResult], *, fps: float = 0.0, metadata: dict[str, Any] | None = None
) -> Scene:
    """A `Scene` of the results so far. Raises InputError if there are none."""
    if not results:
        raise InputError("there are no results to make a scene of")
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


def feedforward_metadata(
    model: Model, source: str, options: FeedForwardOptions, results: Sequence[FrameResult]
) -> dict[str, Any]:
    """What a Scene says about a feed-forward run."""
    notes = ["feed-forward mode: every frame against one reference, nothing was optimised"]
    lost = [r.name for r in results if r.quality == 0]
    if lost:
        notes.append(
            f"lost frames: {len(lost)}, the first is {lost[0]}: too far from the reference"
        )
    return {
        "dyn3r_version": package_version(),
        "source": source,
        "mode": "feedforward",
        "model": model.about,
        "device": str(model.device),
        "options": asdict(options),
        "notes": notes,
    }
