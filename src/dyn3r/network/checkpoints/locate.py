"""Locating a model by name or path; a published one is downloaded where needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dyn3r.errors import CheckpointError
from dyn3r.io.download import file_sha256
from dyn3r.network.checkpoints import hub
from dyn3r.network.checkpoints.catalogue import (
    EMBEDDED,
    NON_COMMERCIAL,
    PUBLISHED,
    Use,
    published_facts,
)
from dyn3r.types import Progress, no_progress


@dataclass(frozen=True)
class LocatedModel:
    """Model on this machine."""

    name: str
    """Registered name, or the given path."""
    path: Path
    """Checkpoint file or folder."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Licence, paper and origin, for a Scene's metadata."""

    def sha256(self) -> str:
        """SHA-256 of the file; of a folder, that of the names and checksums of its files."""
        if self.path.is_file():
            return file_sha256(self.path, label=self.name)
        files = sorted(file for file in self.path.rglob("*") if file.is_file())
        sums = [f"{file_sha256(file, label=self.name)} {file.name}" for file in files]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def locate(name: str, *, use: Use = "geometry", progress: Progress = no_progress) -> LocatedModel:
    """Locate a model by registered name or path; a published one is downloaded if not cached.

    use: purpose; a name registered for another purpose is refused. A cached model is used without
    contacting a server. The licence of a published model is logged when it is first used on this
    machine. Raises CheckpointError if there is no such name or file, or if the download fails.
    """
    uses: dict[str, Use] = {key: model.use for key, model in EMBEDDED.items()}
    uses |= {key: model.use for key, model in PUBLISHED.items()}
    if uses.get(name, use) != use:
        raise CheckpointError(f"{name} is a model for {uses[name]}; one for {use} is needed here")
    if name in EMBEDDED:
        model = EMBEDDED[name]
        if not model.path.exists():
            raise CheckpointError(f"the embedded model {name!r} is missing from this installation")
        facts = {"licence": model.licence, "description": model.description}
        return LocatedModel(name, model.path, facts)
    if name in PUBLISHED:
        path = hub.cached_files(name) or hub.download(name, progress=progress)
        hub.log_licence_once(name)
        facts = published_facts(PUBLISHED[name])
        if PUBLISHED[name].repository and path.parent.name == "snapshots":
            facts["revision"] = path.name
        return LocatedModel(name, path, facts)
    try:
        path = Path(name).expanduser()
        there = path.exists()
    except (RuntimeError, OSError, ValueError):  # ~nobody, a name too long, a name with a NUL
        path, there = Path(name), False
    if not there:
        known = ", ".join(key for key in uses if uses[key] == use)
        raise CheckpointError(f"no model or file named {name!r:.200}; known models: {known}")
    return LocatedModel(str(path), path, {"file": str(path), **_facts_by_file_name(path)})


def _facts_by_file_name(path: Path) -> dict[str, str]:
    """Return licence and origin of a published file that was copied by hand, from its name.

    A part of a name is enough for a licence that restricts. A licence that permits is not given
    away so easily: the file or a folder above it must have the whole name.
    """
    place = path.absolute()
    parts = {part.lower().rpartition("--")[2] for part in (*place.parts, place.stem)}
    for model in PUBLISHED.values():
        name = model.repository.rpartition("/")[2].lower()
        restricts = model.licence == NON_COMMERCIAL and name in str(place).lower()
        if name and (restricts or name in parts):
            return published_facts(model)
    return {}
