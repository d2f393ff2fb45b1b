"""The trainer: an endless synthetic world in, checkpoints out; resumable from one folder."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.network.checkpoints.reader import load_network, save_network
from dyn3r.network.initialise import grow, initialise
from dyn3r.network.network import Decoded, PointmapNetwork
from dyn3r.training.batches import batch_loader, held_out_batches
from dyn3r.training.group import Group
from dyn3r.training.losses import matching_loss, motion_loss, pointmap_loss, shape_loss
from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)


@dataclass
class _State:
    network: PointmapNetwork
    average: PointmapNetwork
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


def train(
    folder: str | Path,
    options: TrainOptions,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Train, or go on training, in `folder`; returns the path of the resulting checkpoint.

    Stops after `options.steps` steps or after `minutes` of wall-clock time, whichever comes first,
    with everything saved; calling it again goes on where it stopped. The folder holds `state.pt`
    (weights, averages, optimiser, step), `log.jsonl` (one line a log interval), `options.json` and
    `model.safetensors` (the averaged weights, loadable by `load_model`).

    Under `torchrun` every process draws `options.scenes_per_step` scenes of its own on its own GPU,
    and gradients are averaged; the first one writes the folder. Raises InputError for a folder that
    is a file or holds another network's state, CheckpointError for a useless `start_from`.
    """
    folder = Path(folder)
    group = Group(device)
    try:
        return _run(folder, options, group, minutes, progress if group.leads else no_progress)
    finally:
        group.leave()


def _run(
    folder: Path, options: TrainOptions, group: Group, minutes: float | None, progress: Progress
) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the run")
    if group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "options.json").write_text(json.dumps(asdict(options), indent=1))
    device = group.device
    state = _restore(folder, options, group)
    started, last_save = time.monotonic(), time.monotonic()
    held_out = held_out_batches(options) if group.leads else []
    running: dict[str, float] = {}
    done = state.step >= options.steps
    batches = [] if done else batch_loader(options, state.step, group.rank)
    try:
        for step, batch in enumerate(batches, start=state.step):
            lap = time.monotonic()
            losses = _step(state, batch, options, group)
            for name, value in losses.items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            state.step, state.seconds = step + 1, state.seconds + time.monotonic() - lap
            out_of_time = minutes is not None and time.monotonic() - started > minutes * 60
            finished = group.any(state.step >= options.steps or out_of_time)
            if not group.leads:
                if finished:
                    break
                continue
            if state.step % 50 == 0 or finished:
                _log(folder, {"step": state.step, "lr": _rate(step, options), **running})
            if state.step % options.evaluate_every == 0 or finished:
                _log(folder, {"step": state.step, **evaluate(state.average, held_out, device)})
            if finished or time.monotonic() - last_save > options.save_minutes * 60:
                _save(folder, state, options, group)
                last_save = time.monotonic()
            progress("training", state.step, options.steps)
            if finished:
                break
    except KeyboardInterrupt:
        if group.leads:
            _save(folder, state, options, group)  # nothing of the run is lost
        raise
    return folder / "model.safetensors"


def _step(state: _State, batch: PairBatch, options: TrainOptions, group: Group) -> dict[str, float]:
    """One optimiser step; returns the losses of this process' pairs."""
    device = group.device
    rate = _rate(state.step, options)
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = rate
    state.network.train()
    batch = batch.to(device)
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=options.precision == "bfloat16"):
        decoded = forward_pairs(state.network, batch, options)
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
    if decoded.motion1 is not None and decoded.motion2 is not None and _learns_motion(options):
        motion = motion_loss(
            (decoded.motion1, decoded.motion2),
            (batch.moving1, batch.moving2),
            (torch.ones_like(batch.valid1), torch.ones_like(batch.valid2)),  # the sky stands still
        )
        loss = loss + options.motion_weight * motion
        losses["motion"] = float(motion.detach())
    loss.backward()
    group.average_gradients(state.network.parameters())
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), options.clip_norm)
    if torch.isfinite(norm):
        state.optimiser.step()
        _follow(state.average, state.network, options.ema_decay, state.step)
    else:
        logger.warning("step %d: the gradient is not finite; step skipped", state.step)
    state.optimiser.zero_grad(set_to_none=True)
    losses["gradient"] = float(norm) if torch.isfinite(norm) else 0.0
    return losses


def forward_pairs(
    network: PointmapNetwork, batch: PairBatch, options: TrainOptions | None = None
) -> Decoded:
    """Encode the batch's frames once and decode its pairs."""
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


def _learns_motion(options: TrainOptions) -> bool:
    """A static world teaches a motion head nothing but that nothing ever moves."""
    return options.motion_weight > 0 and options.dynamic_share > 0


def _rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return options.final_learning_rate + wave * (
        options.learning_rate - options.final_learning_rate
    )


@torch.no_grad()
def _follow(average: PointmapNetwork, network: PointmapNetwork, decay: float, step: int) -> None:
    """Exponential average of the weights; short memory at first."""
    decay = min(decay, (1 + step) / (10 + step))
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(network.parameters())
    torch._foreach_mul_(ours, decay)
    torch._foreach_add_(ours, theirs, alpha=1 - decay)


@torch.no_grad()
def evaluate(network: PointmapNetwork, batches: list[PairBatch], device: str) -> dict[str, float]:
    """Median over pairs of: relative depth error of view 1, point error of view 2.

    With a motion head also J (intersection over union) of what it calls moving, all pixels of both
    views of all pairs counted together.
    """
    network.eval()
    agreed = either = 0
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
        for said, moving in ((out.motion1, batch.moving1), (out.motion2, batch.moving2)):
            if said is not None:
                agreed += int(((said > 0) & moving).sum())
                either += int(((said > 0) | moving).sum())
        for k in range(len(batch.first)):
            ok1, ok2 = batch.valid1[k], batch.valid2[k]
            if not ok1.any() or not ok2.any():
                continue
            z, true_z = out.points1[k, ..., 2][ok1], batch.points1[k, ..., 2][ok1]
            scale = (true_z.median() / z.median().clamp(min=1e-6)).clamp(0, 1e6)
            depth_errors.append(((z * scale - true_z).abs() / true_z).mean())
            error = (out.points2[k] * scale - batch.points2[k]).norm(dim=-1)[ok2]
            point_errors.append((error / batch.points2[k].norm(dim=-1)[ok2]).mean())
    numbers = {
        "held_out_loss": sum(losses) / len(losses),
        "held_out_abs_rel": float(torch.stack(depth_errors).median()),
        "held_out_point_error": float(torch.stack(point_errors).median()),
    }
    if network.config.motion_head:
        numbers["held_out_motion_J"] = agreed / max(1, either)
    return numbers


def _restore(folder: Path, options: TrainOptions, group: Group) -> _State:
    """The saved state of the folder, or a fresh one; the same in every process."""
    device = group.device
    if options.start_from:
        network, _ = load_network(options.start_from)
        network = grow(network, options.network, options.seed).float().requires_grad_(True)
    else:
        network = PointmapNetwork(options.network)
        initialise(network, options.seed)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.freeze_encoder:
        encoder = ("patch_embed.", "enc_", "detail.")
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(encoder))
    average = PointmapNetwork(network.config).to(device)
    average.load_state_dict(network.state_dict())
    average.requires_grad_(False)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.requires_grad and p.ndim >= 2]},
        {
            "params": [p for p in network.parameters() if p.requires_grad and p.ndim < 2],
            "weight_decay": 0.0,
        },
    ]
    optimiser = torch.optim.AdamW(
        groups,
        lr=options.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=options.weight_decay,
        fused=True,
    )
    state = _State(network, average, optimiser)
    saved = folder / "state.pt"
    if saved.exists():
        try:
            content = torch.load(saved, map_location=device, weights_only=True)
            state.network.load_state_dict(content["network"])
            state.average.load_state_dict(content["average"])
            optimiser.load_state_dict(content["optimiser"])
        except (RuntimeError, KeyError, ValueError) as problem:
            raise InputError(
                f"{saved} does not fit these options (another network?): {str(problem)[:120]}"
            ) from None
        state.step, state.seconds = int(content["step"]), float(content["seconds"])
    return state


def _save(folder: Path, state: _State, options: TrainOptions, group: Group) -> None:
    """Write the state and the model to temporary names, then move them into place."""
    content = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    temporary = folder / "state.pt.tmp"
    torch.save(content, temporary)
    os.replace(temporary, folder / "state.pt")
    facts = {"steps": str(state.step), "train_seconds": f"{state.seconds:.0f}"}
    # what small networks need, see their cards
    facts |= {"motion_cue": "flow", "bundle": "on", "mover_depth": "ground", "refine": "edges"}
    each_step = group.size * options.scenes_per_step * options.pairs_per_scene
    facts["pairs"] = str(state.step * each_step)
    save_network(folder / "model.safetensors", state.average, facts, overwrite=True)


def _log(folder: Path, entry: dict[str, Any]) -> None:
    line = {k: round(v, 6) if isinstance(v, float) else v for k, v in entry.items()}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"time": round(time.time()), **line}) + "\n")
    logger.info("%s", line)
