"""Log of a training run: `log.jsonl` in its folder, plots of it, and TensorBoard."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.atomic import atomic_file
from dyn3r.io.regular_files import read_text

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
PANELS = {
    "loss": "loss (running mean)",
    "shape": "shape loss",
    "matching": "matching loss, nats",
    "held_out_loss": "held out: loss",
    "held_out_abs_rel": "held out: abs rel of depth",
    "held_out_point_error": "held out: point error",
    "held_out_rotation_deg": "held out: rotation error, degrees",
    "lr": "learning rate",
    "waiting": "share of time spent waiting for data",
}
"""What is plotted, and its title."""


def append_log(folder: Path, entry: dict[str, Any]) -> None:
    """Append one line to `log.jsonl`."""
    line = {k: round(v, 9) if isinstance(v, float) else v for k, v in entry.items()}
    with (folder / LOG).open("a") as file:
        file.write(json.dumps({"time": round(time.time()), **line}) + "\n")
    logger.info("%s", line)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a log, by step: of steps taken twice, since the run was killed, the later ones.

    A line that the end of a process cut off is left out. Raises InputError for a missing log.
    """
    by_step: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in read_text(folder / LOG).splitlines():
        try:
            row = json.loads(line)
            by_step[int(row["step"]), any(name.startswith("held") for name in row)] = row
        except (ValueError, TypeError, LookupError):
            continue
    return [by_step[key] for key in sorted(by_step)]


def plot_logs(runs: Sequence[Path], output: Path) -> None:
    """Plot the curves of runs that occur in their logs, as PNG. Raises InputError, OutputError."""
    from matplotlib.figure import Figure

    logs = {run.resolve().name: read_log(run) for run in runs}
    panels = [name for name in PANELS if any(name in row for log in logs.values() for row in log)]
    if not panels:
        raise InputError(f"{runs[0] / LOG} has no lines to plot")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(axes, panels):
        for run, log in logs.items():
            points = [(row["step"], row[name]) for row in log if name in row]
            panel.plot(*zip(*points), marker="." if len(points) < 50 else "", label=run)
        panel.set(title=PANELS[name], xlabel="step")
        panel.grid(alpha=0.3)
    for panel in axes[len(panels) :]:
        panel.remove()
    if len(logs) > 1:
        axes[0].legend()
    with atomic_file(output, overwrite=True) as part:
        figure.savefig(part, format="png", dpi=90)


class TensorBoard:
    """Writes scalars for TensorBoard to `tensorboard/` in the folder of a run."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open the writer; steps from `first_step` on are written anew.

        Raises MissingExtraError if TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "tensorboard", "tensorboard", "training option tensorboard"
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
