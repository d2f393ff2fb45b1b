"""Training of a network on the synthetic world or on data; resumable from one folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import compress, islice
from pathlib import Path

import torch

from dyn3r.errors import InputError
from dyn3r.io.atomic import write_json
from dyn3r.training.averaging import update_average
from dyn3r.training.batches import batch_loader, held_out, training_sets
from dyn3r.training.group import Group
from dyn3r.training.options import TrainOptions, check_minutes
from dyn3r.training.run_log import LOG, TensorBoard, append_log, plot_logs
from dyn3r.training.run_state import RESULT, RunState, restore, save
from dyn3r.training.synthetic.photographs import check_photographs
from dyn3r.training.task import Batch
from dyn3r.training.tasks import task_of
from dyn3r.training.validation import evaluate_sets, write_validation_pictures
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

    Stops after `options.steps` steps (or `options.epochs`) or after `minutes` of wall-clock time,
    whichever comes first, and saves everything; another call resumes there. The folder holds
    `state.pt` (weights, averages, optimiser, step), `log.jsonl` (one line every 50 steps) and
    `log.png`, `options.json`, `validation/` (pictures of held-out data), `model.safetensors` (the
    averaged weights, loadable by `load_model`) and, at the end of a run, the same in the published
    layout: `model.pth` of a two-view network that has one, the folder `published` of a many-view
    network.

    Under `torchrun` every process renders or reads batches of its own on its own GPU, and gradients
    are averaged; the first process writes the folder. Raises InputError for a folder that is a file
    or holds the state of another network and for data that can't be read, CheckpointError for an
    unusable `model`, MissingExtraError for TensorBoard that is not installed.
    """
    folder = Path(folder)
    check_minutes(minutes)
    if options.photos is not None:
        check_photographs(Path(options.photos))
    group = Group(device)
    try:
        options = options.for_run(group.size)
        with _float32_products(options):
            return _run(folder, options, group, minutes, progress if group.leads else no_progress)
    finally:
        group.leave()


@contextmanager
def _float32_products(options: TrainOptions) -> Iterator[None]:
    """Allow rounded float32 products (TF32) on GPUs while training, if the options ask for them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if options.precision == "tf32" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _run(
    folder: Path, options: TrainOptions, group: Group, minutes: float | None, progress: Progress
) -> Path:
    """Run the training loop of one process."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the run")
    if group.leads:  # wrong data is refused before a model is downloaded
        training_sets(options)
    state = restore(folder, options, group)
    task = task_of(state.network)
    task.check(options)
    recorder = None
    if group.leads:
        recorder = _Recorder(folder, options, group, state)
        folder.mkdir(parents=True, exist_ok=True)  # not before a refusal
        write_json(folder / "options.json", asdict(options), overwrite=True)
        if state.step == 0 and options.model is not None:
            recorder.evaluate(state)  # what fine-tuning starts from
    started = time.monotonic()
    batches = batch_loader(options, state.step, group.rank, processes=group.size, task=task)
    try:
        while state.step < options.steps:
            step_started = time.monotonic()
            step_batches = list(islice(batches, options.accumulate))
            waited = time.monotonic() - step_started
            losses = _step(state, step_batches, options, group)
            state.step += 1
            seconds = time.monotonic() - step_started
            state.seconds += seconds
            losses["waiting"] = waited / max(seconds, 1e-9)
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
    return folder / RESULT


class _Recorder:
    """Writes the log, evaluates and saves at intervals; used by the first process alone."""

    def __init__(self, folder: Path, options: TrainOptions, group: Group, state: RunState) -> None:
        """Render or open the held-out data. Raises InputError, MissingExtraError."""
        self.folder, self.options, self.group = folder, options, group
        self.held_out = held_out(options, task_of(state.network))
        self.tensorboard = TensorBoard(folder, state.step) if options.tensorboard else None
        self.running: dict[str, float] = {}
        self.last_save = time.monotonic()
        if not self.held_out:
            logger.warning("no sequence can be held out: give --validation to see held-out errors")

    def record(self, state: RunState, losses: dict[str, float], *, finished: bool) -> None:
        """Take note of one step; `finished` after the last one."""
        options = self.options
        for name, value in losses.items():
            mean = self.running.get(name, value)
            self.running[name] = LOG_DECAY * mean + (1 - LOG_DECAY) * value
        if state.step % LOG_EVERY == 0 or finished:
            self._log(state.step, {"lr": _rate(state.step - 1, options), **self.running})
        if state.step % options.evaluate_every == 0 or finished:
            self.evaluate(state)
        if finished or time.monotonic() - self.last_save > options.save_minutes * 60:
            save(self.folder, state, options, self.group)
            if (self.folder / LOG).is_file():  # saved before the first line otherwise
                plot_logs([self.folder], self.folder / "log.png")
            self.last_save = time.monotonic()
        if state.step >= options.steps:
            task_of(state.average).save_published(self.folder, state.average)

    def evaluate(self, state: RunState) -> None:
        """Evaluate the averaged weights on what is held out, and draw some of it."""
        if self.held_out:
            device = self.group.device
            self._log(state.step, evaluate_sets(state.average, self.held_out, device))
            picture = self.folder / "validation" / f"{state.step:06d}.png"
            write_validation_pictures(state.average, self.held_out, device, picture)

    def _log(self, step: int, values: dict[str, float]) -> None:
        append_log(self.folder, {"step": step, **values})
        if self.tensorboard is not None:
            self.tensorboard.write(step, values)


def _step(
    state: RunState, batches: list[Batch], options: TrainOptions, group: Group
) -> dict[str, float]:
    """Take one optimiser step; returns the mean losses of the batches of this process."""
    rate = _rate(state.step, options)
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = rate
    state.network.train()
    losses: dict[str, float] = {}
    task, count = task_of(state.network), len(batches)
    for batch in batches:
        found = task.add_gradients(state.network, batch, options, group.device, count)
        for name, value in found.items():
            losses[name] = losses.get(name, 0.0) + value / count
    group.average_gradients(state.network.parameters())
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), options.clip_norm)
    if torch.isfinite(norm):
        state.optimiser.step()
        free = [weight.requires_grad for weight in state.network.parameters()]  # the others stay
        update_average(
            compress(state.average.parameters(), free), compress(state.network.parameters(), free),
            options.ema_decay, state.step,
        )  # fmt: skip
    else:
        logger.warning("step %d: the gradient is not finite; step skipped", state.step)
    state.optimiser.zero_grad(set_to_none=True)
    losses["gradient"] = float(norm) if torch.isfinite(norm) else 0.0
    return losses


def _rate(step: int, options: TrainOptions) -> float:
    """Compute the learning rate of a step: linear warm-up, then a cosine."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return options.final_learning_rate + wave * (
        options.learning_rate - options.final_learning_rate
    )
