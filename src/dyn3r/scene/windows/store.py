"""Finished windows of a long clip in a folder, so that a run that was killed goes on from there.

The folder has `windows.json`, which says of which run it is, and a scene file for each finished
window. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.atomic import write_json
from dyn3r.io.regular_files import read_text
from dyn3r.io.staging import is_staging
from dyn3r.scene.scene import Scene
from dyn3r.types import WindowFolder, package_version

ABOUT = "windows.json"
MAX_ABOUT_BYTES = 1_000_000


class WindowStore:
    """Finished windows of one run."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists."""
        self.folder = folder

    def path(self, number: int) -> Path:
        """File of a window."""
        return self.folder / f"window_{number:05d}.dyn3r"

    def load(self, number: int) -> Scene | None:
        """The scene of a finished window; None if it is missing or damaged."""
        if not self.path(number).is_file():
            return None
        try:
            return Scene.load(self.path(number))
        except InputError:
            return None

    def save(self, number: int, scene: Scene, facts: Mapping[str, Any]) -> Scene:
        """Keep a finished window, with facts for JSON in its metadata; returns it as it is kept."""
        kept = replace(scene, metadata={**scene.metadata, "window": dict(facts)})
        kept.save(self.path(number), overwrite=True, precision="full")
        return kept

    def finished(self) -> int:
        """Number of windows that are kept."""
        return sum(1 for _ in self.folder.glob("window_*.dyn3r"))


@contextmanager
def window_store(where: WindowFolder | None, fingerprint: str) -> Iterator[WindowStore]:
    """The store of the run with this fingerprint; without a folder a temporary one.

    Windows that are there already are taken over if they are of the same run. The folder stays:
    `discard_windows` removes it. Raises InputError if it holds windows of another run and
    `where.replace` is False, or anything else; OutputError if it can't be written.
    """
    if where is None:
        with TemporaryDirectory(prefix="dyn3r-windows-") as folder:
            yield WindowStore(Path(folder))
        return
    about = {"fingerprint": fingerprint, "dyn3r_version": package_version()}
    if where.path.exists() and _about(where.path) != about and not _is_free(where.path):
        if not where.replace and holds_windows(where.path):
            raise InputError(
                f"{where.path} holds windows of another run (other frames, options or version): "
                "remove it, or start again with --overwrite"
            )
        discard_windows(where.path)
    if not holds_windows(where.path):
        write_json(where.path / ABOUT, about)
    yield WindowStore(where.path)


def holds_windows(folder: Path) -> bool:
    """Whether a folder is one of finished windows."""
    return (folder / ABOUT).is_file()


def discard_windows(folder: Path) -> None:
    """Remove a folder of finished windows. Raises InputError if it is none."""
    if not folder.exists():
        return
    if not holds_windows(folder) or folder.is_symlink():
        raise InputError(f"{folder} is in the way: it is no folder of finished windows")
    shutil.rmtree(folder, ignore_errors=True)


def fingerprint_of(*values: Any) -> str:
    """Checksum of options, arrays and text: the same for equal values in every process."""
    digest = hashlib.sha256()
    for value in values:
        _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        value = {"": type(value).__name__, **vars(value)}
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype} {value.shape};".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for name in sorted(value):
            digest.update(f"{name}=".encode())
            _add(digest, value[name])
    elif isinstance(value, (list, tuple)):
        digest.update(f"list {len(value)};".encode())
        for item in value:
            _add(digest, item)
    else:
        digest.update(f"{value!r};".encode())


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in it but what killed processes left."""
    return folder.is_dir() and all(is_staging(entry.name) for entry in folder.iterdir())


def _about(folder: Path) -> Any:
    try:
        return json.loads(read_text(folder / ABOUT, limit=MAX_ABOUT_BYTES))
    except (InputError, ValueError):
        return None
