"""What decides a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dyn3r.errors import InputError
from dyn3r.network.config import NetworkConfig

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
    motion_head=True,
    image_size=224,
    dpt_features=32,
    dpt_layer_dims=(32, 48, 96, 192),
)
"""The network we train and ship: 18.0 M parameters."""


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a training run. Stored in the run's folder.

    Raises InputError for a number out of its range.
    """

    network: NetworkConfig = COMPACT
    """Size of the network. A checkpoint that differs only by lacking the position code, the detail
    pyramid or the motion head is grown to it; any other checkpoint keeps its own size."""
    start_from: str | None = None
    """A checkpoint to fine-tune; None starts from random weights."""
    freeze_encoder: bool = False
    """Train decoder and heads only, as MonST3R's fine-tuning does."""
    steps: int = 20_000
    """Optimiser steps in all; may be changed when a run is resumed."""
    scenes_per_step: int = 8
    """Scenes in a batch; larger is steadier and dearer."""
    frames_per_scene: int = 3
    """Frames rendered and encoded per scene."""
    pairs_per_scene: int = 3
    """Directed pairs decoded per scene, at most frames*(frames-1)."""
    reuse: int = 2
    """Steps that see the same scenes, with other pairs and every second time mirrored; rendering
    takes a core of its own on small machines."""
    sizes_hw: tuple[tuple[int, int], ...] = (
        (160, 224), (128, 176), (144, 224), (224, 160), (176, 128), (192, 192),
    )  # fmt: skip
    """Frame sizes, one drawn per step; multiples of 16."""
    coarse_sizes_hw: tuple[tuple[int, int], ...] = ((96, 128), (80, 128), (128, 96), (112, 112))
    """Frame sizes of the first, cheap part of the run."""
    coarse_share: float = 0.6
    """Share of the steps at the coarse sizes."""
    dynamic_share: float = 0.7
    """Share of scenes in which something moves; 0 trains a static-world model."""
    photos: str | None = None
    """Folder of photographs for textures; None: procedural textures only."""
    learning_rate: float = 5e-4
    """Peak of the cosine schedule."""
    final_learning_rate: float = 1e-6
    """End of the cosine schedule."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient."""
    ema_decay: float = 0.999
    """Decay of the averaged weights that are saved as the result."""
    matching_weight: float = 0.1
    """Weight of the matching loss on the first head of `matching_layers`; 0 switches it off."""
    matching_layers: tuple[int, ...] = (2, 3, 4, 5)
    """Decoder layers whose first head is taught to match."""
    shape_weight: float = 1.0
    """Weight of the shape loss (ratios between neighbouring depths); 0 switches it off."""
    motion_weight: float = 0.2
    """Weight of the motion loss, which teaches a network with a motion head what moves; 0 switches
    it off. Without effect where `dynamic_share` is 0."""
    confidence_weight: float = 0.2
    """Reward for confidence (alpha of DUSt3R's equation 4). Where errors, in units of the mean
    distance, stay above it, confidence falls to 1 and says nothing any more."""
    nearness: float = 0.0
    """0: errors count in units of the pair's mean distance, as published; 1: in units of the
    point's own distance, so that the far background does not outweigh everything in front."""
    precision: str = "bfloat16"
    """`bfloat16` (autocast) or `float32`."""
    seed: int = 0
    """Seeds weights and data."""
    data_workers: int = 1
    """Processes that render ahead; 0 renders between the steps. The batches do not depend on it."""
    save_minutes: float = 3.0
    """Wall-clock minutes between saved states."""
    evaluate_every: int = 500
    """Steps between evaluations on held-out scenes."""

    def __post_init__(self) -> None:
        rules: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
            ("steps scenes_per_step pairs_per_scene reuse evaluate_every",
             lambda x: x >= 1, "1 or more"),
            ("frames_per_scene", lambda x: x >= 2, "2 or more"),
            ("warmup_steps data_workers", lambda x: x >= 0, "0 or more"),
            ("coarse_share dynamic_share ema_decay",
             lambda x: 0 <= x <= 1, "a share from 0 to 1"),
            ("learning_rate clip_norm", lambda x: 0 < x < math.inf, "a number above 0"),
            ("final_learning_rate weight_decay matching_weight shape_weight motion_weight "
             "confidence_weight nearness save_minutes",
             lambda x: 0 <= x < math.inf, "a number of 0 or more"),
            ("precision", lambda x: x in ("bfloat16", "float32"), "bfloat16 or float32"),
        )  # fmt: skip
        for names, fits, what in rules:
            for name in names.split():
                value = getattr(self, name)
                if not fits(value):
                    raise InputError(f"training option {name} is {what}, not {value!r}")
