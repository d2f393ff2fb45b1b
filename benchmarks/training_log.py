"""Plot training curves of runs from their log.jsonl.

python benchmarks/training_log.py runs/mine [runs/other ...] -o curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dyn3r.training.run_log import plot_logs


def main() -> None:
    """Plot all panels into one image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("training.png"))
    args = parser.parse_args()
    plot_logs(args.runs, args.output)
    print(f"{args.output}: {', '.join(run.name for run in args.runs)}")


if __name__ == "__main__":
    main()
