"""File names for the frames of a scene."""

from __future__ import annotations

import re
from collections import Counter

from dyn3r.io.images import IMAGE_SUFFIXES
from dyn3r.scene import Scene

MAX_BYTES = 200
"""Bytes of a name without its suffix; file systems allow 255 in all."""


def frame_stems(scene: Scene) -> list[str]:
    """One file name without suffix per frame: the frame's own name, made safe and unique.

    Names come with the scene file, which may be from an untrusted source. Folders in them are
    dropped. Every character except letters, digits, dot, minus and underscore becomes an underscore
    (a name in COLMAP's text files ends at a space). Names that would then be equal get the number
    of their frame.
    """
    stems = [_safe_stem(name) for name in scene.names]
    counts = Counter(stem.casefold() for stem in stems)
    numbered = [
        f"{stem}_{t:06d}" if counts[stem.casefold()] > 1 else stem for t, stem in enumerate(stems)
    ]
    if len({stem.casefold() for stem in numbered}) < len(numbered):  # a name ends in such a number
        return [f"frame_{t:06d}" for t in range(len(scene))]
    return numbered


def _safe_stem(name: str) -> str:
    base = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = base.rpartition(".")
    if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES:
        base = stem
    safe = re.sub(r"[^\w.\-]", "_", base).strip(".")
    return safe.encode()[:MAX_BYTES].decode(errors="ignore") or "frame"
