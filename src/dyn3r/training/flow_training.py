"""Training of the flow network on the synthetic world, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dyn3r.errors import InputError
from dyn3r.flow.compact import NORMAL_SCALE, WEIGHTS, load_flow_network
from dyn3r.flow.network import FlowNetwork, FlowPrediction
from dyn3r.geometry.cameras import pixel_grid
from dyn3r.io.atomic import write_json
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.network.checkpoints.files import write_torch
from dyn3r.training.averaging import update_average
from dyn3r.training.clip_cache import warm_cosine, write_weights
from dyn3r.training.flow_batches import (
    FlowBatch,
    FlowTraining,
    flow_batches,
    held_out_flow,
)
from dyn3r.training.options import check_minutes
from dyn3r.training.run_log import append_log
from dyn3r.training.run_state import reading_state
from dyn3r.training.synthetic.photographs import check_photographs
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)

GAMMA = 0.8
"""Weight of an update's error relative to the next one's. Source: RAFT."""
HIDDEN_WEIGHT = 0.3
"""Weight of the error of points that the second frame does not show."""
VISIBLE_WEIGHT = 0.5
"""Weight of the visibility loss."""
CALIBRATION_WEIGHT = 0.1
"""Weight of the likelihood of the error distribution; flow itself does not depend on it."""
MATCHING_WEIGHT = 2.0
"""Weight of the matching loss."""
POWER, FINAL_WEIGHT = 0.5, 3.0
"""Of the length of the final error, and its weight: small errors count more than in a mean of
lengths (PWC-Net, Sun et al. 2018)."""
EMA_DECAY = 0.999
"""Decay of the exponential moving average of the weights, which is the result."""
LOG_EVERY = 50
"""Steps between lines of the log."""
SAVE_SECONDS = 180.0
"""Seconds between saved states."""
WARMUP = 300
"""Steps of linear warm-up."""


@dataclass
class _State:
    network: FlowNetwork
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def train_flow(
    folder: str | Path,
    options: FlowTraining,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Train, or resume training, in `folder`; returns the path of the resulting weights.

    Stops after `options.steps` steps or after `minutes`, and saves everything; another call resumes
    there. The folder holds `state.pt`, `log.jsonl`, `options.json` and `flow.safetensors` (the
    averaged weights). Raises InputError for a folder that is a file or holds another network.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the run")
    check_minutes(minutes)
    if options.photos is not None:
        check_photographs(Path(options.photos))
    state = _restored(folder, options, device)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "options.json", asdict(options), overwrite=True)
    started = saved = time.monotonic()
    running: dict[str, float] = {}
    held_out: list[FlowBatch] = []
    batches: Iterable[FlowBatch] = (
        [] if state.step >= options.steps else flow_batches(options, state.step)
    )
    try:
        for batch in batches:
            begun = time.monotonic()
            losses = _step(state, FlowBatch(*(x.to(device) for x in batch)), options)
            state.step += 1
            state.seconds += time.monotonic() - begun
            for name, value in losses.items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            progress("training", state.step, options.steps)
            out_of_time = minutes is not None and time.monotonic() - started > minutes * 60
            finished = state.step >= options.steps or out_of_time
            if state.step % LOG_EVERY == 0 or finished:
                entry = {"step": state.step, "seconds": state.seconds, **running}
                append_log(folder, entry)
            if state.step % options.evaluate_every == 0 or finished:
                held_out = held_out or held_out_flow(options.photos)
                scores = evaluate_flow(averaged(state, device), held_out, device)
                append_log(
                    folder, {"step": state.step, **{f"held out {k}": v for k, v in scores.items()}}
                )
            if finished or time.monotonic() - saved > SAVE_SECONDS:
                _save(folder, state)
                saved = time.monotonic()
            if finished:
                break
    except KeyboardInterrupt:
        _save(folder, state)
        raise
    return folder / WEIGHTS


def _restored(folder: Path, options: FlowTraining, device: str) -> _State:
    torch.manual_seed(options.seed)
    network = FlowNetwork() if options.start is None else load_flow_network(options.start)
    network.to(device).train().requires_grad_(requires_grad=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    state, file = _State(network, average, optimiser), folder / "state.pt"
    if file.exists():
        with reading_state(file, device) as content:
            network.load_state_dict(content["network"])
            optimiser.load_state_dict(content["optimiser"])
            FlowNetwork(network.config).load_state_dict(content["average"])
            state.average = content["average"]
            state.step = checked_whole(content["step"], "its step", low=0, high=10**12)
            state.seconds = checked_number(content["seconds"], "its time", low=0)
    return state


def averaged(state: _State, device: str) -> FlowNetwork:
    """Return the network with the averaged weights."""
    network = FlowNetwork(state.network.config)
    network.load_state_dict(state.average)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


@torch.no_grad()
def evaluate_flow(
    network: FlowNetwork, batches: list[FlowBatch], device: str = "cpu"
) -> dict[str, float]:
    """Compute errors over the points of pairs that both frames show.

    `median` and `outliers` (share above 3 pixels) of the network, `first_median` and
    `first_outliers` of the first flow; `whitened`: median error in the network's own standard
    errors (1.18 if they are right); `visible`: share of all points whose visibility is right.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    right = []
    for batch in batches:
        batch = FlowBatch(*(x.to(device) for x in batch))
        found = predict(network, batch)
        seen = batch.known & batch.visible
        error = found.flow - batch.flow
        units = whitened_length(error, found.whitening) / NORMAL_SCALE
        lengths = (error.square().sum(1).sqrt(), (batch.first - batch.flow).square().sum(1).sqrt())
        parts.append((lengths[0][seen], lengths[1][seen], units[seen]))
        right.append(((found.visible > 0) == batch.visible)[batch.known].float())
    ours, first, units = (torch.cat(x) for x in zip(*parts))
    return {
        "median": float(ours.median()), "outliers": float((ours > 3).float().mean()),
        "first_median": float(first.median()), "first_outliers": float((first > 3).float().mean()),
        "whitened": float(units.median()), "visible": float(torch.cat(right).mean()),
    }  # fmt: skip


def _save(folder: Path, state: _State) -> None:
    content = {
        "network": state.network.state_dict(), "average": state.average,
        "optimiser": state.optimiser.state_dict(), "step": state.step, "seconds": state.seconds,
    }  # fmt: skip
    write_torch(folder / "state.pt", content, overwrite=True)
    write_weights(folder / WEIGHTS, state.average)


def _step(state: _State, batch: FlowBatch, options: FlowTraining) -> dict[str, float]:
    """Take one optimiser step; returns the losses and errors."""
    rate = options.learning_rate * warm_cosine(state.step, options.steps, WARMUP)
    state.optimiser.param_groups[0]["lr"] = rate
    half = options.precision == "bfloat16"
    with torch.autocast(batch.flow.device.type, torch.bfloat16, enabled=half):
        predicted = predict(state.network, batch)
    loss, losses = flow_loss(predicted, batch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    if torch.isfinite(norm):
        state.optimiser.step()
        weights = state.network.state_dict().values()
        update_average(state.average.values(), weights, EMA_DECAY, state.step)
    else:
        logger.warning("step %d: the gradient is not finite; step skipped", state.step)
    return losses


def predict(network: FlowNetwork, batch: FlowBatch) -> FlowPrediction:
    """Predict all directed pairs of a batch."""
    images = batch.images.contiguous(memory_format=torch.channels_last)
    return network.both_directions(network.encode(images), batch.first)


def flow_loss(predicted: FlowPrediction, batch: FlowBatch) -> tuple[Tensor, dict[str, float]]:
    """Compute the loss, and its parts and errors for the log.

    Absolute errors in units of one plus a hundredth of the displacement, of all updates; binary
    cross-entropy of visibility; negative log-likelihood of the error under the predicted
    distribution, with the flow held fixed.
    """
    known, visible = batch.known, batch.visible
    weight = known * torch.where(visible, 1.0, HIDDEN_WEIGHT)
    length = batch.flow.square().sum(1).sqrt()
    weight = weight / (1 + 0.01 * length)
    total = weight.sum().clamp(min=1)
    error = predicted.flow - batch.flow
    loss = FINAL_WEIGHT * ((_length(error) + 0.01).pow(POWER) * weight).sum() / total
    share = 1.0
    for coarse in reversed(predicted.coarse):
        share *= GAMMA
        step = batch.flow.shape[-1] // coarse.shape[2]
        true = batch.flow[:, :, step // 2 :: step, step // 2 :: step].permute(0, 2, 3, 1)
        part = weight[:, step // 2 :: step, step // 2 :: step]
        away = _length((coarse - true).permute(0, 3, 1, 2))
        loss = loss + share * (away * part).sum() / part.sum().clamp(min=1)
    matched = matching_loss(predicted.matching, batch)
    loss = loss + MATCHING_WEIGHT * matched
    seen = binary_cross_entropy_with_logits(
        predicted.visible, visible.float(), weight=known.float(), reduction="sum"
    ) / known.sum().clamp(min=1)
    density = negative_log_likelihood(error.detach(), predicted.whitening)
    calibrated = (density * weight).sum() / total
    with torch.no_grad():
        both = known & visible
        away = error.square().sum(1).sqrt()[both]
        first = (batch.first - batch.flow).square().sum(1).sqrt()[both]
        facts = {
            "loss": float(loss.detach()), "matching": float(matched.detach()),
            "visible": float(seen.detach()), "likelihood": float(calibrated.detach()),
            "median": float(away.median()), "outliers": float((away > 3).float().mean()),
            "first_median": float(first.median()),
            "first_outliers": float((first > 3).float().mean()),
        }  # fmt: skip
    return loss + VISIBLE_WEIGHT * seen + CALIBRATION_WEIGHT * calibrated, facts


def matching_loss(logits: Tensor, batch: FlowBatch) -> Tensor:
    """Compute the cross-entropy of matching at 1/8: visible cells, the four cells around the truth.

    logits: `FlowPrediction.matching`. Source: LoFTR (Sun et al. 2021), with bilinear labels.
    """
    h, w = batch.flow.shape[2:]
    gh, gw = h // 8, w // 8
    flow = batch.flow[:, :, 4::8, 4::8].flatten(2) / 8
    counts = (batch.known & batch.visible)[:, 4::8, 4::8].flatten(1)
    at = flow + pixel_grid((gh, gw), flow.device).view(1, -1, 2).transpose(1, 2)
    at = torch.stack([at[:, 0].clamp(0, gw - 1), at[:, 1].clamp(0, gh - 1)], 1)
    corner = at.floor()
    rest, log_p, total = at - corner, logits.log_softmax(1), logits.new_zeros(counts.shape)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = (corner[:, 0] + dx).clamp(max=gw - 1), (corner[:, 1] + dy).clamp(max=gh - 1)
        share = (rest[:, 0] if dx else 1 - rest[:, 0]) * (rest[:, 1] if dy else 1 - rest[:, 1])
        index = (y * gw + x).long()[:, None]
        total = total - share * log_p.gather(1, index)[:, 0]
    return (total * counts).sum() / counts.sum().clamp(min=1)


def _length(error: Tensor) -> Tensor:
    """Compute lengths of errors (b, 2, h, w), smooth at 0."""
    return (error.square().sum(1) + 1e-4).sqrt()


def whitened_length(error: Tensor, whitening: Tensor) -> Tensor:
    """Compute |W e| (b, h, w) of errors (b, 2, h, w); see `FlowPrediction.whitening`."""
    a, b, c = whitening.unbind(1)
    u, v = error.unbind(1)
    squared = (a.exp() * u).square() + (b.exp() * (v + c * u)).square()
    return (squared + 1e-6).sqrt()


def negative_log_likelihood(error: Tensor, whitening: Tensor) -> Tensor:
    """Compute -log density (b, h, w), without its constant, of errors (b, 2, h, w)."""
    return whitened_length(error, whitening) - whitening[:, 0] - whitening[:, 1]
