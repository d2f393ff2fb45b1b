"""Network ready to run: weights, device and precision together; found by name or by file."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dyn3r.errors import CheckpointError, InputError
from dyn3r.io.images import Fit
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.checkpoints.reader import load_network
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.network import PointmapNetwork
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)

Precision = Literal["auto", "bfloat16", "float32"]


PUBLISHED_SIZE = 512
"""Long side in pixels of the frames of the published networks."""
DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that can run a network; PyTorch has others that compute nothing (meta)."""


@dataclass(frozen=True)
class Model:
    """Network with its device, its precision and what its file says about it."""

    network: PointmapNetwork | ManyViewNetwork
    name: str
    """Registered name, or the path of the file."""
    device: torch.device
    precision: Literal["bfloat16", "float32"]
    """Precision of the transformer; heads always run in float32."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Licence, training and origin, for people and for a Scene's metadata."""
    recommendation: Recommendation = field(init=False)
    """Recommended processing, read from `facts`; without facts nothing is recommended."""

    def __post_init__(self) -> None:
        """Read the recommendation. Raises CheckpointError for facts with unknown values."""
        try:
            recommendation = Recommendation.from_facts(self.facts)
        except CheckpointError as problem:
            raise CheckpointError(f"{self.name}: {problem}") from None
        object.__setattr__(self, "recommendation", recommendation)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the transformer runs in this model's precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @property
    def about(self) -> dict[str, str]:
        """Name, precision and facts, for a Scene's metadata."""
        return {"name": self.name, "precision": self.precision, **self.facts}

    @property
    def is_many_view(self) -> bool:
        """Whether the network sees all frames at once; else it sees pairs."""
        return isinstance(self.network, ManyViewNetwork)

    @property
    def memory_bytes(self) -> int:
        """Size of the parameters in bytes."""
        return sum(p.numel() * p.element_size() for p in self.network.parameters())

    def digest(self) -> str:
        """Checksum of precision, facts and parameters: models with equal ones give equal results.

        Takes about a second for every gigabyte.
        """
        checksum = hashlib.sha256(repr((self.precision, sorted(self.facts.items()))).encode())
        for name, value in self.network.state_dict().items():
            checksum.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            checksum.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return checksum.hexdigest()

    @property
    def two_view(self) -> PointmapNetwork:
        """The network, which sees pairs. Raises InputError for a many-view network."""
        if isinstance(self.network, ManyViewNetwork):
            raise InputError(f"{self.name} is a many-view network: it gives no pointmaps of pairs")
        return self.network

    @property
    def many_view(self) -> ManyViewNetwork:
        """The network, which sees all frames. Raises InputError for a two-view network."""
        if isinstance(self.network, PointmapNetwork):
            raise InputError(f"{self.name} is a two-view network: it sees pairs of frames only")
        return self.network

    @property
    def image_size(self) -> int:
        """Long side in pixels of the frames that the network was trained on."""
        return self.network.config.image_size

    def fit(self, size: int | None = None) -> Fit:
        """How images become frames whose long side is `size`; None: `image_size`.

        Networks of frames as large as the published ones get the published crop. Of smaller frames
        it would cut off more, 11 % of 16:9 at 224 pixels, and the short side of a wide picture
        would have few patches; see `dyn3r.io.images.frame_mapping`.
        """
        if self.image_size >= PUBLISHED_SIZE:
            return "crop"
        return "area" if size is None else "cover"


def load_model(
    name: str | Path = "compact",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress = no_progress,
) -> Model:
    """Load a model by its registered name, a checkpoint file or a hub folder.

    name: an embedded model (`compact`, offline), a published one (downloaded on first use; see
    `dyn3r.network.checkpoints.catalogue`), or a path. device: `auto` takes a CUDA GPU if there is
    one, else the CPU. precision: `auto` is bfloat16 where the hardware multiplies it fast, else
    float32. progress: called while weights are downloaded. Raises CheckpointError (not a usable
    checkpoint, unknown name) or InputError (no such device).
    """
    entry = locate(str(name), progress=progress)
    network, facts = load_network(entry.path)
    facts = {**facts, **entry.facts}
    return prepare_model(network, entry.name, device=device, precision=precision, facts=facts)


def prepare_model(
    network: PointmapNetwork | ManyViewNetwork,
    name: str,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    facts: Mapping[str, str] | None = None,
) -> Model:
    """Move a network to its device; its weights are converted in place.

    facts: see `Model`. Raises InputError (no such device, unknown precision) or CheckpointError
    (not enough memory, facts with unknown values).
    """
    target = usable_device(device)
    if precision not in ("auto", "bfloat16", "float32"):
        raise InputError(f"unknown precision {precision!r}: auto, bfloat16 or float32")
    half = _fast_bfloat16(target) if precision == "auto" else precision == "bfloat16"
    try:
        network = network.to(target).eval().requires_grad_(requires_grad=False)
    except (torch.OutOfMemoryError, RuntimeError) as problem:
        raise CheckpointError(f"{name} does not fit on {target}: {str(problem)[:100]}") from None
    for part, module in network.named_modules():
        # heads, norms and the residual stream stay float32; the transformer's products do not
        in_head = part.startswith(network.float32_parts)
        if isinstance(module, nn.Linear | nn.Conv2d) and not in_head:
            module.to(torch.bfloat16 if half else torch.float32)
        elif next(module.children(), None) is None:
            module.float()
    logger.info("%s on %s in %s", name, target, "bfloat16" if half else "float32")
    return Model(network, name, target, "bfloat16" if half else "float32", dict(facts or {}))


def usable_device(name: str) -> torch.device:
    """Return a device by name; `auto` is a CUDA GPU if there is one, else the CPU.

    Raises InputError if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"not one of {', '.join(DEVICES)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as problem:
        raise InputError(
            f"device {name!r:.40} can't be used ({str(problem).splitlines()[0][:80]}); "
            "try --device cpu"
        ) from None
    return device


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes matrix products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(
        bool(getattr(torch.cpu, probe)()) for probe in probes if hasattr(torch.cpu, probe)
    )


def described(model: Model, motion_model: Model | None) -> dict[str, Any]:
    """Models and device of a run, for metadata."""
    models: dict[str, Any] = {"model": model.about}
    if motion_model is not None:
        models["motion_model"] = motion_model.about
    return {**models, "device": str(model.device)}
