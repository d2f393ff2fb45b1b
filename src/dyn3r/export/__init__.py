"""Scenes in the formats of other programs. Conventions of every format: docs/exports.md.

from dyn3r.export import ExportOptions, export
export(scene, "colmap", "out/colmap", ExportOptions(source="clip.mp4"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dyn3r.errors import InputError, OutputError
from dyn3r.export import (
    colmap,
    colmap4d,
    depth_maps,
    glb,
    mesh,
    nerfstudio,
    official,
    ply,
    rerun_recording,
    trajectories,
    usd,
    video_file,
)
from dyn3r.export.options import ExportOptions
from dyn3r.io.arguments import check_type, checked_path
from dyn3r.io.atomic import atomic_file, atomic_folder
from dyn3r.io.video import increasing
from dyn3r.scene import Scene
from dyn3r.types import Progress, no_progress

__all__ = ["FORMATS", "ExportOptions", "Exporter", "export"]


@dataclass(frozen=True)
class Exporter:
    """Export format."""

    write: Callable[[Scene, Path, ExportOptions, Progress], None]
    """Writer; its path is temporary: an empty folder, or a file that does not exist yet."""
    default_name: str
    """Default name of the result."""
    summary: str
    """One-line description."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of a file of the format; empty: the format is a folder."""


FORMATS: dict[str, Exporter] = {
    "official": Exporter(
        official.write_official, "official", "output folder of MonST3R and Easi3R"
    ),
    "tum": Exporter(
        trajectories.write_tum, "trajectory_tum.txt", "camera trajectory, TUM", (".txt", ".tum")
    ),
    "kitti": Exporter(
        trajectories.write_kitti,
        "trajectory_kitti.txt",
        "camera trajectory, KITTI",
        (".txt", ".kitti"),
    ),
    "colmap": Exporter(colmap.write_binary, "colmap", "COLMAP model, binary"),
    "colmap-text": Exporter(colmap.write_text, "colmap-text", "COLMAP model, text"),
    "colmap4d": Exporter(
        colmap4d.write_colmap4d, "colmap4d", "COLMAP model with dynamic points and times"
    ),
    "nerfstudio": Exporter(
        nerfstudio.write_nerfstudio, "nerfstudio", "transforms.json with masks and depth"
    ),
    "ply": Exporter(ply.write_ply, "scene.ply", "coloured points, one file", (".ply",)),
    "ply-frames": Exporter(
        ply.write_ply_frames, "ply-frames", "coloured points, one file per frame"
    ),
    "glb": Exporter(glb.write_glb, "scene.glb", "points and cameras, animated, glTF", (".glb",)),
    "mesh": Exporter(
        mesh.write_mesh, "mesh.glb", "surfaces and cameras, animated, glTF", (".glb",)
    ),
    "usd": Exporter(
        usd.write_usd, "scene.usdc", "points and camera, animated", (".usdc", ".usda", ".usd")
    ),
    "rerun": Exporter(
        rerun_recording.write_rerun, "scene.rrd", "recording for the rerun viewer", (".rrd",)
    ),
    "depth": Exporter(depth_maps.write_png, "depth", "depth, 16-bit PNG with a scale"),
    "depth-npy": Exporter(depth_maps.write_npy, "depth-npy", "depth, NumPy float32"),
    "depth-exr": Exporter(depth_maps.write_openexr, "depth-exr", "depth, OpenEXR float32"),
    "masks": Exporter(depth_maps.write_masks, "masks", "motion masks, PNG"),
    "video": Exporter(
        video_file.write_side_by_side,
        "side_by_side.mp4",
        "frames, depth, motion, confidence",
        (".mp4",),
    ),
}
"""All formats by name."""


def export(
    scene: Scene,
    format: str,
    path: str | Path,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Write `scene` as `format` (a key of FORMATS) to `path`, whole or not at all.

    Args:
        path: a file with one of the format's suffixes, or a folder.
        overwrite: replace an existing file. In an existing folder, files of the same names are
            replaced and others stay.

    Returns:
        `path`.

    Raises:
        InputError: an unknown format, or source images that do not fit the scene.
        OutputError: `path` exists and `overwrite` is False, has the wrong suffix, or cannot be
            written.
        MissingExtraError: the format needs a package that is not installed.
    """
    check_type(scene, Scene, "the scene")
    check_type(format, str, "the format")
    options, target = options or ExportOptions(), checked_path(path, "the export")
    check_type(options, ExportOptions, "the options")
    exporter = FORMATS.get(format)
    if exporter is None:
        raise InputError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    _check_source(options.source, target)
    scene = replace(scene, times_s=increasing(scene.times_s, scene.fps))
    if not exporter.suffixes:
        with atomic_folder(target, overwrite=overwrite) as folder:
            exporter.write(scene, folder, options, progress)
        return target
    if target.suffix.lower() not in exporter.suffixes:
        suffixes = " or ".join(exporter.suffixes)
        raise OutputError(f"cannot write {format} to {target}: its name must end in {suffixes}")
    with atomic_file(target, overwrite=overwrite) as part:
        exporter.write(scene, part, options, progress)
    return target


def _check_source(source: Path | None, target: Path) -> None:
    """Refuse to write over the source, or among its images."""
    if source is not None and source.resolve() == target.resolve():
        raise OutputError(f"{target} is the source: it would be changed")
