"""The synthetic world: endless, seeded clips of dynamic scenes with exact geometry and motion.

A scene is drawn (`layouts`, `things`), rendered by a compiled ray caster (`raycast`, `shading`) and
developed like a photograph (`camera_effects`). Needs numba (extra `train`). World axes: z up;
cameras x right, y down, z forward; integer pixels are centres.
"""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.training.synthetic import layouts
from dyn3r.training.synthetic.layouts import CameraPath, Layout
from dyn3r.training.synthetic.scenes import Builder, SceneArrays
from dyn3r.training.synthetic.textures import TextureBank, make_bank

GRID = 96
BACKDROP_SHARE = 0.4
"""Of open ground: a wall closes the view, as behind most things that people film."""
PREVIEW = 8  # the check before rendering looks at every 8th pixel


@dataclass(frozen=True)
class WorldOptions:
    """What the world shows. Raises InputError for values it can't render."""

    size_hw: tuple[int, int] = (160, 224)
    """Height and width in pixels, multiples of 16; portrait is fine."""
    frames: int = 4
    """Frames per scene, at irregular times."""
    dynamic_share: float = 0.7
    """Share of scenes in which something moves; 0 gives a static world."""
    photos: str | None = None
    """Folder of photographs for surfaces (jpg, png; equirectangular `pano_*` become skies)."""
    hfov_deg: tuple[float, float] = (30.0, 100.0)
    """Range of the field of view along the longer side."""
    max_baseline: float = 0.5
    """Largest distance between two cameras in units of the distance to the content."""
    objects: tuple[int, int] = (10, 36)
    """Range of the number of things that stand around."""
    movers: tuple[int, int] = (1, 4)
    """Range of the number of moving things in a dynamic scene."""
    moving_share: tuple[float, float] = (0.02, 0.35)
    """Range of the mean share of moving pixels aimed at in dynamic scenes (best of a few draws)."""
    edge_samples: int = 2
    """Additional rays per pixel at outlines (0: aliased but faster)."""

    drawn_tiles: int = 120
    """How many procedural texture tiles are drawn at the start (about 15 ms each)."""

    def __post_init__(self) -> None:
        h, w = self.size_hw
        if h % 16 or w % 16 or h < 16 or w < 16:
            raise InputError(f"size_hw {self.size_hw}: height and width must be multiples of 16")
        if self.frames < 1:
            raise InputError(f"frames is {self.frames}; a scene needs at least one frame")
        if not 0 <= self.dynamic_share <= 1:
            raise InputError(f"dynamic_share is {self.dynamic_share}; give a share from 0 to 1")


@dataclass(frozen=True)
class Sample:
    """A batch of clips: b scenes, v frames; float32 and bool CPU tensors."""

    images: Float[Tensor, "b v 3 h w"]
    """RGB 0..1 after the camera's effects."""
    depth: Float[Tensor, "b v h w"]
    """z depth in metres; 0 where invalid (sky)."""
    valid: Bool[Tensor, "b v h w"]
    moving: Bool[Tensor, "b v h w"]
    """Pixels of things that move in the world during these frames."""
    K: Float[Tensor, "b v 3 3"]
    """Pixels; integer pixel = centre, cx = (w-1)/2."""
    T_world_camera: Float[Tensor, "b v 4 4"]
    flow: Float[Tensor, "b v v h w 2"] | None
    """flow[b,i,j]: displacement (u, v) in pixels from frame i to j of the point seen in i, moving
    with its object; 0 at the sky. None if not asked for."""
    visible: Bool[Tensor, "b v v h w"] | None
    """That point is inside frame j and not occluded there."""


@dataclass
class _Scene:
    """A scene ready for the kernels."""

    arrays: SceneArrays
    path: CameraPath
    light: np.ndarray  # (32,) float32, see shading
    dynamic: bool
    kind: str


class World:
    """Endless clips; `sample` is a pure function of (options, seed, step)."""

    def __init__(self, options: WorldOptions, seed: int) -> None:
        """Draw the textures of `seed` (about two seconds).

        Raises MissingExtraError without numba, InputError for an unusable folder of photographs.
        """
        if find_spec("numba") is None:
            raise MissingExtraError("numba", "train", "the synthetic world")
        self.options = options
        self.seed = seed
        self.bank: TextureBank = make_bank(seed, options.photos, options.drawn_tiles)

    def sample(
        self, batch_size: int, step: int, threads: int = 1, with_flow: bool = True
    ) -> Sample:
        """Render `batch_size` clips for training step `step`, on `threads` Python threads."""

        arrays = _empty(self.options, batch_size, with_flow)

        def one(k: int) -> None:
            rng = random.Random(f"{self.seed}/{step}/{k}")
            out = {key: values[k] for key, values in arrays.items()}
            _render(self._scene(rng), self.options, self.bank, rng, out)

        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, range(batch_size)))
        else:
            for k in range(batch_size):
                one(k)
        tensors = {key: torch.from_numpy(values) for key, values in arrays.items()}
        return Sample(**({"flow": None, "visible": None} | tensors))  # type: ignore[arg-type]

    def _scene(self, rng: random.Random) -> _Scene:
        """Draw scenes until one shows its content well (at most eight; then the best of them)."""
        dynamic = rng.random() < self.options.dynamic_share
        best, least = None, math.inf
        for _ in range(8):
            scene = draw_scene(rng, self.options, self.bank, dynamic)
            fault = _fault(scene, self.options)
            if best is None or fault < least:
                best, least = scene, fault
            if fault == 0:
                break
        assert best is not None
        return best


def draw_scene(
    rng: random.Random, options: WorldOptions, bank: TextureBank, dynamic: bool
) -> _Scene:
    """One random scene: environment, camera, things, movers, light."""
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
    path = layouts.camera_path(
        rng, options.frames, options.size_hw, D, up, tilt, options.hfov_deg, options.max_baseline
    )
    builder = Builder(rng, options.frames, bank.num_drawn, len(bank.tiles))
    lay = Layout(builder, rng, path)
    count = rng.randint(*options.objects)
    width = options.size_hw[1]
    movers = rng.randint(*options.movers) if dynamic else 0
    if kind == "room":
        layouts.room(lay, 0.0, max(rng.uniform(2.3, 3.4), path.t[:, 2].max() + 0.3))
        size, mover_size = 0.22 * D, 0.32 * D
    elif kind == "street":
        layouts.street(lay)
        size, mover_size = 0.2 * D, 0.28 * D
    elif kind == "table":
        layouts.table_top(lay, layouts.room(lay, -0.75, 1.8))
        size, mover_size = 0.13 * D, 0.2 * D
    else:
        layouts.ground(lay, flat=rng.random() < 0.25)
        path.t[:, 2] += lay.height(0.0, 0.0)
        if rng.random() < BACKDROP_SHARE:
            layouts.backdrop(lay)
        else:
            layouts.hills(lay)
        size, mover_size = 0.2 * D, 0.3 * D
    for _ in range(movers):
        layouts.mover(lay, mover_size, width)
    layouts.clutter(lay, count, size, 0.4, 1.9 if kind == "table" else 3.5, rng.uniform(0.3, 0.9))
    light = draw_light(rng, kind in ("room", "table"), D, bank, up)
    return _Scene(builder.finish(), path, light, dynamic, kind)


def draw_light(
    rng: random.Random, indoors: bool, D: float, bank: TextureBank, up: float
) -> np.ndarray:
    """Sun, sky light, fill and lamp; see `shading` for the columns."""
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


def _kernels(name: str) -> Any:
    """A module of compiled functions, imported when first needed (numba is an optional extra)."""
    return import_module(f"dyn3r.training.{name}")


def _cameras(path: CameraPath, size_hw: tuple[int, int], stride: int = 1) -> np.ndarray:
    """Rows fx fy cx cy R(9) t(3) per frame for pictures reduced by `stride`."""
    h, w = size_hw
    cam = np.empty((len(path.t), 16), np.float32)
    cam[:, 0:2] = path.f_px / stride
    cam[:, 2] = ((w - 1) / 2 + 0.5) / stride - 0.5
    cam[:, 3] = ((h - 1) / 2 + 0.5) / stride - 0.5
    cam[:, 4:13] = path.R.reshape(-1, 9)
    cam[:, 13:16] = path.t
    return cam


def _fault(scene: _Scene, options: WorldOptions) -> float:
    """0 if a small preview looks right, more the worse it is."""
    trace = _kernels("raycast").trace

    a, path = scene.arrays, scene.path
    R = a.rt[..., :9].reshape(*a.rt.shape[:2], 3, 3)
    gap = path.t[:, None].astype(np.float32) - a.rt[..., 9:]
    local = np.abs(np.einsum("fpij,fpi->fpj", R, gap))
    if (local < a.half + 0.04 * path.distance).all(-1).any():
        return 10.0
    h, w = options.size_hw[0] // PREVIEW, options.size_hw[1] // PREVIEW
    depth, index = np.empty((h, w), np.float32), np.empty((h, w), np.int32)
    cams = _cameras(path, options.size_hw, PREVIEW)
    moving, fault = [], 0.0
    for k, cam in enumerate(cams):
        trace(a.prim, a.half, a.rt[k], a.relief, cam, depth, index)
        seen = index >= 0
        close = float((seen & (depth < 0.25 * path.distance)).mean())
        fault += max(close - 0.25, 0.0) + max(0.45 - float(seen.mean()), 0.0)
        moving.append(float((a.moving[np.maximum(index, 0)] & seen).mean()))
    if scene.dynamic:
        low, high = options.moving_share
        share = sum(moving) / len(moving)
        fault += max(low - share, 0.0) * 20 + max(share - high, 0.0) * 4
    return fault


def _empty(options: WorldOptions, batch_size: int, with_flow: bool) -> dict[str, np.ndarray]:
    """The arrays of a `Sample`, not yet filled."""
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


def _render(
    scene: _Scene,
    options: WorldOptions,
    bank: TextureBank,
    rng: random.Random,
    out: dict[str, np.ndarray],
) -> None:
    """Fill the arrays of one clip."""
    raycast, lighting, shading = _kernels("raycast"), _kernels("lighting"), _kernels("shading")
    camera_effects = _kernels("camera_effects")

    a, path, (h, w), n = scene.arrays, scene.path, options.size_hw, options.frames
    cams = _cameras(path, options.size_hw)
    depth, image, index = out["depth"], out["images"], np.empty((n, h, w), np.int32)
    sun, left = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    lo, cell = -6.0 * path.distance, 12.0 * path.distance / GRID
    grids: Any = [np.empty(GRID * GRID + 1, np.int32) for _ in range(2)]
    items: Any = [np.empty(64 * GRID * GRID, np.int32) for _ in range(2)]
    sky_dir = [float(x) for x in scene.light[:3]]
    for k in range(n):
        raycast.trace(a.prim, a.half, a.rt[k], a.relief, cams[k], depth[k], index[k])
        args = (a.rt[k], a.half, a.radii)
        lighting.light_grid(*args, 0.02, *sky_dir, lo, cell, grids[0], items[0])
        lighting.light_grid(*args, 0.25, 0.0, 0.0, 1.0, lo, cell, grids[1], items[1])
        lighting.light_pass(a.prim, a.half, a.radii, a.rt[k], a.relief, scene.light, cams[k],
                            depth[k], index[k], lo, cell, grids[0], items[0], grids[1], items[1],
                            sun, left)  # fmt: skip
        shading.shade_frame(a.prim, a.rt[k], a.relief, a.mat_of, a.mats, bank.tiles, bank.skies,
                            scene.light, cams[k], depth[k], index[k], sun, left,
                            options.edge_samples, image[k])  # fmt: skip
    camera_effects.develop(image, camera_effects.draw_film(rng), rng)
    out["valid"][:] = index >= 0
    out["moving"][:] = a.moving[np.maximum(index, 0)] & out["valid"]
    T, K = out["T_world_camera"], out["K"]
    T[:], K[:] = np.eye(4), np.eye(3)
    T[:, :3, :3], T[:, :3, 3] = path.R, path.t
    K[:, 0, 0] = K[:, 1, 1] = path.f_px
    K[:, 0, 2], K[:, 1, 2] = (w - 1) / 2, (h - 1) / 2
    if "flow" in out:
        _flows(a, cams, depth, index, out["flow"], out["visible"])


def _flows(
    a: SceneArrays,
    cams: np.ndarray,
    depth: np.ndarray,
    index: np.ndarray,
    flow: np.ndarray,
    visible: np.ndarray,
) -> None:
    """Fill flow (n, n, h, w, 2) and visible (n, n, h, w) of one clip."""
    raycast = _kernels("raycast")

    n = len(depth)
    inverse = np.where(index >= 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float32)
    blocks = np.empty_like(index)
    eyes = [raycast.eye_table(a.rt[k], cams[k]) for k in range(n)]
    for k in range(n):
        raycast.uniform_blocks(index[k], blocks[k])
    for i in range(n):
        for j in range(n):
            if i == j:
                flow[i, i], visible[i, i] = 0.0, index[i] >= 0
                continue
            carry = raycast.carry_table(a.rt[i], eyes[i], cams[j], a.rt[j])
            raycast.flow_between(a.prim, carry, eyes[j], a.relief, depth[i], index[i],
                                 inverse[j], index[j], blocks[j],
                                 flow[i, j], visible[i, j])  # fmt: skip
