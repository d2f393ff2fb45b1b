"""`dyn3r benchmark`: the evaluation of published data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dyn3r.cli.console import Flag
from dyn3r.cli.terminal import say
from dyn3r.errors import Dyn3rError, InputError
from dyn3r.io.text import counted

if TYPE_CHECKING:
    from dyn3r.evaluation.benchmark import Result
    from dyn3r.evaluation.benchmark_run import BenchmarkSettings
    from dyn3r.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Benchmark:
    """Evaluate a model on a published data set, by a published protocol.

    Examples:

        dyn3r benchmark davis --root DAVIS/ --split 16
        dyn3r benchmark easi3r/tum --root tum/ --model monst3r-512-dpt --method easi3r --jobs 4
        dyn3r benchmark table results/*

    Data sets: davis, sintel, tum, bonn, kitti, kitti-selection, kitti-odometry, nyu, scannet, adt,
    dycheck, and folder (truth folders of your own). `dyn3r datasets` says where they come from. A
    name such as easi3r/tum chooses a protocol; docs/benchmark.md lists them. One line a sequence is
    printed as it is done; OUT has a JSON file a sequence, table.md, table.csv and report.html.
    `table` compares earlier runs, beside published numbers where the whole protocol was run; with
    -o, it also writes OUT/table.md and OUT/table.csv.
    """

    data: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="DATA|table")]]
    """Data set, protocol, or `table`."""
    results: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[OUT ...]")]
    ] = ()
    """Of `table`: folders of earlier runs."""
    root: Path | None = None
    """Folder of the data set."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="OUT")] = None
    """Folder for the results; default results/PROTOCOL_METHOD_MODEL."""
    split: Literal["16", "17", "all"] = "16"
    """Of davis: 20 sequences, 30 sequences, all."""
    sequences: tuple[str, ...] = ()
    """Only these sequences."""
    num_frames: int | None = None
    """Only the first frames of each sequence (a quick look, not the protocol)."""
    model: str = "compact"
    """As in `dyn3r run`."""
    method: Literal["auto", "dust3r", "monst3r", "easi3r", "vggt4d", "refined", "colmap"] = "auto"
    """As in `dyn3r run`; colmap: the cameras of pycolmap, as a baseline."""
    size: int | None = None
    """Long side of the frames in pixels; default: as `dyn3r run`."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the transformer."""
    jobs: int = 1
    """Sequences at the same time, each in a process of its own."""
    ray: str | None = None
    """Address of a Ray cluster, or auto; --jobs is then the number of workers there."""
    resume: Flag = False
    """Keep the results in OUT and run what is missing or failed."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print the table only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        if self.data == "table":
            say(*self._compare().splitlines())
            return
        from dyn3r.evaluation.benchmark_run import read_results

        settings, protocol = self._settings()
        self._run(settings)
        done = list(read_results(settings.output).values())
        shortened = self.num_frames is not None
        say(*write_summary(settings.output, protocol, done, shortened=shortened).splitlines())
        failed = [r.sequence for r in done if r.status == "failed"]
        if not self.quiet:
            say(f"wrote {settings.output / 'report.html'}, table.md, table.csv")
        if failed:
            raise Dyn3rError(
                f"{len(failed)} of {len(done)} sequences failed: {', '.join(failed)} "
                "(--resume runs them again)"
            )

    def _compare(self) -> str:
        """The tables of earlier runs; they are written to OUT if it is given."""
        from dyn3r.evaluation.benchmark_run import SETTINGS
        from dyn3r.evaluation.benchmark_table import runs_csv
        from dyn3r.io.atomic import write_text

        tables, shortened = _runs(self.results)
        text = _table_of_runs(tables, shortened)
        if self.output is not None:
            if (self.output / SETTINGS).exists():
                raise InputError(f"{self.output} holds the results of a run: give another folder")
            write_text(self.output / "table.md", text + "\n", overwrite=self.overwrite)
            write_text(self.output / "table.csv", runs_csv(tables), overwrite=self.overwrite)
        return text

    def _settings(self) -> tuple[BenchmarkSettings, Protocol]:
        """Check what was asked for before anything is loaded."""
        from dyn3r.evaluation.benchmark_run import SETTINGS, BenchmarkSettings
        from dyn3r.evaluation.protocols import find_protocol
        from dyn3r.io.atomic import check_output_folder

        if self.results:
            raise InputError(f"{self.results[0]}: folders of results go with `benchmark table`")
        name = f"easi3r/davis-{self.split}" if self.data == "davis" else self.data
        protocol = find_protocol(name)
        if self.root is None:
            raise InputError(f"--root is missing: the folder of {protocol.dataset}")
        self._check_numbers()
        if self.resume and self.overwrite:
            raise InputError("--resume keeps the results and --overwrite replaces them: give one")
        label = f"{protocol.name.replace('/', '_')}_{self.method}"
        if self.method != "colmap":
            label += f"_{Path(self.model).stem}"
        output = self.output or Path("results") / label
        earlier = (output / SETTINGS).exists()
        if earlier and not (self.resume or self.overwrite):
            raise InputError(f"{output} holds results: --resume continues, --overwrite replaces")
        check_output_folder(output, overwrite=earlier or self.overwrite)
        settings = BenchmarkSettings(
            protocol.name, self.root, output, model=self.model, method=self.method,
            device=self.device, precision=self.precision, size=self.size,
            num_frames=self.num_frames, sequences=self.sequences,
        )  # fmt: skip
        return settings, protocol

    def _check_numbers(self) -> None:
        """Refuse numbers that no sequence could be run with."""
        from dyn3r.io.images import check_size

        for name, value in (("num-frames", self.num_frames), ("jobs", self.jobs)):
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, not {value}")
        if self.size is not None:
            check_size(self.size)

    def _run(self, settings: BenchmarkSettings) -> None:
        """Run, and print a line a sequence."""
        from dyn3r.evaluation.benchmark_run import run_benchmark

        results = run_benchmark(
            settings, jobs=self.jobs, ray=self.ray, resume=self.resume, overwrite=self.overwrite
        )
        for result in results:
            if not self.quiet:
                say(_line(result), error=True)


def write_summary(
    output: Path, protocol: Protocol, results: list[Result], *, shortened: bool
) -> str:
    """Write table.md, table.csv and report.html; returns the table."""
    from dyn3r.evaluation.benchmark_table import sequence_csv, sequence_table
    from dyn3r.evaluation.report import write_report
    from dyn3r.io.atomic import write_text

    table = sequence_table(protocol, results, shortened=shortened)
    write_text(output / "table.md", table + "\n", overwrite=True)
    write_text(output / "table.csv", sequence_csv(results), overwrite=True)
    write_report(output, protocol, results, shortened=shortened)
    return table


def _line(result: Result) -> str:
    """A sequence in one line."""
    from dyn3r.evaluation.benchmark_table import cell

    if result.status == "failed":
        return f"{result.sequence}: failed: {result.error}"
    values = ", ".join(f"{m} {cell(m, v)}" for m, v in result.metrics.items() if v is not None)
    return f"{result.sequence}: {counted(result.frames, 'frame')}, {result.seconds:.0f} s: {values}"


def _runs(folders: tuple[Path, ...]) -> tuple[dict[str, dict[str, list[Result]]], set[str]]:
    """Results by protocol and run, and the protocols of which a run is shortened."""
    from dyn3r.evaluation.benchmark_run import read_results, read_settings

    if not folders:
        raise InputError("give the folders of earlier runs: dyn3r benchmark table results/*")
    by_protocol: dict[str, dict[str, list[Result]]] = {}
    shortened = set()
    for folder in folders:
        settings = read_settings(folder)
        results = list(read_results(folder).values())
        if not results:
            raise InputError(f"{folder} has no results yet")
        runs = by_protocol.setdefault(settings["protocol"], {})
        name = folder.resolve().name
        runs[name if name not in runs else str(folder)] = results
        if settings.get("num_frames") is not None:
            shortened.add(settings["protocol"])
    return by_protocol, shortened


def _table_of_runs(by_protocol: dict[str, dict[str, list[Result]]], shortened: set[str]) -> str:
    """Runs of the same protocol beside each other; one table a protocol."""
    from dyn3r.evaluation.benchmark_table import runs_table
    from dyn3r.evaluation.protocols import find_protocol

    return "\n\n".join(
        runs_table(find_protocol(name), runs, shortened=name in shortened)
        for name, runs in by_protocol.items()
    )
