"""Evaluation of two-view networks on held-out pairs, with pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from dyn3r.network.network import Decoded, PointmapNetwork
from dyn3r.scene.drawing import Picture, depth_picture, draw_text
from dyn3r.training.losses import pointmap_loss
from dyn3r.training.pairs import PairBatch

SHOWN_PAIRS = 4
"""Pairs of a held-out set that are drawn."""
COLUMNS = ("view 1", "view 2", "true depth 1", "depth 1", "true depth 2", "depth 2")


@torch.no_grad()
def evaluate(
    network: PointmapNetwork, batches: Iterable[PairBatch], device: str
) -> dict[str, float]:
    """Compute the mean loss and medians over pairs of two relative errors, on held-out batches.

    `held_out_abs_rel`: depth of view 1 after a median scale; `held_out_point_error`: points of view
    2 with the same scale, over their distance. Empty if no pair has known depth in both views.
    """
    network.eval()
    depth_errors, point_errors, losses = [], [], []
    for batch in batches:
        batch = batch.to(device)
        out = _predict(network, batch, device)
        points = (out.points1, out.conf1, out.points2, out.conf2)
        truth, valid = (batch.points1, batch.points2), (batch.valid1, batch.valid2)
        losses.append(float(pointmap_loss(points, truth, valid)))  # type: ignore[arg-type]
        for k in range(len(batch.first)):
            errors = _errors(out, batch, k)
            if errors is not None:
                depth_errors.append(errors[0])
                point_errors.append(errors[1])
    if not depth_errors:
        return {}
    return {
        "held_out_loss": sum(losses) / len(losses),
        "held_out_abs_rel": float(torch.stack(depth_errors).median()),
        "held_out_point_error": float(torch.stack(point_errors).median()),
    }


@torch.no_grad()
def pair_pictures(
    network: PointmapNetwork, batch: PairBatch, device: str, name: str
) -> list[Picture]:
    """Rows of the first pairs: frames, true and predicted depth, with the scale of view 1."""
    network.eval()
    batch = batch.to(device)
    out = _predict(network, batch, device)
    return [_row(out, batch, k, name) for k in range(min(SHOWN_PAIRS, len(batch.first)))]


def _predict(network: PointmapNetwork, batch: PairBatch, device: str) -> Decoded:
    """Predict the pairs of a batch as inference does, in bfloat16."""
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        tokens = network.encode(batch.images)
        return network.decode(tokens[batch.first], tokens[batch.second], scores=False)


def _scale(out: Decoded, batch: PairBatch, k: int) -> Tensor:
    """Median scale of the depth of view 1 of a pair."""
    assert out.points1 is not None
    known = batch.valid1[k]
    z, true_z = out.points1[k, ..., 2][known], batch.points1[k, ..., 2][known]
    return (true_z.median() / z.median().clamp(min=1e-6)).clamp(0, 1e6)


def _errors(out: Decoded, batch: PairBatch, k: int) -> tuple[Tensor, Tensor] | None:
    """Relative errors of a pair: depth of view 1, points of view 2; None without known depth."""
    known1, known2 = batch.valid1[k], batch.valid2[k]
    if not known1.any() or not known2.any():
        return None
    assert out.points1 is not None
    assert out.points2 is not None
    scale = _scale(out, batch, k)
    true_z = batch.points1[k, ..., 2][known1]
    depth_error = ((out.points1[k, ..., 2][known1] * scale - true_z).abs() / true_z).mean()
    error = (out.points2[k] * scale - batch.points2[k]).norm(dim=-1)[known2]
    return depth_error, (error / batch.points2[k].norm(dim=-1)[known2]).mean()


def _row(out: Decoded, batch: PairBatch, k: int, name: str) -> Picture:
    """Draw one pair. Depth of view 2 is its z in camera 1."""
    assert out.points1 is not None
    assert out.points2 is not None
    scale = _scale(out, batch, k) if batch.valid1[k].any() else torch.ones(())
    depths = []
    for true, found, known in (
        (batch.points1, out.points1, batch.valid1), (batch.points2, out.points2, batch.valid2),
    ):  # fmt: skip
        depths += [torch.where(known[k], true[k, ..., 2], 0), found[k, ..., 2] * scale]
    maps = [depth.float().clamp(min=0).cpu().numpy() for depth in depths]
    inverse = 1 / maps[0][maps[0] > 0]
    limits = tuple(np.quantile(inverse, (0.02, 0.98))) if len(inverse) else (0.0, 1.0)
    panels = [frame_picture(batch, int(index[k])) for index in (batch.first, batch.second)]
    panels += [depth_picture(depth, (float(limits[0]), float(limits[1]))) for depth in maps]
    for panel, label in zip(panels, COLUMNS):
        draw_text(panel, f"{name} {label}" if label == COLUMNS[0] else label, (3, 12), box=True,
                  max_width=panel.shape[1] - 6)  # fmt: skip
    return np.concatenate(panels, axis=1)


def frame_picture(batch: PairBatch, index: int) -> Picture:
    """A frame of a batch as 8-bit RGB."""
    image = batch.images[index].float().cpu().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8))
