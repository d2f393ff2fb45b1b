"""How time and memory grow with the number of frames.

    python benchmarks/growth.py CLIP                         # a video or folder of images
    python benchmarks/growth.py CLIP --frames 12 24 48 86 200
    python benchmarks/growth.py CLIP --against OLD/src       # turn by turn with another version
    python benchmarks/growth.py CLIP --windows auto 0        # turn by turn with one window

Every clip is reconstructed in a process of its own, on `--threads` (1), at the size of the embedded
network, with the settings of the process that `dyn3r run` of that version has. A source with fewer
frames is played forward and backward. Printed: CPU and wall seconds, peak memory, seconds of every
stage and, for newer versions, the peak up to its end; the exponent of time from one length to the
next and over all of them (least squares of the logarithms): 1 is linear. Then ratios to the other
versions, and the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np


def bounced(count: int, available: int) -> np.ndarray:
    """Indices of `count` frames of a clip that is played forward and backward."""
    if available < 2:
        return np.zeros(count, int)
    turn = np.arange(count) % (2 * available - 2)
    return np.where(turn < available, turn, 2 * available - 2 - turn)


def options(windows: str):
    """Options with windows of so many frames; `auto`: the default, as in older versions."""
    import dyn3r

    if windows == "auto":
        return dyn3r.Options()
    from dyn3r.alignment.clip_windows import WindowOptions

    return dyn3r.Options(windows=WindowOptions(frames=int(windows)))


def measure(source: Path, count: int, threads: int, windows: str) -> dict:
    """Reconstruct `count` frames in this process."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    import dyn3r

    try:  # absent in older versions, which work on one thread
        from dyn3r.io.workers import use_threads

        use_threads(threads)
    except ImportError:
        pass
    model = dyn3r.load_model()
    clip = dyn3r.read_clip(source, size=model.image_size)
    chosen = bounced(count, len(clip))
    clip = replace(
        clip.part(chosen), cuts=(), unusable=None, names=tuple(f"{k:06d}" for k in range(count)),
        times_s=np.arange(count) / (clip.fps or 24.0),
    )  # fmt: skip
    peaks: dict[str, float] = {}
    context = dyn3r.RunContext(**around(peaks))
    wall, cpu = time.perf_counter(), time.process_time()
    scene = dyn3r.reconstruct(clip, model, options(windows), context=context)
    return {
        "frames": count,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": peak_mb(),
        "stages": dict(context.seconds),
        "stage_peaks_mb": peaks,
        "windows": len(scene.metadata.get("windows", {}).get("spans", [0])),
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def around(peaks: dict[str, float]) -> dict:
    """Settings of the process around stages that `dyn3r run` had in older versions.

    Newer ones have none; then the peak of memory up to the end of each stage is noted in `peaks`.
    """
    try:
        from dyn3r.bundle_adjustment.threads import process_settings
    except ImportError:
        pass
    else:
        return {"around": process_settings}

    @contextmanager
    def noted(name: str):
        yield
        peaks[name] = peak_mb()

    return {"around": noted}


def in_process(source: Path, count: int, args: argparse.Namespace, windows: str, code=None) -> dict:
    """`measure` in a process of its own, with the package in the folder `code`."""
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    if code is not None:
        env["PYTHONPATH"] = os.pathsep.join([code, *filter(None, [env.get("PYTHONPATH")])])
    command = [sys.executable, __file__, str(source), "--one", str(count)]
    command += ["--threads", str(args.threads), "--windows", windows]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(frames: list[int], seconds: list[float]) -> float:
    """Slope of log time over log frames."""
    return float(np.polyfit(np.log(frames), np.log(seconds), 1)[0])


def table(rows: list[dict], title: str) -> None:
    print(f"\n{title}\n frames windows    CPU s   CPU s/frame   wall s   peak MB   exponent")
    for k, row in enumerate(rows):
        both = rows[k - 1 : k + 1] if k else []
        slope = ""
        if both:
            slope = f"{exponent([r['frames'] for r in both], [r['cpu_s'] for r in both]):10.2f}"
        print(
            f"{row['frames']:7d} {row['windows']:7d} {row['cpu_s']:8.1f}"
            f" {row['cpu_s'] / row['frames']:13.2f} {row['wall_s']:8.1f} {row['peak_mb']:9.0f}"
            f" {slope}"
        )
    if len(rows) > 1:
        overall = exponent([r["frames"] for r in rows], [r["cpu_s"] for r in rows])
        print(f"exponent over all: {overall:.2f}")
    names = dict.fromkeys(name for row in rows for name in row["stages"])
    for name in names:
        seconds = "".join(f"{row['stages'].get(name, 0.0):9.1f}" for row in rows)
        print(f"  {name:<20}{seconds}   wall s")
    for name in dict.fromkeys(name for row in rows for name in row["stage_peaks_mb"]):
        peaks = "".join(f"{row['stage_peaks_mb'].get(name, 0.0):9.0f}" for row in rows)
        print(f"  {name:<20}{peaks}   MB up to its end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[12, 24, 48, 86, 200])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--against", nargs="+", default=[], help="folders with the package of other versions"
    )
    parser.add_argument(
        "--windows", nargs="+", default=["auto"], metavar="N",
        help="frames of a window; 0: all in one; auto: the default. Several are run turn by turn",
    )  # fmt: skip
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.source, args.one, args.threads, args.windows[0])))
        return
    variants = [(f"windows {w}", w, None) for w in args.windows]
    variants += [(f"the version in {code}", "auto", code) for code in args.against]
    rows: dict[str, list[dict]] = {title: [] for title, *_ in variants}
    for count in args.frames:
        for title, windows, code in variants:
            rows[title].append(in_process(args.source, count, args, windows, code))
            table(rows[title], title)
        first = next(iter(rows.values()))
        for title, other in list(rows.items())[1:]:
            for name, key in (("CPU", "cpu_s"), ("wall", "wall_s"), ("peak", "peak_mb")):
                ratios = [a[key] / b[key] for a, b in zip(first, other)]
                print(f"{name} over {title}:", "  ".join(f"{ratio:.2f}" for ratio in ratios))
        print("load:", "  ".join(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
