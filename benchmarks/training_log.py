"""Plot training curves of runs from their log.jsonl; needs matplotlib.

python benchmarks/training_log.py runs/mine [runs/other ...] -o curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "loss": "pointmap loss (running mean)",
    "shape": "shape loss",
    "matching": "matching loss, nats",
    "held_out_abs_rel": "held out: abs rel of view 1",
    "held_out_point_error": "held out: point error of view 2",
    "lr": "learning rate",
}


def main() -> None:
    """Plot all panels into one image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("training.png"))
    args = parser.parse_args()
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for run in args.runs:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for panel, (name, title) in zip(axes, PANELS.items()):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                panel.plot(*zip(*points), label=run.name)
            panel.set(title=title, xlabel="step")
    axes[0].legend()
    figure.savefig(args.output, dpi=90)
    print(f"{args.output}: {', '.join(run.name for run in args.runs)}")


if __name__ == "__main__":
    main()
