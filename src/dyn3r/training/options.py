"""Options of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dyn3r.errors import InputError
from dyn3r.io.numbers import check_finite, checked_number, checked_whole
from dyn3r.network.config import NetworkConfig

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
    """Options that determine a training run; stored in its folder.

    Raises InputError for values out of range.
    """

    network: NetworkConfig = COMPACT
    """Size of the network. A checkpoint that only lacks the position embedding or the detail
    pyramid is extended to it; any other checkpoint keeps its own size."""
    start_from: str | None = None
    """Checkpoint to fine-tune; None: random weights."""
    freeze_encoder: bool = False
    """Train decoder and heads only, as in the fine-tuning of MonST3R."""
    steps: int = 20_000
    """Total number of optimiser steps; may be changed when a run is resumed."""
    scenes_per_step: int = 8
    """Scenes in a batch; more give less noisy gradients and cost more."""
    frames_per_scene: int = 3
    """Frames rendered and encoded per scene."""
    pairs_per_scene: int = 3
    """Directed pairs decoded per scene, at most frames*(frames-1)."""
    reuse: int = 2
    """Steps that use the same scenes, with other pairs, mirrored every second time."""
    sizes_hw: tuple[tuple[int, int], ...] = (
        (160, 224), (128, 176), (144, 224), (224, 160), (176, 128), (192, 192),
    )  # fmt: skip
    """Frame sizes, one sampled per step; multiples of 16."""
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
    """Decay of the exponential moving average of the weights, which is the result."""
    matching_weight: float = 0.1
    """Weight of the matching loss on the first head of `matching_layers`; 0: off."""
    matching_layers: tuple[int, ...] = (2, 3, 4, 5)
    """Decoder layers whose first head is supervised with correspondences."""
    shape_weight: float = 1.0
    """Weight of the shape loss (ratios between neighbouring depths); 0: off."""
    confidence_weight: float = 0.2
    """Weight of the confidence term (alpha of DUSt3R's equation 4). Where errors, in units of the
    mean distance, stay above it, confidence falls to its minimum of 1."""
    nearness: float = 0.0
    """0: errors are in units of the pair's mean distance, as published; 1: in units of the point's
    own distance, so that the far background does not outweigh near objects."""
    precision: str = "bfloat16"
    """`bfloat16` (autocast) or `float32`."""
    seed: int = 0
    """Seed of weights and data."""
    data_workers: int | None = None
    """Processes that render ahead; 0: rendering between the steps. None: one; `dyn3r train` takes
    all cores but one beside a GPU. Batches do not depend on it."""
    save_minutes: float = 3.0
    """Wall-clock minutes between saved states."""
    evaluate_every: int = 500
    """Steps between evaluations on held-out scenes."""

    def __post_init__(self) -> None:
        """Check every value."""
        check_finite(self)
        checked_whole(self.seed, "training option seed", low=0, high=MAX_SEED)
        rules: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
            ("steps scenes_per_step pairs_per_scene reuse evaluate_every",
             lambda x: x >= 1, "1 or more"),
            ("frames_per_scene", lambda x: x >= 2, "2 or more"),
            ("warmup_steps", lambda x: x >= 0, "0 or more"),
            ("data_workers", lambda x: x is None or x >= 0, "0 or more"),
            ("coarse_share dynamic_share ema_decay",
             lambda x: 0 <= x <= 1, "a share from 0 to 1"),
            ("learning_rate clip_norm", lambda x: 0 < x < math.inf, "a number above 0"),
            ("final_learning_rate weight_decay matching_weight shape_weight "
             "confidence_weight nearness save_minutes",
             lambda x: 0 <= x < math.inf, "a number of 0 or more"),
            ("precision", lambda x: x in ("bfloat16", "float32"), "bfloat16 or float32"),
        )  # fmt: skip
        for names, fits, requirement in rules:
            for name in names.split():
                value = getattr(self, name)
                if not fits(value):
                    raise InputError(f"training option {name} must be {requirement}, not {value!r}")
