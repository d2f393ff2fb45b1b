"""RGB-D recordings with time stamps, as TUM and Bonn have them: streams of pictures, paths, pairs.

A raw recording is a folder of `rgb/`, `depth/` (16-bit PNG, 5000 per metre), `rgb.txt`, `depth.txt`
(lines "stamp file") and `groundtruth.txt` (lines "stamp tx ty tz qx qy qz qw"); # starts a comment
(docs/design/DATASETS.md, 2.3 and 2.4). Stamps are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

from dyn3r.datasets.files import (
    image_files,
    listing,
    per_file,
    poses_from_quaternions,
    read_depth_png,
    read_lines,
    read_rgb,
    read_table,
)
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

LIMIT_S = 0.02
"""Two stamps belong together if they differ by less."""
PER_METRE = 5000.0
RAW = ("rgb.txt", "groundtruth.txt")


@dataclass(frozen=True)
class Stream:
    """Pictures and their times."""

    files: list[Path]
    times_s: Float[np.ndarray, " n"]

    def select(self, index: Int[np.ndarray, " k"]) -> Stream:
        """The pictures `index`."""
        return Stream([self.files[i] for i in index], self.times_s[index])


def raw_or_prepared(folder: Path, prepared: tuple[str, ...]) -> str | None:
    """The layout of a folder: "" for raw, a suffix of `prepared`, None for something else.

    A prepared layout is `rgb_SUFFIX/` and `groundtruth_SUFFIX.txt`. Raw is preferred if it is
    complete.
    """
    if all((folder / name).is_file() for name in RAW):
        return ""
    for suffix in prepared:
        if (folder / f"rgb_{suffix}").is_dir() or (folder / f"groundtruth_{suffix}.txt").is_file():
            return suffix
    return "" if any((folder / name).exists() for name in (*RAW, "rgb")) else None


def indexed_stream(folder: Path, kind: str) -> Stream:
    """The pictures that `KIND.txt` lists.

    Raises:
        InputError: no such list; a line that is no stamp and file; pictures that are missing.
    """
    index = folder / f"{kind}.txt"
    if not index.is_file():
        raise InputError(f"{folder} has no {kind}.txt, found {listing(folder)}")
    rows = [_stamp_and_file(line, index) for line in read_lines(index) if _has_content(line)]
    files = [folder / name for _, name in rows]
    missing = [f for f in files if not f.is_file()]
    if missing or not files:
        raise InputError(
            f"{index} lists {len(files)} pictures, expected all of them in {folder / kind}, "
            f"found {len(files) - len(missing)}"
        )
    return Stream(files, np.array([stamp for stamp, _ in rows]))


def _has_content(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _stamp_and_file(line: str, index: Path) -> tuple[float, str]:
    words = line.split()
    try:
        stamp, name = words
        return _seconds(stamp), name
    except ValueError:
        raise InputError(
            f"{index}: expected lines of a stamp and a file, found {line.strip()[:60]!r}"
        ) from None


def _seconds(stamp: str) -> float:
    """The time of a stamp; ValueError for anything but a finite number."""
    seconds = float(stamp)
    if not np.isfinite(seconds):
        raise ValueError(stamp)
    return seconds


def named_stream(folder: Path) -> Stream:
    """The pictures of a folder whose names are their stamps, by time.

    Raises:
        InputError: no pictures; a name that is no number.
    """
    files = image_files(folder)
    try:
        times = np.array([_seconds(f.stem) for f in files])
    except ValueError:
        names = ", ".join(f.name for f in files[:3])
        raise InputError(f"{folder}: expected pictures named by seconds, found {names}") from None
    return Stream(files, times).select(np.argsort(times, kind="stable"))


def read_trajectory(file: Path) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k 4 4"]]:
    """Stamps in seconds and transforms (body to world, metres) of a TUM trajectory."""
    table = read_table(file, 8)
    if not np.isfinite(table).all():
        raise InputError(f"{file}: expected finite numbers, found NaN or infinity")
    return table[:, 0], poses_from_quaternions(table[:, 1:4], table[:, 4:], file)


def associate(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"], limit_s: float = LIMIT_S
) -> Int[np.ndarray, "k 2"]:
    """Pairs of indices of stamps that differ by less than `limit_s`, by the time of the first.

    Pairs are made in the order of their difference, and each stamp is used once.
    """
    order = np.argsort(second, kind="stable")
    low = np.searchsorted(second[order], first - limit_s)
    high = np.searchsorted(second[order], first + limit_s, side="right")
    candidates = sorted(
        (abs(first[i] - second[j]), first[i], second[j], i, j)
        for i in range(len(first))
        for j in order[low[i] : high[i]]
    )
    partner: dict[int, int] = {}
    used: set[int] = set()
    for difference, _, _, i, j in candidates:
        if difference < limit_s and i not in partner and j not in used:
            partner[i] = j
            used.add(j)
    pairs = sorted(partner.items(), key=lambda pair: first[pair[0]])
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def nearest(
    times: Float[np.ndarray, " n"], candidates: Float[np.ndarray, " m"], limit_s: float = LIMIT_S
) -> Int[np.ndarray, " n"]:
    """Index of the candidate nearest to each time, -1 where none is nearer than `limit_s`."""
    from scipy.spatial import cKDTree

    _, index = cKDTree(candidates[:, None]).query(times[:, None])
    return np.where(np.abs(candidates[index] - times) < limit_s, index, -1).astype(np.int64)


def lacking(index: Int[np.ndarray, " n"], what: str) -> list[str]:
    """A note on the pictures that have no partner (index -1), if there are any."""
    count = int((index < 0).sum())
    return [f"{count} of {len(index)} pictures have no {what} within {LIMIT_S} s"] if count else []


def associated_recording(folder: Path) -> Sequence:
    """A raw recording: the pictures that have a pose, named by their stamps, poses as stored.

    Raises:
        InputError: files that are missing or damaged; no picture with a pose.
    """
    every = indexed_stream(folder, "rgb")
    times, T = read_trajectory(folder / "groundtruth.txt")
    pairs = associate(every.times_s, times)
    if len(pairs) == 0:
        raise InputError(
            f"{folder}: none of {len(every.files)} pictures has a pose within {LIMIT_S} s, "
            f"expected stamps of one clock, found {every.times_s[0]:.3f} and {times[0]:.3f}"
        )
    has_depth = (folder / "depth").is_dir() or (folder / "depth.txt").is_file()
    depth = indexed_stream(folder, "depth") if has_depth else None
    dropped = len(every.files) - len(pairs)
    notes = [f"{dropped} of {len(every.files)} pictures have no pose and were dropped"]
    return recording(
        folder.resolve().name, every.select(pairs[:, 0]), depth, T[pairs[:, 1]],
        notes if dropped else [],
    )  # fmt: skip


def recording(
    name: str,
    images: Stream,
    depth: Stream | None,
    T_world_camera: Float[np.ndarray, "n 4 4"] | None,
    notes: list[str],
) -> Sequence:
    """A sequence of pictures with the depth nearest in time, at 30 frames per second."""
    read_depth = None
    if depth is not None:
        index = nearest(images.times_s, depth.times_s)
        read_depth = _depth_reader(images, depth, index)
        notes = [*notes, *lacking(index, "depth")]
    return Sequence(
        name=name,
        frame_names=tuple(f.stem for f in images.files),
        image=per_file(images.files, read_rgb),
        depth=read_depth,
        T_world_camera=T_world_camera,
        times_s=images.times_s,
        fps=30.0,
        notes=tuple(notes),
    )


def _depth_reader(
    images: Stream, depth: Stream, index: Int[np.ndarray, " n"]
) -> Callable[[int], Float32[np.ndarray, "h w"]]:
    """A reader of depth in metres; a picture without depth (index -1) has it unknown."""

    def read(i: int) -> Float32[np.ndarray, "h w"]:
        if index[i] < 0:
            return np.zeros(read_rgb(images.files[i]).shape[:2], dtype=np.float32)
        return read_depth_png(depth.files[index[i]], PER_METRE)

    return read
