"""Processor time and memory of bundle adjustment on made-up clips of several lengths.

    python benchmarks/bundle.py [FRAMES ...]      # default: 24 100 300

The scene is that of the tests: a bumpy surface, a camera that sways, flow wrong by 0.2 pixels, a
start wrong in every respect; 352x192 pixels, pairs of swinstride-4-noncyclic. Per length: seconds
of one core for an adjustment from the alignment, and for another one that starts near its solution
(as the last one of a run does), and the most memory in use beyond what the clip itself takes (on
Linux).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests.bundle
from tests.bundle.made_up import disturbed, focal_error, made_up, turn_error

from dyn3r.bundle_adjustment import bundle_adjust

SIZE_HW = (192, 352)


def measure(frames: int) -> None:
    """One row of the table, in a process of its own."""
    torch.set_num_threads(1)
    truth = made_up(frames, SIZE_HW, graph="swinstride-4-noncyclic")
    start = disturbed(truth)
    before = memory_now()
    laps, near = [], None
    for _ in range(2):
        began = time.process_time()
        near = bundle_adjust(start, truth.images, truth.flow, near=near)
        laps.append(time.process_time() - began)
    most = memory_peak() - before
    assert near is not None
    print(
        f"| {frames} | {len(truth.flow.edges)} | {laps[0]:.1f} s | {laps[1]:.1f} s "
        f"| {most:.2f} GB | {turn_error(start.T_world_camera, truth):.2f} -> "
        f"{turn_error(near.T_world_camera, truth):.2f} deg "
        f"| {np.expm1(focal_error(start.K, truth)):.1%} -> "
        f"{np.expm1(focal_error(near.K, truth)):.1%} |",
        flush=True,
    )


def memory_now() -> float:
    """GB in use; what `memory_peak` says begins anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _of_status("VmRSS")


def memory_peak() -> float:
    """The most GB in use since `memory_now`."""
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
    print("| frames | pairs | from the alignment | near a solution | memory | rotation | focal |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for frames in [int(word) for word in sys.argv[1:]] or [24, 100, 300]:
        subprocess.run([sys.executable, __file__, "--one", str(frames)], check=True)


if __name__ == "__main__":
    main()
