"""Scenes of dyn3r as training data: what a better model found, where it is sure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dyn3r.datasets.files import listing
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.scene.scene import Scene

SCENE_FILE = "scene.dyn3r"
MAX_SIGMA = 0.1
"""Largest standard error of log depth of a pixel that is trained on."""
CACHED = 4
"""Scenes held in memory by a process."""


def sequences(root: Path) -> list[Sequence]:
    """The scene `root`, or every scene in it (`*.dyn3r`, `*/scene.dyn3r`).

    Depth is unknown (0) where its confidence is 0 and where `sigma_log_depth` exceeds `MAX_SIGMA`.

    Raises:
        InputError: no scene; a damaged one.
    """
    files = [root] if root.is_file() else [root / SCENE_FILE]
    if not files[0].is_file():
        files = sorted({*root.glob("*.dyn3r"), *root.glob(f"*/{SCENE_FILE}")})
    if not files:
        raise InputError(
            f"{root} holds no scene: expected {SCENE_FILE} or NAME/{SCENE_FILE}, found "
            f"{listing(root)}"
        )
    return [_sequence(file) for file in files]


@lru_cache(maxsize=CACHED)
def _scene(file: Path) -> Scene:
    return Scene.load(file)


def _sequence(file: Path) -> Sequence:
    scene = _scene(file)

    def reader(read: Callable[[Scene, int], np.ndarray]) -> Callable[[int], np.ndarray]:
        return lambda index: read(_scene(file), index)

    return Sequence(
        name=file.parent.name if file.name == SCENE_FILE else file.stem,
        frame_names=scene.names,
        image=reader(_image),
        depth=reader(_sure_depth),
        mask=reader(_dynamic),
        T_world_camera=scene.T_world_camera,
        K=scene.K,
        times_s=scene.times_s,
        fps=scene.fps or 24.0,
        unit="arbitrary",
    )


def _image(scene: Scene, index: int) -> UInt8[np.ndarray, "h w 3"]:
    return scene.images[index]


def _dynamic(scene: Scene, index: int) -> Bool[np.ndarray, "h w"]:
    return scene.dynamic[index]


def _sure_depth(scene: Scene, index: int) -> Float32[np.ndarray, "h w"]:
    sure = scene.confidence[index] > 0
    if scene.sigma_log_depth is not None:
        sure &= scene.sigma_log_depth[index] <= MAX_SIGMA
    return np.where(sure, scene.depth[index], np.float32(0))
