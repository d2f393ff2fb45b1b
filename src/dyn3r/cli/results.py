"""Shared by the commands that make a scene: loading models, writing results, reporting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from dyn3r.cli.terminal import say
from dyn3r.errors import Dyn3rError, InputError, OutputError
from dyn3r.io.text import counted
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


PICTURES = ("contact_sheet.png", "camera_path.png", "overview.mp4")
_RESULTS = ("scene.dyn3r", "evaluation.json", *PICTURES)


def is_result(name: str) -> bool:
    """Whether a file of OUT belongs to one scene, so that it is not kept beside another one."""
    return name in _RESULTS or re.fullmatch(r"frames/[0-9]{6}\.npz", name) is not None


def check_source(source: Path, output: Path) -> None:
    """Refuse to write results among the images of the source, or over the source.

    Raises:
        InputError: `output` is the folder `source`, or `source` is one of the results in it.
    """
    source, output = source.resolve(), output.resolve()
    if source == output:
        raise InputError(f"{output} is the source: results among its images would become frames")
    if output in source.parents and is_result(source.relative_to(output).as_posix()):
        raise InputError(f"{source} is the source, and would be replaced: choose another folder")


@dataclass(frozen=True)
class Written:
    """Result files."""

    names: list[str]
    """Names in the folder of the results."""
    failed: str = ""
    """What could not be written beside the scene, and why."""


def write_results(
    scene: Scene,
    folder: Path,
    *,
    pictures: bool,
    findings: Findings | None = None,
    masks_of: Path | None = None,
    progress: Progress = no_progress,
) -> Written:
    """Write the scene to a folder, then what can be made again from it.

    The scene is kept where the rest fails. `findings`: also draw these. `masks_of`: the source, to
    write masks at its resolution. Raises OutputError if the scene can't be written.
    """
    from dyn3r.scene.explanation import write_explanation
    from dyn3r.scene.pictures import write_camera_path, write_contact_sheet, write_overview_video
    from dyn3r.viewer.fixed_view import scene_view

    writers: list[tuple[str, Any]] = []
    if pictures:
        overview = partial(write_overview_video, view=scene_view)
        drawn: tuple[Any, ...] = (write_contact_sheet, write_camera_path, overview)
        writers += [(name, partial(draw, scene)) for name, draw in zip(PICTURES, drawn)]
    if findings is not None:
        writers.append(("explain", lambda path: write_explanation(findings, scene, path)))
    if masks_of is not None:
        writers.append(("masks", lambda path: scene.export("masks", path, source=masks_of)))
    progress("writing results", 0, 1 + len(writers))
    scene.save(folder / "scene.dyn3r")
    names = ["scene.dyn3r"]
    for done, (name, write) in enumerate(writers, start=1):
        progress("writing results", done, 1 + len(writers))
        try:
            write(folder / name)
        except (Dyn3rError, OSError) as problem:
            return Written(names, f"{name} could not be written ({_reason(problem)})")
        names.append(name)
    progress("writing results", 1 + len(writers), 1 + len(writers))
    return Written(names)


def result_files(written: Written, output: Path) -> list[Path]:
    """Paths of the results in their final folder. Raises OutputError if some are missing."""
    if written.failed:
        raise OutputError(f"{output / 'scene.dyn3r'} was written, but {written.failed}")
    return [output / name for name in written.names]


def _reason(problem: Exception) -> str:
    cause = problem.__cause__ if isinstance(problem.__cause__, OSError) else problem
    return getattr(cause, "strerror", None) or str(problem)


def report(scene: Scene, files: Sequence[Path], output: Path, seconds: float) -> None:
    """Print what was done, and where the results are."""
    say(*scene.report.lines())
    for note in scene.notes:
        say(f"note: {note}")
    if scene.verdict is not None:
        say(*scene.verdict.lines())
    frames, (h, w) = counted(len(scene), "frame"), scene.size_hw
    say(f"{frames} of {w}x{h} in {seconds:.1f} s")
    say("wrote " + ", ".join(str(file) for file in files))
    say(f"open it with:  dyn3r view {quote(str(output))}")
