"""`dyn3r demo`: reconstruct the bundled clip and measure the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag
from dyn3r.cli.run import Run
from dyn3r.cli.terminal import say


@dataclass(frozen=True)
class Demo:
    """Reconstruct the bundled clip and compare the result with its ground truth.

    24 frames: less than a minute on two recent cores.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")] = Path("demo-output")
    """Folder for the results."""
    model: str = "compact"
    """As in `dyn3r run`."""
    threads: int = 0
    """Cores that may be used; 0: all."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.assets.demo import demo_clip_folder
        from dyn3r.evaluation import evaluate
        from dyn3r.io.atomic import write_json
        from dyn3r.scene import Scene

        clip = demo_clip_folder()
        Run(
            source=clip / "frames", output=self.output, model=self.model,
            threads=self.threads, overwrite=self.overwrite, quiet=self.quiet,
        )()  # fmt: skip
        result = evaluate(Scene.load(self.output), clip)
        write_json(self.output / "evaluation.json", result.to_json(), overwrite=True)
        if not self.quiet:
            say("", "Accuracy (the bundled clip is rendered, so ground truth is known):")
            say(*result.table().splitlines())
