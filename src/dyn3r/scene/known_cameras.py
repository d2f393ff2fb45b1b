"""Known cameras from any file: one of another program, or a scene of an earlier run."""

from __future__ import annotations

from pathlib import Path

from dyn3r.io.arguments import checked_path
from dyn3r.io.camera_files import priors_from_cameras, read_camera_file
from dyn3r.scene.scene import Scene
from dyn3r.types import Clip, Priors


def read_cameras(path: str | Path, clip: Clip, *, fixed: bool = True) -> Priors:
    """Read known cameras and bring them onto the frames of `clip`.

    `path` is a dyn3r scene (the file, or the folder of a run), or any layout that
    `dyn3r.io.camera_files.read_camera_file` knows. `fixed`: the cameras are kept exactly;
    False: they are a start. Raises InputError and MissingExtraError as that function does.
    """
    source = checked_path(path, "the cameras")
    if source.suffix.lower() != ".dyn3r" and not (source / "scene.dyn3r").is_file():
        return read_camera_file(source, clip, fixed=fixed)
    scene = Scene.load(source)
    return priors_from_cameras(
        scene.T_world_camera, scene.K_source(), scene.names, clip, source, fixed=fixed
    )
