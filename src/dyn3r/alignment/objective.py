"""The objective of the alignment (SPEC 6): every term a pure function, named for what it penalises.

They are differentiable, take batches of any size and work in float32 or float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.geometry import invert

FLOW_OUTLIER = 50.0
"""Flow residuals whose loss exceeds this are left out (SPEC 6)."""
FLOW_LIMIT = 25.0
"""A mean flow loss above this switches the term off."""


def pair_disagreement(
    points_world: Float[Tensor, "v p 3"],
    pair_points_world: Float[Tensor, "v p 3"],
    weights: Float[Tensor, "v p"],
) -> Float[Tensor, ""]:
    """Frames' points against where the pairs put them: mean of w |difference|, both sides summed.

    The v = 2 m views are the two sides of m pairs, hence twice the mean over all of them.
    """
    return 2 * (weights * (points_world - pair_points_world).norm(dim=-1)).mean()


def camera_movement(
    T_world_camera: Float[Tensor, "n 4 4"], translation_weight: float = 1.0
) -> Float[Tensor, ""]:
    """Movement from frame to frame: sum of |R_rel - I|_F + translation_weight |t_rel|."""
    relative = invert(T_world_camera[:-1]) @ T_world_camera[1:]
    identity = torch.eye(3, dtype=relative.dtype, device=relative.device)
    turn = torch.linalg.matrix_norm(relative[:, :3, :3] - identity).sum()
    return turn + translation_weight * torch.linalg.vector_norm(relative[:, :3, 3], dim=-1).sum()


def flow_disagreement(
    induced: Float[Tensor, "*k 2"], measured: Float[Tensor, "*k 2"], still: Bool[Tensor, "*k"]
) -> Float[Tensor, ""]:
    """Camera-induced against measured flow on still, visible pixels: smooth-L1, two directions.

    Twice the mean over pixels and components, as the published loss adds the means of both
    directions. Outliers (FLOW_OUTLIER) are left out; a mean beyond FLOW_LIMIT counts as 0.
    """
    total, kept = flow_loss(induced, measured, still)
    mean = total / (2 * kept).clamp_min(1)
    return 2 * torch.where(mean > FLOW_LIMIT, torch.zeros_like(mean), mean)


def flow_loss(
    induced: Float[Tensor, "*k 2"], measured: Float[Tensor, "*k 2"], still: Bool[Tensor, "*k"]
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sum of the smooth-L1 loss (beta 1) over the pixels kept, and how many those are."""
    loss = torch.nn.functional.smooth_l1_loss(induced, measured, reduction="none", beta=1.0)
    keep = still & (loss < FLOW_OUTLIER).all(-1)
    return (loss * keep[..., None]).sum(), keep.sum()


def depth_change(
    depth: Float[Tensor, "n p"],
    first_depth: Float[Tensor, "n p"],
    moving: Bool[Tensor, "n p"] | None = None,
) -> Float[Tensor, ""]:
    """Change of shape since the start: scale-invariant squared log difference, moving pixels twice.

    Per frame, the mean of squares of the log ratio less the square of its mean; mean of frames.
    """
    ratio = depth.log() - first_depth.log()
    weight = torch.ones_like(ratio) if moving is None else 1 + moving.to(ratio.dtype)
    weight = weight / weight.sum(-1, keepdim=True)
    return ((weight * ratio * ratio).sum(-1) - (weight * ratio).sum(-1) ** 2).mean()
