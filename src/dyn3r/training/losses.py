"""Losses: confidence-weighted pointmap regression (SPEC 12), and our additions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import log_softmax

from dyn3r.network.config import PATCH


def mean_distance(
    points1: Float[Tensor, "b h w 3"],
    points2: Float[Tensor, "b h w 3"],
    valid1: Bool[Tensor, "b h w"],
    valid2: Bool[Tensor, "b h w"],
) -> Float[Tensor, "b 1 1 1"]:
    """Compute the mean distance of the valid points of both views: the unit of a pair."""
    total = (points1.norm(dim=-1) * valid1).sum((1, 2)) + (points2.norm(dim=-1) * valid2).sum(
        (1, 2)
    )
    count = valid1.sum((1, 2)) + valid2.sum((1, 2))
    return (total / count.clamp(min=1)).clamp(min=1e-8)[:, None, None, None]


def pointmap_loss(
    predicted: tuple[Tensor, Tensor, Tensor, Tensor],
    truth: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    alpha: float = 0.2,
    nearness: float = 0.0,
) -> Float[Tensor, ""]:
    """Compute the confidence-weighted regression loss of both pointmaps (DUSt3R, eq. 2-4).

    predicted: points1 (b,h,w,3), conf1 (b,h,w), points2, conf2. truth: points of view 1 and of view
    2, both in camera 1. valid: masks of known points. Prediction and truth are each divided by
    their mean distance. alpha: weight of the confidence term. nearness (ours, similar to MoGe, Wang
    et al. 2025): errors are divided by the true distance to this power, in units of the mean
    distance and not below 0.2; 0 gives the published loss.
    """
    points1, conf1, points2, conf2 = predicted
    unit = mean_distance(points1, points2, *valid)
    true_unit = mean_distance(*truth, *valid)
    total = points1.new_zeros(())
    for points, conf, true, known in zip((points1, points2), (conf1, conf2), truth, valid):
        error = (points / unit - true / true_unit).norm(dim=-1)[known]
        if nearness:
            distance = (true / true_unit).norm(dim=-1)[known]
            error = error / distance.clamp(min=0.2) ** nearness
        confidence = conf[known]
        if error.numel():
            total = total + (confidence * error - alpha * confidence.log()).mean()
    return total


def shape_loss(
    points: Float[Tensor, "b h w 3"],
    true: Float[Tensor, "b h w 3"],
    valid: Bool[Tensor, "b h w"],
    levels: int = 4,
) -> Float[Tensor, ""]:
    """Compute the error of differences of neighbouring log distances, at strides 1, 2, 4, ...

    The regression loss measures distances, so that the far background outweighs near objects. This
    loss measures ratios between neighbours: edges and shapes have the same weight at any distance.
    Scale invariant. Source: gradient matching of MegaDepth (Li and Snavely 2018, eq. 5).
    """
    error = points.norm(dim=-1).clamp(min=1e-4).log() - true.norm(dim=-1).clamp(min=1e-4).log()
    total = points.new_zeros(())
    for level in range(levels):
        step = slice(None, None, 2**level)
        e, known = error[:, step, step], valid[:, step, step]
        for axis in (1, 2):
            count = e.shape[axis] - 1
            both = known.narrow(axis, 1, count) & known.narrow(axis, 0, count)
            total = total + (e.diff(dim=axis).abs() * both).sum() / both.sum().clamp(min=1)
    return total / (2 * levels)


def matching_loss(
    logits: Float[Tensor, "b queries keys"],
    flow: Float[Tensor, "b h w 2"],
    visible: Bool[Tensor, "b h w"],
) -> Float[Tensor, ""]:
    """Compute the cross entropy of a cross-attention head against true patch correspondences.

    The target of a patch is the patch of the other frame that shows the surface point at its
    centre, spread bilinearly over four tokens. Patches whose centre is not visible there are
    ignored. Ours: a compact network trained for a few hours does not learn matching without it.
    Source: supervised matching of LoFTR (Sun et al. 2021, eq. 5).
    """
    b, h, w, _ = flow.shape
    rows, cols = h // PATCH, w // PATCH
    centre = slice(PATCH // 2, None, PATCH)
    row, col = torch.meshgrid(
        torch.arange(rows, device=flow.device),
        torch.arange(cols, device=flow.device),
        indexing="ij",
    )
    target = torch.stack([col, row], -1) + flow[:, centre, centre] / PATCH
    target = target.reshape(b, rows * cols, 2)
    known = visible[:, centre, centre].reshape(b, rows * cols)
    column = target[..., 0].clamp(0, cols - 1)
    row = target[..., 1].clamp(0, rows - 1)
    grid_col = torch.arange(cols, device=flow.device)
    grid_row = torch.arange(rows, device=flow.device)
    near_col = (1 - (column[..., None] - grid_col).abs()).clamp(min=0)
    near_row = (1 - (row[..., None] - grid_row).abs()).clamp(min=0)
    weights = (near_row[..., :, None] * near_col[..., None, :]).flatten(-2)
    entropy = -(weights * log_softmax(logits.float(), dim=-1)).sum(-1)
    return (entropy * known).sum() / known.sum().clamp(min=1)
