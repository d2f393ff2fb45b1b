"""The parts of the flow network against direct computations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import grid_sample

from dyn3r.flow.network import (
    FlowNetwork,
    convex_upsample,
    correlations,
    look_up,
    warped,
)
from dyn3r.geometry.cameras import pixel_grid


def test_a_look_up_is_bilinear_and_zero_outside() -> None:
    torch.manual_seed(0)
    source, target = torch.randn(2, 8, 6, 10), torch.randn(2, 8, 6, 10)
    volumes, radius = correlations(source, target), 2
    flow = torch.randn(2, 6, 10, 2) * 4
    found = look_up(volumes, flow, radius)
    assert found.shape == (2, 6, 10, 50)
    step = torch.arange(-radius, radius + 1).float()
    for level, volume in enumerate(volumes):
        th, tw = volume.shape[1:3]
        # the volume of every source cell is an image that grid_sample reads, zero padded
        images = volume.permute(0, 3, 1, 2).reshape(-1, 1, th, tw)
        at = (flow + pixel_grid((6, 10))).view(-1, 2)
        at = (at + 0.5) / 2**level - 0.5
        y, x = at[:, 1, None] + step, at[:, 0, None] + step
        grid = torch.stack([x[:, None, :].expand(-1, 5, -1), y[:, :, None].expand(-1, -1, 5)], -1)
        size = torch.tensor([tw - 1, th - 1])
        expected = grid_sample(images, 2 * grid / size - 1, align_corners=True)
        part = found[..., 25 * level : 25 * (level + 1)].reshape(-1, 25)
        torch.testing.assert_close(part, expected.flatten(1), atol=1e-4, rtol=1e-4)


def test_correlations_of_the_coarser_scale_are_means() -> None:
    source, target = torch.randn(1, 4, 4, 6), torch.randn(1, 4, 4, 6)
    fine, coarse = correlations(source, target)
    means = fine.view(1, 2, 2, 3, 2, 24).mean((2, 4))
    torch.testing.assert_close(coarse, means)


def test_upsampling_keeps_a_constant_and_stays_between_neighbours() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 144, 3, 5)
    constant = torch.full((1, 2, 3, 5), 7.0)
    torch.testing.assert_close(convex_upsample(constant, logits), torch.full((1, 2, 12, 20), 7.0))
    values = torch.randn(1, 2, 3, 5)
    up = convex_upsample(values, logits)
    assert up.min() >= values.min()
    assert up.max() <= values.max()


def test_upsampling_puts_pixels_where_their_cell_is() -> None:
    logits = torch.zeros(1, 9, 4, 4, 3, 5)
    logits[:, 4] = 50.0  # the cell itself
    values = torch.arange(15.0).view(1, 1, 3, 5)
    up = convex_upsample(values, logits.flatten(1, 3))
    expected = values.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(up, expected)


def test_warping_by_whole_pixels_is_a_shift() -> None:
    x = torch.randn(1, 3, 8, 12)
    flow = torch.zeros(1, 2, 8, 12)
    flow[:, 0], flow[:, 1] = 2, -1
    out = warped(x, flow)
    torch.testing.assert_close(out[:, :, 1:, :-2], x[:, :, :-1, 2:], atol=1e-4, rtol=1e-4)
    assert out[:, :, 0].abs().max() < 1e-4
    assert out[:, :, :, -2:].abs().max() < 1e-4


@pytest.mark.parametrize("size_hw", [(32, 48), (48, 32)])
def test_predictions_have_the_size_of_the_frames(size_hw: tuple[int, int]) -> None:
    torch.manual_seed(2)
    network = FlowNetwork().eval()
    images, first = torch.rand(2, 3, *size_hw), torch.randn(2, 2, *size_hw)
    with torch.inference_mode():
        found = network.both_directions(network.encode(images), first)
    assert found.flow.shape == (2, 2, *size_hw)
    assert found.visible.shape == (2, *size_hw)
    assert found.whitening.shape == (2, 3, *size_hw)
    assert len(found.coarse) == 5
    assert found.matching.shape == (2, *(2 * (size_hw[0] // 8 * size_hw[1] // 8,)))
    assert all(torch.isfinite(x).all() for x in (found.flow, found.visible, found.whitening))


def test_the_network_is_small() -> None:
    assert sum(p.numel() for p in FlowNetwork().parameters()) < 2_000_000


def test_the_density_of_errors_integrates_to_one() -> None:
    from dyn3r.training.flow_training import negative_log_likelihood

    step = 0.05
    axis = torch.arange(-20, 20, step)
    error = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]
    whitening = torch.tensor([0.3, -0.2, 0.7]).view(1, 3, 1, 1).expand(1, 3, *error.shape[2:])
    density = torch.exp(-negative_log_likelihood(error, whitening)) / (2 * math.pi)
    assert float(density.sum()) * step**2 == pytest.approx(1, abs=0.01)
