"""Training of the pointmap network on the synthetic world; resumable from one folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.atomic import write_json
from dyn3r.network.network import Decoded, PointmapNetwork
from dyn3r.training.batches import batch_loader, held_out_batches
from dyn3r.training.group import Group
from dyn3r.training.losses import matching_loss, pointmap_loss, shape_loss
from dyn3r.training.options import TrainOptions, check_minutes
from dyn3r.training.pairs import PairBatch
from dyn3r.training.run_log import append_log
from dyn3r.training.run_state import RunState, restore, save
from dyn3r.training.synthetic.photographs import check_photographs
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)

LOG_EVERY = 50
"""Steps between lines of the log."""
LOG_DECAY = 0.98
"""Decay of the running means of the losses in the log."""


def train(
    folder: str | Path,
    options: TrainOptions,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Train, or resume training, in `folder`; returns the path of the resulting checkpoint.

    Stops after `options.steps` steps or after `minutes` of wall-clock time, whichever comes first,
    and saves everything; another call resumes there. The folder holds `state.pt` (weights,
    averages, optimiser, step), `log.jsonl` (one line every 50 steps), `options.json` and
    `model.safetensors` (the averaged weights, loadable by `load_model`).

    Under `torchrun` every process renders `options.scenes_per_step` scenes of its own on its own
    GPU, and gradients are averaged; the first process writes the folder. Raises InputError for a
    folder that is a file or holds the state of another network, CheckpointError for an unusable
    `start_from`.
    """
    folder = Path(folder)
    check_minutes(minutes)
    if options.photos is not None:
        check_photographs(Path(options.photos))
    group = Group(device)
    try:
        return _run(folder, options, group, minutes, progress if group.leads else no_progress)
    finally:
        group.leave()


def _run(
    folder: Path, options: TrainOptions, group: Group, minutes: float | None, progress: Progress
) -> Path:
    """Run the training loop of one process."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the run")
    state = restore(folder, options, group)
    if group.leads:  # not before a refusal
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "options.json", asdict(options), overwrite=True)
    recorder = _Recorder(folder, options, group) if group.leads else None
    started = time.monotonic()
    done = state.step >= options.steps
    batches: Iterable[PairBatch] = [] if done else batch_loader(options, state.step, group.rank)
    try:
        for step, batch in enumerate(batches, start=state.step):
            step_started = time.monotonic()
            losses = _step(state, batch, options, group)
            state.step = step + 1
            state.seconds += time.monotonic() - step_started
            out_of_time = minutes is not None and time.monotonic() - started > minutes * 60
            finished = group.any(flag=state.step >= options.steps or out_of_time)
            if recorder is not None:
                recorder.record(state, losses, finished=finished)
                progress("training", state.step, options.steps)
            if finished:
                break
    except KeyboardInterrupt:
        if group.leads:
            save(folder, state, options, group)
        raise
    return folder / "model.safetensors"


class _Recorder:
    """Writes the log, evaluates and saves at intervals; used by the first process alone."""

    def __init__(self, folder: Path, options: TrainOptions, group: Group) -> None:
        """Render the held-out scenes."""
        self.folder, self.options, self.group = folder, options, group
        self.held_out = held_out_batches(options)
        self.running: dict[str, float] = {}
        self.last_save = time.monotonic()

    def record(self, state: RunState, losses: dict[str, float], *, finished: bool) -> None:
        """Take note of one step; `finished` after the last one."""
        options = self.options
        for name, value in losses.items():
            mean = self.running.get(name, value)
            self.running[name] = LOG_DECAY * mean + (1 - LOG_DECAY) * value
        if state.step % LOG_EVERY == 0 or finished:
            rate = _rate(state.step - 1, options)
            append_log(self.folder, {"step": state.step, "lr": rate, **self.running})
        if state.step % options.evaluate_every == 0 or finished:
            scores = evaluate(state.average, self.held_out, self.group.device)
            append_log(self.folder, {"step": state.step, **scores})
        if finished or time.monotonic() - self.last_save > options.save_minutes * 60:
            save(self.folder, state, options, self.group)
            self.last_save = time.monotonic()


def _step(
    state: RunState, batch: PairBatch, options: TrainOptions, group: Group
) -> dict[str, float]:
    """Take one optimiser step; returns the losses of the pairs of this process."""
    device = group.device
    rate = _rate(state.step, options)
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = rate
    state.network.train()
    batch = batch.to(device)
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=options.precision == "bfloat16"):
        decoded = forward_pairs(state.network, batch, options)
    loss, losses = _losses(decoded, batch, options)
    loss.backward()
    group.average_gradients(state.network.parameters())
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), options.clip_norm)
    if torch.isfinite(norm):
        state.optimiser.step()
        _update_average(state.average, state.network, options.ema_decay, state.step)
    else:
        logger.warning("step %d: the gradient is not finite; step skipped", state.step)
    state.optimiser.zero_grad(set_to_none=True)
    losses["gradient"] = float(norm) if torch.isfinite(norm) else 0.0
    return losses


def _losses(
    decoded: Decoded, batch: PairBatch, options: TrainOptions
) -> tuple[Tensor, dict[str, float]]:
    """Compute the weighted sum of the losses, and the value of each."""
    points = (decoded.points1, decoded.conf1, decoded.points2, decoded.conf2)
    regression = pointmap_loss(
        points,  # type: ignore[arg-type]
        (batch.points1, batch.points2),
        (batch.valid1, batch.valid2),
        options.confidence_weight,
        options.nearness,
    )
    loss, losses = regression, {"loss": float(regression.detach())}
    if options.shape_weight > 0:
        shape = shape_loss(decoded.points1, batch.points1, batch.valid1)  # type: ignore[arg-type]
        shape = shape + shape_loss(decoded.points2, batch.points2, batch.valid2)  # type: ignore[arg-type]
        loss = loss + options.shape_weight * shape
        losses["shape"] = float(shape.detach())
    if decoded.logits:
        matching = torch.stack(
            [
                matching_loss(first[:, 0], batch.flow12, batch.visible12)
                + matching_loss(second[:, 0], batch.flow21, batch.visible21)
                for first, second in decoded.logits
            ]
        ).mean()
        loss = loss + options.matching_weight * matching
        losses["matching"] = float(matching.detach())
    return loss, losses


def forward_pairs(
    network: PointmapNetwork, batch: PairBatch, options: TrainOptions | None = None
) -> Decoded:
    """Encode the frames of a batch once and decode its pairs; without options as in inference."""
    if options is not None and options.freeze_encoder:
        with torch.no_grad():
            tokens = network.encode(batch.images)
    else:
        tokens = network.encode(batch.images)
    layers = options.matching_layers if options is not None and options.matching_weight > 0 else ()
    return network.decode(
        tokens[batch.first],
        tokens[batch.second],
        scores=False,
        logit_layers=layers,
        heads_autocast=options is not None and options.precision == "bfloat16",
    )


def _rate(step: int, options: TrainOptions) -> float:
    """Compute the learning rate of a step: linear warm-up, then a cosine."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return options.final_learning_rate + wave * (
        options.learning_rate - options.final_learning_rate
    )


@torch.no_grad()
def _update_average(
    average: PointmapNetwork, network: PointmapNetwork, decay: float, step: int
) -> None:
    """Update the exponential moving average of the weights; its window is shorter at first."""
    decay = min(decay, (1 + step) / (10 + step))
    averaged: list[Tensor] = list(average.parameters())
    current: list[Tensor] = list(network.parameters())
    torch._foreach_mul_(averaged, decay)
    torch._foreach_add_(averaged, current, alpha=1 - decay)


@torch.no_grad()
def evaluate(network: PointmapNetwork, batches: list[PairBatch], device: str) -> dict[str, float]:
    """Compute the mean loss and medians over pairs of two relative errors, on held-out batches.

    `held_out_abs_rel`: depth of view 1 after a median scale; `held_out_point_error`: points of view
    2 with the same scale, over their distance.
    """
    network.eval()
    depth_errors, point_errors, losses = [], [], []
    for batch in batches:
        batch = batch.to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            out = forward_pairs(network, batch)
        points = (out.points1, out.conf1, out.points2, out.conf2)
        truth, valid = (batch.points1, batch.points2), (batch.valid1, batch.valid2)
        losses.append(float(pointmap_loss(points, truth, valid)))  # type: ignore[arg-type]
        assert out.points1 is not None
        assert out.points2 is not None
        for k in range(len(batch.first)):
            ok1, ok2 = batch.valid1[k], batch.valid2[k]
            if not ok1.any() or not ok2.any():
                continue
            z, true_z = out.points1[k, ..., 2][ok1], batch.points1[k, ..., 2][ok1]
            scale = (true_z.median() / z.median().clamp(min=1e-6)).clamp(0, 1e6)
            depth_errors.append(((z * scale - true_z).abs() / true_z).mean())
            error = (out.points2[k] * scale - batch.points2[k]).norm(dim=-1)[ok2]
            point_errors.append((error / batch.points2[k].norm(dim=-1)[ok2]).mean())
    return {
        "held_out_loss": sum(losses) / len(losses),
        "held_out_abs_rel": float(torch.stack(depth_errors).median()),
        "held_out_point_error": float(torch.stack(point_errors).median()),
    }
