"""Time and memory of the many-view network (Depth Anything 3 small and base) with random weights.

    python benchmarks/many_view.py                          # 8, 24 and 65 frames of 504x280, small
    python benchmarks/many_view.py --size base --frames 2 8 --precision float32 bfloat16

Random weights need the same time and memory as the published ones; their output is meaningless.
Every run is a process of its own, so that its peak memory is measured separately. Reported are CPU
seconds summed over the threads, seconds, the share of the backbone, and resident memory: the peak,
and before the network runs. The published program takes 13.9 CPU s for 8 frames in float32 (small;
9.6 in the backbone) and 1165 MB at most, measured on another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZE_HW = (280, 504)
PUBLISHED_CPU_S = {("small", 8): 13.9, ("base", 2): 9.8}
"""Of the published program, float32, by size and frames."""


def measure(size: str, frames: int, precision: str, device: str, attention: bool) -> dict:
    """Run the network once on random frames."""
    import torch

    from dyn3r.network.many_view.many_view_network import ManyViewNetwork
    from dyn3r.network.many_view.view_config import ManyViewConfig
    from dyn3r.network.model import prepare_model
    from dyn3r.network.predict_views import predict_views

    base = ManyViewConfig(768, 12, 12, features=128, out_channels=(96, 192, 384, 768))
    torch.manual_seed(0)
    network = ManyViewNetwork(ManyViewConfig() if size == "small" else base)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model = prepare_model(network, size, device=device, precision=precision)  # type: ignore[arg-type]
    images = np.random.default_rng(0).integers(0, 256, (frames, *SIZE_HW, 3), dtype=np.uint8)
    if device != "cpu":
        predict_views(model, images[:2])  # kernels are loaded
    blocks: list[tuple[float, float]] = []

    def after(stage: str, done: int, total: int) -> None:
        if device != "cpu":
            torch.cuda.synchronize()
        blocks.append((time.process_time(), time.perf_counter()))

    before = resident_mb()
    cpu, wall = time.process_time(), time.perf_counter()
    predict_views(model, images, attention=attention, progress=after)
    if device != "cpu":
        torch.cuda.synchronize()
    backbone_cpu, backbone_wall = blocks[-2]
    return {
        "size": size, "frames": frames, "precision": precision, "device": device,
        "threads": torch.get_num_threads(),
        "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
        "backbone_cpu_s": backbone_cpu - cpu, "backbone_wall_s": backbone_wall - wall,
        "before_mb": before, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "gpu_mb": torch.cuda.max_memory_allocated() / 1e6 if device != "cpu" else 0.0,
    }  # fmt: skip


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def row(result: dict) -> str:
    published = PUBLISHED_CPU_S.get((result["size"], result["frames"]))
    ratio = ""
    if published is not None and result["precision"] == "float32" and result["device"] == "cpu":
        ratio = f"; published {published} CPU s, {published / result['cpu_s']:.2f} times ours"
    gpu = f", GPU {result['gpu_mb']:.0f} MB" if result["gpu_mb"] else ""
    return (
        f"{result['size']} {result['frames']:>3} frames {result['precision']} on "
        f"{result['device']}, {result['threads']} threads: {result['cpu_s']:.1f} CPU s, "
        f"{result['wall_s']:.1f} s (backbone {result['backbone_cpu_s']:.1f} and "
        f"{result['backbone_wall_s']:.1f}); {result['before_mb']:.0f} -> "
        f"{result['peak_mb']:.0f} MB{gpu}{ratio}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=["small", "base"], default="small")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 24, 65])
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--attention", action="store_true", help="also its statistics (vggt4d)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        only = measure(args.size, args.frames[0], args.precision[0], args.device, args.attention)
        print(json.dumps(only))
        return
    for precision in args.precision:
        for frames in args.frames:
            command = [sys.executable, __file__, "--one", "--size", args.size]
            command += ["--frames", str(frames), "--precision", precision]
            command += ["--device", args.device, *["--attention"] * args.attention]
            text = subprocess.check_output(command, text=True).splitlines()[-1]
            print(row(json.loads(text)), flush=True)


if __name__ == "__main__":
    main()
