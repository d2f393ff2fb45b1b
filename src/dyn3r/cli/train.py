"""`dyn3r train`: geometry networks on the synthetic world or on data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.terminal import say
from dyn3r.training.options import RECIPES, TrainOptions


@dataclass(frozen=True)
class Train:
    """Train a network on the synthetic world or on data sets, or resume a run.

    Fine-tuning as MonST3R does it: dyn3r train FOLDER --recipe monst3r --model dust3r-512-dpt
    --data pointodyssey:PATH tartanair:PATH spring:PATH waymo:PATH

    A many-view network on your own data: dyn3r train FOLDER --recipe da3 --model da3-small
    --data folder:PATH

    `dyn3r train flow FOLDER` trains the network of optical flow.
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder: state, log, options and the resulting model.safetensors."""
    minutes: float | None = None
    """Stop after this many minutes, with everything saved."""
    recipe: Literal["none", "monst3r", "da3"] = "none"
    """Values of the options, which the other options may change. `monst3r`: the published ones of
    MonST3R; `da3`: for many-view networks."""
    check: Flag = False
    """Take one step on the first batch without training: draw the batch of each data set in
    FOLDER/check.png, and print sizes, speed, memory and the days that the run would take."""
    options: Annotated[TrainOptions, tyro.conf.arg(name="")] = field(default_factory=TrainOptions)
    device: str = "auto"
    """auto, cpu, cuda."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Train | None:
        """Return the command with the values of the recipe that the arguments name."""
        named = [
            arguments[k + 1] if word == "--recipe" and k + 1 < len(arguments)
            else word.removeprefix("--recipe=")
            for k, word in enumerate(arguments) if word.startswith("--recipe")
        ]  # fmt: skip
        if not named or named[-1] not in RECIPES:
            return None
        return cls(folder=tyro.MISSING, options=RECIPES[named[-1]])

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.network.model import usable_device
        from dyn3r.training.trainer import train

        device = str(usable_device(self.device))
        options = self.options
        if options.data_workers is None:
            options = replace(options, data_workers=_workers(device))
        if self.check:
            from dyn3r.training.dry_run import check_run

            say(*check_run(self.folder, options, device=device))
            return
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
