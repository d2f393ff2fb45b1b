"""Terms of the alignment objective (SPEC 6) as pure functions.

They are differentiable, accept batches of any size and work in float32 and float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.geometry.cameras import invert

FLOW_OUTLIER = 50.0
"""Loss above which a flow residual is an outlier and left out. Source: SPEC 6."""
FLOW_LIMIT = 25.0
"""Mean flow loss above which the whole term is switched off. Source: SPEC 6."""


def pair_disagreement(
    points_world: Float[Tensor, "v p 3"],
    pair_points_world: Float[Tensor, "v p 3"],
    weights: Float[Tensor, "v p"],
) -> Float[Tensor, ""]:
    """Pair term: mean of w |points of a frame - points of a pair|, summed over both sides.

    The v = 2 m views are the two sides of m pairs, hence twice the mean over all views.
    """
    distance = (points_world - pair_points_world).norm(dim=-1)
    return torch.mul((weights * distance).mean(), 2)


def camera_movement(
    T_world_camera: Float[Tensor, "n 4 4"], translation_weight: float = 1.0
) -> Float[Tensor, ""]:
    """Smoothness term: sum over frames of |R_rel - I|_F + translation_weight |t_rel|."""
    relative = invert(T_world_camera[:-1]) @ T_world_camera[1:]
    identity = torch.eye(3, dtype=relative.dtype, device=relative.device)
    rotation = torch.linalg.matrix_norm(relative[:, :3, :3] - identity).sum()
    translation = torch.linalg.vector_norm(relative[:, :3, 3], dim=-1).sum()
    return torch.add(rotation, translation_weight * translation)


def flow_disagreement(
    induced: Float[Tensor, "*k 2"], measured: Float[Tensor, "*k 2"], static: Bool[Tensor, "*k"]
) -> Float[Tensor, ""]:
    """Flow term: smooth-L1 of induced against measured flow on static, visible pixels.

    Twice the mean over pixels and components, because the published loss adds the means of both
    directions. Outliers (FLOW_OUTLIER) are left out. A mean above FLOW_LIMIT counts as 0.
    """
    total, kept = flow_loss(induced, measured, static)
    mean = total / (2 * kept).clamp_min(1)
    return 2 * torch.where(mean > FLOW_LIMIT, torch.zeros_like(mean), mean)


def flow_loss(
    induced: Float[Tensor, "*k 2"], measured: Float[Tensor, "*k 2"], static: Bool[Tensor, "*k"]
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sum of the smooth-L1 loss (beta 1 px) over the inlier pixels, and their number."""
    loss = torch.nn.functional.smooth_l1_loss(induced, measured, reduction="none", beta=1.0)
    keep = static & (loss < FLOW_OUTLIER).all(-1)
    return (loss * keep[..., None]).sum(), keep.sum()


def depth_change(
    depth: Float[Tensor, "n p"],
    initial_depth: Float[Tensor, "n p"],
    dynamic: Bool[Tensor, "n p"] | None = None,
) -> Float[Tensor, ""]:
    """Depth prior term: scale-invariant squared log ratio to the initial depth, mean over frames.

    Per frame: the mean of the squared log ratio minus its squared mean. Dynamic pixels count twice.
    """
    ratio = depth.log() - initial_depth.log()
    weight = torch.ones_like(ratio) if dynamic is None else 1 + dynamic.to(ratio.dtype)
    weight = weight / weight.sum(-1, keepdim=True)
    return ((weight * ratio * ratio).sum(-1) - (weight * ratio).sum(-1) ** 2).mean()
