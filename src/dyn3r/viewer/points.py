"""Selection of the pixels that are shown as points, and the clouds to send. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.agreement import agreement
from dyn3r.scene.background import choose_static, depth_edges, grow, on_grid
from dyn3r.scene.pictures import Limits, find_limits
from dyn3r.scene.sensitivity import at_sensitivity
from dyn3r.scene.surface import Surface
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.packing import PackedCloud, pack
from dyn3r.viewer.pixels import confidence_threshold, pixel_colors
from dyn3r.viewer.surfaces import moving_surfaces, static_surfaces

MAX_BACKGROUND = 400_000
"""Largest number of background points."""
MAX_MOVING = 2_000_000
"""Largest number of dynamic points of all frames together."""
MAX_MOVING_PER_FRAME = 60_000
"""Largest number of dynamic points of a frame."""
MAX_CHUNKS = 64
"""Largest number of nodes that the background is divided into."""
_MASK_MARGIN_PX = 2
"""Pixels around dynamic ones that are left out of the background. A moving object would otherwise
leave a rim along its path."""

Pixels = tuple[Int[np.ndarray, " _"], ...]
"""Row-major pixel indices, ascending, one array per frame."""

_SELECTION = ("mask_sensitivity", "mask_dilation", "hide_edges", "frame_alone")
_BACKGROUND_SELECTION = ("drop_static", "step_static", *_SELECTION)
_MOVING_SELECTION = ("drop_moving", "step_moving", *_SELECTION)


class ChangedClouds(NamedTuple):
    """Clouds that a new appearance changes."""

    background: bool
    moving: bool


class ScenePoints:
    """What is drawn of a scene under an appearance, as points or as surfaces.

    It is selected when it is first asked for. A new appearance selects only what it changes again.
    """

    def __init__(self, scene: Scene, appearance: Appearance) -> None:
        """Select nothing yet."""
        self._found, self.appearance = scene, appearance
        self.scene = at_sensitivity(scene, appearance.mask_sensitivity)
        """The scene, with masks of the appearance's sensitivity."""
        self.unit = scene.median_depth
        n = len(scene)
        chunk = -(-n // MAX_CHUNKS)
        self.chunks = [range(a, min(a + chunk, n)) for a in range(0, n, chunk)]
        """Frames of each chunk of the background."""
        self._limits: Limits | None = None
        self._static: dict[str, Any] = {}
        self._moving: dict[str, Any] = {}

    def copy(self) -> ScenePoints:
        """The same points, whose appearance changes by itself. Arrays are shared."""
        other = copy(self)
        other._static, other._moving = dict(self._static), dict(self._moving)
        return other

    def prepare(self) -> None:
        """Select what the appearance shows."""
        if self.appearance.style == "surface":
            _ = self.static_surfaces, self.moving_surfaces
        else:
            _ = self.background_pixels, self.moving_pixels

    def set_appearance(self, appearance: Appearance) -> ChangedClouds:
        """Change the appearance; returns what has other points or colours now."""
        old, self.appearance = self.appearance, appearance

        def differ(fields: tuple[str, ...]) -> bool:
            return any(getattr(old, name) != getattr(appearance, name) for name in fields)

        background, moving = differ(_BACKGROUND_SELECTION), differ(_MOVING_SELECTION)
        if old.mask_sensitivity != appearance.mask_sensitivity:
            self.scene = at_sensitivity(self._found, appearance.mask_sensitivity)
        if background:
            self._static = {}
        if moving:
            self._moving = {}
        masks = old.mask_sensitivity != appearance.mask_sensitivity
        recoloured = old.color != appearance.color or (masks and appearance.color == "motion")
        recoloured |= old.style != appearance.style
        return ChangedClouds(background or recoloured, moving or recoloured)

    def set_masks(self, scene: Scene) -> ChangedClouds:
        """Take the masks of another version of the same scene; returns what differs now."""
        self._found = scene
        self.scene = at_sensitivity(scene, self.appearance.mask_sensitivity)
        # the masks do not select what is shown of a frame alone
        self._static = {}
        self._moving = self._moving if self.appearance.frame_alone else {}
        return ChangedClouds(background=True, moving=True)

    @property
    def background_pixels(self) -> Pixels:
        """Pixels of the background of each frame, as points."""
        return self._agreeing[0]

    @property
    def moving_pixels(self) -> Pixels:
        """Dynamic pixels of each frame, as points."""
        if "pixels" not in self._moving:
            self._moving["pixels"] = select_moving(self.scene, self.appearance)
        pixels: Pixels = self._moving["pixels"]
        return pixels

    @property
    def static_surfaces(self) -> list[Surface]:
        """Surfaces of the background, each of a frame."""
        if "surfaces" not in self._static:
            self._static["surfaces"] = static_surfaces(self.scene, self.appearance)
        found: list[Surface] = self._static["surfaces"]
        return found

    @property
    def moving_surfaces(self) -> list[Surface]:
        """Dynamic surface of each frame."""
        if "surfaces" not in self._moving:
            self._moving["surfaces"] = moving_surfaces(self.scene, self.appearance)
        found: list[Surface] = self._moving["surfaces"]
        return found

    @property
    def shown_static(self) -> list[tuple[int, Int[np.ndarray, " _"]]]:
        """Frames and pixels of what is drawn of the background."""
        if self.appearance.style == "surface":
            return [(part.frame, part.pixels) for part in self.static_surfaces]
        return list(enumerate(self.background_pixels))

    def shown_moving(self, t: int) -> Int[np.ndarray, " _"]:
        """Pixels of what is drawn of the dynamic pixels of frame t."""
        if self.appearance.style == "surface":
            return self.moving_surfaces[t].pixels
        return self.moving_pixels[t]

    @property
    def limits(self) -> Limits:
        """Limits of the colours."""
        if self._limits is None:
            self._limits = find_limits(self.scene)
        return self._limits

    @property
    def _agreeing(self) -> tuple[Pixels, tuple[UInt8[np.ndarray, "_ 3"], ...]]:
        if "pixels" not in self._static:
            self._static["pixels"] = agreeing_background(self.scene, self.appearance)
        found: tuple[Pixels, tuple[np.ndarray, ...]] = self._static["pixels"]
        return found

    def background(self) -> list[PackedCloud]:
        """Static points, one cloud for each of `chunks`."""
        pixels, rgb = self._agreeing
        return [self._pack(pixels, frames, rgb) for frames in self.chunks]

    def moving(self) -> list[PackedCloud]:
        """Dynamic points, one cloud per frame."""
        pixels = self.moving_pixels
        return [self._pack(pixels, range(t, t + 1)) for t in range(len(self.scene))]

    def _pack(
        self, pixels: Pixels, frames: range, rgb: Sequence[UInt8[np.ndarray, "_ 3"]] | None = None
    ) -> PackedCloud:
        """Cloud of the pixels of these frames; `rgb`: their colours, if not the images'."""
        scene = self.scene
        points = np.concatenate([pixel_points(scene, t, pixels[t]) for t in frames])
        use_rgb = rgb is not None and self.appearance.color == "rgb"
        colors = np.concatenate(
            [rgb[t] if use_rgb and rgb else self._colors(t, pixels[t]) for t in frames]
        )
        centre = scene.T_world_camera[frames[len(frames) // 2], :3, 3]
        depth = np.concatenate([scene.depth[t].reshape(-1)[pixels[t]] for t in frames])
        typical = float(np.median(depth)) if len(depth) else self.unit
        step = self.appearance.step_moving if rgb is None else self.appearance.step_static
        spacing = step * typical / float(np.median(scene.K[list(frames), 0, 0]))
        return pack(points, colors, centre, self.unit, spacing)

    def _colors(self, t: int, pixels: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 3"]:
        if self.appearance.color == "rgb":
            rgb: np.ndarray = self.scene.images[t].reshape(-1, 3)[pixels]
            return rgb
        return pixel_colors(self.scene, t, pixels, self.appearance.color, self.limits)


def pixel_points(scene: Scene, t: int, pixels: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k 3"]:
    """World points of pixels of frame t."""
    chosen = np.zeros(scene.depth[t].size, dtype=bool)
    chosen[pixels] = True
    return scene.points_of(t, chosen.reshape(scene.size_hw)).points_world


def select_background(scene: Scene, appearance: Appearance) -> Pixels:
    """Static pixels of all frames together: the most confident one per voxel, thinned.

    The voxel is the footprint of a pixel at the median depth, times `step_static`. The selection is
    that of `dyn3r.scene.static_points`.
    """
    pixels, _ = choose_static(
        scene,
        min_confidence=confidence_threshold(scene, appearance.drop_static, moving=False),
        max_points=MAX_BACKGROUND,
        mask_margin=appearance.mask_dilation + _MASK_MARGIN_PX,
        keep=(lambda t: ~depth_edges(scene.depth[t])) if appearance.hide_edges else None,
        step=appearance.step_static,
    )
    return tuple(pixels)


def agreeing_background(
    scene: Scene, appearance: Appearance
) -> tuple[Pixels, tuple[UInt8[np.ndarray, "_ 3"], ...]]:
    """Static pixels that other frames do not contradict, and the colours the frames agree on."""
    pixels, colors = [], []
    if appearance.frame_alone:
        nothing = np.zeros(0, np.int64), np.zeros((0, 3), np.uint8)
        return (nothing[0],) * len(scene), (nothing[1],) * len(scene)
    for t, chosen in enumerate(select_background(scene, appearance)):
        found = agreement(scene, t, chosen)
        pixels.append(chosen[found.kept])
        colors.append(found.colors[found.kept])
    return tuple(pixels), tuple(colors)


def select_moving(scene: Scene, appearance: Appearance) -> Pixels:
    """Dynamic pixels of each frame, at most 60 000 per frame and two million in all.

    If each frame is shown alone, all of its pixels are taken instead of the dynamic ones.
    """
    threshold = confidence_threshold(scene, appearance.drop_moving, moving=True)
    limit = max(1, min(MAX_MOVING_PER_FRAME, MAX_MOVING // len(scene)))
    found = []
    for t in range(len(scene)):
        chosen = scene.select(t, min_confidence=threshold)
        if not appearance.frame_alone:
            chosen &= grow(scene.dynamic[t], appearance.mask_dilation)
        if appearance.hide_edges:
            chosen &= ~depth_edges(scene.depth[t])
        pixels = np.flatnonzero(on_grid(chosen, appearance.step_moving, 0, 0))
        if len(pixels) > limit:
            pixels = np.sort(np.random.default_rng(0).choice(pixels, limit, replace=False))
        found.append(pixels)
    return tuple(found)


def unproject(
    uv: Float[np.ndarray, "k 2"],
    depth: Float[np.ndarray, " k"],
    K: Float[np.ndarray, "3 3"],
    T_world_camera: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "k 3"]:
    """World points (float64) of pixel coordinates with depth; integers are pixel centres."""
    z = depth.astype(np.float64)
    xy = (uv - K[:2, 2]) / K[[0, 1], [0, 1]] * z[:, None]
    world: np.ndarray = np.column_stack([xy, z]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return world
