"""`dyn3r view`: scenes in the browser."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from dyn3r.errors import InputError


@dataclass(frozen=True)
class View:
    """Show scenes in the browser: clouds, cameras, timeline. Ctrl-C ends it."""

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `dyn3r run` wrote, or scene files."""
    port: int = 8080
    """Port to serve on; the next free one is taken if it is in use."""
    host: str = "127.0.0.1"
    """Address to serve on; anything but localhost lets other machines in."""

    def __call__(self) -> None:
        from dyn3r.scene import Scene
        from dyn3r.viewer import view

        if not self.scenes:
            raise InputError("name at least one scene, e.g. dyn3r view OUT")
        scenes = [Scene.load(path) for path in self.scenes]
        if self.host not in ("127.0.0.1", "localhost", "::1"):
            print(f"warning: {self.host} lets other machines see these scenes", file=sys.stderr)
        viewer = view(
            scenes, names=[str(path) for path in self.scenes], host=self.host, port=self.port,
            block=False,
        )  # fmt: skip
        print(f"open {viewer.url}  (Ctrl-C ends it)", flush=True)
        viewer.wait()
