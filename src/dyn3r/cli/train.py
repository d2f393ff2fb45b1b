"""`dyn3r train`: compact networks on the synthetic world."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.terminal import say
from dyn3r.training.options import TrainOptions


@dataclass(frozen=True)
class Train:
    """Train a compact network on the synthetic world, or resume a run.

    `dyn3r train flow FOLDER` trains the network of optical flow.
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder: state, log, options and the resulting model.safetensors."""
    minutes: float | None = None
    """Stop after this many minutes, with everything saved."""
    options: Annotated[TrainOptions, tyro.conf.arg(name="")] = field(default_factory=TrainOptions)
    device: str = "auto"
    """auto, cpu, cuda."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.network.model import usable_device
        from dyn3r.training.trainer import train

        device = str(usable_device(self.device))
        options = self.options
        if options.data_workers is None:
            options = replace(options, data_workers=_workers(device))
        with progress_bars(quiet=self.quiet) as progress:
            path = train(
                self.folder, options, device=device, minutes=self.minutes, progress=progress
            )
        if not self.quiet:
            say(f"model: {path}")


def _workers(device: str) -> int:
    """Rendering processes that keep `device` busy."""
    if device == "cpu":
        return 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(1, ((os.cpu_count() or 1) - here) // here)
