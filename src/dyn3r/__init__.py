"""dyn3r: ordinary video with moving things in, 4D scene out.

    import dyn3r
    scene = dyn3r.reconstruct(dyn3r.read_clip("cat.mp4"), dyn3r.load_model())

The names below load on first use, so that `import dyn3r` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyn3r.alignment import AlignmentOptions, align
    from dyn3r.errors import (
        CheckpointError,
        Dyn3rError,
        GeometryError,
        InputError,
        MissingExtraError,
        OutputError,
    )
    from dyn3r.io.camera_files import known_field_of_view
    from dyn3r.io.clip import clip_from_images, read_clip, read_masks
    from dyn3r.motion import MotionOptions, find_motion
    from dyn3r.network.model import Model, load_model
    from dyn3r.network.pair_graph import make_pairs
    from dyn3r.network.predict import InferenceOptions, encode_frames, predict_pairs
    from dyn3r.pipeline import Options, reconstruct
    from dyn3r.scene import Scene
    from dyn3r.scene.known_cameras import read_cameras
    from dyn3r.streaming import FeedForwardOptions, feedforward
    from dyn3r.types import Clip, Geometry, Motion, PairPredictions, Tokens

_HOME = {
    "dyn3r.alignment": ("AlignmentOptions", "align"),
    "dyn3r.errors": (
        "CheckpointError",
        "Dyn3rError",
        "GeometryError",
        "InputError",
        "MissingExtraError",
        "OutputError",
    ),
    "dyn3r.io.camera_files": ("known_field_of_view",),
    "dyn3r.io.clip": ("clip_from_images", "read_clip", "read_masks"),
    "dyn3r.motion": ("MotionOptions", "find_motion"),
    "dyn3r.network.model": ("Model", "load_model"),
    "dyn3r.network.pair_graph": ("make_pairs",),
    "dyn3r.network.predict": ("InferenceOptions", "encode_frames", "predict_pairs"),
    "dyn3r.pipeline": ("Options", "reconstruct"),
    "dyn3r.scene": ("Scene", "static_points", "summarise"),
    "dyn3r.scene.known_cameras": ("read_cameras",),
    "dyn3r.streaming": ("FeedForwardOptions", "feedforward"),
    "dyn3r.types": (
        "Clip",
        "FlowFields",
        "Geometry",
        "Motion",
        "PairPredictions",
        "Priors",
        "Tokens",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Geometry",
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
    if name == "__version__":
        from dyn3r.types import package_version

        return package_version()
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dyn3r' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
