"""Conversion of checkpoints to our own layout, or to the published one."""

from __future__ import annotations

from pathlib import Path

import torch

from dyn3r.errors import CheckpointError
from dyn3r.io.atomic import check_writable
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.checkpoints.published_writer import save_published
from dyn3r.network.checkpoints.reader import load_two_view, save_network
from dyn3r.types import Progress, no_progress


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    half: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Write a checkpoint of any layout (or a registered model) as one of our safetensors files.

    A target that ends in `.pth` gets the published layout instead, for the original programs. half:
    store float16 instead of float32; not in a `.pth`. Returns licence, paper and origin, which our
    files keep in their metadata and `load_model` reads. Raises CheckpointError for a source that is
    not a checkpoint, whose numbers are not finite in the target precision or which the published
    layout has no place for, OutputError if `target` exists and `overwrite` is False.
    """
    check_writable(target, overwrite=overwrite)
    published = Path(target).suffix == ".pth"
    if published and half:
        raise CheckpointError(f"{target}: the published .pth layout is float32; leave out half")
    entry = locate(str(source), progress=progress)
    network, facts = load_two_view(entry.path)
    origin = {name: value for name, value in entry.facts.items() if name != "file"}
    facts = {**facts, **origin, "converted_from": Path(entry.name).name}
    dtype = torch.float16 if half else torch.float32
    largest = torch.finfo(dtype).max
    for name, tensor in network.state_dict().items():
        if tensor.numel() == 0:
            continue
        # in float64, as types of eight bits have no maximum; also refuses NaN
        if not float(tensor.to(torch.float64).abs().max()) <= largest:
            what = "exceed half precision" if half else "are not finite"
            raise CheckpointError(f"{source}: the weights {name} have values that {what}")
    if published:
        save_published(target, network, overwrite=overwrite)
    else:
        save_network(target, network, facts, dtype=dtype, overwrite=overwrite)
    return facts
