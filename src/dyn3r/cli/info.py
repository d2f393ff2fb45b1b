"""`dyn3r info`: describe a scene, checkpoint or model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from dyn3r.cli.terminal import say


@dataclass(frozen=True)
class Info:
    """Describe a scene, a checkpoint or a model."""

    target: tyro.conf.Positional[str]
    """A folder that `dyn3r run` wrote, a scene file, a checkpoint file or a model's name."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        path = Path(self.target)
        if path.suffix == ".dyn3r" or (path.is_dir() and (path / "scene.dyn3r").exists()):
            from dyn3r.scene import Scene, summarise

            say(*summarise(Scene.load(path)))
            return
        from dyn3r.network.checkpoints.locate import locate
        from dyn3r.network.checkpoints.reader import describe_checkpoint

        found = locate(self.target)
        say(*describe_checkpoint(found.path))
        for name, value in found.facts.items():
            say(f"{name:<11} {value}")
