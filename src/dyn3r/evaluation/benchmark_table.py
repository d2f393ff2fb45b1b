"""Tables of benchmark results: means by every convention, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from dyn3r.errors import InputError
from dyn3r.evaluation.benchmark import Result
from dyn3r.evaluation.completeness import shortfalls
from dyn3r.evaluation.protocols import TASK_METRICS, Average, Protocol, find_protocol
from dyn3r.evaluation.verdicts import errors_by_grade
from dyn3r.scene.verdict import GRADES

AVERAGES: tuple[Average, ...] = ("frames", "sequences", "pixels")
PERCENT = {"JM", "JR", "false moving", "ATE/path", "focal", "registered", "d<1.25"}
"""Metrics that are shown in percent."""
VERDICTS = "Errors by the grade of the verdict: number of sequences, median, worst."


def mean(
    results: Sequence[Result], metric: str, average: Average, which: str = "metrics"
) -> float | None:
    """Mean of a metric over sequences, weighted as `average` says; None without a value.

    Only depth has a mean over pixels. A failed sequence counts as 0 in JM and JR. In errors it
    cannot count: the table names it.
    """
    if average == "pixels" and metric not in TASK_METRICS["depth"]:
        return None
    total = weight = 0.0
    for result in results:
        value = getattr(result, which).get(metric)
        if result.status == "failed" and metric in ("JM", "JR"):
            value = 0.0
        if value is None or not math.isfinite(value):
            continue
        w = {"frames": result.frames, "sequences": 1, "pixels": result.pixels}[average]
        total, weight = total + w * value, weight + w
    return total / weight if weight else None


def sequence_table(
    protocol: Protocol, results: Sequence[Result], *, shortened: bool = False
) -> str:
    """Markdown: a row a sequence, the means by all conventions, the baseline, published rows.

    `shortened`: not all frames of the protocol were used. Published rows are shown only for
    complete data.
    """
    metrics = shown_metrics(protocol, results)
    lines = _head(["sequence", "frames", *metrics, "s"])
    for r in sorted(results, key=lambda r: r.sequence):
        if r.status == "failed":
            lines.append(_row([r.sequence, str(r.frames), *["failed"] * len(metrics), "-"]))
        else:
            cells = [cell(metric, r.metrics.get(metric)) for metric in metrics]
            lines.append(_row([r.sequence, str(r.frames), *cells, f"{r.seconds:.0f}"]))
    frames = str(sum(r.frames for r in results))
    for average in AVERAGES:
        values = [mean(results, metric, average) for metric in metrics]
        if average == "pixels" and "depth" not in protocol.tasks:
            continue
        mark = " (the protocol's)" if average == protocol.average else ""
        cells = [cell(m, v) for m, v in zip(metrics, values)]
        lines.append(_row([f"**mean over {average}**{mark}", frames, *cells, ""]))
    base = [cell(m, mean(results, m, protocol.average, "baseline")) for m in metrics]
    lines.append(_row(["constant depth, still camera, no motion", frames, *base, ""]))
    lacks = shortfalls(protocol, results, shortened=shortened)
    if not lacks:
        lines += _published(protocol, metrics, before=1, after=1)
    lines += ["", *remarks(protocol, results, lacks)]
    if judged := verdict_rows(results):
        lines += ["", VERDICTS, "", *_head(judged[0]), *map(_row, judged[1:])]
    return "\n".join(lines)


def verdict_rows(results: Sequence[Result]) -> list[list[str]]:
    """Rows of a table of errors by the grade of the verdict, the first one its head.

    Empty if no result has a verdict and a metric that it judges.
    """
    rows = [["verdict on", "error", *GRADES]]
    for (part, metric), graded in errors_by_grade(results).items():
        cells = []
        for grade in GRADES:
            if (errors := graded.get(grade)) is None:
                cells.append("-")
                continue
            values = f"{errors.sequences}: {cell(metric, errors.median)}"
            if errors.sequences > 1:
                values += f", worst {cell(metric, errors.worst)} ({errors.worst_sequence})"
            cells.append(values)
        rows.append([part, metric, *cells])
    return rows if len(rows) > 1 else []


def runs_table(
    protocol: Protocol, runs: dict[str, list[Result]], *, shortened: bool = False
) -> str:
    """Markdown: a row a run, its means as the protocol takes them, beside published rows.

    Runs are compared on the sequences that all of them have; the table says which.

    Raises:
        InputError: there is no such sequence.
    """
    common = _common(protocol.name, runs)
    everything = [r for results in runs.values() for r in results]
    metrics = shown_metrics(protocol, everything)
    lines = _head(["method", *metrics, "frames", "failed"])
    for name, results in runs.items():
        kept = [r for r in results if r.sequence in common]
        values = [cell(m, mean(kept, m, protocol.average)) for m in metrics]
        failed = sum(r.status == "failed" for r in kept)
        lines.append(_row([name, *values, str(sum(r.frames for r in kept)), str(failed)]))
    first = [r for r in next(iter(runs.values())) if r.sequence in common]
    base = [cell(m, mean(first, m, protocol.average, "baseline")) for m in metrics]
    lines.append(_row(["constant depth, still camera, no motion", *base, "", ""]))
    lacks = []
    for results in runs.values():
        kept = [r for r in results if r.sequence in common]
        lacks += shortfalls(protocol, kept, shortened=shortened)
    for name in sorted(common):
        counts = {r.frames for r in everything if r.sequence == name}
        if len(counts) > 1:
            lacks.append(f"{name}: runs of {' and '.join(map(str, sorted(counts)))} frames")
    lacks = list(dict.fromkeys(lacks))  # what all runs lack is said once
    if not lacks:
        lines += _published(protocol, metrics, before=0, after=2)
    notes = remarks(protocol, [r for r in everything if r.sequence in common], lacks)
    return "\n".join([*lines, "", f"Sequences: {', '.join(sorted(common))}.", *notes])


def sequence_csv(results: Sequence[Result]) -> str:
    """CSV: a row a sequence, all metrics and those of the baseline, full precision."""
    names = sorted({name for r in results for name in r.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["protocol", "sequence", "status", "frames", "seconds", "pixels"]
    writer.writerow([*head, *names, *(f"baseline {name}" for name in names)])
    for r in sorted(results, key=lambda r: r.sequence):
        values = [r.metrics.get(name) for name in names]
        base = [r.baseline.get(name) for name in names]
        writer.writerow(
            [r.protocol, r.sequence, r.status, r.frames, f"{r.seconds:.2f}", r.pixels]
            + ["" if v is None else repr(float(v)) for v in (*values, *base)]
        )
    return text.getvalue()


def runs_csv(tables: dict[str, dict[str, list[Result]]]) -> str:
    """CSV: a row a run of each protocol, its means over the common sequences, full precision.

    `tables`: protocol -> name of a run -> its results.
    """
    names = [m for name in tables for m in find_protocol(name).metrics]
    names = list(dict.fromkeys(names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["protocol", "run", "sequences", "frames", "failed", *names])
    for name, runs in tables.items():
        protocol, common = find_protocol(name), _common(name, runs)
        for run, results in runs.items():
            kept = [r for r in results if r.sequence in common]
            failed = sum(r.status == "failed" for r in kept)
            values = [mean(kept, m, protocol.average) for m in names]
            writer.writerow(
                [name, run, len(common), sum(r.frames for r in kept), failed]
                + ["" if v is None else repr(float(v)) for v in values]
            )
    return text.getvalue()


def _common(protocol: str, runs: dict[str, list[Result]]) -> set[str]:
    """Sequences that all runs have. Raises InputError if there is none."""
    common = set.intersection(*({r.sequence for r in results} for results in runs.values()))
    if not common:
        raise InputError(f"{', '.join(runs)}: no sequence of {protocol} is in all of them")
    return common


def shown_metrics(protocol: Protocol, results: Sequence[Result]) -> list[str]:
    """The protocol's metrics that any result has."""
    return [m for m in protocol.metrics if any(r.metrics.get(m) is not None for r in results)]


def remarks(protocol: Protocol, results: Sequence[Result], lacks: list[str]) -> list[str]:
    """What a reader of the numbers must know, one sentence a line; `lacks`: see `shortfalls`."""
    out = [f"Protocol `{protocol.name}`, mean over {protocol.average}. {protocol.remarks}".strip()]
    if lacks:
        hidden = "Published numbers are of the whole and are not shown."
        partial = f"Partial: {'; '.join(lacks)}."
        out.append(f"{partial} {hidden}" if protocol.published else partial)
    failed = {r.sequence: r.error for r in results if r.status == "failed"}
    if failed:
        names = "; ".join(f"{name} ({error})" for name, error in sorted(failed.items()))
        out.append(f"Failed: {names}. They count as 0 in JM and JR, and not in errors.")
    notes = {r.sequence: "; ".join(r.about["notes"]) for r in results if r.about.get("notes")}
    out += [f"Note on {name}: {note}." for name, note in sorted(notes.items())]
    kinds = {str(r.about["mask_kind"]) for r in results if r.about.get("mask_kind")}
    if "masks" in protocol.tasks and kinds:
        out.append(f"True masks mark: {', '.join(sorted(kinds))}.")
    return out


def cell(metric: str, value: float | None) -> str:
    """A number as the field's tables show it."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.1f} %" if metric in PERCENT else f"{value:.3f}"


def _published(protocol: Protocol, metrics: list[str], before: int, after: int) -> list[str]:
    """Published rows, with so many blank cells before and after the metrics."""
    rows = []
    for row in protocol.published:
        cells = [cell(m, row.values.get(m)) for m in metrics]
        label = f"{row.method} (published: {row.source})"
        rows.append(_row([label, *[""] * before, *cells, *[""] * after]))
    return rows


def _head(names: list[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
