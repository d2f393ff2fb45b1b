"""Dry run of a training: one batch of each data set in a picture, and one measured step."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dyn3r.scene.drawing import Picture, depth_picture, draw_text, motion_picture, write_picture
from dyn3r.training.batches import held_out_batches, training_sets
from dyn3r.training.group import Group
from dyn3r.training.options import TrainOptions
from dyn3r.training.pair_validation import frame_picture
from dyn3r.training.pairs import PairBatch
from dyn3r.training.run_state import RunState, restore
from dyn3r.training.sets.mixture import Mixture
from dyn3r.training.sets.sources import LoadedSet
from dyn3r.training.task import Batch, Task
from dyn3r.training.tasks import task_of

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
        sets = training_sets(options)  # wrong data is refused before a model is downloaded
        state = restore(folder, options, group)
        task = task_of(state.network)
        task.check(options)
        lines, batches, largest = _read_batches(options, sets, task)
        lines += _measure_step(state, options, task, group.device, largest)
    finally:
        group.leave()
    write_picture(_picture(batches), folder / PICTURE, overwrite=True)
    return [*lines, f"picture: {folder / PICTURE}"]


def _read_batches(
    options: TrainOptions, sets: list[LoadedSet], task: Task
) -> tuple[list[str], list[tuple[str, PairBatch]], Batch]:
    """Read the first batch of each data set: a line about each, what is drawn, the largest batch.

    The largest batch, of the last set, has the most views that a sample can have.
    """
    if not sets:
        batch = held_out_batches(options, count=1, task=task)[0]
        pairs = task.as_pairs(batch)
        return [f"synthetic world: {_about(pairs)}"], [("synthetic", pairs)], batch
    lines, batches = [], []
    with_matches = replace(options, matching_weight=1.0)
    for loaded in sets:
        started = time.monotonic()
        mixture = Mixture([loaded], options.seed)
        batch = task.of_sets(mixture, 0, with_matches, options.sizes_hw[0])
        seconds, pairs = time.monotonic() - started, task.as_pairs(batch)
        lines.append(
            f"{loaded.spec.name}: {_about_set(loaded)}; {_about(pairs)}; "
            f"{seconds:.2f} s to read a batch of {options.scenes_per_step} {task.unit}"
        )
        batches.append((loaded.spec.name, pairs))
    rows = np.arange(options.scenes_per_step) % len(sets[-1].pairs)
    return lines, batches, task.held_out(sets[-1], rows.tolist(), options)


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


def _measure_step(
    state: RunState, options: TrainOptions, task: Task, device: str, batch: Batch
) -> list[str]:
    """Take one step; lines about weights, time and memory."""
    state.network.train()
    trained = sum(p.numel() for p in state.network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in state.network.parameters()) - trained
    for _ in range(2):  # the first one also prepares kernels and memory
        started = time.monotonic()
        losses = task.add_gradients(state.network, batch, options, device, options.accumulate)
        per_batch = time.monotonic() - started
    state.optimiser.step()
    per_step = options.accumulate * per_batch
    days = options.steps * per_step / 86400
    return [
        f"network: {trained / 1e6:.1f} M weights are trained, {frozen / 1e6:.1f} M frozen",
        f"step: {options.accumulate} x {task.items(batch)}, {per_step:.1f} s on "
        f"{device}, loss {losses['loss']:.3f}; at most {_peak_memory_gb(device):.1f} "
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
