"""Pair graphs: the directed pairs of frames that the network processes (SPEC 3).

A graph is a small value - `Complete`, `Window`, `LogWindow` or `Reference` - that lists its
directed pairs; `parse_graph` reads the published names. All of them are linear in the number of
pairs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from dyn3r.errors import InputError

DEFAULT_GRAPH = "swinstride-5-noncyclic"
"""Published default for video."""

GRAPH_FORMS = (
    "complete, swin-W, swinstride-W, swin2stride-W, logwin-W (each window also with -noncyclic), "
    "swinstride-W-noncyclic-alternating, oneref-R"
)
"""Valid names, for messages and help: W = window (1 or more), R = frame index."""

MAX_LOG_WIDTH = 62
"""Largest width of a log window: its offsets must fit in 64 bits."""

MAX_PAIRS = 2_000_000
"""Upper limit on pairs: a larger graph is refused before memory is allocated for it."""


@dataclass(frozen=True)
class Complete:
    """Every frame with every other, in both directions."""

    cyclic: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True

    def offsets(self, num_frames: int) -> Int[np.ndarray, " k"]:
        """Return the frame distances of the pairs in a clip of `num_frames`."""
        return np.arange(1, num_frames)


@dataclass(frozen=True)
class Window:
    """Every frame with `width` later frames, `stride` frames apart.

    stride 1: offsets 1..W (`swin`); 2: 1, 3, .., 2W-1 (`swinstride`); 3: 1, 4, .., 3W-2
    (`swin2stride`). Cyclic: frames past the end wrap around. Alternating (`swinstride`, not
    cyclic): each pair in one direction, so that every frame is the first of about half of its
    pairs; clips of fewer than 2W frames have both directions.
    """

    width: int
    stride: int = 1
    cyclic: bool = True
    alternating: bool = False

    def offsets(self, num_frames: int) -> Int[np.ndarray, " k"]:
        """Return the distinct frame distances of the pairs in a clip of `num_frames`."""
        return _useful(1 + self.stride * np.arange(min(self.width, num_frames)), self, num_frames)

    @property
    def symmetric(self) -> bool:
        """False for `swin-1` alone: consecutive frames, one direction (two frames: both)."""
        return not (self.width == 1 and self.stride == 1 and self.cyclic)


@dataclass(frozen=True)
class LogWindow:
    """Every frame with the frames 1, 2, 4, .., 2^(W-1) before and after it."""

    width: int
    cyclic: bool = True
    symmetric: ClassVar[bool] = True

    def offsets(self, num_frames: int) -> Int[np.ndarray, " k"]:
        """Return the distinct frame distances of the pairs in a clip of `num_frames`."""
        powers = np.left_shift(np.int64(1), np.arange(self.width, dtype=np.int64))
        return _useful(powers, self, num_frames)


@dataclass(frozen=True)
class Reference:
    """One frame with every other, in this direction only (two frames: both directions)."""

    frame: int


Graph = Complete | Window | LogWindow | Reference


def parse_graph(name: str) -> Graph:
    """Read a published graph name such as `swinstride-5-noncyclic`.

    Raises:
        InputError: unknown name; the message lists the valid forms.
    """
    if name == "complete":
        return Complete()
    if match := re.fullmatch(r"oneref-([0-9]{1,9})", name):
        return Reference(int(match[1]))
    match = re.fullmatch(
        r"(swin|swinstride|swin2stride|logwin)-([0-9]{1,9})(-noncyclic(-alternating)?)?", name
    )
    if match is None or int(match[2]) < 1 or (match[1] != "swinstride" and match[4]):
        raise InputError(f"unknown pair graph '{name}': the valid forms are {GRAPH_FORMS}")
    width, cyclic, alternating = int(match[2]), match[3] is None, match[4] is not None
    if match[1] == "logwin":
        return LogWindow(width, cyclic)
    stride = {"swin": 1, "swinstride": 2, "swin2stride": 3}[match[1]]
    return Window(width, stride, cyclic, alternating)


def make_pairs(graph: str | Graph, num_frames: int) -> Int[np.ndarray, "m 2"]:
    """List the directed pairs (i, j) of a graph over `num_frames` frames, sorted, each once.

    A single frame is paired with itself. Otherwise no frame is paired with itself: where a cyclic
    window is as wide as the clip, the published programs list such pairs (twice); they have no
    second view and are left out here.

    Args:
        graph: a name (`GRAPH_FORMS`) or a graph value.
        num_frames: 1 or more.

    Raises:
        InputError: unknown name, reference frame outside the clip, no frames, or more than
            `MAX_PAIRS` pairs.
    """
    value = _checked(graph, num_frames)
    if num_frames == 1:
        return np.zeros((1, 2), dtype=np.int64)
    frames = np.arange(num_frames, dtype=np.int64)
    if isinstance(value, Reference) and num_frames > 2:
        others = np.delete(frames, value.frame)
        return np.stack([np.full_like(others, value.frame), others], axis=1)
    if isinstance(value, Reference):
        return np.array([[0, 1], [1, 0]], dtype=np.int64)
    _refuse_too_many(num_frames * len(value.offsets(num_frames)), graph, num_frames)
    first = np.repeat(frames, len(value.offsets(num_frames)))
    second = first + np.tile(value.offsets(num_frames), num_frames)
    if value.cyclic:
        second %= num_frames
    else:
        first, second = first[second < num_frames], second[second < num_frames]
    low, high = np.minimum(first, second), np.maximum(first, second)
    code, back = low * num_frames + high, high * num_frames + low
    if isinstance(value, Window) and value.alternating and num_frames >= 2 * value.width:
        code = np.where((low + (high - low) // value.stride) % 2 == 0, code, back)
    elif value.symmetric or num_frames == 2:
        code = np.concatenate([code, back])
    code = np.unique(code)
    return np.stack([code // num_frames, code % num_frames], axis=1)


def _checked(graph: str | Graph, num_frames: int) -> Graph:
    """Return the graph as a value. Raises InputError if it does not fit the clip."""
    value = parse_graph(graph) if isinstance(graph, str) else graph
    if num_frames < 1:
        raise InputError(f"pairs need at least one frame, not {num_frames}")
    if isinstance(value, Reference) and not 0 <= value.frame < num_frames:
        raise InputError(
            f"the reference frame {value.frame} is outside the clip: "
            f"its frames are 0 to {num_frames - 1}"
        )
    if isinstance(value, (Window, LogWindow)) and value.width < 1:
        raise InputError(f"the window of a pair graph must be 1 or more, not {value.width}")
    if isinstance(value, Window) and value.alternating and (value.cyclic or value.stride != 2):
        raise InputError("an alternating pair graph has stride 2 and is not cyclic")
    if isinstance(value, LogWindow) and value.width > MAX_LOG_WIDTH:
        raise InputError(f"the window of logwin-W must be at most {MAX_LOG_WIDTH}")
    return value


def _useful(
    offsets: Int[np.ndarray, " k"], graph: Window | LogWindow, num_frames: int
) -> Int[np.ndarray, " useful"]:
    """Return the distinct offsets 1..N-1: wrapped if cyclic, otherwise those inside the clip."""
    wrapped = np.unique(offsets % num_frames) if graph.cyclic else offsets
    return wrapped[(wrapped > 0) & (wrapped < num_frames)]


def _refuse_too_many(pairs: int, graph: str | Graph, num_frames: int) -> None:
    """Raise InputError for more than `MAX_PAIRS` pairs."""
    if pairs > MAX_PAIRS:
        raise InputError(
            f"the graph {graph} over {num_frames} frames has about {pairs} pairs, too many to run: "
            f"choose a narrower window such as {DEFAULT_GRAPH}"
        )
