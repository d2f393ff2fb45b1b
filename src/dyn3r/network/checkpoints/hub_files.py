"""Files of published models: how large they can be, what they must hold, where they are cached."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from dyn3r.errors import CheckpointError, InputError
from dyn3r.io.atomic import write_text
from dyn3r.io.regular_files import read_json
from dyn3r.network.checkpoints.catalogue import PublishedModel
from dyn3r.network.checkpoints.reader import check_hub_weights

MAX_CONFIG_BYTES = 1 << 20
"""Largest .json file of a published model."""
MAX_CONFIG_FILES = 16
_MAX_WEIGHTS_BYTES = 4 << 30  # where the number of weights is not known
_HEADER_BYTES = 64 << 20


def largest_size(model: PublishedModel, file: str) -> int:
    """Bytes that a file of a model can have; a server that sends more is cut off."""
    if file.endswith(".json"):
        return MAX_CONFIG_BYTES
    about = model.approximate_bytes
    return _MAX_WEIGHTS_BYTES if about is None else about + about // 4 + _HEADER_BYTES


def check_content(model: PublishedModel, file: str, part: Path, *, config: Path | None) -> None:
    """Check a downloaded file before it gets its name in the cache.

    Configurations must be JSON. Weights must fit `config`, the file that was downloaded before, and
    be finite.

    Raises:
        CheckpointError: it is not such a file.
    """
    if file.endswith(".json"):
        try:
            if not isinstance(read_json(part, limit=MAX_CONFIG_BYTES), dict):
                raise CheckpointError(f"{file} is no configuration")
        except InputError:
            raise CheckpointError(f"{file} is no configuration (no JSON)") from None
    elif file.endswith(".safetensors"):
        check_hub_weights(part, config if model.use == "geometry" else None)


def add_to_cache(folder: Path, file: str, *, blob: Path, commit: str) -> Path:
    """Enter a file into the layout of huggingface_hub's cache; returns its path there.

    The layout: blobs/ETAG, snapshots/COMMIT/FILE (a link to the blob), refs/main (the commit).
    """
    pointer = folder / "snapshots" / commit / file
    pointer.parent.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(blob, pointer.parent)
    if not (pointer.is_symlink() and os.readlink(pointer) == link):
        with contextlib.suppress(FileNotFoundError):
            pointer.unlink()
        pointer.symlink_to(link)
    write_text(folder / "refs" / "main", commit, overwrite=True)
    return pointer


def repository_folder(model: PublishedModel) -> Path:
    """Return the folder of a repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{model.repository.replace('/', '--')}"


def torch_folder() -> Path:
    """Return the checkpoint folder of torch.hub, by its documented rule, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"
