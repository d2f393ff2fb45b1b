"""Alignment: memory for a long clip with predictions on disk in half precision.

    python -m benchmarks.alignment_memory [--frames 200] [--size 288 512] [--window 100]
        [--iterations 0] [--threads 1]    # run from the root of the repository

Writes synthetic predictions of swinstride-5-noncyclic (200 frames: 1950 directed pairs, 4.6 GB) to
a temporary folder, aligns them in a separate process, and samples the memory of that process:

- anonymous: memory of the process itself (RssAnon), which memory limits apply to;
- resident: all memory, with the pages of mapped files (VmRSS; VmHWM is the peak of the kernel).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.alignment import depth_error, path_error, surface_depth

NAMES = ("points1", "conf1", "points2", "conf2")


def camera_path(frames: int) -> np.ndarray:
    """T_world_camera of a camera that sways past the surface at a steady speed."""
    T = np.tile(np.eye(4), (frames, 1, 1))
    for t in range(frames):
        yaw = 0.25 * np.sin(t / 20)
        T[t, :3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
        T[t, :3, 3] = [0.03 * t, 0.3 * np.sin(t / 15), 0.2 * np.sin(t / 40)]
    return T


def write_predictions(folder: Path, frames: int, size_hw: tuple[int, int]) -> None:
    """Pointmaps with random pair scales, smooth errors of 2 % and pixel noise of 1 %."""
    from dyn3r.network.pair_graph import make_pairs

    random = np.random.default_rng(0)
    height, width = size_hw
    f_px, T = 1.1 * width, camera_path(frames)
    depth = np.stack([surface_depth(camera, f_px, size_hw) for camera in T]).astype(np.float32)
    rows, columns = np.indices(size_hw)
    ray = np.stack([(columns - width / 2) / f_px, (rows - height / 2) / f_px, np.ones(size_hw)], -1)
    ray = ray.astype(np.float32)
    waves = [
        0.02 * np.sin(2 * np.pi * (a * rows / height + b * columns / width))
        for a, b in [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)]
    ]
    noise = [0.01 * random.standard_normal(size_hw) for _ in range(8)]
    sure = (1 + np.exp(1 + 0.5 * random.standard_normal((8, *size_hw)))).astype(np.float16)
    edges = make_pairs("swinstride-5-noncyclic", frames)
    np.savez(folder / "truth.npz", edges=edges, T=T, depth=depth)
    files = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.float16,
            (len(edges), *size_hw, 3) if name.startswith("points") else (len(edges), *size_hw),
        )
        for name in NAMES
    }  # fmt: skip
    for row, (i, j) in enumerate(edges):
        scale = np.exp(random.normal(0, 0.3))
        for side, frame in enumerate((i, j), 1):
            relative = np.linalg.inv(T[i]) @ T[frame]
            error = sum(random.normal(0, 0.5) * wave for wave in waves)
            error = (1 + error + noise[int(random.integers(8))]).astype(np.float32)
            local = (depth[frame] * error)[..., None] * (ray @ relative[:3, :3].T.astype("f4"))
            local += (relative[:3, 3] * error[..., None]).astype(np.float32)
            files[f"points{side}"][row] = scale * local
            files[f"conf{side}"][row] = sure[int(random.integers(8))]


def align_folder(folder: Path, window: int, iterations: int, threads: int) -> None:
    """Align in the watched process."""
    import torch

    from dyn3r.alignment.align import align
    from dyn3r.alignment.options import AlignmentOptions
    from dyn3r.types import PairPredictions

    torch.set_num_threads(threads)
    truth = np.load(folder / "truth.npz")
    predictions = PairPredictions(
        truth["edges"],
        len(truth["T"]),
        *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES),
    )
    options = AlignmentOptions(window=window, iterations=iterations)
    began = time.perf_counter()
    stages: dict[str, float] = {}

    def progress(stage: str, done: int, total: int) -> None:
        new = stage not in stages
        stages[stage] = time.perf_counter() - began
        if new:
            print(f"  {stages[stage]:7.1f} s  {stage} {done}/{total}", flush=True)

    found = align(predictions, options=options, progress=progress)
    print(f"aligned in {time.perf_counter() - began:.1f} s; stages ended at (s): {stages}")
    print(f"path error {path_error(found.T_world_camera, truth['T']):.4f} scene units")
    print(f"depth error {depth_error(found.depth[::10], truth['depth'][::10]):.4f}")
    print("warnings:", *found.diagnostics.notes, sep="\n  ")


def watch(process: subprocess.Popen) -> dict[str, float]:
    """Largest anonymous and resident memory of a process until it ends, in GB."""
    most: dict[str, float] = {}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile", "VmRSS", "VmHWM"):
                most[name] = max(most.get(name, 0.0), int(value.split()[0]) * 1024 / 1e9)
        time.sleep(0.02)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(288, 512))
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=0, help="few: memory is the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--align", type=Path, help="(used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.align:
        align_folder(arguments.align, arguments.window, arguments.iterations, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_predictions(folder, arguments.frames, tuple(arguments.size))
        size = sum(file.stat().st_size for file in folder.glob("*[12].npy")) / 1e9
        count = len(np.load(folder / "truth.npz")["edges"])
        print(
            f"{arguments.frames} frames, {count} directed pairs, {size:.2f} GB on disk", flush=True
        )
        module = "benchmarks.alignment_memory"
        command = [sys.executable, "-m", module, "--align", name]
        for option in ("window", "iterations", "threads"):
            command += [f"--{option}", str(getattr(arguments, option))]
        process = subprocess.Popen(command)
        most = watch(process)
        if process.returncode:
            raise SystemExit(process.returncode)
    print(
        f"peak: anonymous {most['RssAnon']:.2f} GB, resident {most['VmRSS']:.2f} GB sampled, "
        f"{most['VmHWM']:.2f} GB by the kernel"
    )


if __name__ == "__main__":
    main()
