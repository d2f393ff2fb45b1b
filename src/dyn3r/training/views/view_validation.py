"""Evaluation of many-view networks on held-out samples, with pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.geometry.cameras import invert
from dyn3r.network.many_view.many_view_network import ManyViewNetwork, Views
from dyn3r.network.many_view.view_cameras import decode_cameras
from dyn3r.network.many_view.view_images import standardised
from dyn3r.scene.drawing import Picture, depth_picture, draw_text
from dyn3r.training.views.view_losses import true_rays, view_loss
from dyn3r.training.views.view_samples import ViewBatch, ViewSample

SHOWN_SAMPLES, SHOWN_VIEWS = 2, 4
"""Samples of a held-out set that are drawn, and views of each."""


@torch.no_grad()
def evaluate_views(
    network: ManyViewNetwork, batches: Iterable[ViewBatch], device: str
) -> dict[str, float]:
    """Compute the mean loss, and medians over samples of errors; cameras are not given.

    With one median scale of a sample's depth: `held_out_abs_rel` of its depth, and
    `held_out_point_error` of its points, from depth and predicted cameras, over their distance from
    the first camera. `held_out_rotation_deg`: mean angle of the cameras relative to the first.
    Empty if no sample has known depth.
    """
    network.eval()
    losses, errors = [], []
    for batch in batches:
        for sample in batch.samples:
            sample = replace(sample.to(device), given=False)
            if not (sample.depth > 0).any():
                continue
            views = _predict(network, sample, device)
            losses.append(view_loss(views, sample)[1]["loss"])
            errors.append(_errors(views, sample))
    if not errors:
        return {}
    names = ("held_out_abs_rel", "held_out_point_error", "held_out_rotation_deg")
    medians = torch.stack(errors).median(dim=0).values.tolist()
    return {"held_out_loss": sum(losses) / len(losses), **dict(zip(names, medians))}


@torch.no_grad()
def view_pictures(
    network: ManyViewNetwork, batch: ViewBatch, device: str, name: str
) -> list[Picture]:
    """One picture for each of the first samples: frames, true depth and depth of its first views.

    One median scale and one range of colours a sample.
    """
    network.eval()
    rows: list[Picture] = []
    for sample in batch.samples[:SHOWN_SAMPLES]:
        sample = replace(sample.to(device), given=False)
        depth = _predict(network, sample, device).maps.depth
        rows.append(_picture(sample, depth * _scale(depth, sample), name))
    return rows


def _predict(network: ManyViewNetwork, sample: ViewSample, device: str) -> Views:
    """Predict a sample as inference does, in bfloat16."""
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        views: Views = network(standardised(sample.images), reference="first", rays=True)
    return views


def _scale(depth: Float[Tensor, "s h w"], sample: ViewSample) -> Tensor:
    """Median scale of the depth of all views."""
    known = sample.depth > 0
    if not known.any():
        return depth.new_ones(())
    return sample.depth[known].median() / depth[known].median().clamp(min=1e-9)


def _errors(views: Views, sample: ViewSample) -> Float[Tensor, "3"]:
    """Relative error of depth, relative error of points, mean rotation error in degrees."""
    known, size_hw = sample.depth > 0, (int(sample.depth.shape[1]), int(sample.depth.shape[2]))
    scale = _scale(views.maps.depth, sample)
    depth = (views.maps.depth * scale).double()
    T, K = decode_cameras(views.code.double(), size_hw)
    T = invert(T[:1]) @ T
    T[:, :3, 3] *= scale
    K[:, :2, 2] -= 0.5  # integer coordinates are pixel centres
    T_true = invert(sample.T_world_camera[:1]) @ sample.T_world_camera
    points, true = (
        _points(cameras, intrinsics, z)
        for cameras, intrinsics, z in ((T, K, depth), (T_true, sample.K, sample.depth.double()))
    )
    abs_rel = ((depth - sample.depth).abs()[known] / sample.depth[known]).mean()
    apart = ((points - true).norm(dim=-1)[known] / true.norm(dim=-1)[known]).mean()
    cosine = ((T[:, :3, :3] * T_true[:, :3, :3]).sum((1, 2)) - 1) / 2
    degrees = torch.rad2deg(cosine.clamp(-1, 1).acos())[1:].mean()
    return torch.stack([abs_rel, apart, degrees]).float()


def _points(
    T: Float[Tensor, "s 4 4"], K: Float[Tensor, "s 3 3"], depth: Float[Tensor, "s h w"]
) -> Float[Tensor, "s h w 3"]:
    """Points in the world of the cameras."""
    size_hw = (int(depth.shape[1]), int(depth.shape[2]))
    rays = true_rays(T, K, size_hw, size_hw)
    return rays[..., 3:] + depth[..., None] * rays[..., :3]


def _picture(sample: ViewSample, depth: Float[Tensor, "s h w"], name: str) -> Picture:
    """Frames, true depth and predicted depth of the first views, one row each."""
    shown = min(SHOWN_VIEWS, len(depth))
    true = sample.depth[:shown].cpu().numpy()
    found = depth[:shown].float().clamp(min=0).cpu().numpy()
    inverse = 1 / true[true > 0]
    low, high = np.quantile(inverse, (0.02, 0.98)) if len(inverse) else (0.0, 1.0)
    limits = (float(low), float(high))
    columns = []
    for k in range(shown):
        frame = (sample.images[k].cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        panels = [np.ascontiguousarray(frame)]
        panels += [depth_picture(z, limits) for z in (true[k], found[k])]
        for panel, label in zip(panels, (f"{name} view {k + 1}", "true depth", "depth")):
            draw_text(panel, label, (3, 12), box=True, max_width=panel.shape[1] - 6)
        columns.append(np.concatenate(panels))
    return np.concatenate(columns, axis=1)
