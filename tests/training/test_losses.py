"""Losses against the published numbers and their own laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dyn3r.training.losses import matching_loss, pointmap_loss, shape_loss

GOLDEN = Path(__file__).parent.parent / "golden" / "loss.npz"


def golden() -> tuple[tuple, tuple, tuple, float]:
    z = {name: torch.from_numpy(np.array(value)) for name, value in np.load(GOLDEN).items()}
    to_camera1 = torch.linalg.inv(z["cam2world1"])
    truth = [
        torch.einsum("bij,bhwj->bhwi", to_camera1[:, :3, :3], z[f"gt_world_pts{view}"])
        + to_camera1[:, None, None, :3, 3]
        for view in "12"
    ]
    predicted = (z["pred_pts1"], z["pred_conf1"], z["pred_pts2"], z["pred_conf2"])
    expected = float(z["confloss_regr3d_avgdis_alpha0.2"])
    return predicted, tuple(truth), (z["valid1"], z["valid2"]), expected


def test_agrees_with_golden() -> None:
    predicted, truth, valid, expected = golden()
    assert float(pointmap_loss(predicted, truth, valid)) == pytest.approx(expected, rel=1e-5)


def test_ignores_scale_of_both_sides_and_what_is_invalid() -> None:
    predicted, truth, valid, expected = golden()
    predicted = (predicted[0] * 7, predicted[1], predicted[2] * 7, predicted[3])
    truth = tuple(torch.where(v[..., None], t * 0.1, 1e6) for t, v in zip(truth, valid))
    assert float(pointmap_loss(predicted, truth, valid)) == pytest.approx(expected, rel=1e-4)


def test_nothing_valid_gives_zero_and_finite_gradients() -> None:
    predicted, truth, valid, _ = golden()
    predicted = tuple(p.clone().requires_grad_() for p in predicted)
    loss = pointmap_loss(predicted, truth, tuple(torch.zeros_like(v) for v in valid))
    assert float(loss) == 0


def test_gradient_is_the_numerical_one() -> None:
    predicted, truth, valid, _ = golden()
    predicted = [p.double()[:1, :4, :4].clone() for p in predicted]
    truth = tuple(t.double()[:1, :4, :4] for t in truth)
    valid = tuple(v[:1, :4, :4] for v in valid)
    predicted = [p.requires_grad_() for p in predicted]
    assert torch.autograd.gradcheck(
        lambda *p: pointmap_loss(p, truth, valid), predicted, eps=1e-6, atol=1e-5
    )


def test_matching_is_lowest_where_every_patch_attends_to_its_correspondence() -> None:
    """Flow of exactly one patch to the right: token (r, c) belongs to token (r, c + 1)."""
    flow = torch.zeros(1, 32, 64, 2)
    flow[..., 0] = 16.0
    visible = torch.ones(1, 32, 64, dtype=torch.bool)
    visible[:, :, 48:] = False  # leaves the image
    index = torch.arange(8)
    right = torch.zeros(1, 8, 8)
    right[0, index, torch.where(index % 4 < 3, index + 1, index)] = 20.0
    stay = torch.eye(8)[None] * 20.0
    assert float(matching_loss(right, flow, visible)) < 1e-3
    assert float(matching_loss(stay, flow, visible)) > 10
    assert float(matching_loss(stay, flow, torch.zeros_like(visible))) == 0


def test_shape_loss_sees_ratios_between_neighbours_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(2, 16, 24, 3, generator=generator) + 1
    valid = torch.rand(2, 16, 24, generator=generator) > 0.2
    assert float(shape_loss(true * 7, true, valid)) < 1e-6  # free of scale
    flat = torch.ones_like(true)
    bent = float(shape_loss(flat, true, valid))
    assert bent > 0.05
    wild = torch.where(valid[..., None], true, 1e6)
    assert float(shape_loss(wild, true, valid)) < 1e-6  # invalid pixels say nothing


def test_shape_loss_gradient_is_the_numerical_one() -> None:
    generator = torch.Generator().manual_seed(1)
    points, true = (torch.rand(1, 4, 5, 3, generator=generator).double() + 1 for _ in range(2))
    valid = torch.ones(1, 4, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda p: shape_loss(p, true, valid, levels=2), (points.requires_grad_(),), atol=1e-6
    )
