"""Options of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from dyn3r.errors import InputError
from dyn3r.io.numbers import check_finite, checked_number, checked_whole
from dyn3r.network.config import PATCH, NetworkConfig

MAX_SEED = 2**31 - 1
"""Largest seed: data and weights use generators that take no more."""


def check_minutes(minutes: float | None) -> None:
    """Raise InputError for a time limit that is negative or not finite."""
    if minutes is not None:
        checked_number(minutes, "minutes", low=0, high=1e7)


COMPACT = NetworkConfig(
    enc_embed_dim=256,
    enc_depth=8,
    enc_num_heads=4,
    dec_embed_dim=192,
    dec_depth=8,
    dec_num_heads=4,
    head="dpt",
    position_code=True,
    detail_features=32,
    image_size=224,
    dpt_features=32,
    dpt_layer_dims=(32, 48, 96, 192),
)
"""Configuration of the embedded network: 18.0 M parameters."""


@dataclass(frozen=True)
class TrainOptions:
    """Options that determine a training run; stored in its folder."""

    network: NetworkConfig = COMPACT
    """Size of the network. A checkpoint that only lacks the position embedding or the detail
    pyramid is extended to it; any other checkpoint keeps its own size."""
    model: str | None = None
    """Network to fine-tune: a name that `dyn3r models` lists, or a checkpoint; None:
    random weights."""
    freeze_encoder: bool = False
    """Train decoders, heads and the encoder's last norm only, as in the fine-tuning of MonST3R. Of
    a many-view network: all but the blocks before the first that knows of other views."""
    data: tuple[str, ...] = ()
    """Data sets to train on in place of the synthetic world: `NAME:PATH` or
    `PAIRS_PER_EPOCH@NAME:PATH`. Names: pointodyssey, tartanair, spring, waymo, sintel, folder
    (truth folders: frames, depth, cameras), scene (scenes of dyn3r)."""
    validation: tuple[str, ...] = ()
    """Held-out data sets, as in `data`. Without any, the last twentieth of the sequences of each
    set is held out."""
    validation_pairs: int = 40
    """Pairs of each held-out data set."""
    synthetic_share: float = 0.0
    """Share of batches of the synthetic world beside `data`; below 1."""
    epochs: int = 0
    """Epochs of `data`, in place of `steps` and `warmup_steps`; 0: as these say."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    steps: int = 20_000
    """Total number of optimiser steps; may be changed when a run is resumed."""
    scenes_per_step: int = 8
    """Scenes in a batch; more give less noisy gradients and cost more. Of `data`: pairs of frames
    in a batch, each given in both orders."""
    views: int = 8
    """Of many-view networks: the most views in a sample, which is drawn in place of a pair and has
    2 to this many; of the synthetic world: frames rendered per scene."""
    accumulate: int = 1
    """Batches per step, whose gradients are averaged."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    frames_per_scene: int = 3
    """Frames rendered and encoded per scene of the synthetic world."""
    pairs_per_scene: int = 3
    """Directed pairs decoded per scene, at most frames*(frames-1)."""
    reuse: int = 2
    """Batches that use the same scenes, with other pairs, mirrored every second time."""
    sizes_hw: tuple[tuple[int, int], ...] = (
        (160, 224), (128, 176), (144, 224), (224, 160), (176, 128), (192, 192),
    )  # fmt: skip
    """Frame sizes, one sampled per batch; multiples of 16. Of `data`: turned to the orientation of
    the batch's first image. Of many-view networks: rounded down to multiples of 14."""
    coarse_sizes_hw: tuple[tuple[int, int], ...] = ((96, 128), (80, 128), (128, 96), (112, 112))
    """Frame sizes of the first part of the run, which costs less."""
    coarse_share: float = 0.6
    """Share of the steps at the coarse sizes."""
    dynamic_share: float = 0.7
    """Share of scenes with moving objects; 0 trains on static scenes."""
    photos: str | None = None
    """Folder of photographs for textures; None: procedural textures only."""
    learning_rate: float = 5e-4
    """Peak of the cosine schedule."""
    final_learning_rate: float = 1e-6
    """End of the cosine schedule."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    """Decoupled weight decay of AdamW, on matrices only."""
    clip_norm: float = 1.0
    """Largest gradient norm of a step."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is the result; 0: the weights
    themselves."""
    matching_weight: float = 0.1
    """Weight of the matching loss on the first head of `matching_layers`; 0: off. Two-view
    networks only."""
    matching_layers: tuple[int, ...] = (2, 3, 4, 5)
    """Decoder layers whose first head is supervised with correspondences."""
    shape_weight: float = 1.0
    """Weight of the shape loss (ratios between neighbouring depths); of many-view networks: of the
    gradient term (1 as published); 0: off."""
    confidence_weight: float = 0.2
    """Weight of the confidence term (alpha of DUSt3R's equation 4). Where errors, in units of the
    mean distance, stay above it, confidence falls to its minimum of 1."""
    nearness: float = 0.0
    """0: errors are in units of the pair's mean distance, as published; 1: in units of the point's
    own distance, so that the far background does not outweigh near objects."""
    precision: Literal["bfloat16", "tf32", "float32"] = "bfloat16"
    """`bfloat16`: autocast; `tf32`: float32 with faster, rounded products on NVIDIA GPUs."""
    seed: int = 0
    """Seed of weights and data."""
    data_workers: int | None = None
    """Processes that render or read ahead; 0: between the steps. None: one; `dyn3r train` takes all
    cores but one beside a GPU. Batches do not depend on it."""
    save_minutes: float = 3.0
    """Wall-clock minutes between saved states."""
    evaluate_every: int = 500
    """Steps between evaluations on held-out scenes."""
    tensorboard: bool = False
    """Also write the log for TensorBoard (the extra `tensorboard`)."""

    def __post_init__(self) -> None:
        """Check every value. Raises InputError for one out of range."""
        check_finite(self)
        checked_whole(self.seed, "training option seed", low=0, high=MAX_SEED)
        rules: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
            ("steps scenes_per_step pairs_per_scene reuse evaluate_every accumulate "
             "validation_pairs", lambda x: x >= 1, "1 or more"),
            ("frames_per_scene views", lambda x: x >= 2, "2 or more"),
            ("warmup_steps epochs warmup_epochs", lambda x: x >= 0, "0 or more"),
            ("data_workers", lambda x: x is None or x >= 0, "0 or more"),
            ("coarse_share dynamic_share ema_decay",
             lambda x: 0 <= x <= 1, "a share from 0 to 1"),
            ("synthetic_share", lambda x: 0 <= x < 1, "a share from 0 to below 1"),
            ("learning_rate clip_norm", lambda x: 0 < x < math.inf, "a number above 0"),
            ("final_learning_rate weight_decay matching_weight shape_weight "
             "confidence_weight nearness save_minutes",
             lambda x: 0 <= x < math.inf, "a number of 0 or more"),
            ("precision", lambda x: x in ("bfloat16", "tf32", "float32"),
             "bfloat16, tf32 or float32"),
            ("sizes_hw coarse_sizes_hw", _are_sizes, "pairs of multiples of 16 from 16 to 4096"),
        )  # fmt: skip
        for names, fits, requirement in rules:
            for name in names.split():
                value = getattr(self, name)
                if not fits(value):
                    raise InputError(f"training option {name} must be {requirement}, not {value!r}")

    def for_run(self, processes: int) -> TrainOptions:
        """Return the options with `steps` and `warmup_steps` computed from `epochs`, if given.

        processes: number of processes that train together, each with its own batches. Raises
        InputError for options that need a model or data and have none.
        """
        if self.freeze_encoder and self.model is None:
            raise InputError("training option freeze_encoder needs a model to fine-tune (--model)")
        for name in ("epochs", "validation", "synthetic_share"):
            if getattr(self, name) and not self.data:
                raise InputError(f"training option {name} needs data sets (--data)")
        if not self.epochs:
            return self
        from dyn3r.training.sets.sources import parse_data

        pairs = sum(parse_data(text).count for text in self.data)
        per_step = self.scenes_per_step * self.accumulate * processes * (1 - self.synthetic_share)
        per_epoch = pairs / per_step
        steps = max(1, int(per_epoch * self.epochs))
        warmup = int(per_epoch * self.warmup_epochs)
        return replace(self, steps=steps, warmup_steps=min(warmup, steps))


def _are_sizes(sizes: Any) -> bool:
    """Whether these are heights and widths of frames."""
    return len(sizes) > 0 and all(
        len(size) == 2 and all(side % PATCH == 0 and 16 <= side <= 4096 for side in size)
        for size in sizes
    )


RECIPES: dict[str, TrainOptions] = {
    "monst3r": TrainOptions(
        freeze_encoder=True,
        epochs=50,
        warmup_epochs=3,
        scenes_per_step=4,
        accumulate=8,
        sizes_hw=((288, 512), (384, 512), (336, 512)),
        coarse_sizes_hw=((288, 512),),
        coarse_share=0,
        learning_rate=5e-5,
        final_learning_rate=1e-6,
        weight_decay=0.05,
        matching_weight=0,
        shape_weight=0,
        confidence_weight=0.2,
        ema_decay=0,
        precision="tf32",
    ),
    "da3": TrainOptions(
        freeze_encoder=True,
        epochs=10,
        warmup_epochs=0.5,
        scenes_per_step=1,
        accumulate=16,
        views=18,
        checkpointing=True,
        sizes_hw=((288, 512), (384, 512), (336, 512)),
        coarse_sizes_hw=((288, 512),),
        coarse_share=0,
        learning_rate=2e-5,
        final_learning_rate=1e-6,
        shape_weight=1.0,
        confidence_weight=0.2,
    ),
}
"""Recipes by name. `monst3r` is published (docs/design/DATASETS.md, 3.0: 32 pairs a step); its
`clip_norm` is ours, as no clipping is published. `da3` fine-tunes many-view networks: losses and
the range of views are published, the schedule is ours, as no fine-tuning is published."""
