"""Conversion of checkpoints to our own layout, or to the published one."""

from __future__ import annotations

from pathlib import Path

import torch

from dyn3r.errors import CheckpointError
from dyn3r.io.atomic import check_writable
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.checkpoints.many_view_files import save_published_many_view
from dyn3r.network.checkpoints.published_writer import save_published
from dyn3r.network.checkpoints.reader import load_network, save_network
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.network import PointmapNetwork
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

    A target that ends in `.pth` gets the published layout of two-view networks instead, one without
    a suffix that of many-view networks: a folder. Both are for the original programs. half: store
    float16 instead of float32; not in the published layouts. Returns licence, paper and origin,
    which our files keep in their metadata and `load_model` reads. Raises CheckpointError for a
    source that is not a checkpoint, whose numbers are not finite in the target precision or which
    the published layout has no place for, OutputError if `target` exists and `overwrite` is False.
    """
    if Path(target).suffix or not Path(target).is_dir():
        check_writable(target, overwrite=overwrite)
    entry = locate(str(source), progress=progress)
    network, facts = load_network(entry.path)
    published = _is_published(target, network, half=half)
    origin = {name: value for name, value in entry.facts.items() if name != "file"}
    facts = {**facts, **origin, "converted_from": Path(entry.name).name}
    dtype = torch.float16 if half else torch.float32
    _check_numbers(network, source, dtype)
    if not published:
        save_network(target, network, facts, dtype=dtype, overwrite=overwrite)
    elif isinstance(network, PointmapNetwork):
        save_published(target, network, overwrite=overwrite)
    else:
        save_published_many_view(target, network, Path(entry.name).name, overwrite=overwrite)
    return facts


def _is_published(
    target: str | Path, network: PointmapNetwork | ManyViewNetwork, *, half: bool
) -> bool:
    """Whether the name of the target asks for the published layout. Raises CheckpointError."""
    suffix, pairs = Path(target).suffix, isinstance(network, PointmapNetwork)
    if suffix == ".pth" and not pairs:
        raise CheckpointError(
            f"{target}: the published layout of many-view networks is a folder; give a name without"
            " .pth"
        )
    published = suffix == (".pth" if pairs else "")
    if published and half:
        raise CheckpointError(f"{target}: the published layouts are float32; leave out half")
    return published


def _check_numbers(network: torch.nn.Module, source: str | Path, dtype: torch.dtype) -> None:
    """Raise CheckpointError for weights that are not finite in the target precision."""
    largest = torch.finfo(dtype).max
    for name, tensor in network.state_dict().items():
        if tensor.numel() == 0:
            continue
        # in float64, as types of eight bits have no maximum; also refuses NaN
        if not float(tensor.to(torch.float64).abs().max()) <= largest:
            what = "exceed half precision" if dtype == torch.float16 else "are not finite"
            raise CheckpointError(f"{source}: the weights {name} have values that {what}")
