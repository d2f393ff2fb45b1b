"""Windows of a long clip in `dyn3r run`: their folder beside the results, and what is said of them.

OUT.windows holds the finished windows while a run works. It is removed with the results written,
and stays where a run is stopped or killed: `--resume OUT` goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from dyn3r.cli.terminal import say
from dyn3r.errors import InputError

if TYPE_CHECKING:
    from dyn3r.alignment.clip_windows import WindowPlan
    from dyn3r.types import WindowFolder


def windows_folder(output: Path) -> Path:
    """OUT.windows, beside the folder of the results."""
    place = Path(os.path.realpath(output))
    return place.with_name(f"{place.name or 'dyn3r'}.windows")


def _is_same(output: Path, resume: Path) -> bool:
    return os.path.realpath(resume) == os.path.realpath(output)


def goes_on(output: Path, resume: Path | None) -> bool:
    """Whether `--resume` names the results that this run is to write, and they are not there."""
    if resume is None or not _is_same(output, resume):
        return False
    return windows_folder(output).is_dir() or not output.is_dir() or not os.listdir(output)


def check(output: Path, resume: Path | None, *, overwrite: bool) -> None:
    """Refuse to lose the windows of an interrupted run, or to start from one as from a result.

    Raises InputError, which says what to do.
    """
    from dyn3r.scene.windows.store import holds_windows

    if resume is not None:
        going_on = goes_on(output, resume)
        has_result = (resume / "scene.dyn3r").exists()
        if _is_same(output, resume) and has_result and not going_on and not overwrite:
            raise InputError(
                f"{output} is finished: --resume with another -o adds later frames of the source, "
                "--overwrite starts again"
            )
        if not (going_on or has_result) and holds_windows(windows_folder(resume)):
            raise InputError(f"{resume} was interrupted: to go on, add -o {resume}")
    elif holds_windows(windows_folder(output)) and not overwrite:
        raise InputError(
            f"{windows_folder(output)} holds windows of an interrupted run: "
            f"--resume {quote(str(output))} goes on, --overwrite starts again"
        )


def prepare(output: Path, resume: Path | None, *, overwrite: bool) -> WindowFolder:
    """The folder for the finished windows of a run. Raises InputError as `check`.

    With `resume` those of the same run are taken over; else those of an earlier run are removed.
    """
    from dyn3r.scene.windows.store import discard_windows, holds_windows
    from dyn3r.types import WindowFolder

    check(output, resume, overwrite=overwrite)
    folder = windows_folder(output)
    if resume is None and holds_windows(folder):
        discard_windows(folder)
    return WindowFolder(folder, replace=overwrite)


@contextmanager
def kept(
    output: Path, resume: Path | None, *, overwrite: bool, quiet: bool
) -> Iterator[WindowFolder]:
    """The folder of `prepare`; where the block is left early, a line says what is kept in it.

    Without a finished window it is removed then.
    """
    from dyn3r.scene.windows.store import WindowStore, discard_windows, holds_windows

    where = prepare(output, resume, overwrite=overwrite)
    try:
        yield where
    except BaseException as problem:
        if holds_windows(where.path):
            count = WindowStore(where.path).finished()
            if not count:
                discard_windows(where.path)
            elif not quiet and not isinstance(problem, InputError):
                windows = "1 finished window is" if count == 1 else f"{count} finished windows are"
                option = "" if resume else f" with --resume {quote(str(output))}"
                say(f"{windows} kept in {where.path}: the same command{option} goes on", error=True)
        raise


def discard(where: WindowFolder) -> None:
    """Remove the windows of a run whose results are written."""
    from dyn3r.scene.windows.store import discard_windows, holds_windows

    if holds_windows(where.path):
        discard_windows(where.path)


def in_words(plan: WindowPlan | None, limit_gb: float) -> str:
    """Windows and memory, for the line that says what a run will do."""
    if plan is None:
        return ""
    more = "" if plan.memory_gb <= limit_gb else f", above --windows.memory-gb {limit_gb:g}"
    return f", in {len(plan)} windows of {plan.longest} (about {plan.memory_gb:.1f} GB{more})"
