"""What an export may be told; one value for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dyn3r.errors import InputError

Resolution = Literal["auto", "prepared", "source"]
Which = Literal["all", "static", "dynamic"]
QuaternionOrder = Literal["xyzw", "wxyz"]


@dataclass(frozen=True)
class ExportOptions:
    """What an export may be told; every format reads what concerns it and ignores the rest.

    Raises:
        InputError: a value that is not among those named.
    """

    resolution: Resolution = "auto"
    """`prepared`: the frames as the network saw them; `source`: the pictures they came from;
    `auto`: source if source pictures are given, else prepared (colmap: always source)."""
    source: Path | None = None
    """The video or folder that the scene was made from: pictures for colmap and nerfstudio, and
    the guide for depth and masks at source resolution. Without it those are upsampled by nearest
    neighbour."""
    which: Which = "all"
    """The part of the points that clouds (ply, glb, usd, rerun) hold."""
    drop: float = 0.2
    """Share (0..1) of the least sure points that clouds leave out; still and moving points are
    judged separately."""
    max_points: int | None = None
    """Clouds are thinned to about this many points; None: each format's own default."""
    quaternion: QuaternionOrder = "xyzw"
    """Order in the trajectories of `tum` and `official`; wxyz is what the published programs
    wrote."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("resolution", Resolution), ("which", Which), ("quaternion", QuaternionOrder),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise InputError(f"{name} is one of {', '.join(get_args(allowed))}, not {value!r}")
        if not 0 <= self.drop < 1:
            raise InputError(f"the share of points to drop must lie in 0..1, not {self.drop}")
        if self.max_points is not None and self.max_points < 1:
            raise InputError(f"the number of points must be 1 or more, not {self.max_points}")
        if self.source is not None:
            object.__setattr__(self, "source", Path(self.source))
