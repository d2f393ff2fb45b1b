"""What can be set about the picture: which points, in which colours, and which parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dyn3r.errors import InputError

Colouring = Literal["rgb", "depth", "confidence", "motion", "time"]
COLOURINGS: tuple[str, ...] = get_args(Colouring)


@dataclass(frozen=True)
class Look:
    """Which pixels become points, and their colours.

    Raises:
        InputError: a value out of its range.
    """

    color: Colouring = "rgb"
    """rgb; depth (red is near); confidence (bright is sure); motion (moving pixels red); time of
    the frame (blue is early, red late)."""
    drop_static: float = 0.2
    """Share (0..1) of the still pixels that is left out, the least confident ones."""
    drop_moving: float = 0.2
    """Share (0..1) of the moving pixels that is left out, the least confident ones."""
    step_static: int = 1
    """Down-sampling of the background: voxels this many times as wide as a pixel."""
    step_moving: int = 1
    """Down-sampling of what moves: every n-th row and column."""
    mask_growth: int = 0
    """Pixels that the moving regions are widened by."""
    hide_edges: bool = True
    """Leave out pixels at jumps of depth, which hang in the air between near and far."""

    def __post_init__(self) -> None:
        if self.color not in COLOURINGS:
            raise InputError(f"the colour is one of {', '.join(COLOURINGS)}, not {self.color!r}")
        if not (0 <= self.drop_static <= 1 and 0 <= self.drop_moving <= 1):
            raise InputError("the shares of pixels to drop lie in 0..1")
        if self.step_static < 1 or self.step_moving < 1 or self.mask_growth < 0:
            raise InputError("down-sampling is 1 or more, and masks grow by 0 pixels or more")


@dataclass(frozen=True)
class Parts:
    """Which of the things on the page are visible."""

    background: bool = True
    moving: bool = True
    cameras: bool = True
    """Small pyramids for all cameras."""
    path: bool = True
    """The line through the cameras."""
    picture: bool = True
    """The camera of the frame shown, with its picture."""
    axes: bool = False
    """Axes of the world."""
    every: int = 0
    """Show every n-th frame at once besides the present one; 0: the present one alone."""
    until_now: bool = False
    """Of the background only what was seen up to the frame shown."""
    trail: int = 0
    """How many frames back the trails of moving points reach; 0: none."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.trail < 0:
            raise InputError("the stride of frames and the length of trails are not negative")

    def frames(self, shown: int, num_frames: int) -> set[int]:
        """The frames whose moving points and pictures are visible."""
        together = range(0, num_frames, self.every) if self.every else range(0)
        return {shown, *together}

    def trails(self, shown: int) -> set[int]:
        """The frames whose piece of the trails is visible; frame t has the piece from t-1 to t."""
        return set(range(max(0, shown - self.trail + 1), shown + 1)) if self.trail else set()
