"""Functions of the library called with wrong types and values; prints what was no typed error.

A process of its own: there the annotations of the functions are not checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dyn3r.errors import Dyn3rError
from dyn3r.evaluation import evaluate
from dyn3r.export import ExportOptions, export
from dyn3r.io.camera_files import known_field_of_view, read_camera_file
from dyn3r.io.clip import clip_from_images, read_clip
from dyn3r.io.frame_stream import stream_frames
from dyn3r.io.mask_files import read_masks
from dyn3r.network.model import load_model, prepare_model
from dyn3r.network.options import InferenceOptions
from dyn3r.options import Options
from dyn3r.pipeline import reconstruct
from dyn3r.scene import Scene
from dyn3r.streaming import StreamOptions, stream_scene
from dyn3r.viewer import save_recording, view, write_screenshot
from tests.factories import moving_square, tiny_network, tiny_scene

HERE = Path(sys.argv[1])
SCENE, CLIP = tiny_scene(), moving_square(3)
MODEL = prepare_model(tiny_network(), "tiny", device="cpu")
IMAGES = np.zeros((2, 48, 64, 3), np.uint8)
NOTHING = (None, 5, b"x", [], object())

Call = Callable[[], object]
CALLS: dict[str, Call] = {}
for number, wrong in enumerate(NOTHING):
    for name, function in {
        "read_clip": read_clip, "stream_frames": stream_frames, "Scene.load": Scene.load,
        "Scene.save": SCENE.save, "load_model": lambda x: load_model(x, device="cpu"),
        "read_masks": lambda x: read_masks(x, CLIP),
        "read_camera_file": lambda x: read_camera_file(x, CLIP),
        "evaluate": lambda x: evaluate(SCENE, x),
        "export to": lambda x: SCENE.export("ply", x),
        "export of": lambda x: export(x, "ply", HERE / "a.ply"),
        "format": lambda x: SCENE.export(x, HERE / "a.ply"),
        "reconstruct clip": lambda x: reconstruct(x, MODEL),
        "reconstruct model": lambda x: reconstruct(CLIP, x),
        "view": lambda x: view(x, block=False),
        "port": lambda x: view(SCENE, port=x if x != 5 else 70_000, block=False),
        "host": lambda x: view(SCENE, host=x, block=False),
        "save_recording": lambda x: save_recording(SCENE, x),
        "write_screenshot": lambda x: write_screenshot(SCENE, x),
        "motion": lambda x: Options(motion=x), "pairs": lambda x: Options(pairs=x),
        "method": lambda x: Options(method=x),
        "memory_gb": lambda x: InferenceOptions(memory_gb=x if x != 5 else np.inf),
        "storage": lambda x: InferenceOptions(storage=x),
        "drop": lambda x: ExportOptions(drop=x), "which": lambda x: ExportOptions(which=x),
        "quaternion": lambda x: ExportOptions(quaternion=x),
        "fov": lambda x: known_field_of_view(x if x != 5 else np.nan, CLIP),
        "images": lambda x: clip_from_images(x), "fps": lambda x: read_clip(HERE, fps=x or "a"),
        "size": lambda x: read_clip(HERE, size=x), "start": lambda x: read_clip(HERE, start=x),
        "select": lambda x: SCENE.select(x), "points": lambda x: SCENE.points(x),
        "threshold": lambda x: SCENE.confidence_threshold(x),
        "stream size": lambda x: StreamOptions(size=x if x is not None else "a"),
        "scene images": lambda x: tiny_scene(images=x), "scene K": lambda x: tiny_scene(K=x),
        "scene depth": lambda x: tiny_scene(depth=x),
        "scene fps": lambda x: tiny_scene(fps=x or "a"),
        "scene names": lambda x: tiny_scene(names=x),
        "scene metadata": lambda x: tiny_scene(metadata=x),
        "scene mapping": lambda x: tiny_scene(mapping=x),
        "scene poses": lambda x: tiny_scene(T_world_camera=x),
        "scene times": lambda x: tiny_scene(times_s=x),
        "scene dynamic": lambda x: tiny_scene(dynamic=x),
        "scene ground": lambda x: tiny_scene(ground_height=x if x not in (None, 5) else "a"),
        "scene up": lambda x: tiny_scene(up_world=x if x is not None else "a"),
    }.items():  # fmt: skip
        CALLS[f"{name} {number}"] = lambda f=function, x=wrong: f(x)  # type: ignore[misc]
ALLOWED = {"scene fps 1", "fps 1", "load_model 5"}
CALLS |= {
    "unknown option": lambda: SCENE.export("ply", HERE / "a.ply", nonsense=1),
    "frame 99": lambda: SCENE.select(99),
    "names that are numbers": lambda: clip_from_images(IMAGES, names=[1, 2]),  # type: ignore[list-item]
    "masks of another shape": lambda: reconstruct(CLIP, MODEL, masks=np.zeros((1, 2), bool)),
    "no frames": lambda: list(stream_scene([], MODEL)),
    "frames that are numbers": lambda: list(stream_scene([1], MODEL)),  # type: ignore[list-item]
    "a size of 0": lambda: write_screenshot(SCENE, HERE / "a.png", size_hw=(0, 0)),
    "NUL": lambda: read_clip("a\0b"),
}

for name, call in CALLS.items():
    try:
        call()
    except Dyn3rError as error:
        if "\n" in str(error):
            print(f"{name}: two lines")
    except Exception as error:
        print(f"{name}: {error!r:.150}")
    else:
        if name not in ALLOWED:
            print(f"{name}: accepted")
print(f"{len(CALLS)} calls")
