"""Seconds of every stage, peak memory and idle share of an accelerator.

    python benchmarks/gpu.py                       # 65 frames 512x288, random ViT-L weights
    python benchmarks/gpu.py --quick               # the embedded network and few frames
    python benchmarks/gpu.py CLIP --device cuda:1  # a video or folder of images

One reconstruction warms the device up, the next is measured. For every stage: wall seconds, seconds
in which kernels or copies ran on the device (PyTorch's profiler), and the share of the wall time in
which none did. Without an accelerator the same table is printed for the CPU, without the last two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import dyn3r
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.network import PointmapNetwork

FRAMES, SIZE_HW = 65, (288, 512)


class Stages:
    """Wall and device seconds of every stage."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: dict[str, float] = {}
        self.busy: dict[str, float] = {}

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def around(self, stage: str) -> Iterator[None]:
        self.synchronise()
        began = time.perf_counter()
        if self.device.type != "cuda":
            yield
        else:
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                yield
                self.synchronise()
            self.busy[stage] = self.busy.get(stage, 0.0) + busy_seconds(seen.events())
        self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - began


def busy_seconds(events: object) -> float:
    """Length of the union of the intervals in which the device worked."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events  # type: ignore[attr-defined]
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    total, reached = 0.0, -np.inf
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total / 1e6


def random_model(device: str) -> Model:
    """ViT-L with random weights: the time does not depend on their values."""
    net = PointmapNetwork(NetworkConfig())
    initialise(net, seed=0)
    return prepare_model(net.eval().requires_grad_(False), "random ViT-L", device=device)


def synthetic_clip(frames: int, width: int) -> dyn3r.Clip:
    """A textured plane that moves to the left: flow and matching have something to find."""
    import cv2

    h, w = SIZE_HW
    noise = np.random.default_rng(0).integers(0, 256, (h, w + 4 * frames, 3), dtype=np.uint8)
    wide = cv2.GaussianBlur(noise, (0, 0), 2.0)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    images = [np.ascontiguousarray(wide[:, 4 * t : 4 * t + w]) for t in range(frames)]
    return dyn3r.clip_from_images(images, size=width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    frames = min(args.frames, 6) if args.quick else args.frames
    model = dyn3r.load_model(device=args.device) if args.quick else random_model(args.device)
    clip = (
        synthetic_clip(frames, model.image_size if args.quick else SIZE_HW[1])
        if args.source is None
        else dyn3r.read_clip(args.source, num_frames=frames, size=model.image_size)
    )
    options = dyn3r.Options(alignment=dyn3r.AlignmentOptions(device=args.device))
    for warm in (True, False):
        if warm and device.type != "cuda":
            continue
        stages = Stages(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        dyn3r.reconstruct(clip, model, options, context=dyn3r.RunContext(around=stages.around))
        whole = time.perf_counter() - began
    h, w = clip.images.shape[1:3]
    print(f"{len(clip)} frames of {w}x{h} on {device}")
    print(f"{'stage':<22}{'wall s':>9}{'device s':>10}{'idle':>7}")
    for name, wall in stages.wall.items():
        busy = stages.busy.get(name)
        rest = "" if busy is None else f"{busy:10.2f}{1 - busy / wall:7.0%}"
        print(f"{name:<22}{wall:9.2f}{rest}")
    busy_in_all = sum(stages.busy.values())
    rest = f"{busy_in_all:10.2f}{1 - busy_in_all / whole:7.0%}" if stages.busy else ""
    print(f"{'in all':<22}{whole:9.2f}{rest}")
    if device.type == "cuda":
        print(f"peak memory of the device: {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
