"""PLY: coloured points, binary little-endian, in the scene's own world axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dyn3r.export.clouds import find_clouds, select_all
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene
from dyn3r.types import Progress

DEFAULT_POINTS = 2_000_000


def write_ply(scene: Scene, path: Path, options: ExportOptions, progress: Progress) -> None:
    """The background of all frames and the moving things of every frame in one file."""
    clouds = find_clouds(scene, options, default_points=DEFAULT_POINTS)
    parts = [clouds.static, *clouds.moving]
    whole = PointCloud(
        np.concatenate([part.points_world for part in parts]),
        np.concatenate([part.colors for part in parts]),
    )
    path.write_bytes(ply_bytes(whole))


def write_ply_frames(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress
) -> None:
    """One file a frame with all its points (or its still or moving ones)."""
    chosen = select_all(scene, options)
    for t, stem in enumerate(frame_stems(scene)):
        progress("writing clouds", t, len(scene))
        (folder / f"{stem}.ply").write_bytes(ply_bytes(scene.points_of(t, chosen[t])))
    progress("writing clouds", len(scene), len(scene))


def ply_bytes(cloud: PointCloud) -> bytes:
    """x y z as float32, red green blue as uint8."""
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
