"""The demo clip that comes with the package: pictures and ground truth (CC0)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dyn3r.errors import InputError

DEMO_FPS = 12.0
"""Frames per second of the demo clip."""


def demo_clip_folder() -> Path:
    """The folder of the clip `living_room_walk`: `frames/` to read, the rest for `evaluate`.

    Raises:
        InputError: the package was installed without its data, or is not unpacked on disk.
    """
    folder = Path(str(files("dyn3r.assets.demo"))) / "living_room_walk"
    if not (folder / "frames").is_dir():
        raise InputError(f"the demo clip is missing from {folder.parent}: install dyn3r again")
    return folder
