"""Point clouds of the formats ply, glb, usd and rerun."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene, static_points
from dyn3r.scene.background import depth_edges


@dataclass(frozen=True)
class Clouds:
    """World points and sRGB colours of a scene."""

    static: PointCloud
    """Static points, accumulated over all frames."""
    moving: list[PointCloud]
    """Dynamic points, one cloud per frame."""


def collect_clouds(scene: Scene, options: ExportOptions, *, default_points: int) -> Clouds:
    """Static and dynamic points, both without depth edges and the least confident share.

    Each of the two is thinned to `options.max_points` (or `default_points`), the dynamic points
    evenly over the frames. `options.which` leaves one of them empty.
    """
    limit = options.max_points or default_points
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    static, moving = empty, [empty] * len(scene)
    if options.which != "dynamic":
        static = static_points(
            scene,
            min_confidence=scene.confidence_threshold(options.drop),
            max_points=limit,
            keep=lambda t: ~depth_edges(scene.depth[t]),
        )
    if options.which != "static":
        chosen = [mask & scene.dynamic[t] for t, mask in enumerate(select_pixels(scene, options))]
        share = min(1.0, limit / max(1, sum(int(mask.sum()) for mask in chosen)))
        moving = [scene.points_of(t, _thin(mask, share, t)) for t, mask in enumerate(chosen)]
    return Clouds(static, moving)


def select_pixels(scene: Scene, options: ExportOptions) -> list[Bool[np.ndarray, "h w"]]:
    """Pixels to export, one mask per frame: confident, of the chosen part, away from edges."""
    static = scene.confidence_threshold(options.drop)
    dynamic = dynamic_threshold(scene, options.drop)
    return [
        scene.select(t, which=options.which)
        & (scene.confidence[t] >= np.where(scene.dynamic[t], dynamic, static))
        & ~depth_edges(scene.depth[t])
        for t in range(len(scene))
    ]


def dynamic_threshold(scene: Scene, drop: float) -> float:
    """Confidence below which a share `drop` (0..1) of the dynamic pixels lies.

    Models are less confident on moving objects. One threshold for all pixels would remove these
    first.
    """
    kept = scene.confidence[scene.dynamic & (scene.confidence > 0)]
    return float(np.quantile(kept, drop)) if len(kept) and drop > 0 else 0.0


def linear_colors(colors: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """sRGB 0..255 as linear light 0..1 (IEC 61966-2-1), as in vertex colours of glTF and USD."""
    c = np.arange(256) / 255
    table = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear: np.ndarray = table[colors]
    return linear


def _thin(mask: Bool[np.ndarray, "h w"], share: float, seed: int) -> Bool[np.ndarray, "h w"]:
    """Random subset of the mask with about this share of its pixels."""
    if share >= 1:
        return mask
    return mask & (np.random.default_rng(seed).random(mask.shape) < share)
