"""Seconds of every stage, peak memory and idle share of an accelerator.

    python benchmarks/gpu.py                       # 65 frames 512x288, random ViT-L weights
    python benchmarks/gpu.py --quick               # the embedded network and few frames
    python benchmarks/gpu.py CLIP --device cuda:1  # a video or folder of images

One reconstruction warms the device up, the next is measured. For every stage, and for the parts of
stages in PARTS: wall seconds, seconds in which kernels or copies ran on the device (PyTorch's
profiler), the share of the wall time in which none did, and the peak of the device's memory.
Without an accelerator the same table is printed for the CPU, with wall seconds alone.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import dyn3r
from dyn3r.io.workers import at_most
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.model import Model, prepare_model
from dyn3r.network.network import PointmapNetwork

FRAMES, SIZE_HW = 65, (288, 512)


PARTS = {
    "motion: evidence": ("dyn3r.motion.flow_residual", "rigid_residual"),
    "motion: masks": ("dyn3r.motion.flow_residual", "mask_probability"),
    "motion: background model": ("dyn3r.motion.cue", "background_evidence"),
    "motion: second network": ("dyn3r.motion.cue", "mask_probability"),
    "motion: static components": ("dyn3r.pipeline", "without_static_components"),
    "depth: plane sweep": ("dyn3r.mvs.estimate", "plane_sweep"),
    "depth: source frames": ("dyn3r.mvs.plane_sweep", "choose_sources"),
    "finalise: uncertainty": ("dyn3r.scene.finalise", "log_depth_sigma"),
    "finalise: fusion": ("dyn3r.scene.finalise", "fuse_depth"),
    "finalise: rejected pixels": ("dyn3r.scene.finalise", "visible"),
}
"""Parts of stages: the module that calls a function, and the function."""


class Stages:
    """Wall and device seconds and peak memory of every stage and part."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self.running: list[str] = []
        self.watch: ExitStack | None = None

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self.turn(lambda: self.running.append(name))
        began = time.perf_counter()
        try:
            yield
        finally:
            self.synchronise()
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - began
            self.turn(self.running.pop)

    def turn(self, change: Callable[[], object]) -> None:
        """Change what is running; the device is watched anew, as profiles cannot be nested."""
        if self.watch is not None:
            self.watch.close()
        change()
        self.watch = None
        if self.running and self.device.type == "cuda":
            self.watch = ExitStack()
            self.watch.enter_context(self.watched())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the device's work within for all that is running."""
        from torch.profiler import ProfilerActivity, profile

        self.synchronise()
        torch.cuda.reset_peak_memory_stats(self.device)
        names = tuple(self.running)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            yield
            self.synchronise()
        busy = busy_seconds(seen.events())
        memory = torch.cuda.max_memory_allocated(self.device) / 1e9
        for name in names:
            self.busy[name] = self.busy.get(name, 0.0) + busy
            self.peak[name] = max(self.peak.get(name, 0.0), memory)

    def row(self, name: str) -> str:
        """Wall seconds; busy seconds, idle share and peak memory where the device was watched."""
        row = f"{name:<28}{self.wall[name]:9.2f}"
        if name in self.busy:
            busy = self.busy[name]
            row += f"{busy:10.2f}{1 - busy / self.wall[name]:7.0%}{self.peak[name]:9.2f}"
        return row


def measured(stages: Stages, part: str, function: Any, *args: Any, **more: Any) -> Any:
    """Call a function as a part of a stage."""
    with stages.around(part):
        return function(*args, **more)


@contextmanager
def parts_measured(stages: Stages) -> Iterator[None]:
    """Within, the functions of PARTS are measured too."""
    with ExitStack() as patches:
        for part, (module, function) in PARTS.items():
            original = getattr(importlib.import_module(module), function)

            def measured(
                *args: Any, part: str = part, original: Any = original, **more: Any
            ) -> Any:
                with stages.around(part):
                    return original(*args, **more)

            patches.enter_context(patch(f"{module}.{function}", measured))
        yield


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
        context = dyn3r.RunContext(around=stages.around)
        # one thread: the parts of several would be counted twice
        with parts_measured(stages), at_most(1), stages.around("in all"):
            dyn3r.reconstruct(clip, model, options, context=context)
    h, w = clip.images.shape[1:3]
    print(f"{len(clip)} frames of {w}x{h} on {device}")
    print(f"{'stage':<28}{'wall s':>9}{'device s':>10}{'idle':>7}{'peak GB':>9}")
    own = [name for name in stages.wall if name not in PARTS and name != "in all"]
    for name in (*own, "in all", *(part for part in PARTS if part in stages.wall)):
        print(stages.row(name))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of the process: {resident:.2f} GB")


if __name__ == "__main__":
    main()
