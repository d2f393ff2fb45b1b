"""Dry run of a training: one batch of each data set in a picture, and one measured step."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from dyn3r.scene.drawing import Picture, depth_picture, draw_text, motion_picture, write_picture
from dyn3r.training.batches import held_out_batches, training_sets
from dyn3r.training.group import Group
from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch
from dyn3r.training.run_state import restore
from dyn3r.training.sets.mixture import Mixture, sample_batch
from dyn3r.training.sets.sources import LoadedSet
from dyn3r.training.trainer import add_gradients
from dyn3r.training.validation import frame_picture

SHOWN_PAIRS, MATCHES = 2, 24
PICTURE = "check.png"


def check_run(folder: Path, options: TrainOptions, *, device: str = "cpu") -> list[str]:
    """Read one batch of each data set, take one step on the last, and describe both in lines.

    Writes the picture check.png to the folder and nothing else; a saved state there is read.
    Raises the errors of `train`.
    """
    group = Group(device)
    try:
        options = options.for_run(group.size)
        lines, batches = _read_batches(options)
        lines += _measure_step(folder, options, group, batches[-1][1])
    finally:
        group.leave()
    write_picture(_picture(batches), folder / PICTURE, overwrite=True)
    return [*lines, f"picture: {folder / PICTURE}"]


def _read_batches(options: TrainOptions) -> tuple[list[str], list[tuple[str, PairBatch]]]:
    """Read the first batch of each data set; a line about each."""
    if not options.data:
        batch = held_out_batches(options, count=1)[0]
        return [f"synthetic world: {_about(batch)}"], [("synthetic", batch)]
    lines, batches = [], []
    for loaded in training_sets(options):
        started = time.monotonic()
        batch = sample_batch(
            Mixture([loaded], options.seed), 0, options.scenes_per_step, options.sizes_hw[0],
            flow=True,
        )  # fmt: skip
        seconds = time.monotonic() - started
        lines.append(
            f"{loaded.spec.name}: {_about_set(loaded)}; {_about(batch)}; "
            f"{seconds:.2f} s to read a batch of {options.scenes_per_step} pairs"
        )
        batches.append((loaded.spec.name, batch))
    return lines, batches


def _about_set(loaded: LoadedSet) -> str:
    return (
        f"{len(loaded.sequences)} sequences, {len(loaded.pairs)} pairs, "
        f"{loaded.spec.count} per epoch"
    )


def _about(batch: PairBatch) -> str:
    h, w = batch.images.shape[-2:]
    known = 100 * float(batch.valid1.float().mean())
    static = 100 * float(batch.visible12.float().sum() / batch.valid1.float().sum().clamp(min=1))
    return (
        f"frames {w}x{h}, {known:.0f} % of the pixels with depth, {static:.0f} % of these with a "
        "static match"
    )


def _measure_step(folder: Path, options: TrainOptions, group: Group, batch: PairBatch) -> list[str]:
    """Take one step; lines about weights, time and memory."""
    state = restore(folder, options, group)
    state.network.train()
    trained = sum(p.numel() for p in state.network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in state.network.parameters()) - trained
    for _ in range(2):  # the first one also prepares kernels and memory
        started = time.monotonic()
        losses = add_gradients(state, batch, options, group.device, options.accumulate)
        per_batch = time.monotonic() - started
    state.optimiser.step()
    per_step = options.accumulate * per_batch
    days = options.steps * per_step / 86400
    return [
        f"network: {trained / 1e6:.1f} M weights are trained, {frozen / 1e6:.1f} M frozen",
        f"step: {options.accumulate} x {len(batch.first)} directed pairs, {per_step:.1f} s on "
        f"{group.device}, loss {losses['loss']:.3f}; at most {_peak_memory_gb(group.device):.1f} "
        "GB of memory",
        f"run: {options.steps} steps, {days:.2g} days if data comes fast enough",
    ]


def _peak_memory_gb(device: str) -> float:
    """Peak memory of the GPU, or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _picture(batches: list[tuple[str, PairBatch]]) -> Picture:
    """Rows of pairs: frames with matches, depth of both, pixels without static match."""
    rows = [
        _row(batch, k, name)
        for name, batch in batches
        for k in range(min(SHOWN_PAIRS, len(batch.first)))
    ]
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 4), (0, widest - r.shape[1]), (0, 0))) for r in rows])


def _row(batch: PairBatch, k: int, name: str) -> Picture:
    first, second = (frame_picture(batch, int(x[k])) for x in (batch.first, batch.second))
    known1, known2 = batch.valid1[k].numpy(), batch.valid2[k].numpy()
    depth1 = np.where(known1, batch.points1[k, ..., 2].numpy(), 0)
    depth2 = np.where(known2, batch.points2[k, ..., 2].numpy(), 0).clip(min=0)
    inverse = 1 / depth1[depth1 > 0]
    low, high = np.quantile(inverse, (0.02, 0.98)) if len(inverse) else (0.0, 1.0)
    visible = batch.visible12[k].numpy()
    panels = [
        _matches(first, second, batch.flow12[k].numpy(), visible),
        depth_picture(depth1, (float(low), float(high))),
        depth_picture(depth2, (float(low), float(high))),
        motion_picture(first, known1 & ~visible),
    ]
    labels = (f"{name}: static matches", "depth 1", "depth 2 in camera 1", "no static match")
    for panel, label in zip(panels, labels):
        draw_text(panel, label, (3, 12), box=True, max_width=panel.shape[1] - 6)
    return np.concatenate(panels, axis=1)


def _matches(first: Picture, second: Picture, flow: np.ndarray, visible: np.ndarray) -> Picture:
    """Both frames side by side with lines between some matches."""
    import cv2

    joined = np.concatenate([first, second], axis=1)
    rows, columns = np.nonzero(visible)
    rng = np.random.default_rng(0)
    for k in rng.permutation(len(rows))[:MATCHES]:
        u, v = int(columns[k]), int(rows[k])
        du, dv = flow[v, u]
        end = (round(u + float(du)) + first.shape[1], round(v + float(dv)))
        colour = tuple(int(c) for c in rng.integers(80, 256, 3))
        cv2.line(joined, (u, v), end, colour, 1, cv2.LINE_AA)
        for place in ((u, v), end):
            cv2.circle(joined, place, 2, colour, -1, cv2.LINE_AA)
    return joined
