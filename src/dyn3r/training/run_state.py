"""State of a training run: weights, averaged weights, optimiser and step, saved in its folder."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dyn3r.errors import InputError
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.io.regular_files import check_regular
from dyn3r.network.checkpoints.files import write_torch
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.checkpoints.reader import load_network, save_network
from dyn3r.network.initialise import grow, initialise
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.network import PointmapNetwork
from dyn3r.training.group import Group
from dyn3r.training.options import TrainOptions
from dyn3r.training.sets.sources import parse_data

RECOMMENDATION = {"motion_cue": "flow", "bundle": "on", "mover_depth": "ground", "refine": "edges"}
"""Recommended processing, written to the header of the result. Source: results of the embedded
model on the development clips (docs/experiments.md)."""


RESULT = "model.safetensors"
"""Name of the result in the folder of a run."""
KEPT_FACTS = ("licence", "paper", "repository", "stereo", *RECOMMENDATION)
"""Facts of a model that its fine-tuned successor keeps."""
FROZEN = ("mask_token", "patch_embed.", "enc_blocks.", "enc_position.", "detail.")
"""What `freeze_encoder` does not train in a two-view network; the encoder's last norm is trained,
as published."""

Network = PointmapNetwork | ManyViewNetwork


def frozen_parts(network: Network, *, freeze_encoder: bool) -> tuple[str, ...]:
    """Starts of the names of weights that are not trained.

    In a many-view network: what nothing reads, and with `freeze_encoder` all that comes before the
    first block that knows of other views.
    """
    if isinstance(network, PointmapNetwork):
        return FROZEN if freeze_encoder else ()
    blocks = [f"blocks.{i}." for i in range(network.config.alt_start)]
    encoder = ["cls_token", "pos_embed", "patch_embed.", *blocks]
    frozen = tuple(f"backbone.pretrained.{part}" for part in encoder)
    return network.unused_parts + (frozen if freeze_encoder else ())


@dataclass
class RunState:
    """Everything that changes during a run."""

    network: Network
    average: Network
    """Exponential moving average of the weights: the result."""
    optimiser: torch.optim.Optimizer
    facts: dict[str, str]
    """Entries of the header of the result: licence and origin of the model that it starts from,
    and recommended processing."""
    step: int = 0
    seconds: float = 0.0
    """Training time so far."""


def restore(folder: Path, options: TrainOptions, group: Group) -> RunState:
    """Load the state of a run, or create one; the same in every process.

    Raises InputError for the state of another network, CheckpointError for an unusable
    `options.model`.
    """
    network, facts = _starting_network(options)
    network.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.checkpointing = options.checkpointing
    frozen = frozen_parts(network, freeze_encoder=options.freeze_encoder)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    average = _another(network).to(group.device)
    average.load_state_dict(network.state_dict())
    average.requires_grad_(requires_grad=False)
    state = RunState(network, average, _optimiser(network, options), facts)
    saved = folder / "state.pt"
    if saved.exists():
        _load(saved, state, group.device)
    return state


def _another(network: Network) -> Network:
    """A network of the same family and size."""
    if isinstance(network, PointmapNetwork):
        return PointmapNetwork(network.config)
    return ManyViewNetwork(network.config)


def _starting_network(options: TrainOptions) -> tuple[Network, dict[str, str]]:
    """Return the network of a new run, random or the model to fine-tune, and facts about it."""
    if options.model is None:
        network = PointmapNetwork(options.network)
        initialise(network, options.seed)
        return network, RECOMMENDATION
    entry = locate(options.model)
    loaded, facts = load_network(entry.path)
    facts = {name: facts[name] for name in KEPT_FACTS if name in facts}
    facts |= {name: entry.facts[name] for name in KEPT_FACTS if name in entry.facts}
    facts["fine_tuned_from"] = Path(entry.name).name
    if isinstance(loaded, PointmapNetwork):
        loaded = grow(loaded, options.network, options.seed)
    return loaded.float().requires_grad_(requires_grad=True), facts


def _optimiser(network: Network, options: TrainOptions) -> torch.optim.Optimizer:
    """Create AdamW with weight decay on matrices only."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2]},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=options.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=options.weight_decay,
        fused=True,
    )


def _load(saved: Path, state: RunState, device: str) -> None:
    """Load `state.pt` in place. Raises InputError if it is that of another network."""
    with reading_state(saved, device) as content:
        state.network.load_state_dict(content["network"])
        state.average.load_state_dict(content["average"])
        state.optimiser.load_state_dict(content["optimiser"])
        state.step = checked_whole(content["step"], "its step", low=0, high=10**12)
        state.seconds = checked_number(content["seconds"], "its time", low=0)


@contextmanager
def reading_state(saved: Path, device: str) -> Iterator[dict[str, Any]]:
    """Yield the content of a state file.

    What PyTorch raises for a damaged or foreign one, here or in the block, becomes InputError with
    one line.
    """
    check_regular(saved)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle
            content = torch.load(saved, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise ValueError("it is no dictionary")
        yield content
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError,
            ArithmeticError, AssertionError, MemoryError, pickle.UnpicklingError,
            InputError) as problem:  # fmt: skip
        reason = (str(problem).splitlines() or [""])[0][:120]
        raise InputError(
            f"{saved} is damaged, or does not fit these options (another network?): {reason}"
        ) from None


def save(folder: Path, state: RunState, options: TrainOptions, group: Group) -> None:
    """Write `state.pt` and `model.safetensors` atomically."""
    content = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    write_torch(folder / "state.pt", content, overwrite=True)
    samples = state.step * group.size * options.accumulate * options.scenes_per_step
    if isinstance(state.network, PointmapNetwork):
        seen = {"pairs": str(samples * (2 if options.data else options.pairs_per_scene))}
    else:
        seen = {"samples": str(samples)}
    facts = {
        "steps": str(state.step),
        "train_seconds": f"{state.seconds:.0f}",
        **state.facts,
        **seen,
    }
    if options.data:
        names = dict.fromkeys(parse_data(text).name for text in options.data)
        facts["trained_on"] = ", ".join([*names, *["synthetic"] * (options.synthetic_share > 0)])
    save_network(folder / RESULT, state.average, facts, overwrite=True)
