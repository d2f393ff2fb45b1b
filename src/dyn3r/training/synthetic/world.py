"""Synthetic world: endless, seeded clips of dynamic scenes with exact geometry and motion.

A scene is sampled (`scene_sampling`), rendered by a compiled ray caster (`rendering`) and passed
through a camera model (`camera_effects`). Needs numba (extra `train`). World axes: z up; cameras x
right, y down, z forward; integer pixels are centres.
"""

from __future__ import annotations

import copy
import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.training.synthetic.rendering import preview_fault, render
from dyn3r.training.synthetic.scene_sampling import Scene, sample_scene
from dyn3r.training.synthetic.textures import TextureBank, make_bank

MAX_ATTEMPTS = 8
"""Scenes sampled per clip until one shows its content well; otherwise the best of them is taken."""


@dataclass(frozen=True)
class WorldOptions:
    """Options of the synthetic world. Raises InputError for values out of range."""

    size_hw: tuple[int, int] = (160, 224)
    """Height and width in pixels, multiples of 16; portrait is fine."""
    frames: int = 4
    """Frames per scene, at irregular times."""
    dynamic_share: float = 0.7
    """Share of scenes with moving objects; 0: all scenes are static."""
    photos: str | None = None
    """Folder of photographs for surfaces (jpg, png; equirectangular `pano_*` become skies)."""
    hfov_deg: tuple[float, float] = (30.0, 100.0)
    """Range of the field of view along the longer side."""
    max_baseline: float = 0.5
    """Largest distance between two cameras over the distance to the content."""
    objects: tuple[int, int] = (10, 36)
    """Range of the number of static objects."""
    moving_objects: tuple[int, int] = (1, 4)
    """Range of the number of moving objects in a dynamic scene."""
    moving_share: tuple[float, float] = (0.02, 0.35)
    """Preferred range of the mean share of moving pixels in dynamic scenes."""
    following_share: float = 0.0
    """Share of dynamic scenes whose camera follows a moving object, as cameras often do."""
    edge_samples: int = 2
    """Additional rays per pixel at object edges (0: aliased but faster)."""
    procedural_tiles: int = 120
    """Number of procedural texture tiles, generated at the start (about 15 ms each)."""

    def __post_init__(self) -> None:
        """Check every value."""
        h, w = self.size_hw
        if h % 16 or w % 16 or h < 16 or w < 16:
            raise InputError(f"size_hw {self.size_hw}: height and width must be multiples of 16")
        if self.frames < 1:
            raise InputError(f"frames is {self.frames}; a scene needs at least one frame")
        if not 0 <= self.dynamic_share <= 1:
            raise InputError(f"dynamic_share is {self.dynamic_share}; give a share from 0 to 1")
        if not 0 <= self.following_share <= 1:
            raise InputError(f"following_share is {self.following_share}; give a share from 0 to 1")


@dataclass(frozen=True)
class Sample:
    """Batch of clips: b scenes, v frames; float32 and bool CPU tensors."""

    images: Float[Tensor, "b v 3 h w"]
    """RGB 0..1 after the camera effects."""
    depth: Float[Tensor, "b v h w"]
    """z depth in metres; 0 where invalid (sky)."""
    valid: Bool[Tensor, "b v h w"]
    """Pixels that show a surface (not the sky)."""
    moving: Bool[Tensor, "b v h w"]
    """Pixels of objects that move in the world."""
    K: Float[Tensor, "b v 3 3"]
    """Intrinsics in pixels; integer pixels are centres, cx = (w-1)/2."""
    T_world_camera: Float[Tensor, "b v 4 4"]
    """Camera to world, metres."""
    flow: Float[Tensor, "b v v h w 2"] | None
    """flow[b,i,j]: displacement (u, v) in pixels from frame i to j of the surface point visible in
    i, which moves with its object; 0 at the sky. None unless requested."""
    visible: Bool[Tensor, "b v v h w"] | None
    """Whether that point is inside frame j and not occluded there. None unless requested."""


class World:
    """Endless clips; `sample` is a pure function of options, seed and step."""

    def __init__(self, options: WorldOptions, seed: int) -> None:
        """Generate the textures of `seed` (about two seconds).

        Raises MissingExtraError without numba, InputError for an unusable folder of photographs.
        """
        if find_spec("numba") is None:
            raise MissingExtraError("numba", "train", "the synthetic world")
        self.options = options
        self.seed = seed
        self.bank: TextureBank = make_bank(seed, options.photos, options.procedural_tiles)

    def changed(self, **changes: Any) -> World:
        """Return a world with the same textures and other `WorldOptions`."""
        other = copy.copy(self)
        other.options = replace(self.options, **changes)
        return other

    def sample(
        self, batch_size: int, step: int, threads: int = 1, *, with_flow: bool = True
    ) -> Sample:
        """Render `batch_size` clips of training step `step` on `threads` Python threads."""
        arrays = _empty(self.options, batch_size, with_flow=with_flow)

        def one(k: int) -> None:
            rng = random.Random(f"{self.seed}/{step}/{k}")
            out = {key: values[k] for key, values in arrays.items()}
            scene = self._scene(rng)
            render(scene, self.options.edge_samples, self.bank, rng, out)

        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, range(batch_size)))
        else:
            for k in range(batch_size):
                one(k)
        tensors = {key: torch.from_numpy(values) for key, values in arrays.items()}
        return Sample(**({"flow": None, "visible": None} | tensors))  # type: ignore[arg-type]

    def _scene(self, rng: random.Random) -> Scene:
        """Sample scenes until one shows its content well; see `MAX_ATTEMPTS`."""
        dynamic = rng.random() < self.options.dynamic_share
        best, smallest = None, math.inf
        for _ in range(MAX_ATTEMPTS):
            scene = sample_scene(rng, self.options, self.bank, dynamic=dynamic)
            fault = preview_fault(scene, self.options.size_hw, self.options.moving_share)
            if best is None or fault < smallest:
                best, smallest = scene, fault
            if fault == 0:
                break
        assert best is not None
        return best


def _empty(options: WorldOptions, batch_size: int, *, with_flow: bool) -> dict[str, np.ndarray]:
    """Allocate the arrays of a `Sample`."""
    b, n, (h, w) = batch_size, options.frames, options.size_hw
    kinds: dict[str, tuple[tuple[int, ...], type]] = {
        "images": ((3, h, w), np.float32),
        "depth": ((h, w), np.float32),
        "valid": ((h, w), np.bool_),
        "moving": ((h, w), np.bool_),
        "K": ((3, 3), np.float32),
        "T_world_camera": ((4, 4), np.float32),
    }
    if with_flow:
        kinds |= {"flow": ((n, h, w, 2), np.float32), "visible": ((n, h, w), np.bool_)}
    return {key: np.empty((b, n, *shape), dtype) for key, (shape, dtype) in kinds.items()}
