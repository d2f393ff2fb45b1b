"""Display settings of the viewer: appearance of the points, visibility of the scene elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from dyn3r.errors import InputError

ColorBy = Literal["rgb", "depth", "confidence", "motion", "time"]
Style = Literal["surface", "points"]
STYLES: tuple[str, ...] = get_args(Style)
COLOR_MODES: tuple[str, ...] = get_args(ColorBy)


@dataclass(frozen=True)
class Appearance:
    """Selection of the pixels that become points, and their colours.

    Raises:
        InputError: a value out of its range.
    """

    # Type checkers leave the constructor alone: it refuses wrong values itself.
    __no_type_check__: ClassVar[bool] = True

    style: Style = "surface"
    """surface: through neighbouring pixels, cut at depth edges, with the frames as textures; or
    points: discs."""
    color: ColorBy = "rgb"
    """rgb; depth (red is near); confidence (bright is high); motion (dynamic pixels red); time of
    the frame (blue is early, red is late)."""
    drop_static: float = 0.0
    """Share (0..1) of the static pixels to leave out, the least confident ones."""
    drop_moving: float = 0.0
    """Share (0..1) of the dynamic pixels to leave out, the least confident ones."""
    step_static: int = 1
    """Down-sampling of the background: edge length of a voxel in pixel footprints."""
    step_moving: int = 1
    """Down-sampling of the dynamic pixels: every n-th row and column."""
    mask_sensitivity: float = 0.5
    """Sensitivity (0..1) of the motion masks; 0.5: as found. Without effect on scenes that keep no
    probability (`Scene.dynamic_probability`)."""
    mask_dilation: int = 0
    """Dilation of the motion masks in pixels."""
    hide_edges: bool = True
    """Leave out pixels at depth discontinuities. Their depth lies between the two surfaces."""
    frame_alone: bool = False
    """Show all points of the current frame, static ones too, and no background of other frames."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.style not in STYLES:
            raise InputError(f"the style is one of {', '.join(STYLES)}, not {self.style!r}")
        if self.color not in COLOR_MODES:
            raise InputError(f"the colour is one of {', '.join(COLOR_MODES)}, not {self.color!r}")
        if not (0 <= self.drop_static <= 1 and 0 <= self.drop_moving <= 1):
            raise InputError("the shares of pixels to drop must lie in 0..1")
        if not 0 <= self.mask_sensitivity <= 1:
            raise InputError("the sensitivity of the masks must lie in 0..1")
        if self.step_static < 1 or self.step_moving < 1 or self.mask_dilation < 0:
            raise InputError("down-sampling must be 1 or more and mask dilation 0 pixels or more")


@dataclass(frozen=True)
class Visibility:
    """Visibility of the elements of a scene.

    Raises:
        InputError: a negative stride or trail length.
    """

    background: bool = True
    """Static points of all frames."""
    moving: bool = True
    """Dynamic points of the current frame."""
    cameras: bool = False
    """Small frustums of all cameras."""
    path: bool = True
    """Line through the camera centres."""
    image: bool = True
    """Frustum of the current frame's camera with its image."""
    axes: bool = False
    """Axes of the world."""
    frame_stride: int = 0
    """Show every n-th frame at once, besides the current one; 0: the current frame alone."""
    up_to_current: bool = False
    """Show only background points that come from frames up to the current one."""
    trail_length: int = 0
    """Length of the trails of dynamic points in frames; 0: no trails."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.frame_stride < 0 or self.trail_length < 0:
            raise InputError("the frame stride and the trail length must not be negative")

    def visible_frames(self, current: int, num_frames: int) -> set[int]:
        """Frames whose dynamic points and images are visible."""
        strided = range(0, num_frames, self.frame_stride) if self.frame_stride else range(0)
        return {current, *strided}

    def visible_trails(self, current: int) -> set[int]:
        """Frames whose trail segments are visible; frame t has the segments from t-1 to t."""
        if not self.trail_length:
            return set()
        return set(range(max(0, current - self.trail_length + 1), current + 1))
