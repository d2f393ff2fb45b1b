"""`dyn3r batch`: `dyn3r run` over many videos."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dyn3r.alignment.clip_windows import WindowOptions
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli import run_windows
from dyn3r.cli.batch_resume import KEY, record, remade, scenes_to_remake
from dyn3r.cli.console import Flag, check_threads, limit_threads
from dyn3r.cli.results import load_models
from dyn3r.cli.run import Run
from dyn3r.cli.terminal import say
from dyn3r.errors import Dyn3rError, InputError
from dyn3r.io.regular_files import read_text
from dyn3r.io.text import counted
from dyn3r.motion.options import MotionOptions
from dyn3r.network.options import InferenceOptions
from dyn3r.options import FlowOptions, RefinementOptions
from dyn3r.types import no_progress

if TYPE_CHECKING:
    from dyn3r.evaluation.jobs import Outcome
    from dyn3r.network.model import Model

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif"}
)
"""Suffixes (lower case) of the files that are taken from a folder. A list may name any file."""
REPORT = "batch.json"


@dataclass(frozen=True)
class Batch:
    """Run `dyn3r run` over many videos: a folder of them, or a list.

    Examples:

        dyn3r batch videos/ -o scenes
        dyn3r batch videos.txt -o scenes --jobs 2 --resume
        dyn3r batch videos/ -o scenes --ray auto --jobs 8

    A folder gives its video files and its folders of images; a text file names one source a line,
    relative to itself, # starts a comment. Each source gets a folder OUT/NAME as `dyn3r run` writes
    it. A line is printed as each is done, and OUT/batch.json and OUT/batch.md report on all. A
    video that fails is named and does not stop the others; the exit code is then 1.
    """

    sources: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER|LIST")]]
    """Folder of videos and folders of images, or a text file of paths."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results."""
    jobs: int = 1
    """Videos at the same time, each in a process of its own."""
    ray: str | None = None
    """Address of a Ray cluster, or auto; --jobs is then the number of workers there. They read and
    write the same folders."""
    resume: Flag = False
    """Keep the scenes in OUT that were made with these options; run what is missing or failed."""
    overwrite: Flag = False
    """Replace the scenes in OUT."""
    model: str = "compact"
    """As in `dyn3r run`, like all that follow."""
    method: Literal["auto", "dust3r", "monst3r", "easi3r", "vggt4d", "refined"] = "auto"
    """The recipe."""
    pairs: str = "auto"
    """Pairs to compare."""
    fps: float = 0.0
    """Keep every round(video_fps/fps)-th frame of a video; 0: see --every."""
    num_frames: int | None = None
    """Number of frames, spread evenly over the video."""
    every: int | None = None
    """Keep every N-th frame; default: so that at most 90 are kept."""
    all_frames: Flag = False
    """Keep all frames."""
    size: int | None = None
    """Long side of the frames in pixels."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the transformer."""
    threads: int = 0
    """Cores that all --jobs together may use; 0: all."""
    save_masks: Flag = False
    """Also write the masks as PNG at source resolution."""
    no_pictures: Flag = False
    """Do not write overview.mp4, contact_sheet.png and camera_path.png."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""
    motion: tyro.conf.FlagConversionOff[MotionOptions] = field(default_factory=MotionOptions)
    flow: tyro.conf.FlagConversionOff[FlowOptions] = field(default_factory=FlowOptions)
    alignment: tyro.conf.FlagConversionOff[AlignmentOptions] = field(
        default_factory=AlignmentOptions
    )
    refinement: tyro.conf.FlagConversionOff[RefinementOptions] = field(
        default_factory=RefinementOptions
    )
    inference: tyro.conf.FlagConversionOff[InferenceOptions] = field(
        default_factory=InferenceOptions
    )
    windows: tyro.conf.FlagConversionOff[WindowOptions] = field(default_factory=WindowOptions)

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.io.images import check_size
        from dyn3r.network.checkpoints.locate import locate

        check_threads(self.threads)
        if self.resume and self.overwrite:
            raise InputError("--resume keeps the scenes in OUT, --overwrite replaces them")
        sources = find_sources(self.sources)
        self.run_of("", self.sources).options()  # refuses what no video could be run with
        if self.size is not None:
            check_size(self.size)
        self._check_output(sources)
        located = locate(self.model)  # an unknown name stops here; a download is done once
        weights = located.sha256()
        entries = {name: {"name": name, "source": str(path)} for name, path in sources.items()}
        for outcome in self._outcomes(sources, weights):
            entries[outcome.item] |= _entry(outcome)
            write_report(self.output, list(entries.values()))
            if not self.quiet:
                say(_line(entries[outcome.item]), error=True)
        failed = [name for name, entry in entries.items() if entry["status"] == "failed"]
        if not self.quiet:
            done = len(entries) - len(failed)
            say(f"{done} of {len(entries)} done: {self.output / 'batch.md'}")
        if failed:
            raise Dyn3rError(
                f"{len(failed)} of {len(entries)} failed: {', '.join(failed)} "
                "(--resume runs them again)"
            )

    def _check_output(self, sources: dict[str, Path]) -> None:
        """Refuse to mix with other files before anything is loaded."""
        from dyn3r.io.atomic import check_output_folder

        check_output_folder(self.output, overwrite=True)
        if self.resume or self.overwrite:
            return
        for name in sources:
            check_output_folder(self.output / name)

    def _outcomes(self, sources: dict[str, Path], weights: str) -> Iterator[Outcome]:
        """What was there before, then what is run now. `weights`: checksum of the model."""
        from dyn3r.evaluation.jobs import Outcome
        from dyn3r.evaluation.run_jobs import run_jobs

        there = [n for n in sources if (self.output / n / "scene.dyn3r").is_file() and self.resume]
        runs = {name: self.run_of(name, sources[name]) for name in there}
        other = scenes_to_remake(runs, weights)
        if other and not self.quiet:
            say(remade(other), error=True)
        kept = [name for name in there if name not in other]
        for name in kept:
            yield Outcome(name, {"status": "done before"})
        left = [name for name in sources if name not in kept]
        worker = BatchWorker(self, sources, weights)
        yield from run_jobs(worker, left, jobs=self.jobs, ray=self.ray)

    def run_of(self, name: str, source: Path) -> Run:
        """The command for one source. With `resume` it takes over the windows that are finished."""
        output = self.output / name
        interrupted = self.resume and run_windows.windows_folder(output).is_dir()
        return Run(
            source=source, output=output, resume=output if interrupted else None,
            model=self.model, method=self.method, pairs=self.pairs,
            fps=self.fps, num_frames=self.num_frames, size=self.size, every=self.every,
            all_frames=self.all_frames,
            device=self.device, precision=self.precision, save_masks=self.save_masks,
            no_pictures=self.no_pictures, overwrite=self.overwrite or self.resume, quiet=True,
            motion=self.motion, flow=self.flow, alignment=self.alignment,
            refinement=self.refinement, inference=self.inference, windows=self.windows,
        )  # fmt: skip


@dataclass
class BatchWorker:
    """Runs sources of a batch by name (`dyn3r.evaluation.jobs.Worker`)."""

    batch: Batch
    sources: dict[str, Path]
    weights: str
    """Checksum of the model."""
    models: tuple[Model, Model | None] | None = field(default=None, repr=False)

    @property
    def device(self) -> str:
        """Device that was asked for, for Ray."""
        return self.batch.device

    def prepare(self, threads: int | None) -> None:
        """Load the model."""
        b = self.batch
        each = max(1, b.threads // b.jobs) if b.threads else 0
        limit_threads(min((n for n in (each, threads) if n), default=0))
        self.models = load_models((b.model, None), b.device, b.precision, no_progress)

    def __call__(self, item: str) -> dict[str, Any]:
        """Reconstruct the source of that name. Raises the errors of `dyn3r.errors`."""
        assert self.models is not None
        started = time.monotonic()
        run = self.batch.run_of(item, self.sources[item])
        asked = {KEY: record(run, self.weights)}
        scene, _ = run.reconstruct(self.models, no_progress, asked)
        return {
            "status": "ok", "frames": len(scene), "seconds": round(time.monotonic() - started, 1),
            "notes": scene.notes,
        }  # fmt: skip


def find_sources(path: Path) -> dict[str, Path]:
    """Name -> source, of a folder of videos and folders of images, or of a list.

    Names are those of the files without suffix; equal ones get _2, _3, ...

    Raises:
        InputError: nothing there.
    """
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        paths = [p for p in found if _is_source(p)]
        if not paths:
            raise InputError(
                f"{path} has no videos and no folders of images; for one folder of images use "
                "dyn3r run"
            )
    elif path.is_file():
        paths = _listed(path)
    else:
        raise InputError(f"{path} does not exist")
    names: dict[str, Path] = {}
    for source in paths:
        name, count = source.stem if source.is_file() else source.name, 1
        unique = name
        while unique in names:
            count += 1
            unique = f"{name}_{count}"
        names[unique] = source
    return names


def _is_source(path: Path) -> bool:
    from dyn3r.io.images import images_in

    if path.is_dir():
        return bool(images_in(path))
    return path.suffix.lower() in VIDEO_SUFFIXES


MAX_LIST_BYTES = 10_000_000
"""Largest list of paths."""


def _listed(file: Path) -> list[Path]:
    """Paths of a list, relative to the list."""
    lines = read_text(file, limit=MAX_LIST_BYTES).splitlines()
    stripped = (line.strip() for line in lines)
    paths = [file.parent / line for line in stripped if line and not line.startswith("#")]
    if not paths:
        raise InputError(f"{file} names no source")
    return paths


def _entry(outcome: Outcome) -> dict[str, Any]:
    if outcome.result is None:
        return {"status": "failed", "error": outcome.error}
    return outcome.result


def _line(entry: dict[str, Any]) -> str:
    """A source in one line."""
    if entry["status"] == "failed":
        return f"{entry['name']}: failed: {entry['error']}"
    if entry["status"] == "done before":
        return f"{entry['name']}: done before"
    return f"{entry['name']}: {counted(entry['frames'], 'frame')}, {entry['seconds']:.0f} s"


def write_report(output: Path, entries: list[dict[str, Any]]) -> None:
    """Write OUT/batch.json and OUT/batch.md. Raises OutputError."""
    from dyn3r.io.atomic import write_json, write_text

    write_json(output / REPORT, {"videos": entries}, overwrite=True)
    lines = ["| video | status | frames | s | notes |", "| --- | --- | --- | --- | --- |"]
    for e in entries:
        told = e.get("error") or "; ".join(e.get("notes", []))
        cells = (e["name"], e.get("status", "waiting"), e.get("frames", ""), e.get("seconds", ""))
        lines.append(f"| {' | '.join(map(str, cells))} | {told.replace('|', '/')} |")
    write_text(output / "batch.md", "\n".join(lines) + "\n", overwrite=True)
