"""File names for the frames of a scene."""

from __future__ import annotations

import re
from collections import Counter

from dyn3r.io.images import IMAGE_SUFFIXES
from dyn3r.scene import Scene


def frame_stems(scene: Scene) -> list[str]:
    """One file name (less its ending) per frame: the frame's own name, made safe and unique.

    Names come with the scene file, perhaps from a stranger: folders in them are dropped, and
    everything but letters, digits, dot, minus and underscore becomes an underscore (COLMAP's text
    files end a name at a space). Names that would then coincide get their frame's number.
    """
    stems = [_safe(name) for name in scene.names]
    counts = Counter(stem.casefold() for stem in stems)
    numbered = [
        f"{stem}_{t:06d}" if counts[stem.casefold()] > 1 else stem for t, stem in enumerate(stems)
    ]
    if len({stem.casefold() for stem in numbered}) < len(numbered):  # a name that looks numbered
        return [f"frame_{t:06d}" for t in range(len(scene))]
    return numbered


def _safe(name: str) -> str:
    base = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = base.rpartition(".")
    if dot and f".{ending.lower()}" in IMAGE_SUFFIXES:
        base = stem
    return re.sub(r"[^\w.\-]", "_", base).strip(".")[:200] or "frame"
