"""Choice of the reference view, whose camera roughly becomes the world (Depth Anything 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.errors import InputError

ReferenceChoice = Literal["saddle_balanced", "middle", "first"]
REFERENCE_CHOICES: tuple[ReferenceChoice, ...] = get_args(ReferenceChoice)
FEWEST_VIEWS = 3
"""With fewer views the first is the reference, and the views are not reordered."""


def choose_reference(class_tokens: Float[Tensor, "s c"], choice: str) -> int:
    """Index of the reference view, from the class tokens of all views.

    `saddle_balanced`: the view whose mean cosine to the others, token norm and token variance, each
    scaled to 0..1 over the views, are nearest to 1/2. `middle`: s // 2. `first`: 0. Raises
    InputError for another choice.
    """
    if choice == "first":
        return 0
    if choice == "middle":
        return len(class_tokens) // 2
    if choice != "saddle_balanced":
        raise InputError(
            f"the reference view is {', '.join(REFERENCE_CHOICES)}, not {choice!r:.40}"
        )
    tokens = class_tokens.float()
    norm = tokens.norm(dim=-1)
    unit = tokens / norm[:, None]
    cosines = unit @ unit.T - torch.eye(len(unit), device=unit.device)
    mean_cosine = cosines.sum(-1) / (len(unit) - 1)
    measures = torch.stack([mean_cosine, norm, unit.var(dim=-1)])
    low, high = measures.amin(1, keepdim=True), measures.amax(1, keepdim=True)
    scaled = (measures - low) / (high - low + 1e-8)
    return int((scaled - 0.5).abs().sum(0).argmin())


def reference_first(reference: int, views: int) -> list[int]:
    """Order of the views in which the reference comes first."""
    return [reference, *(view for view in range(views) if view != reference)]
