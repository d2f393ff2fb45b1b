"""Tiles of what a run has found so far: depth and motion of a few frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.scene.drawing import depth_picture, motion_picture
from dyn3r.viewer.timeline import data_url

_COLUMNS = 4
_HEIGHT_PX = 80


@dataclass(frozen=True)
class Tiles:
    """What is known about the frames of a clip so far."""

    images: UInt8[np.ndarray, "n h w 3"]
    """RGB frames."""
    depth: Float[np.ndarray, "n h w"] | None = None
    """Depth of any scale; 0 where it is not known yet."""
    masks: Bool[np.ndarray, "n h w"] | None = None
    """True on dynamic pixels; None: not known yet."""

    def html(self) -> str:
        """A row of depth, and a row of motion, of frames at equal distances; empty: no frame."""
        n = len(self.images)
        if n == 0 or (self.depth is None and self.masks is None):
            return ""
        chosen = np.unique(np.linspace(0, n - 1, min(_COLUMNS, n)).round().astype(int))
        rows = []
        if self.depth is not None:
            depth = self.depth[chosen]
            known = depth[depth > 0]
            low, high = np.percentile(1 / known, [2, 98]) if len(known) else (0.0, 1.0)
            limits = (float(low), float(max(high, 1.001 * low)))
            rows.append(_row("depth", [depth_picture(d, limits) for d in depth]))
        if self.masks is not None:
            pairs = zip(self.images[chosen], self.masks[chosen])
            rows.append(_row("motion", [motion_picture(image, mask) for image, mask in pairs]))
        return "".join(rows)


def _row(label: str, pictures: list[UInt8[np.ndarray, "h w 3"]]) -> str:
    images = "".join(
        f'<img alt="{label}" src="{data_url(picture, _HEIGHT_PX)}" style="flex:1 1 0;min-width:0">'
        for picture in pictures
    )
    return (
        f'<div style="margin:2px 12px 4px;font-size:12px;opacity:0.8">{label}</div>'
        f'<div style="display:flex;gap:2px;margin:2px 12px 4px">{images}</div>'
    )
