"""Cameras and flow: golden values, round trips, corner cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dyn3r.errors import InputError
from dyn3r.geometry.cameras import (
    focal_from_points,
    intrinsics,
    invert,
    pixel_grid,
    project,
    rays,
    transform,
    unproject,
)
from dyn3r.geometry.induced_flow import forward_backward_visible, induced_flow
from dyn3r.types import FlowFields

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "misc_alignment.npz"))


def test_focal_agrees_with_golden() -> None:
    points = torch.from_numpy(GOLDEN["focal|pointmap"])
    assert float(focal_from_points(points)) == pytest.approx(
        float(GOLDEN["focal|weiszfeld"][0]), 1e-6
    )


def test_focal_is_robust_and_ignores_unusable_points() -> None:
    K = intrinsics(torch.tensor([50.0]), (40, 60))
    points = unproject(2 + torch.rand(1, 40, 60, generator=torch.Generator().manual_seed(0)), K)
    points[0, :8] *= torch.tensor([1.7, 0.4, 1.0])
    points[0, 30, 30] = torch.nan
    points[0, 31, 31, 2] = -1
    assert float(focal_from_points(points)[0]) == pytest.approx(50, rel=0.01)


def test_focal_of_nothing_is_nan_and_never_absurd() -> None:
    assert torch.isnan(focal_from_points(torch.zeros(8, 8, 3)))
    far_too_long = unproject(torch.ones(8, 8), intrinsics(torch.tensor(1e6), (8, 8)))
    assert float(focal_from_points(far_too_long)) == 80.0


def test_induced_flow_agrees_with_golden() -> None:
    K = torch.from_numpy(GOLDEN["ego|K"])
    T2 = torch.eye(4)
    T2[:3, :3], T2[:3, 3] = torch.from_numpy(GOLDEN["ego|R2"]), torch.from_numpy(GOLDEN["ego|T2"])
    flow = induced_flow(torch.from_numpy(GOLDEN["ego|depth"]), K, torch.eye(4), K, T2)
    torch.testing.assert_close(
        flow.movedim(-1, 0), torch.from_numpy(GOLDEN["ego|flow"]), atol=2e-4, rtol=0
    )


def test_visibility_agrees_with_golden() -> None:
    forward, backward = (
        torch.from_numpy(GOLDEN[f"occ|{name}"]).movedim(1, -1) for name in ("fwd", "bwd")
    )
    published = forward_backward_visible(forward, backward, as_published=True)
    assert torch.equal(published[:, None], torch.from_numpy(GOLDEN["occ|mask"]))
    # The distance is never smaller than |du + dv| / sqrt(2), and ours is the stricter test here.
    assert int(forward_backward_visible(forward, backward).sum()) < int(published.sum())


def test_visibility_of_a_shift() -> None:
    forward = torch.zeros(10, 12, 2)
    forward[..., 0] = 4
    visible = forward_backward_visible(forward, -forward)
    assert visible[:, :8].all()
    assert not visible[:, 8:].any()
    skewed = -forward + torch.tensor([9.0, -9.0])
    assert not forward_backward_visible(forward, skewed).any()


def test_project_undoes_unproject_and_invert_undoes_transform() -> None:
    size_hw, f_px = (6, 9), torch.tensor([7.0, 11.0], dtype=torch.float64)
    K = intrinsics(f_px, size_hw)
    depth = 1 + torch.rand(2, *size_hw, dtype=torch.float64)
    uv = project(unproject(depth, K).reshape(2, -1, 3), K).reshape(2, *size_hw, 2)
    torch.testing.assert_close(uv, pixel_grid(size_hw, dtype=torch.float64).expand_as(uv))
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = 0.5 * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    T[:3, 3] = torch.tensor([1.0, -2.0, 0.3])
    points = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(transform(invert(T), transform(T, points)), points)


def test_principal_point_is_the_published_one() -> None:
    centre = intrinsics(torch.tensor([10.0]), (4, 6))[0, :2, 2]
    assert centre.tolist() == [3.0, 2.0]
    assert rays(intrinsics(torch.tensor(10.0), (4, 6)), torch.tensor([3.0, 2.0])).tolist() == [
        0,
        0,
        1,
    ]


def test_measured_flow_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"one .* field for every edge"):
        FlowFields(np.zeros((2, 2), int), np.zeros((1, 4, 4, 2)))
    with pytest.raises(InputError, match="visibility"):
        FlowFields(np.zeros((1, 2), int), np.zeros((1, 4, 4, 2)), np.ones((1, 4, 5), bool))
