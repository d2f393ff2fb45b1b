"""Observer of a run that shows what it has found so far."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dyn3r.motion.rigid_residual import mean_inverse_depth
from dyn3r.scene import Scene
from dyn3r.viewer.tiles import Tiles

logger = logging.getLogger(__name__)


class RunWatcher:
    """Shows tiles and drafts of a run: `RunContext(observe=watcher)`.

    A fault while something is shown is logged and does not end the run.
    """

    def __init__(
        self, show_scene: Callable[[Scene], None], show_tiles: Callable[[Tiles], None]
    ) -> None:
        """`show_scene` gets a scene after every stage that finds cameras."""
        self.show_scene, self.show_tiles = show_scene, show_tiles
        self._tiles: Tiles | None = None

    def __call__(self, name: str, value: Any) -> None:
        """Show what was found."""
        shown = {
            "clip": self.start, "first pass": self._passed, "pass": self._passed,
            "motion": self._moved, "draft": self._drafted,
        }  # fmt: skip
        if name not in shown:
            return
        try:
            shown[name](value)
        except Exception:
            logger.warning("what was found could not be shown", exc_info=True)

    def start(self, clip: Any) -> None:
        """A run of this `Clip` begins. A preview of the same clip is kept."""
        if self._tiles is None or not np.array_equal(self._tiles.images, clip.images):
            self._tiles = Tiles(clip.images)

    def add_depth(self, t: int, depth: np.ndarray) -> None:
        """Show the depth of a frame, (h,w), of the same scale as that of the others."""
        assert self._tiles is not None
        known = self._tiles.depth
        known = np.zeros(self._tiles.images.shape[:3], np.float32) if known is None else known
        known[t] = depth
        self._show(depth=known)

    def _passed(self, seen: Any) -> None:
        if self._tiles is None or self._tiles.depth is not None:
            return
        inverse = seen.inverse_depth
        if seen.predictions is not None and seen.predictions.points1 is not None:
            found = seen.predictions
            inverse = mean_inverse_depth(found, len(seen.clip), found.size_hw).numpy()
        if inverse is not None:
            self._show(depth=1 / np.maximum(inverse, 1e-6))

    def _moved(self, motion: Any) -> None:
        self._show(masks=motion.masks)

    def _drafted(self, draft: Any) -> None:
        self._show(depth=draft.geometry.depth, masks=draft.motion.masks)
        self.show_scene(draft.scene())

    def _show(self, **found: Any) -> None:
        if self._tiles is not None:
            self._tiles = replace(self._tiles, **found)
            self.show_tiles(self._tiles)
