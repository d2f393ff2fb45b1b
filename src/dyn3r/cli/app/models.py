"""Models that the app offers: the one it was started with, and those on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dyn3r.errors import InputError
from dyn3r.network.model import Model
from dyn3r.types import Progress

Load = Callable[[str, Progress], Model]
"""Loads a model, given its name."""


class ModelShelf:
    """The models of a server, by name. Besides the first one, one more is kept in memory."""

    def __init__(self, first: Model, others: Sequence[str] = (), load: Load | None = None) -> None:
        """`first` is loaded; `load` loads one of `others` when it is asked for."""
        self.first = first
        self.names = (first.name, *(name for name in others if name != first.name))
        """All names, `first` before the others."""
        self._load = load
        self._other: tuple[str, Model] | None = None

    def get(self, name: str, progress: Progress) -> Model:
        """The model of this name; empty: the first. Raises InputError for one not offered."""
        if name in ("", self.first.name):
            return self.first
        if name not in self.names or self._load is None:
            raise InputError(f"the model {name!r:.60} is not offered here")
        if self._other is None or self._other[0] != name:
            self._other = None  # frees its memory before the next one is loaded
            progress("loading the model", 0, 1)
            self._other = (name, self._load(name, progress))
            progress("loading the model", 1, 1)
        return self._other[1]


def models_on_this_machine() -> list[str]:
    """Names of the embedded models and of the published ones that are in the cache already."""
    from dyn3r.network.checkpoints.catalogue import EMBEDDED, PUBLISHED
    from dyn3r.network.checkpoints.hub import cached_files

    embedded = [name for name, model in EMBEDDED.items() if model.path.exists()]
    published = [name for name, model in PUBLISHED.items() if model.use == "geometry"]
    return embedded + [name for name in published if cached_files(name) is not None]
