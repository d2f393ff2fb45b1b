"""One HTML page about a benchmark run that opens without a network: tables, plots, worst frames."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dyn3r.evaluation.benchmark import THRESHOLDS, Result
from dyn3r.evaluation.benchmark_table import (
    AVERAGES,
    VERDICTS,
    cell,
    mean,
    remarks,
    shown_metrics,
    verdict_rows,
)
from dyn3r.evaluation.completeness import shortfalls
from dyn3r.evaluation.protocols import METRICS, Protocol
from dyn3r.io.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem .75rem; border-bottom: 1px solid #8884; text-align: right; }
td:first-child, th:first-child { text-align: left; }
tr.mean td { font-weight: 600; } tr.base td { opacity: .65; } .failed { color: #c22; }
section { margin: 2.5rem 0; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; }
img { max-width: 100%; } .plots img { background: #fff; }
th, tr td + td { white-space: nowrap; } td.failed { white-space: normal; }
dt { font-weight: 600; float: left; clear: left; width: 8rem; } dd { margin-left: 8rem; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } }
"""


def write_report(
    output: Path, protocol: Protocol, results: list[Result], *, shortened: bool
) -> None:
    """Write OUT/report.html; `shortened` as in `sequence_table`. Raises OutputError."""
    settings = results[0].about.get("settings", {})
    title = f"{protocol.name}: {settings.get('model', '')}, {settings.get('method', '')}"
    results = sorted(results, key=lambda r: r.sequence)
    lacks = shortfalls(protocol, results, shortened=shortened)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "".join(
            f"<p>{html.escape(sentence).replace('`', '')}</p>"
            for sentence in remarks(protocol, results, lacks)
        ),
        _made_with(results),
        _table(protocol, results, published=not lacks),
        _verdicts(results),
        _definitions(shown_metrics(protocol, results)),
        _curves_of_all(results),
        *(_sequence(output, result) for result in results),
    ]
    write_text(
        output / "report.html",
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n",
        overwrite=True,
    )


def _made_with(results: list[Result]) -> str:
    """Versions, sizes and machines of the results, a sentence of each that there is."""
    kinds = {}
    for r in results:
        machine = r.about.get("machine", {})
        gpu = machine.get("gpu", "none")
        where = f"{machine.get('cores', '?')} cores" + (f", {gpu}" if gpu != "none" else "")
        said = f"dyn3r {r.about.get('dyn3r_version', '?')}"
        if "size" in r.about:
            said += f", frames with a long side of {r.about['size']} pixels"
        kinds[f"{said}, {where}"] = r.status == "ok"
    seconds = sum(r.seconds for r in results)
    made = "; ".join(kind for kind, ok in kinds.items() if ok)
    return f"<p>{html.escape(made)}; {seconds:.0f} s of reconstruction.</p>" if made else ""


def _table(protocol: Protocol, results: list[Result], *, published: bool) -> str:
    """A row a sequence, the means, the baseline, and published rows if asked for."""
    metrics = shown_metrics(protocol, results)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["sequence", "frames", *metrics])
    rows = []
    for r in results:
        name = f'<a href="#{html.escape(r.sequence)}">{html.escape(r.sequence)}</a>'
        if r.status == "failed":
            error = html.escape(r.error)
            rows.append(
                f"<tr><td>{name}</td><td>{r.frames}</td>"
                f'<td class="failed" colspan="{len(metrics)}">failed: {error}</td></tr>'
            )
        else:
            rows.append(_row(name, str(r.frames), [cell(m, r.metrics.get(m)) for m in metrics]))
    frames = str(sum(r.frames for r in results))
    for average in AVERAGES:
        if average == "pixels" and "depth" not in protocol.tasks:
            continue
        mark = " (the protocol's)" if average == protocol.average else ""
        values = [cell(m, mean(results, m, average)) for m in metrics]
        rows.append(_row(f"mean over {average}{mark}", frames, values, "mean"))
    base = [cell(m, mean(results, m, protocol.average, "baseline")) for m in metrics]
    rows.append(_row("constant depth, still camera, no motion", frames, base, "base"))
    for row in protocol.published if published else ():
        values = [cell(m, row.values.get(m)) for m in metrics]
        label = html.escape(f"{row.method} (published: {row.source})")
        rows.append(_row(label, "", values, "base"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _verdicts(results: list[Result]) -> str:
    """Errors by the grade of the verdict, if there is one."""
    rows = verdict_rows(results)
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in rows[0])
    body = "".join(_row(part, metric, cells) for part, metric, *cells in rows[1:])
    return f"<p>{VERDICTS}</p><table><tr>{head}</tr>{body}</table>"


def _row(name: str, frames: str, cells: list[str], style: str = "") -> str:
    values = "".join(f"<td>{html.escape(c)}</td>" for c in cells)
    return f'<tr class="{style}"><td>{name}</td><td>{frames}</td>{values}</tr>'


def _definitions(metrics: list[str]) -> str:
    entries = (f"<dt>{html.escape(m)}</dt><dd>{html.escape(METRICS[m])}</dd>" for m in metrics)
    return f"<dl>{''.join(entries)}</dl>"


def _curves_of_all(results: list[Result]) -> str:
    """Precision over recall of the motion map, all frames of all sequences together."""
    masks = [r.curves["masks"] for r in results if "masks" in r.curves]
    true = sum(m["true"] for m in masks)
    if true == 0:
        return ""
    hits, found = (np.sum([m[name] for m in masks], axis=0) for name in ("hits", "found"))
    precision, recall = hits / np.maximum(found, 1), hits / true

    def draw(axes: Axes) -> None:
        axes.plot(recall, precision, marker=".")
        for k in range(0, len(THRESHOLDS), 6):
            place = (recall[k], precision[k])
            axes.annotate(f"{THRESHOLDS[k]:.2f}", place, xytext=(-4, -10),
                          textcoords="offset points", ha="right")  # fmt: skip
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision",
                 title="motion map, by threshold")  # fmt: skip

    return f"<section><h2>Masks</h2>{plot(draw, 'precision over recall of masks')}</section>"


def _sequence(output: Path, result: Result) -> str:
    """Plots and worst frames of a sequence."""
    unit = {"distance": f" of the camera centres, {result.about.get('unit', 'arbitrary')}"}
    plots = [_over_time(name, v, unit.get(name, "")) for name, v in result.per_frame.items()]
    if "path" in result.curves:
        path, true = (np.array(result.curves[name], dtype=float) for name in ("path", "true path"))
        for label, axes in (("from above", (0, 2)), ("from the side", (2, 1))):
            plots.append(_path(path, true, axes, label))
    picture = output / "frames" / f"{result.sequence}.jpg"
    shown = ""
    if picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        shown = (
            "<p>The worst frames: image, and errors. Masks: green agrees, red is missed, blue is "
            "false. Depth: brighter is worse, white from 50 %.</p>"
            f'<img alt="worst frames" loading="lazy" src="data:image/jpeg;base64,{data}">'
        )
    if result.status == "failed":
        shown = f'<p class="failed">failed: {html.escape(result.error)}</p>'
    name = html.escape(result.sequence)
    return (
        f'<section id="{name}"><h2>{name}</h2><div class="plots">{"".join(plots)}</div>'
        f"{shown}</section>"
    )


def _over_time(name: str, values: list[float | None], unit: str) -> str:
    """A metric of every frame."""
    y = np.array([math.nan if v is None else v for v in values])

    def draw(axes: Axes) -> None:
        axes.plot(np.arange(len(y)), y)
        axes.set(xlabel="frame", ylabel=f"{name}{unit}", title=f"{name} over time")
        axes.set_ylim(0, 1.02 if name == "J" else None)

    return plot(draw, f"{name} over time")


def _path(path: np.ndarray, true: np.ndarray, axes_of: tuple[int, int], label: str) -> str:
    """Camera centres, estimated (aligned) and true, seen along an axis of the true world."""
    a, b = axes_of

    def draw(axes: Axes) -> None:
        axes.plot(true[:, a], true[:, b], color="0.4", label="truth")
        axes.plot(path[:, a], path[:, b], color="tab:red", label="estimate")
        axes.plot(*true[0, [a, b]], "o", color="0.4")
        axes.set(xlabel="xyz"[a], ylabel="xyz"[b], title=f"camera path {label}")
        axes.set_aspect("equal", adjustable="datalim")
        if b == 1:
            axes.invert_yaxis()  # y points down
        axes.legend()

    return plot(draw, f"camera path {label}")


def plot(draw: Callable[[Any], None], alt: str) -> str:
    """An image element with what `draw` draws on axes (SVG, in the page)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 2.9), layout="constrained")
    draw(figure.add_subplot())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'
