"""dyn3r: video with moving objects in, 4D scene out.

    import dyn3r
    scene = dyn3r.reconstruct(dyn3r.read_clip("cat.mp4"), dyn3r.load_model())

The names below load on first use, so that `import dyn3r` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyn3r.alignment.align import align
    from dyn3r.alignment.options import AlignmentOptions
    from dyn3r.errors import (
        CheckpointError,
        DownloadError,
        Dyn3rError,
        GeometryError,
        InputError,
        MissingExtraError,
        OutputError,
    )
    from dyn3r.io.camera_files import known_field_of_view
    from dyn3r.io.clip import clip_from_images, read_clip, read_masks
    from dyn3r.motion.attention_cue import find_motion
    from dyn3r.motion.options import MotionOptions
    from dyn3r.network.model import Model, load_model
    from dyn3r.network.options import InferenceOptions
    from dyn3r.network.pair_graph import make_pairs
    from dyn3r.network.predict import encode_frames, predict_pairs
    from dyn3r.options import FlowOptions, Options, Plan, RefinementOptions, resolve
    from dyn3r.pipeline import reconstruct, resume
    from dyn3r.scene import Scene, static_points, summarise
    from dyn3r.scene.known_cameras import known_cameras, read_cameras
    from dyn3r.streaming import StreamOptions, stream_scene
    from dyn3r.types import (
        Clip,
        FlowFields,
        Geometry,
        Motion,
        PairPredictions,
        Priors,
        RunContext,
        Tokens,
    )
    from dyn3r.types.input_report import InputNote, InputReport

_HOME = {
    "dyn3r.alignment.align": ("align",),
    "dyn3r.alignment.options": ("AlignmentOptions",),
    "dyn3r.errors": (
        "CheckpointError",
        "DownloadError",
        "Dyn3rError",
        "GeometryError",
        "InputError",
        "MissingExtraError",
        "OutputError",
    ),
    "dyn3r.types.input_report": ("InputNote", "InputReport"),
    "dyn3r.io.camera_files": ("known_field_of_view",),
    "dyn3r.io.clip": ("clip_from_images", "read_clip", "read_masks"),
    "dyn3r.motion.attention_cue": ("find_motion",),
    "dyn3r.motion.options": ("MotionOptions",),
    "dyn3r.network.model": ("Model", "load_model"),
    "dyn3r.network.options": ("InferenceOptions",),
    "dyn3r.network.pair_graph": ("make_pairs",),
    "dyn3r.network.predict": ("encode_frames", "predict_pairs"),
    "dyn3r.options": ("FlowOptions", "Options", "Plan", "RefinementOptions", "resolve"),
    "dyn3r.pipeline": ("reconstruct", "resume"),
    "dyn3r.scene": ("Scene", "static_points", "summarise"),
    "dyn3r.scene.known_cameras": ("known_cameras", "read_cameras"),
    "dyn3r.streaming": ("StreamOptions", "stream_scene"),
    "dyn3r.types": (
        "Clip",
        "FlowFields",
        "Geometry",
        "Motion",
        "PairPredictions",
        "Priors",
        "RunContext",
        "Tokens",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AlignmentOptions",
    "CheckpointError",
    "Clip",
    "DownloadError",
    "Dyn3rError",
    "FlowFields",
    "FlowOptions",
    "Geometry",
    "GeometryError",
    "InferenceOptions",
    "InputError",
    "InputNote",
    "InputReport",
    "MissingExtraError",
    "Model",
    "Motion",
    "MotionOptions",
    "Options",
    "OutputError",
    "PairPredictions",
    "Plan",
    "Priors",
    "RefinementOptions",
    "RunContext",
    "Scene",
    "StreamOptions",
    "Tokens",
    "align",
    "clip_from_images",
    "encode_frames",
    "find_motion",
    "known_cameras",
    "known_field_of_view",
    "load_model",
    "make_pairs",
    "predict_pairs",
    "read_cameras",
    "read_clip",
    "read_masks",
    "reconstruct",
    "resolve",
    "resume",
    "static_points",
    "stream_scene",
    "summarise",
    "__version__",
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
