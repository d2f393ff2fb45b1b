"""Sampling of complete scenes: environment, camera, objects and light."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dyn3r.training.synthetic import layouts
from dyn3r.training.synthetic.camera_paths import CameraPath, camera_path, following
from dyn3r.training.synthetic.layouts import Layout
from dyn3r.training.synthetic.object_placement import add_moving_object, add_objects
from dyn3r.training.synthetic.scenes import Builder, SceneArrays
from dyn3r.training.synthetic.textures import TextureBank

BACKDROP_SHARE = 0.4
"""Share of open ground with a wall that closes the view, as behind most filmed objects."""


class SceneOptions(Protocol):
    """Options of `WorldOptions` that scenes depend on."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    @property
    def hfov_deg(self) -> tuple[float, float]:
        """Range of the field of view along the longer side."""

    @property
    def max_baseline(self) -> float:
        """Largest distance between two cameras over the distance to the content."""

    @property
    def objects(self) -> tuple[int, int]:
        """Range of the number of static objects."""

    @property
    def moving_objects(self) -> tuple[int, int]:
        """Range of the number of moving objects."""

    @property
    def following_share(self) -> float:
        """Share of dynamic scenes whose camera follows a moving object."""


@dataclass
class Scene:
    """Scene ready for the kernels."""

    arrays: SceneArrays
    path: CameraPath
    light: np.ndarray
    """(32,) float32; see `shading` for the columns."""
    dynamic: bool
    """Whether objects move."""
    kind: str
    """Kind of environment: room, street, table or open."""


def sample_scene(
    rng: random.Random, options: SceneOptions, bank: TextureBank, *, dynamic: bool
) -> Scene:
    """Sample a scene: environment, camera, static and moving objects, light."""
    kind = rng.choices(("room", "street", "table", "open"), (32, 24, 24, 20))[0]
    low, high, height, pitch = {
        "room": (1.8, 4.5, (0.7, 2.0), (-0.4, 0.05)),
        "street": (4.0, 13.0, (1.0, 3.0), (-0.25, 0.05)),
        "table": (0.5, 1.4, (0.0, 0.0), (-0.95, -0.1)),
        "open": (3.0, 16.0, (1.0, 3.5), (-0.35, 0.02)),
    }[kind]
    D = math.exp(rng.uniform(math.log(low), math.log(high)))
    tilt = rng.uniform(*pitch)
    up = D * math.sin(-tilt) + 0.05 * D if kind == "table" else rng.uniform(*height)
    path = camera_path(
        rng, options.frames, options.size_hw, D, up, tilt, options.hfov_deg, options.max_baseline
    )
    builder = Builder(rng, options.frames, bank.num_procedural, len(bank.tiles))
    lay = Layout(builder, rng, path)
    count = rng.randint(*options.objects)
    num_moving = rng.randint(*options.moving_objects) if dynamic else 0
    if kind == "room":
        layouts.room(lay, 0.0, max(rng.uniform(2.3, 3.4), path.t[:, 2].max() + 0.3))
        size, moving_size = 0.22 * D, 0.32 * D
    elif kind == "street":
        layouts.street(lay)
        size, moving_size = 0.2 * D, 0.28 * D
    elif kind == "table":
        layouts.table_top(lay, layouts.room(lay, -0.75, 1.8))
        size, moving_size = 0.13 * D, 0.2 * D
    else:
        layouts.ground(lay, flat=rng.random() < 0.25)
        path.t[:, 2] += lay.height(0.0, 0.0)
        if rng.random() < BACKDROP_SHARE:
            layouts.backdrop(lay)
        else:
            layouts.hills(lay)
        size, moving_size = 0.2 * D, 0.3 * D
    for _ in range(num_moving):
        add_moving_object(lay, moving_size)
    if num_moving and options.following_share and rng.random() < options.following_share:
        path = _following_first(lay)
    far = 1.9 if kind == "table" else 3.5
    add_objects(lay, count, size, 0.4, far, rng.uniform(0.3, 0.9))
    light = sample_light(rng, bank, D, up, indoors=kind in ("room", "table"))
    return Scene(builder.finish(), path, light, dynamic, kind)


def _following_first(lay: Layout) -> CameraPath:
    """Let the camera of the layout follow its first moving object."""
    target = next(group.t for group in lay.b.groups if group.moving)
    lay.path = following(lay.rng, lay.path, np.asarray(target), lay.inside)
    return lay.path


def sample_light(
    rng: random.Random, bank: TextureBank, D: float, up: float, *, indoors: bool
) -> np.ndarray:
    """Sample sun, sky light, fill light and lamp (32,); see `shading` for the columns.

    D: distance to the content; up: height of the middle camera.
    """
    light = np.zeros(32, np.float32)

    def colour(strength: float, spread: float) -> list[float]:
        return [strength * math.exp(rng.gauss(0, spread)) for _ in range(3)]

    high, around = rng.uniform(0.45, 1.35), rng.uniform(0, 2 * math.pi)
    light[0:3] = [
        math.cos(high) * math.cos(around),
        math.cos(high) * math.sin(around),
        math.sin(high),
    ]
    light[3:6] = colour(rng.uniform(0.1, 1.6), 0.12)
    light[6:9] = colour(rng.uniform(0.2, 0.8), 0.1)
    side = rng.uniform(0, 2 * math.pi)
    light[9:12] = [0.9 * math.cos(side), 0.9 * math.sin(side), 0.43]
    light[12:15] = colour(rng.uniform(0.0, 0.5), 0.12)
    light[15:18] = [
        rng.uniform(-1, 1) * D,
        rng.uniform(-0.3, 1.5) * D,
        up + rng.uniform(0.1, 1) * D,
    ]
    light[18:21] = colour(rng.uniform(0.0, 0.5) if indoors else 0.0, 0.15)
    if not indoors and rng.random() < 0.4:
        light[21] = rng.uniform(0.002, 0.05) / D
    light[22:25] = colour(rng.uniform(0.4, 0.9), 0.05)
    light[25] = rng.randrange(len(bank.skies))
    light[26] = rng.uniform(0, 2 * math.pi)
    light[27] = rng.uniform(0.7, 1.6)
    light[28] = rng.choice((0.0, rng.uniform(0.02, 0.25)))
    light[29] = rng.uniform(0.4, 1.0)
    light[30] = D
    return light
