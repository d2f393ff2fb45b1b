"""A world of few textures, which take most of the time to make."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dyn3r.training.synthetic.world
from dyn3r.training.synthetic.world import World, WorldOptions


class QuickWorld(World):
    """With 8 procedural textures in place of 120."""

    def __init__(self, options: WorldOptions, seed: int) -> None:
        super().__init__(replace(options, procedural_tiles=8), seed)


def use_quick_worlds(patch: pytest.MonkeyPatch) -> None:
    """Let training render quick worlds from here on."""
    patch.setattr(dyn3r.training.synthetic.world, "World", QuickWorld)
