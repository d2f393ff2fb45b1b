"""What training minimises (SPEC 12): confidence-weighted pointmap regression; and our additions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from dyn3r.network.config import PATCH


def mean_distance(
    points1: Float[Tensor, "b h w 3"],
    points2: Float[Tensor, "b h w 3"],
    valid1: Bool[Tensor, "b h w"],
    valid2: Bool[Tensor, "b h w"],
) -> Float[Tensor, "b 1 1 1"]:
    """Mean distance to the origin over the valid points of both views; the unit of a pair."""
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
    """Confidence-weighted regression of both pointmaps (DUSt3R, equations 2-4).

    predicted = points1 (b,h,w,3), conf1 (b,h,w), points2, conf2; truth = points of view 1 and of
    view 2, both in camera 1; valid = where they are known. Prediction and truth are each divided
    by their mean distance. A larger `alpha` rewards confidence more. `nearness` (our addition, in
    the spirit of MoGe, Wang et al. 2025) divides errors by the true distance to this power, in
    units of the mean and not below a fifth of it; 0 is the published loss.
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
        sure = conf[known]
        if error.numel():
            total = total + (sure * error - alpha * sure.log()).mean()
    return total


def shape_loss(
    points: Float[Tensor, "b h w 3"],
    true: Float[Tensor, "b h w 3"],
    valid: Bool[Tensor, "b h w"],
    levels: int = 4,
) -> Float[Tensor, ""]:
    """Differences of neighbouring log distances, predicted against true, at strides 1, 2, 4, ...

    The regression loss counts metres, so the far background outweighs the things in front of it;
    this one counts ratios between neighbours, so outlines and shapes weigh the same at any
    distance. Free of scale. Source: gradient matching of MegaDepth (Li and Snavely 2018, eq. 5).
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
    """Cross entropy between a cross-attention head and the true correspondence of each patch.

    The patch around pixel (u, v) should attend to the patch that the surface seen at its centre
    occupies in the other frame; the target is spread bilinearly over four tokens. Patches whose
    centre is not visible there say nothing. Our own addition: a compact network trained for a few
    hours on a CPU does not discover matching by itself. Source of the idea: supervised matching in
    the manner of LoFTR (Sun et al. 2021, equation 5).
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


def motion_loss(
    logits: tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]],
    moving: tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b h w"]],
    valid: tuple[Bool[Tensor, "b h w"], Bool[Tensor, "b h w"]],
) -> Float[Tensor, ""]:
    """Binary cross entropy of the motion head, mean over the valid pixels of both views together.

    logits = what the head says of view 1 and of view 2; moving = what truly moves in the world,
    whether or not the camera does; valid = where the world shows anything. 0 where nothing is
    valid. No class is weighted: the sigmoid is to be a probability. Our own addition; supervised
    motion segmentation on synthetic scenes goes back to MP-Net (Tokmakov et al. 2017).
    """
    said = torch.cat([view[known] for view, known in zip(logits, valid)]).float()
    true = torch.cat([view[known] for view, known in zip(moving, valid)])
    total = binary_cross_entropy_with_logits(said, true.to(said.dtype), reduction="sum")
    return total / max(1, said.numel())
