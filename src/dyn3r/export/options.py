"""Options of an export, one type for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.numbers import check_finite, checked_number, checked_whole

Resolution = Literal["auto", "prepared", "source"]
Which = Literal["all", "static", "dynamic"]
QuaternionOrder = Literal["xyzw", "wxyz"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export. A format ignores those that do not apply to it.

    Raises:
        InputError: a value that is not allowed or out of its range.
    """

    resolution: Resolution = "auto"
    """`prepared`: the frames as the network received them; `source`: the images they were made
    from; `auto`: source if `source` is given, otherwise prepared (colmap: always source)."""
    source: Path | None = None
    """Video or folder that the scene was made from. It gives the images of colmap and nerfstudio,
    and guides depth and masks at source resolution. Without it these are upsampled by nearest
    neighbour."""
    which: Which = "all"
    """Part of the points that the clouds (ply, glb, usd, rerun) contain."""
    drop: float = 0.0
    """Share (0..1) of the points that the clouds leave out, the least confident ones. The share
    applies to static and to dynamic points separately."""
    max_points: int | None = None
    """Approximate number of points that clouds are thinned to; None: the default of the format."""
    quaternion: QuaternionOrder = "xyzw"
    """Order in the trajectories of `tum` and `official`; the published programs write wxyz."""

    def __post_init__(self) -> None:
        """Check the values, and make `source` a path."""
        check_finite(self)
        for name, allowed in (
            ("resolution", Resolution), ("which", Which), ("quaternion", QuaternionOrder),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise InputError(f"{name} is one of {', '.join(get_args(allowed))}, not {value!r}")
        checked_number(self.drop, "the share of points to drop", low=0, high=0.999_999)
        if self.max_points is not None:
            checked_whole(self.max_points, "the number of points", low=1, high=10**9)
        if self.source is not None:
            object.__setattr__(self, "source", checked_path(self.source, "the source"))
