"""One sequence of a data set: frames and whatever truth there is, read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.errors import InputError
from dyn3r.io.text import counted

MaskKind = Literal["main object", "any object", "moves", "tracked foreground"]


@dataclass(frozen=True)
class Sequence:
    """Frames of a data set and their truth. Nothing but the frames is required.

    Camera axes are x right, y down, z forward. Depth is z along the optical axis. Pixel centres
    are integers. `image`, `depth` and `mask` read one frame by its index; they raise InputError
    for files that are missing or damaged.
    """

    name: str
    """Unique within the data set."""
    frame_names: tuple[str, ...]
    """One per frame, as the data set names it."""
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]]
    """RGB of a frame."""
    depth: Callable[[int], Float32[np.ndarray, "hd wd"]] | None = None
    """True depth of a frame in `unit`, 0 where unknown; its size may differ from the image's."""
    mask: Callable[[int], Bool[np.ndarray, "h w"]] | None = None
    """True on pixels that move, as `mask_kind` defines it."""
    T_world_camera: Float[np.ndarray, "n 4 4"] | None = None
    """Camera-to-world transforms, translations in `unit`; rows of NaN where unknown."""
    K: Float[np.ndarray, "n 3 3"] | None = None
    """Intrinsics for the size of the images, pixels."""
    camera: Callable[[int], tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]] | None = None
    """K and camera-to-world transform of a frame, of data sets with hundreds of thousands of files
    of cameras; `K` and `T_world_camera` are None then. See `camera_of`."""
    times_s: Float[np.ndarray, " n"] | None = None
    """Seconds, of any origin."""
    fps: float = 24.0
    """Frames per second."""
    unit: Literal["metre", "arbitrary"] = "metre"
    """Unit of length of depth and cameras."""
    mask_kind: MaskKind = "moves"
    """What the data set marks: data sets differ, and scores must say so."""
    prepared_for: str | None = None
    """Protocol whose frames a published script has picked already; None: all frames are here."""
    notes: tuple[str, ...] = ()
    """What was dropped or repaired while reading."""

    def __post_init__(self) -> None:
        n = len(self.frame_names)
        if n == 0:
            raise InputError(f"sequence {self.name} has no frames")
        for label, array in (
            ("poses", self.T_world_camera),
            ("K", self.K),
            ("times", self.times_s),
        ):
            if array is not None and len(array) != n:
                raise InputError(
                    f"sequence {self.name} has {counted(n, 'frame')} but {len(array)} {label}"
                )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frame_names)

    @property
    def has_cameras(self) -> bool:
        """Whether there are poses and intrinsics."""
        return self.camera is not None or (self.K is not None and self.T_world_camera is not None)

    def camera_of(self, index: int) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
        """K and the camera-to-world transform of a frame; NaN where unknown.

        Raises:
            InputError: the data set has no cameras, or those of the frame are damaged.
        """
        if self.camera is not None:
            return self.camera(index)
        if self.K is None or self.T_world_camera is None:
            raise InputError(f"sequence {self.name} has no intrinsics or no poses")
        return self.K[index], self.T_world_camera[index]

    def take(self, *, start: int = 0, stride: int = 1, limit: int | None = None) -> Sequence:
        """The sequence of every `stride`-th frame from `start` on, at most `limit` of them.

        Raises:
            InputError: no frame is left.
        """
        index = np.arange(len(self))[start::stride][:limit]
        return self.select(index)

    def select(self, index: List[int] | np.ndarray) -> Sequence:
        """The sequence of the frames `index`. Raises InputError for no frames."""
        chosen = [int(i) for i in index]

        def reader(read: Callable[[int], Any] | None) -> Callable | None:
            return None if read is None else lambda i: read(chosen[i])

        def rows(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[chosen]

        image = reader(self.image)
        assert image is not None
        return replace(
            self, frame_names=tuple(self.frame_names[i] for i in chosen), image=image,
            depth=reader(self.depth), mask=reader(self.mask), camera=reader(self.camera),
            T_world_camera=rows(self.T_world_camera), K=rows(self.K), times_s=rows(self.times_s),
        )  # fmt: skip


@runtime_checkable
class Reader(Protocol):
    """Reads a data set: the function `sequences` of every data set's module."""

    def __call__(self, root: Path) -> list[Sequence]:
        """Sequences under `root`, sorted by name; files are opened when a frame is asked for.

        Raises:
            InputError: one line that says what was expected and what was found.
        """
