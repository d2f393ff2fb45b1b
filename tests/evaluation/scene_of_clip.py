"""A stand-in for the pipeline: white pixels move, everything is a metre away."""

from __future__ import annotations

from typing import Any

import numpy as np

from dyn3r.errors import GeometryError
from dyn3r.scene import Scene
from dyn3r.types import Clip


def scene_of(clip: Clip, **changes: Any) -> Scene:
    """A scene of the clip's frames; fields can be given."""
    n, h, w = clip.images.shape[:3]
    fields: dict[str, Any] = {
        "images": clip.images,
        "depth": np.ones((n, h, w), np.float32),
        "confidence": np.ones((n, h, w), np.float32),
        "dynamic": clip.images[..., 1] > 128,
        "K": np.tile(np.array([[50.0, 0, w / 2], [0, 50, h / 2], [0, 0, 1]]), (n, 1, 1)),
        "T_world_camera": np.tile(np.eye(4), (n, 1, 1)),
        "mapping": clip.mapping,
        "names": clip.names,
        "times_s": clip.times_s,
        "fps": clip.fps,
        "metadata": {"plan": "none"},
        "dynamic_map": (clip.images[:, 8::16, 8::16, 1] > 128).astype(np.float32),
    }
    return Scene(**(fields | changes))


def reconstruct(clip: Clip, *arguments: Any, **more: Any) -> Scene:
    """In place of `dyn3r.pipeline.reconstruct`; a clip called `broken` fails."""
    if clip.source == "broken":
        raise GeometryError("it cannot be determined")
    return scene_of(clip)
