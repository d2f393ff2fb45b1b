"""File names for the frames of a scene."""

from __future__ import annotations

from dyn3r.io.matching import safe_stems
from dyn3r.scene import Scene


def frame_stems(scene: Scene) -> list[str]:
    """One file name without suffix per frame: the frame's own name, made safe and unique.

    Names come with the scene file, which may be from an untrusted source.
    """
    return safe_stems(scene.names)
