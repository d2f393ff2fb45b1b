"""Bundle adjustment: processor time and memory on synthetic clips of several lengths.

    python -m benchmarks.bundle [FRAMES ...]    # default: 24 100 300; run from the repository root

The scene is that of the tests: a bumpy surface, a swaying camera, flow with an error of 0.2 pixels,
a wrong initial geometry; 352x192 pixels, pairs of swinstride-4-noncyclic. Columns: seconds of one
core for an adjustment and for the calibrated one, and the peak of memory beyond that of the clip
itself (Linux).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tests.bundle_adjustment.made_up import disturbed, focal_error, made_up, turn_error

from dyn3r.bundle_adjustment.adjust import bundle_adjust, calibrated_bundle_adjust

SIZE_HW = (192, 352)


def measure(frames: int) -> None:
    """Print one row of the table."""
    truth = made_up(frames, SIZE_HW, graph="swinstride-4-noncyclic")
    start = disturbed(truth)
    before = memory_now()
    laps, found = [], None
    for adjust in (bundle_adjust, calibrated_bundle_adjust):
        began = time.process_time()
        found = adjust(start, truth.images, truth.flow)
        laps.append(time.process_time() - began)
    most = memory_peak() - before
    assert found is not None
    print(
        f"| {frames} | {len(truth.flow.edges)} | {laps[0]:.1f} s | {laps[1]:.1f} s "
        f"| {most:.2f} GB | {turn_error(start.T_world_camera, truth):.2f} -> "
        f"{turn_error(found.T_world_camera, truth):.2f} deg "
        f"| {np.expm1(focal_error(start.K, truth)):.1%} -> "
        f"{np.expm1(focal_error(found.K, truth)):.1%} |",
        flush=True,
    )


def memory_now() -> float:
    """GB in use; `memory_peak` is reset."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _of_status("VmRSS")


def memory_peak() -> float:
    """Largest GB in use since `memory_now`."""
    return _of_status("VmHWM")


def _of_status(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**20


def main() -> None:
    """The table."""
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
        return
    print("| frames | pairs | adjustment | calibrated | memory | rotation | focal |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for frames in [int(word) for word in sys.argv[1:]] or [24, 100, 300]:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.bundle", "--one", str(frames)], check=True
        )


if __name__ == "__main__":
    main()
