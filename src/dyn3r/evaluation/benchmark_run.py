"""A benchmark run: one result file a sequence, resumable, by any number of workers.

OUT/benchmark.json          what was run: protocol, options, model, sequences
OUT/sequences/NAME.json     `benchmark.Result` of a sequence, written when it is done
OUT/frames/NAME.jpg         its worst frames
OUT/table.md, OUT/table.csv, OUT/report.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.evaluation.benchmark import Result, model_hash, run_sequence
from dyn3r.evaluation.benchmark_frames import read_sequences
from dyn3r.evaluation.colmap_baseline import run_colmap
from dyn3r.evaluation.protocols import Protocol, find_protocol
from dyn3r.evaluation.run_jobs import run_jobs
from dyn3r.evaluation.worst_frames import write_worst_frames
from dyn3r.io.atomic import write_json
from dyn3r.network.checkpoints.locate import locate
from dyn3r.options import Options
from dyn3r.types import RunContext, package_version

if TYPE_CHECKING:
    from dyn3r.network.model import Model

logger = logging.getLogger(__name__)

SETTINGS = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is run. Two runs with equal settings may share results."""

    protocol: str
    """Name of the protocol."""
    root: Path
    """Folder of the data set."""
    output: Path
    """Folder for the results."""
    model: str = "compact"
    method: Literal["auto", "dust3r", "monst3r", "easi3r", "vggt4d", "refined", "colmap"] = "auto"
    """As `dyn3r.options.Options.method`; colmap: the cameras of pycolmap, as a baseline."""
    device: str = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    size: int | None = None
    """Long side of the frames in pixels; None: as the model was trained."""
    num_frames: int | None = None
    """Only the first frames of each sequence: not the published protocol."""
    sequences: tuple[str, ...] = ()
    """Only these; empty: those of the protocol."""

    def identity(self) -> dict[str, Any]:
        """What must agree for results to be compared: not the folders, not the sequences."""
        values = asdict(self)
        for name in ("root", "output", "sequences", "device"):
            del values[name]
        return values


@dataclass
class SequenceWorker:
    """Runs sequences of one benchmark by name and writes their results (`jobs.Worker`)."""

    settings: BenchmarkSettings
    model: Model | None = field(default=None, repr=False)

    @property
    def device(self) -> str:
        """Device that was asked for, for Ray."""
        return self.settings.device

    def prepare(self, threads: int | None) -> None:
        """Load the model."""
        from dyn3r.io.workers import use_threads
        from dyn3r.network.model import load_model

        if threads is not None:
            use_threads(threads)
        s = self.settings
        if s.method != "colmap":
            self.model = load_model(s.model, device=s.device, precision=s.precision)
            self.hash = model_hash(self.model)
        found = read_sequences(protocol_of(s), s.root, s.sequences)
        self.sequences = {sequence.name: sequence for sequence in found}

    def __call__(self, item: str) -> dict[str, Any]:
        """Run the sequence `item`. Raises the errors of `dyn3r.errors`."""
        protocol, sequence = protocol_of(self.settings), self.sequences[item]
        if self.settings.method == "colmap":
            result = run_colmap(sequence, protocol)
        else:
            result = self._reconstruct(sequence, protocol)
        settings = self.settings.identity()
        result = replace(result, about={**result.about, "settings": settings})
        write_json(result_file(self.settings.output, item), result.to_json(), overwrite=True)
        return result.to_json()

    def _reconstruct(self, sequence: Sequence, protocol: Protocol) -> Result:
        """The result of dyn3r."""
        s = self.settings
        assert self.model is not None
        assert s.method != "colmap"
        result = run_sequence(
            sequence, protocol, self.model, Options(method=s.method), s.size,
            RunContext(),
            keep=partial(write_worst_frames, s.output / "frames" / f"{sequence.name}.jpg"),
        )  # fmt: skip
        return replace(result, about={**result.about, "model_sha256": self.hash})


def protocol_of(settings: BenchmarkSettings) -> Protocol:
    """The protocol with the number of frames that the settings ask for."""
    protocol = find_protocol(settings.protocol)
    if settings.num_frames is None:
        return protocol
    limit = min(settings.num_frames, protocol.limit or settings.num_frames)
    return replace(protocol, limit=limit)


def result_file(output: Path, sequence: str) -> Path:
    """The file of a sequence's result."""
    return output / "sequences" / f"{sequence}.json"


def run_benchmark(
    settings: BenchmarkSettings,
    *,
    jobs: int = 1,
    ray: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Result]:
    """Run all sequences of a benchmark and yield each result as it is known.

    With `resume`, results in `settings.output` are taken as they are; sequences that failed, or
    that have another number of frames now, are run again. With `overwrite`, results are deleted,
    once the data set and the model are known to be there. A failed sequence is a result with
    status "failed".

    Raises:
        InputError: the data set cannot be read, or `output` holds results of other settings or
            of other weights.
    """
    protocol = protocol_of(settings)
    if settings.method == "colmap" and "cameras" not in protocol.tasks:
        raise InputError(f"colmap finds cameras, and {protocol.name} compares none")
    names = {s.name: len(s) for s in read_sequences(protocol, settings.root, settings.sequences)}
    if not overwrite:
        check_settings(settings)
    # an unknown name stops here; a download is done once, not by everyone
    weights = locate(settings.model).sha256() if settings.method != "colmap" else None
    if overwrite:
        discard_results(settings.output)
    else:
        check_weights(settings, weights)
    about = {"sequences": list(names), "weights": weights, "dyn3r_version": package_version()}
    write_json(settings.output / SETTINGS, {**settings.identity(), **about}, overwrite=True)
    earlier = read_results(settings.output) if resume else {}
    done = {name: r for name, r in earlier.items() if name in names and r.status == "ok"}
    kept = {name: r for name, r in done.items() if r.frames == names[name]}
    if changed := done.keys() - kept.keys():
        logger.warning("run again, with another number of frames: %s", ", ".join(sorted(changed)))
    yield from kept.values()
    left = [name for name in names if name not in kept]
    for outcome in run_jobs(SequenceWorker(settings), left, jobs=jobs, ray=ray):
        if outcome.result is not None:
            yield Result(**outcome.result)
            continue
        failed = Result(
            protocol.name, outcome.item, names[outcome.item], "failed", outcome.error,
            about={"settings": settings.identity()},
        )  # fmt: skip
        write_json(result_file(settings.output, outcome.item), failed.to_json(), overwrite=True)
        yield failed


def check_settings(settings: BenchmarkSettings) -> None:
    """Refuse a folder that holds results of other settings."""
    file = settings.output / SETTINGS
    if not file.is_file():
        return
    before, now = read_settings(settings.output), settings.identity()
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(
                f"{settings.output} holds results with {name} {before.get(name)!r}, not {value!r}: "
                "use another folder"
            )


def check_weights(settings: BenchmarkSettings, weights: str | None) -> None:
    """Refuse a folder that holds results of other weights of the model, by their checksum."""
    file = settings.output / SETTINGS
    before = read_settings(settings.output).get("weights") if file.is_file() else None
    if None not in (before, weights) and before != weights:
        raise InputError(
            f"{settings.output} holds results of other weights of the model {settings.model}: use "
            "another folder"
        )


def discard_results(output: Path) -> None:
    """Delete the results of an earlier run in `output`, and nothing else."""
    if not (output / SETTINGS).is_file():
        return
    for file in [*(output / "sequences").glob("*.json"), *(output / "frames").glob("*.jpg")]:
        file.unlink()
    (output / SETTINGS).unlink()


def read_settings(output: Path) -> dict[str, Any]:
    """The settings of a run. Raises InputError if `output` is not a benchmark's folder."""
    try:
        values = json.loads((output / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{output} is not the folder of a benchmark: no {SETTINGS}") from error
    if not isinstance(values, dict) or "protocol" not in values:
        raise InputError(f"{output / SETTINGS} is not the settings of a benchmark")
    return values


def read_results(output: Path) -> dict[str, Result]:
    """Results by sequence. Raises InputError for a file that is no result."""
    out = {}
    for file in sorted((output / "sequences").glob("*.json")):
        try:
            result = Result.from_json(json.loads(file.read_text(encoding="utf-8")))
            if result_file(output, result.sequence) != file:
                raise ValueError("the name is that of another sequence")
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file} is not a result of a benchmark: delete it") from error
        out[result.sequence] = result
    return out
