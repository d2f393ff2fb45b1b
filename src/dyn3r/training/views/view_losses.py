"""Losses of many-view networks, modelled on Depth Anything 3 (arXiv 2511.10647, section 3.3).

The paper was not at hand: the form of the terms is not checked against it (docs/training.md).

L = depth + rays + points + camera + gradient: absolute errors, in units of the mean distance of the
true points from the reference camera. Depth and rays are weighted by their confidence, as in
DUSt3R. The prediction is not scaled: the network learns this unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.geometry.cameras import invert, transform, unproject
from dyn3r.network.many_view.many_view_network import Views
from dyn3r.network.many_view.view_cameras import encode_cameras
from dyn3r.training.views.view_samples import ViewSample


@dataclass(frozen=True)
class ViewTruth:
    """What the network should say about a sample, in its unit; the first camera is the world."""

    depth: Float[Tensor, "s h w"]
    valid: Bool[Tensor, "s h w"]
    rays: Float[Tensor, "s rh rw 6"]
    """Direction R K^-1 (u, v, 1) and origin, at the centres of the cells of the ray grid."""
    code: Float[Tensor, "s 9"]
    """Camera codes; see `dyn3r.network.many_view.view_cameras`."""


def view_truth(sample: ViewSample, ray_hw: tuple[int, int]) -> ViewTruth:
    """The truth of a sample for rays on a grid of `ray_hw` cells.

    The unit is 1 where no depth is known.
    """
    depth, valid = sample.depth.double(), sample.depth > 0
    T = invert(sample.T_world_camera[:1]) @ sample.T_world_camera
    points = transform(T, unproject(depth, sample.K).flatten(1, 2))
    known = valid.flatten(1)
    unit = points.norm(dim=-1)[known].mean() if known.any() else depth.new_ones(())
    T = T.clone()
    T[:, :3, 3] /= unit
    size_hw = (int(depth.shape[1]), int(depth.shape[2]))
    rays = true_rays(T, sample.K, size_hw, ray_hw)
    code = encode_cameras(T, sample.K, size_hw)
    return ViewTruth((depth / unit).float(), valid, rays.float(), code.float())


def true_rays(
    T_world_camera: Float[Tensor, "s 4 4"],
    K: Float[Tensor, "s 3 3"],
    size_hw: tuple[int, int],
    ray_hw: tuple[int, int],
) -> Float[Tensor, "s rh rw 6"]:
    """Rays of cameras; K for integer pixel centres of an image of `size_hw`."""
    v, u = (
        (torch.arange(cells, dtype=K.dtype, device=K.device) + 0.5) * side / cells - 0.5
        for side, cells in zip(size_hw, ray_hw)
    )
    grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
    pixels = torch.stack([grid_u, grid_v, torch.ones_like(grid_u)], -1)
    to_world = T_world_camera[:, :3, :3] @ torch.linalg.inv(K)
    direction = torch.einsum("sij,hwj->shwi", to_world, pixels)
    origin = T_world_camera[:, None, None, :3, 3].expand_as(direction)
    return torch.cat([direction, origin], dim=-1)


def view_loss(
    views: Views, sample: ViewSample, alpha: float = 0.2, gradient_weight: float = 1.0
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of one sample and the value of each term.

    views: with rays. alpha: weight of the confidence terms; the paper has a weight there, but not
    its value. gradient_weight: of the gradient term; 1 in the paper.
    """
    maps = views.maps
    assert maps.rays is not None
    assert maps.ray_confidence is not None
    rows, cols = maps.rays.shape[1:3]
    truth = view_truth(sample, (int(rows), int(cols)))
    everywhere = torch.ones_like(maps.ray_confidence, dtype=torch.bool)
    terms = {
        "depth": confident_error(
            (maps.depth - truth.depth).abs(), maps.confidence, truth.valid, alpha
        ),
        "rays": confident_error(
            (maps.rays - truth.rays).abs().mean(dim=-1), maps.ray_confidence, everywhere, alpha
        ),
        "points": point_error(maps.depth, maps.rays, truth),
        "camera": code_error(views.code, truth.code),
        "gradient": gradient_weight * gradient_error(maps.depth, truth.depth, truth.valid),
    }
    loss = torch.stack(list(terms.values())).sum()
    return loss, {"loss": float(loss.detach()), **{n: float(t.detach()) for n, t in terms.items()}}


def confident_error(
    error: Float[Tensor, "*n"], confidence: Float[Tensor, "*n"], known: Bool[Tensor, "*n"],
    alpha: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean of confidence * error - alpha log confidence where the truth is known; else 0."""
    return mean_where(confidence * error - alpha * confidence.log(), known)


def mean_where(values: Float[Tensor, "*n"], known: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean of the values that are known; 0 of none."""
    return torch.where(known, values, 0).sum() / known.sum().clamp(min=1)


def point_error(
    depth: Float[Tensor, "s h w"], rays: Float[Tensor, "s rh rw 6"], truth: ViewTruth
) -> Float[Tensor, ""]:
    """Mean error of points that depth and rays give together: origin + depth * direction.

    At every cell of the ray grid, with the depth of the pixel that holds its centre.
    """
    rows, cols = (
        ((torch.arange(cells, device=depth.device) + 0.5) * side / cells).long()
        for side, cells in zip(depth.shape[1:], rays.shape[1:3])
    )
    at = (slice(None), rows[:, None], cols)
    ours = rays[..., 3:] + depth[at][..., None] * rays[..., :3]
    true = truth.rays[..., 3:] + truth.depth[at][..., None] * truth.rays[..., :3]
    return mean_where((ours - true).abs().mean(dim=-1), truth.valid[at])


def code_error(code: Float[Tensor, "s 9"], truth: Float[Tensor, "s 9"]) -> Float[Tensor, ""]:
    """Mean error of camera codes; quaternions of opposite signs are one rotation."""
    sign = torch.where((code[:, 3:7] * truth[:, 3:7]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    truth = torch.cat([truth[:, :3], sign * truth[:, 3:7], truth[:, 7:]], dim=-1)
    return (code - truth).abs().mean()


def gradient_error(
    depth: Float[Tensor, "s h w"], truth: Float[Tensor, "s h w"], valid: Bool[Tensor, "s h w"]
) -> Float[Tensor, ""]:
    """Mean error of the differences of depth between neighbouring pixels; both axes added."""
    error, total = depth - truth, depth.new_zeros(())
    for axis in (1, 2):
        count = error.shape[axis] - 1
        both = valid.narrow(axis, 1, count) & valid.narrow(axis, 0, count)
        total = total + mean_where(error.diff(dim=axis).abs(), both)
    return total
