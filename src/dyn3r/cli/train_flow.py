"""`dyn3r train flow`: the flow network on the synthetic world."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.terminal import say
from dyn3r.training.flow_batches import FlowTraining


@dataclass(frozen=True)
class TrainFlow:
    """Train the network of optical flow on the synthetic world, or resume a run.

    The result, flow.safetensors, is for `dyn3r run --flow.estimator FILE`.
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder: state, log, options and the resulting flow.safetensors."""
    minutes: float | None = None
    """Stop after this many minutes, with everything saved."""
    options: Annotated[FlowTraining, tyro.conf.arg(name="")] = field(default_factory=FlowTraining)
    device: str = "auto"
    """auto, cpu, cuda."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.network.model import usable_device
        from dyn3r.training.flow_training import train_flow

        device = str(usable_device(self.device))
        with progress_bars(quiet=self.quiet) as progress:
            path = train_flow(
                self.folder, self.options, device=device, minutes=self.minutes, progress=progress
            )
        if not self.quiet:
            say(f"flow network: {path}")
