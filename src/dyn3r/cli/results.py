"""Shared by the commands that make a scene: loading models, writing results, reporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dyn3r.types import Progress, no_progress

if TYPE_CHECKING:
    from dyn3r.network.model import Model
    from dyn3r.scene import Scene
    from dyn3r.scene.findings import Findings


def load_models(
    names: tuple[str, str | None],
    device: str,
    precision: Literal["auto", "bfloat16", "float32"],
    progress: Progress,
) -> tuple[Model, Model | None]:
    """The model and, if one was named, the model that finds motion."""
    from dyn3r.network.model import load_model

    progress("loading the model", 0, 1)
    name, motion_name = names
    model = load_model(name, device=device, precision=precision, progress=progress)
    motion_model = None
    if motion_name is not None:
        motion_model = load_model(
            motion_name, device=device, precision=precision, progress=progress
        )
    progress("loading the model", 1, 1)
    return model, motion_model


def write_results(
    scene: Scene,
    output: Path,
    *,
    overwrite: bool,
    pictures: bool,
    findings: Findings | None = None,
    masks_of: Path | None = None,
    progress: Progress = no_progress,
) -> list[Path]:
    """Write the scene and its pictures, all of them or none; returns what was written.

    `findings`: also draw these. `masks_of`: the source, to write masks at its resolution.
    """
    from dyn3r.io.atomic import atomic_folder
    from dyn3r.scene.explanation import write_explanation
    from dyn3r.scene.pictures import write_camera_path, write_contact_sheet, write_overview_video

    writers: list[tuple[str, Any]] = [("scene.dyn3r", scene.save)]
    if pictures:
        writers += [
            ("contact_sheet.png", lambda path: write_contact_sheet(scene, path)),
            ("camera_path.png", lambda path: write_camera_path(scene, path)),
            ("overview.mp4", lambda path: write_overview_video(scene, path)),
        ]
    if findings is not None:
        writers.append(("explain", lambda path: write_explanation(findings, scene, path)))
    if masks_of is not None:
        writers.append(("masks", lambda path: scene.export("masks", path, source=masks_of)))
    with atomic_folder(output, overwrite=overwrite) as folder:
        for done, (name, write) in enumerate(writers):
            progress("writing results", done, len(writers))
            write(folder / name)
    progress("writing results", len(writers), len(writers))
    return [output / name for name, _ in writers]


def report(scene: Scene, files: Sequence[Path], output: Path, seconds: float) -> None:
    """Print what was done, and where the results are."""
    for note in scene.metadata.get("notes", []):
        print(f"note: {note}")
    print(f"{len(scene)} frames of {scene.size_hw[1]}x{scene.size_hw[0]} in {seconds:.1f} s")
    print("wrote " + ", ".join(str(file) for file in files))
    print(f"open it with:  dyn3r view {output}")
