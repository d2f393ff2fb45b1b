"""The points that the cloud formats (ply, glb, usd, rerun) hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene, static_points
from dyn3r.scene.background import depth_edges


@dataclass(frozen=True)
class Clouds:
    """World points and sRGB colours."""

    static: PointCloud
    """The background, accumulated over all frames."""
    moving: list[PointCloud]
    """The moving things of each frame."""


def find_clouds(scene: Scene, options: ExportOptions, *, default_points: int) -> Clouds:
    """Background and movers, each without its least sure share and without depth edges.

    Each of the two is thinned to `options.max_points` (or `default_points`), movers evenly over
    the frames. `options.which` leaves one of them empty.
    """
    limit = options.max_points or default_points
    none = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    static, moving = none, [none] * len(scene)
    if options.which != "dynamic":
        static = static_points(
            scene,
            min_confidence=scene.confidence_threshold(options.drop),
            max_points=limit,
            keep=lambda t: ~depth_edges(scene.depth[t]),
        )
    if options.which != "static":
        chosen = [mask & scene.dynamic[t] for t, mask in enumerate(select_all(scene, options))]
        share = min(1.0, limit / max(1, sum(int(mask.sum()) for mask in chosen)))
        moving = [scene.points_of(t, _thin(mask, share, t)) for t, mask in enumerate(chosen)]
    return Clouds(static, moving)


def select_all(scene: Scene, options: ExportOptions) -> list[Bool[np.ndarray, "h w"]]:
    """Per frame the pixels with points to export: sure enough, of the wanted part, no edges."""
    still = scene.confidence_threshold(options.drop)
    moving = moving_threshold(scene, options.drop)
    return [
        scene.select(t, which=options.which)
        & (scene.confidence[t] >= np.where(scene.dynamic[t], moving, still))
        & ~depth_edges(scene.depth[t])
        for t in range(len(scene))
    ]


def moving_threshold(scene: Scene, drop: float) -> float:
    """The confidence below which a share `drop` of the moving pixels lies.

    Models are less sure of what moves: one threshold for all would take the movers first.
    """
    kept = scene.confidence[scene.dynamic & (scene.confidence > 0)]
    return float(np.quantile(kept, drop)) if len(kept) and drop > 0 else 0.0


def linear_colors(colors: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """sRGB 0..255 -> linear light 0..1 (IEC 61966-2-1), as glTF and USD want vertex colours."""
    c = np.arange(256) / 255
    table = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return table[colors]


def _thin(mask: Bool[np.ndarray, "h w"], share: float, seed: int) -> Bool[np.ndarray, "h w"]:
    if share >= 1:
        return mask
    return mask & (np.random.default_rng(seed).random(mask.shape) < share)
