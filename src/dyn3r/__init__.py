"""dyn3r: ordinary video with moving things in, 4D scene out.

    import dyn3r
    scene = dyn3r.reconstruct(dyn3r.read_clip("cat.mp4"), dyn3r.load_model())

The names below load on first use, so that `import dyn3r` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dyn3r.alignment import Alignment, AlignmentOptions, align
    from dyn3r.clip import clip_from_images, read_clip, read_masks
    from dyn3r.errors import (
        CheckpointError,
        Dyn3rError,
        GeometryError,
        InputError,
        MissingExtraError,
        OutputError,
    )
    from dyn3r.feed_forward import FeedForwardOptions, feedforward
    from dyn3r.known_cameras import known_field_of_view, read_cameras
    from dyn3r.motion import MotionOptions, find_motion
    from dyn3r.network.model import Model, load_model
    from dyn3r.network.predict import InferenceOptions, encode_frames, predict_pairs
    from dyn3r.pairs import make_pairs
    from dyn3r.pipeline import Options, reconstruct
    from dyn3r.scene import Scene
    from dyn3r.types import Clip, Motion, PairPredictions, Tokens

_HOME = {
    "dyn3r.alignment": ("Alignment", "AlignmentOptions", "align"),
    "dyn3r.clip": ("clip_from_images", "read_clip", "read_masks"),
    "dyn3r.errors": (
        "CheckpointError",
        "Dyn3rError",
        "GeometryError",
        "InputError",
        "MissingExtraError",
        "OutputError",
    ),
    "dyn3r.feed_forward": ("FeedForwardOptions", "feedforward"),
    "dyn3r.known_cameras": ("known_field_of_view", "read_cameras"),
    "dyn3r.motion": ("MotionOptions", "find_motion"),
    "dyn3r.network.model": ("Model", "load_model"),
    "dyn3r.network.predict": ("InferenceOptions", "encode_frames", "predict_pairs"),
    "dyn3r.pairs": ("make_pairs",),
    "dyn3r.pipeline": ("Options", "reconstruct"),
    "dyn3r.scene": ("Scene",),
    "dyn3r.types": ("Clip", "Motion", "PairPredictions", "Tokens"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Alignment",
    "AlignmentOptions",
    "CheckpointError",
    "Clip",
    "Dyn3rError",
    "FeedForwardOptions",
    "GeometryError",
    "InferenceOptions",
    "InputError",
    "MissingExtraError",
    "Model",
    "Motion",
    "MotionOptions",
    "Options",
    "OutputError",
    "PairPredictions",
    "Scene",
    "Tokens",
    "__version__",
    "align",
    "clip_from_images",
    "encode_frames",
    "feedforward",
    "find_motion",
    "known_field_of_view",
    "load_model",
    "make_pairs",
    "predict_pairs",
    "read_cameras",
    "read_clip",
    "read_masks",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dyn3r' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
