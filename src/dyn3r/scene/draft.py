"""What a run has found so far, as a scene: for pages that show a run while it computes."""

from __future__ import annotations

from dataclasses import dataclass

from dyn3r.scene.assemble import scene_of
from dyn3r.scene.scene import Scene
from dyn3r.types import Clip, Geometry, Motion


@dataclass(frozen=True)
class Draft:
    """Depth, cameras and masks between two stages. Pipelines observe it as `draft`."""

    clip: Clip
    """The clip."""
    geometry: Geometry
    """Its geometry so far; scale and world may change with the next stage."""
    motion: Motion
    """Its motion so far."""

    def scene(self) -> Scene:
        """A scene without uncertainty and verdict; confidence is the network's."""
        metadata = {"source": self.clip.source, "draft": True}
        return scene_of(self.clip, self.geometry, self.motion, metadata)
