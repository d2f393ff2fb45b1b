"""`dyn3r eval`: a scene against ground truth."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag
from dyn3r.cli.terminal import say


@dataclass(frozen=True)
class Eval:
    """Measure a scene against ground truth: depth, camera path, focal length, motion masks.

    Prints a table beside the constant-depth baseline (constant depth, a static camera, no motion)
    and writes the numbers to OUT/evaluation.json. docs/metrics.md defines them.
    """

    scene: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """A folder that `dyn3r run` wrote, or a scene file."""
    truth: Path
    """Folder with depth.npz, dynamic.npz, camera.npz and perhaps frames/ of the clip."""
    json: Path | None = None
    """Write the numbers to this file instead."""
    overwrite: Flag = False
    """Replace the file named with --json. (OUT/evaluation.json is always replaced.)"""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.errors import InputError
        from dyn3r.evaluation import evaluate
        from dyn3r.export.source_images import read_source_images
        from dyn3r.io.atomic import check_writable, write_json
        from dyn3r.scene import Scene

        folder = self.scene if self.scene.is_dir() else self.scene.parent
        target = self.json or folder / "evaluation.json"
        overwrite = self.json is None or self.overwrite
        check_writable(target, overwrite=overwrite)
        if not self.truth.exists():
            raise InputError(f"{self.truth} does not exist: give the folder of the ground truth")
        scene = Scene.load(self.scene)
        if (self.truth / "frames").is_dir():  # pictures are compared: truth of another clip
            deque(read_source_images(scene, self.truth / "frames"), maxlen=0)
        evaluation = evaluate(scene, self.truth)
        write_json(
            target,
            {
                "source": scene.metadata.get("source"),
                "dyn3r_version": scene.metadata.get("dyn3r_version"),
                "evaluation": evaluation.to_json(),
            },
            overwrite=overwrite,
        )
        say(*evaluation.table().splitlines())
        say(f"wrote {target}")
