"""What a run has found so far, as a scene: for pages that show a run while it computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        clip, geometry = self.clip, self.geometry
        return Scene(
            images=clip.images,
            depth=geometry.depth.astype(np.float32),
            confidence=geometry.confidence.astype(np.float32),
            dynamic=self.motion.masks,
            K=geometry.K,
            T_world_camera=geometry.T_world_camera,
            mapping=clip.mapping,
            names=clip.names,
            times_s=clip.times_s,
            fps=clip.fps,
            metadata={"source": clip.source, "draft": True},
            up_world=geometry.up_world,
        )
