"""`dyn3r train`: compact networks on the synthetic world."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars


@dataclass(frozen=True)
class Train:
    """Train a compact network on the synthetic world, or go on with a run."""

    folder: tyro.conf.Positional[Path]
    """The run's folder: state, log, options and the resulting model.safetensors."""
    steps: int = 20_000
    """Optimiser steps in all."""
    minutes: float | None = None
    """Stop after this many minutes, with everything saved."""
    start_from: str | None = None
    """A checkpoint to fine-tune; default: random weights."""
    freeze_encoder: Flag = False
    """Train decoder and heads only (MonST3R's fine-tuning)."""
    dynamic_share: float = 0.7
    """Share of scenes in which something moves; 0: a static world."""
    photos: str | None = None
    """Folder of photographs for textures; default: procedural textures only."""
    learning_rate: float = 5e-4
    """Peak of the cosine schedule."""
    scenes_per_step: int = 8
    """Scenes in a batch."""
    frames_per_scene: int = 3
    """Frames rendered and encoded per scene."""
    pairs_per_scene: int = 3
    """Directed pairs decoded per scene; more scenes with fewer pairs each teach more."""
    coarse_share: float = 0.6
    """Share of the steps at small frames, which are cheap."""
    confidence_weight: float = 0.2
    """Reward for confidence (alpha of DUSt3R); should lie near the error that is reached."""
    nearness: float = 0.0
    """0: errors in units of the scene (DUSt3R); 1: relative to each point's own distance."""
    shape_weight: float = 1.0
    """Weight of the loss on ratios of neighbouring depths, which draws outlines."""
    motion_weight: float = 0.2
    """Weight of the loss that teaches the motion head what moves; 0: it learns nothing. Of no
    effect with --dynamic-share 0."""
    data_workers: int | None = None
    """Processes that render ahead; default: 1 beside a CPU that trains, all cores but one beside a
    GPU (shared by the processes of torchrun). The weights do not depend on it."""
    seed: int = 0
    """Seeds weights and data."""
    device: str = "auto"
    """auto, cpu, cuda."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors."""

    def __call__(self) -> None:
        from dyn3r.network.model import usable_device
        from dyn3r.training.options import TrainOptions
        from dyn3r.training.trainer import train

        device = str(usable_device(self.device))
        options = TrainOptions(
            steps=self.steps,
            start_from=self.start_from,
            freeze_encoder=self.freeze_encoder,
            dynamic_share=self.dynamic_share,
            photos=self.photos,
            learning_rate=self.learning_rate,
            scenes_per_step=self.scenes_per_step,
            frames_per_scene=self.frames_per_scene,
            pairs_per_scene=self.pairs_per_scene,
            coarse_share=self.coarse_share,
            confidence_weight=self.confidence_weight,
            nearness=self.nearness,
            shape_weight=self.shape_weight,
            motion_weight=self.motion_weight,
            seed=self.seed,
            data_workers=_workers(device) if self.data_workers is None else self.data_workers,
        )
        with progress_bars(self.quiet) as progress:
            path = train(
                self.folder, options, device=device, minutes=self.minutes, progress=progress
            )
        if not self.quiet:
            print(f"model: {path}")


def _workers(device: str) -> int:
    """Rendering processes that keep `device` busy."""
    if device == "cpu":
        return 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(1, ((os.cpu_count() or 1) - here) // here)
