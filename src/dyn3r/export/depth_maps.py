"""Depth maps as 16-bit PNG with a scale, NumPy arrays or OpenEXR; motion masks as PNG."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from dyn3r.export.frame_images import chosen_size, intrinsics, read_frames
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.export.pixels import write_exr, write_mask, write_uint16
from dyn3r.io.atomic import write_json
from dyn3r.scene import Scene
from dyn3r.types import Progress

logger = logging.getLogger(__name__)

_MAX_DEPTH = 50.0  # median depths; larger depths are clipped, so that outliers cost no precision


def write_png(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `NAME.png`, 16 bits: depth = value * scale, with the clip's scale in `depth.json`."""
    farthest = float(scene.depth.max())
    limit = min(farthest, _MAX_DEPTH * scene.median_depth)
    scale = limit / 65535 if limit > 0 else 1.0
    clipped = int((scene.depth > limit).sum())
    if clipped:
        logger.warning(
            "depth: %d pixels are clipped to %g (50 median depths); "
            "depth-npy and depth-exr keep their depth",
            clipped,
            limit,
        )

    def write(path: Path, depth: Float32[np.ndarray, "h w"]) -> None:
        write_uint16(path.with_name(path.name + ".png"), depth_to_16_bit(depth, scale))

    extras = {"scale": scale, "depth": "value * scale; 0 is unknown", "pixels_clipped": clipped}
    _write(scene, folder, options, progress, write, extras)


def write_npy(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `NAME.npy`, float32; 0 is unknown."""

    def write(path: Path, depth: Float32[np.ndarray, "h w"]) -> None:
        np.save(path.with_name(path.name + ".npy"), depth, allow_pickle=False)

    _write(scene, folder, options, progress, write, {"depth": "the value; 0 is unknown"})


def write_openexr(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `NAME.exr`, one 32-bit channel named Y; 0 is unknown."""

    def write(path: Path, depth: Float32[np.ndarray, "h w"]) -> None:
        write_exr(path.with_name(path.name + ".exr"), depth)

    _write(scene, folder, options, progress, write, {"depth": "the value; 0 is unknown"})


def write_masks(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `NAME.png`, 8 bits: 255 is dynamic, 0 is static."""
    stems = frame_stems(scene)
    for t, frame in enumerate(read_frames(scene, options, chosen_size(options))):
        progress("writing masks", t, len(scene))
        write_mask(folder / f"{stems[t]}.png", frame.dynamic)
    progress("writing masks", len(scene), len(scene))


def depth_to_16_bit(depth: Float32[np.ndarray, "h w"], scale: float) -> UInt16[np.ndarray, "h w"]:
    """round(depth / scale) in 1..65535 where the depth is known, 0 elsewhere."""
    values = np.rint(np.minimum(depth.astype(np.float64) / scale, 65535))
    return np.where(depth > 0, np.maximum(values, 1), 0).astype(np.uint16)


def _write(
    scene: Scene,
    folder: Path,
    options: ExportOptions,
    progress: Progress,
    write: Callable[[Path, Float32[np.ndarray, "h w"]], None],
    extras: dict[str, Any],
) -> None:
    """Write all depth maps with `write`, whose path has no suffix, and `depth.json`."""
    size = chosen_size(options)
    stems = frame_stems(scene)
    for t, frame in enumerate(read_frames(scene, options, size)):
        progress("writing depth", t, len(scene))
        write(folder / stems[t], frame.depth)
    progress("writing depth", len(scene), len(scene))
    resolution = {"prepared": "as estimated", "source": "nearest neighbour"}[size]
    if size == "source" and options.source is not None:
        resolution = "upsampled, guided by the source images"
    metadata = {
        **extras,
        "unit": f"{scene.unit}; z along the optical axis",
        "resolution": resolution,
        "frames": stems,
        "K": intrinsics(scene, size).tolist(),
        "pixel_centres": "integers",
        "T_world_camera": scene.T_world_camera.tolist(),
    }
    write_json(folder / "depth.json", metadata)
