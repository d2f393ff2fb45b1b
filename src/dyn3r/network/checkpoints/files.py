"""Reading and writing of checkpoint files, independent of the network (SPEC 1.1).

Checkpoints are untrusted. Nothing in them is executed, no memory is allocated because of a number
they state, and every fault becomes one line. Weights are memory-mapped where the layout allows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dyn3r.errors import CheckpointError
from dyn3r.io.atomic import atomic_file
from dyn3r.io.text import storable
from dyn3r.network.checkpoints.constructor_text import (
    checked_config,
    parse_constructor,
    parse_json_config,
)
from dyn3r.network.checkpoints.pickle_index import check_index

Origin = Literal["published-pth", "hub-folder", "dyn3r-safetensors"]

FORMAT_KEY, CONFIG_KEY = "dyn3r_format", "dyn3r_config"
FORMAT = "1"
"""Version of our own layout, stored under FORMAT_KEY in the metadata of the safetensors file."""

_HUB_CONFIG, _HUB_WEIGHTS = "config.json", "model.safetensors"
_LARGEST_PICKLE = 256 << 20
_LARGEST_CONFIG_FILE = 1 << 20
_MOST_ENTRIES = 100_000
_LONGEST_FACT = 1000
"""Longer entries beside the weights are not facts; they are left out."""


@dataclass(frozen=True)
class CheckpointContent:
    """Content of a checkpoint file, validated as far as possible without the network."""

    config: dict[str, Any]
    """Keywords of the published constructor, or of NetworkConfig in our own layout. Sequences are
    tuples, infinities are floats."""
    tensors: dict[str, Tensor]
    """Weights by parameter name, on the CPU, in the precision of the file; read-only."""
    origin: Origin
    """Layout of the file."""
    extras: dict[str, Any] = field(default_factory=dict)
    """Other plain values: `epoch` and the like of a .pth, the metadata of our own files."""


def read_checkpoint(path: str | Path, *, check_finite: bool = False) -> CheckpointContent:
    """Read a published `.pth`, a hub folder (or the weights in it), or one of our files.

    The layout is identified by the content, not by the name. check_finite: read every weight and
    refuse values that are not finite; takes the time of reading the file.

    Raises CheckpointError with one line if the file is missing, damaged, of another kind, contains
    code, or states sizes that it does not have.
    """
    place = Path(path)
    try:
        content = _read_any(place)
        if check_finite:
            _check_finite(content.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{place}: can't be read: {error.strerror or error}") from error
    return content


def _read_any(place: Path) -> CheckpointContent:
    """Read a file or folder of any layout."""
    if not place.exists():
        raise CheckpointError("no such checkpoint file or folder")
    if place.is_dir():
        return _read_hub_folder(place)
    if not place.is_file():
        raise CheckpointError("is not a regular file")
    with open(place, "rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04":
        return _read_pth(place)
    if len(start) == 9 and start[8:] == b"{":  # checked first: its length may look like a pickle
        return _read_safetensors(place)
    if start[:1] == b"\x80":
        raise CheckpointError(
            "is a bare pickle or in PyTorch's format from before 2020, which may run code; it was "
            "not loaded: save it again with a current PyTorch"
        )
    if not start:
        raise CheckpointError("is empty")
    raise CheckpointError("is not a checkpoint: neither a PyTorch .pth nor safetensors")


# --- safetensors: ours and the hub's ---------------------------------------------------------


def _read_safetensors(place: Path) -> CheckpointContent:
    """Read our layout, or hub weights with their configuration beside them."""
    tensors, metadata = _safetensors(place)
    if FORMAT_KEY in metadata or CONFIG_KEY in metadata:
        version = metadata.get(FORMAT_KEY)
        if version != FORMAT:
            raise CheckpointError(
                f"is in version {version!s:.20} of dyn3r's layout; supported: {FORMAT}"
            )
        config = parse_json_config(metadata.get(CONFIG_KEY, ""))
        extras = {k: v for k, v in metadata.items() if k not in (FORMAT_KEY, CONFIG_KEY)}
        return CheckpointContent(config, tensors, "dyn3r-safetensors", extras)
    beside = place.with_name(_HUB_CONFIG)
    if not beside.is_file():
        raise CheckpointError(
            f"has no configuration inside and no {_HUB_CONFIG} beside it; give the folder of both"
        )
    return CheckpointContent(_hub_config(beside), tensors, "hub-folder", dict(metadata))


def _read_hub_folder(folder: Path) -> CheckpointContent:
    """Read the configuration and the weights of a hub folder."""
    for name in (_HUB_CONFIG, _HUB_WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"the folder is not a checkpoint: it has no {name}")
    config = _hub_config(folder / _HUB_CONFIG)
    tensors, metadata = _safetensors(folder / _HUB_WEIGHTS)
    return CheckpointContent(config, tensors, "hub-folder", dict(metadata))


def read_hub_files(weights: Path, config: Path | None) -> CheckpointContent:
    """Read weights and configuration from files of any name, and check that weights are finite.

    config: None for other networks than ours. Raises CheckpointError.
    """
    settings = {} if config is None else _hub_config(config)
    tensors, metadata = _safetensors(weights)
    if config is not None:
        _check_finite(tensors)
    return CheckpointContent(settings, tensors, "hub-folder", dict(metadata))


def _hub_config(place: Path) -> dict[str, Any]:
    """Read config.json."""
    if place.stat().st_size > _LARGEST_CONFIG_FILE:
        raise CheckpointError(f"{_HUB_CONFIG} is implausibly large")
    try:
        return parse_json_config(place.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise CheckpointError(f"{_HUB_CONFIG} is not text") from None


def _safetensors(place: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata. The library checks the header against the size of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError("is a damaged or truncated safetensors file") from error
    _check_tensors(tensors)
    return tensors, metadata


# --- .pth ------------------------------------------------------------------------------------


def _read_pth(place: Path) -> CheckpointContent:
    """Read a published `.pth` with PyTorch's weights-only reader."""
    sizes = _check_archive(place)
    check_index(place)
    if place.suffix == ".safetensors":  # torch.load uses the name, not the content
        raise CheckpointError("is a PyTorch .pth under the name .safetensors; rename it")
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    with _pickle_errors(), warnings.catch_warnings(), allowed:
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols
        loaded = torch.load(str(place), map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), dict):
        raise CheckpointError(
            "is a PyTorch file, but not a checkpoint: it has no weights in `model`"
        )
    _check_tensors(loaded["model"])
    for name, tensor in loaded["model"].items():
        # Memory mapping takes as many bytes as the index states, wherever the entry ends.
        if tensor.untyped_storage().nbytes() not in sizes:
            raise CheckpointError(f"is a damaged .pth file: {name:.60} is cut off")
    text = getattr(loaded.get("args"), "model", None)
    if not isinstance(text, str):
        raise CheckpointError("holds weights, but no description of the network in `args.model`")
    extras = {
        name: value
        for name, value in loaded.items()
        if isinstance(name, str) and isinstance(value, str | int | float)
        if len(name) <= _LONGEST_FACT and len(str(value)) <= _LONGEST_FACT
    }
    return CheckpointContent(parse_constructor(text), loaded["model"], "published-pth", extras)


def _check_archive(place: Path) -> set[int]:
    """Check that a .pth is an uncompressed zip archive without overlaps.

    Returns the sizes of its entries in bytes.
    """
    size = place.stat().st_size
    try:
        with zipfile.ZipFile(place) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise CheckpointError("is a damaged or truncated .pth file") from None
    if len(entries) > _MOST_ENTRIES:
        raise CheckpointError("has implausibly many entries; it was not loaded")
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
        raise CheckpointError("is a compressed zip archive, which no PyTorch checkpoint is")
    if sum(e.file_size for e in entries) > size:
        raise CheckpointError("states more content than its size; it was not loaded")
    pickles = [e for e in entries if e.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("is a zip archive, but not a PyTorch checkpoint")
    if pickles[0].file_size > _LARGEST_PICKLE:
        raise CheckpointError("has an implausibly large index; it was not loaded")
    return {entry.file_size for entry in entries}


@contextmanager
def _pickle_errors() -> Iterator[None]:
    """Convert any error of PyTorch's weights-only reader to one line.

    For damaged pickles it raises the errors of the operations that it carries out, of many kinds.
    """
    import pickle

    try:
        yield
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|module|function|class) `?([A-Za-z_][\w.]{0,80})", str(error))
        name = f" ({wanted.group(1)})" if wanted else ""
        raise CheckpointError(
            f"needs more than weights and plain values{name}: it contains code or is damaged; it "
            "was not loaded"
        ) from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError("is a damaged .pth file; it was not loaded") from error


# --- common to all layouts -------------------------------------------------------------------


def _check_tensors(tensors: Mapping[Any, Any]) -> None:
    """Check that every weight is a plain float tensor with its full storage in the file."""
    if not tensors:
        raise CheckpointError("holds no weights")
    if len(tensors) > _MOST_ENTRIES:
        raise CheckpointError("holds implausibly many weights")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"the entry {name!s:.60} is not a weight")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(f"the weight {name:.60} is of an unsupported kind")
        if not tensor.is_floating_point():
            raise CheckpointError(f"the weight {name:.60} has whole numbers ({tensor.dtype})")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"the weight {name:.60} states the shape {tuple(tensor.shape)}, more than is stored"
            )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check that every value of every weight is finite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"the weight {name:.60} has values that are not finite")


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Write our layout: a safetensors file with the configuration as JSON in its metadata.

    The write is atomic. metadata: facts as free text. Tensors must not share memory. Raises
    OutputError if the file exists and `overwrite` is False, or can't be written. Raises
    CheckpointError for a configuration that `read_checkpoint` would refuse.
    """
    assert not {FORMAT_KEY, CONFIG_KEY} & set(metadata), "these names are reserved"
    facts = {FORMAT_KEY: FORMAT, CONFIG_KEY: json.dumps(checked_config(dict(config))), **metadata}
    facts = {name: storable(value) for name, value in facts.items()}
    write_tensors(path, tensors, facts, overwrite=overwrite)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Write a safetensors file atomically. Raises OutputError as `atomic_file` does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _check_tensors(plain)
    with atomic_file(path, overwrite=overwrite) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(plain, part, dict(metadata))
        except SafetensorError as error:  # the disk is full
            raise OSError(str(error)) from None
        os.chmod(part, mode)  # safetensors makes the file readable by its owner only


def write_torch(path: str | Path, content: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write a PyTorch file atomically. Raises OutputError as `atomic_file` does."""
    with atomic_file(path, overwrite=overwrite) as part, open(part, "wb") as stream:
        try:
            torch.save(dict(content), stream)
        except RuntimeError as problem:  # the disk is full
            raise OSError(str(problem).splitlines()[0]) from None
