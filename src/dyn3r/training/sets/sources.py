"""Data sets for training: how `--data` names them, the published rule of each, and their pairs."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dyn3r.datasets.cameras import known_K, known_poses
from dyn3r.datasets.sequence import Reader, Sequence
from dyn3r.datasets.waymo import listed_pairs
from dyn3r.errors import InputError
from dyn3r.training.sets.pair_choice import Pairs, pairs_by_stride
from dyn3r.training.sets.views import View

logger = logging.getLogger(__name__)

MAX_COUNT = 10**8
HELD_OUT_PERIOD = 20
"""One sequence in this many is held out where no validation data is given."""


@dataclass(frozen=True)
class SetRule:
    """How training takes pairs from a data set. Source of the published ones: DATASETS.md, 3.0."""

    module: str
    """Its reader."""
    count: int = 1000
    """Pairs per epoch, where `--data` has no number."""
    far: float = float("inf")
    """Depth from which on a pixel is not trained on, metres."""
    step: int = 1
    """Frames between the first frames of pairs."""
    published_range: bool = False
    """See `pair_choice.starts`."""
    thin: bool = True
    """See `pair_choice.pairs_by_stride`."""
    masks: bool = False
    """Whether masks of moving objects are read, for the matching loss."""


_PUBLISHED = SetRule("", far=80.0, step=2, published_range=True)

RULES: dict[str, SetRule] = {
    "pointodyssey": replace(_PUBLISHED, module="dyn3r.datasets.pointodyssey", count=10_000),
    "tartanair": replace(_PUBLISHED, module="dyn3r.datasets.tartanair", count=5_000),
    "spring": replace(_PUBLISHED, module="dyn3r.datasets.spring", count=1_000),
    "waymo": SetRule("dyn3r.datasets.waymo", count=4_000, thin=False),
    "sintel": replace(_PUBLISHED, module="dyn3r.datasets.sintel"),
    "folder": SetRule("dyn3r.datasets.folder", thin=False, masks=True),
    "scene": SetRule("dyn3r.training.sets.scene_sequences", thin=False, masks=True),
}
"""Data sets by name."""


@dataclass(frozen=True)
class DataSpec:
    """One data set of `--data`."""

    name: str
    path: Path
    count: int
    """Pairs per epoch."""


@dataclass(frozen=True)
class LoadedSet:
    """Sequences of a data set and the pairs of frames to choose from."""

    spec: DataSpec
    sequences: list[Sequence]
    pairs: Pairs

    def views(self, row: int) -> tuple[View, View]:
        """Read both views of a pair. Raises InputError for missing or damaged files."""
        a, i, b, j = (int(x) for x in self.pairs[row])
        return self.view(a, i), self.view(b, j)

    def has_pose(self, sequence_index: int, frame: int) -> bool:
        """Whether there is such a frame, and its pose is known or read later."""
        sequence = self.sequences[sequence_index]
        if not 0 <= frame < len(sequence):
            return False
        T = sequence.T_world_camera
        return T is None or bool(np.isfinite(T[frame]).all())

    def view(self, sequence_index: int, frame: int) -> View:
        """Read one frame with its truth. Raises InputError for missing or damaged files."""
        rule, sequence = RULES[self.spec.name], self.sequences[sequence_index]
        assert sequence.depth is not None
        image, depth = sequence.image(frame), sequence.depth(frame)
        size = (image.shape[0], image.shape[1])
        depth = _resized(np.where(depth < rule.far, depth, np.float32(0)), size)
        moving = np.zeros(size, dtype=bool)
        if rule.masks and sequence.mask is not None:
            moving = _resized(sequence.mask(frame), size)
        K, T = sequence.camera_of(frame)
        source = self.spec.path / sequence.name / sequence.frame_names[frame]
        K, T = known_K(K[None], source)[0], known_poses(T[None], source)[0]
        if not np.isfinite(T).all():
            raise InputError(f"{source} has no pose")
        return View(image, depth, moving, K, T)


def _resized(values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Nearest values at the size of the image."""
    if values.shape == size_hw:
        return values
    h, w = values.shape
    rows, columns = (np.arange(new) * old // new for new, old in zip(size_hw, (h, w)))
    return values[np.ix_(rows, columns)]


def parse_data(text: str) -> DataSpec:
    """Read `NAME:PATH` or `COUNT@NAME:PATH`. Raises InputError with the form and the names."""
    head, colon, path = text.partition(":")
    number, at, name = head.rpartition("@")
    if not colon or not path or name not in RULES:
        raise InputError(
            f"data {text!r:.100}: expected NAME:PATH or PAIRS_PER_EPOCH@NAME:PATH, where NAME is "
            f"one of {', '.join(RULES)}"
        )
    count = RULES[name].count
    if at:
        digits = number.replace("_", "")
        if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:12]) <= MAX_COUNT):
            raise InputError(
                f"data {text!r:.100}: pairs per epoch must be a whole number from 1 to {MAX_COUNT}"
            )
        count = int(digits)
    return DataSpec(name, Path(path).expanduser(), count)


def load_set(spec: DataSpec) -> LoadedSet:
    """Open a data set and list its pairs.

    Raises:
        InputError: no such folder, another layout, no depth or cameras, no pair.
    """
    if not spec.path.exists():
        raise InputError(f"data {spec.name}:{spec.path}: no such file or folder")
    reader: Reader = importlib.import_module(RULES[spec.name].module).sequences
    found = [s for s in reader(spec.path) if s.depth is not None and s.has_cameras]
    if not found:
        raise InputError(f"{spec.path} has no sequence with depth, poses and intrinsics")
    return _with_pairs(spec, found)


def _with_pairs(spec: DataSpec, sequences: list[Sequence]) -> LoadedSet:
    rule = RULES[spec.name]
    pairs = listed_pairs(spec.path, sequences) if spec.name == "waymo" else None
    if pairs is None:
        pairs = pairs_by_stride(
            [len(s) for s in sequences], step=rule.step, published_range=rule.published_range,
            thin=rule.thin,
        )  # fmt: skip
    pairs = pairs[_with_poses(pairs, sequences)]
    if len(pairs) == 0:
        raise InputError(f"{spec.path}: no sequence is long enough for a pair of frames with poses")
    return LoadedSet(spec, sequences, pairs)


def _with_poses(pairs: Pairs, sequences: list[Sequence]) -> np.ndarray:
    """Which pairs have both poses; cameras that are read one at a time count as known."""
    known = [
        np.ones(len(s), dtype=bool) if s.T_world_camera is None
        else np.isfinite(s.T_world_camera).all(axis=(1, 2))
        for s in sequences
    ]  # fmt: skip
    start = np.cumsum([0, *(len(s) for s in sequences)])
    flat = np.concatenate(known)
    return flat[start[pairs[:, 0]] + pairs[:, 1]] & flat[start[pairs[:, 2]] + pairs[:, 3]]


def split_held_out(loaded: LoadedSet) -> tuple[LoadedSet, LoadedSet | None]:
    """Split a set into training and held-out sequences: the last twentieth by name, at least one.

    Sequences of one place (the same name before a slash: an environment of TartanAir, a segment of
    Waymo) stay together if there are several places. A set of a single sequence, or whose held-out
    sequences have no pair, has no held-out part.
    """
    names = [s.name for s in loaded.sequences]
    places = [name.partition("/")[0] for name in names]
    if len(set(places)) < 2:
        places = names
    unique = sorted(set(places))
    last = unique[len(unique) - max(1, len(unique) // HELD_OUT_PERIOD) :]
    is_held = np.isin(places, last)[loaded.pairs[:, [0, 2]]]
    held, train = is_held.all(axis=1), ~is_held.any(axis=1)
    if not held.any() or not train.any():
        return loaded, None
    return replace(loaded, pairs=loaded.pairs[train]), replace(loaded, pairs=loaded.pairs[held])
