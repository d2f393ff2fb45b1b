"""Example clips that come with the package (CC0)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dyn3r.assets.demo import demo_clip_folder
from dyn3r.errors import InputError


def example_clips() -> dict[str, Path]:
    """Name and place of every example: videos, and the frames of the demo clip.

    Raises:
        InputError: the package was installed without its data, or is not unpacked on disk.
    """
    folder = Path(str(files("dyn3r.assets.examples")))
    clips = {
        "room": demo_clip_folder() / "frames",
        "street": folder / "street_dolly.mp4",
        "workshop": folder / "workshop_cart.mp4",
    }
    for path in clips.values():
        if not path.exists():
            raise InputError(f"the example {path.name} is missing: install dyn3r again")
    return clips
