"""PLY: coloured points, binary little-endian, in the scene's own world axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dyn3r.export.clouds import collect_clouds, select_pixels
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene
from dyn3r.types import Progress

DEFAULT_POINTS = 2_000_000


def write_ply(
    scene: Scene,
    path: Path,
    options: ExportOptions,
    _progress: Progress,
) -> None:
    """Write the static points of all frames and the dynamic points of every frame to one file."""
    clouds = collect_clouds(scene, options, default_points=DEFAULT_POINTS)
    parts = [clouds.static, *clouds.moving]
    merged = PointCloud(
        np.concatenate([part.points_world for part in parts]),
        np.concatenate([part.colors for part in parts]),
    )
    path.write_bytes(ply_bytes(merged))


def write_ply_frames(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress
) -> None:
    """Write one file per frame with all its points (or its static or dynamic ones)."""
    chosen = select_pixels(scene, options)
    for t, stem in enumerate(frame_stems(scene)):
        progress("writing clouds", t, len(scene))
        (folder / f"{stem}.ply").write_bytes(ply_bytes(scene.points_of(t, chosen[t])))
    progress("writing clouds", len(scene), len(scene))


def ply_bytes(cloud: PointCloud) -> bytes:
    """Content of a PLY file: x y z as float32, red green blue as uint8."""
    names = ("x", "y", "z", "red", "green", "blue")
    rows = np.zeros(
        len(cloud.points_world),
        np.dtype([(n, "<f4" if k < 3 else "u1") for k, n in enumerate(names)]),
    )
    for k, name in enumerate(names):
        rows[name] = cloud.points_world[:, k] if k < 3 else cloud.colors[:, k - 3]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment dyn3r",
        f"element vertex {len(rows)}",
    ]
    header += [f"property {'float' if k < 3 else 'uchar'} {name}" for k, name in enumerate(names)]
    return ("\n".join([*header, "end_header"]) + "\n").encode("ascii") + rows.tobytes()
