"""Files of a scene for download: every export format, the scene itself, videos."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from dyn3r.export import FORMATS, ExportOptions, export
from dyn3r.scene import Scene
from dyn3r.types import Progress

Writer = Callable[[Scene, Path | None, Path, Progress], Path]
"""Writes into a folder, given the scene and the clip it is of; returns the file or folder."""
_FROM_SOURCE = ("colmap", "nerfstudio")  # formats with the images of the source


def _export(name: str) -> Writer:
    def write(scene: Scene, source: Path | None, folder: Path, progress: Progress) -> Path:
        options = ExportOptions(source=source if name in _FROM_SOURCE else None)
        path = folder / FORMATS[name].default_name
        return export(scene, name, path, options, progress=progress)

    return write


def _scene(scene: Scene, _source: Path | None, folder: Path, _progress: Progress) -> Path:
    return scene.save(folder / "scene.dyn3r")


def _overview(scene: Scene, _source: Path | None, folder: Path, _progress: Progress) -> Path:
    from dyn3r.scene.pictures import write_overview_video
    from dyn3r.viewer.fixed_view import scene_view

    write_overview_video(scene, folder / "overview.mp4", view=scene_view)
    return folder / "overview.mp4"


def _film(scene: Scene, _source: Path | None, folder: Path, progress: Progress) -> Path:
    from dyn3r.viewer import TurntableOptions, write_turntable

    options = TurntableOptions(seconds=6.0, degrees=40.0, size_hw=(720, 1280))
    write_turntable(scene, folder / "film.mp4", options=options, progress=progress)
    return folder / "film.mp4"


def _page(scene: Scene, _source: Path | None, folder: Path, _progress: Progress) -> Path:
    from dyn3r.viewer import save_recording

    return save_recording(scene, folder / "page.html")


DOWNLOADS: dict[str, Writer] = {
    "GLB": _export("glb"),
    "mesh": _export("mesh"),
    "PLY": _export("ply"),
    "COLMAP": _export("colmap"),
    "nerfstudio": _export("nerfstudio"),
    "USD": _export("usd"),
    "rerun": _export("rerun"),
    "page": _page,
    "scene": _scene,
    "overview": _overview,
    "film": _film,
}
"""Label of the button -> writer."""


def make_download(
    kind: str, scene: Scene, source: Path | None, progress: Progress
) -> tuple[str, bytes]:
    """Name and content of a file; a folder becomes a zip archive.

    Raises:
        InputError, OutputError, MissingExtraError: see `dyn3r.export.export`.
    """
    with tempfile.TemporaryDirectory(prefix="dyn3r-app-") as name:
        path = DOWNLOADS[kind](scene, source, Path(name), progress)
        if path.is_file():
            return path.name, path.read_bytes()
        with io.BytesIO() as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for member in sorted(path.rglob("*")):
                    archive.write(member, member.relative_to(path.parent))
            return f"{path.name}.zip", file.getvalue()
