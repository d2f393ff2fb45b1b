from __future__ import annotations

import numpy as np
import torch

from dyn3r.motion.mask_network import BACKGROUND_PARTS, PARTS
from dyn3r.training.mask_augment import LARGEST_TURN, LARGEST_ZOOM, _moved, augmented


def test_velocities_follow_the_frame() -> None:
    """The image holds the place that each pixel came from; a velocity changes like a difference."""
    b, h, w = 20, 48, 64
    y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
    images = torch.stack([x / 100, y / 100, 0 * x]).expand(b, 3, h, w).contiguous()
    parts = torch.zeros(b, PARTS, h, w)
    parts[:, 5], parts[:, 6] = 0.7, -0.2
    places, moved, _ = _moved(images, parts, torch.zeros(b, h, w), np.random.default_rng(1))
    middle = places[:, :2, h // 2 - 3 : h // 2 + 3, w // 2 - 3 : w // 2 + 3] * 100
    by_x = (middle[..., :, -1] - middle[..., :, 0]).mean(-1) / 5
    by_y = (middle[..., -1, :] - middle[..., 0, :]).mean(-1) / 5
    A = torch.stack([by_x, by_y], -1)  # places of the old frame by those of the new one
    velocity = moved[:, 5:7, h // 2, w // 2]
    torch.testing.assert_close(
        torch.einsum("bij,bj->bi", A, velocity), torch.tensor([[0.7, -0.2]]).expand(b, 2),
        atol=2e-3, rtol=0,
    )  # fmt: skip
    assert (torch.linalg.det(A) < 0).any()  # some are mirrored
    assert (torch.linalg.det(A) > 0).any()
    scale = torch.linalg.det(A).abs() ** -0.5
    assert ((scale > 0.99) & (scale < LARGEST_ZOOM + 0.01)).all()
    assert scale.std() > 0.1
    turn = torch.atan2(A[:, 1, 0], A[:, 1, 1])
    assert turn.abs().max() < LARGEST_TURN + 0.01
    assert turn.std() > 0.05


def test_masks_and_images_stay_together() -> None:
    b, h, w = 12, 48, 64
    moving = torch.zeros(b, h, w, dtype=torch.bool)
    moving[:, 10:30, 20:50] = True
    images = torch.where(moving[:, None], 0.5, -0.5).expand(b, 3, h, w).contiguous()
    parts = moving[:, None].float().repeat(1, PARTS, 1, 1)
    images, parts, masks = augmented(images, parts, moving, np.random.default_rng(2))
    bright = images.mean(1) > (images.amax((1, 2, 3)) + images.amin((1, 2, 3)))[:, None, None] / 2
    assert (bright == (masks > 0)).float().mean() > 0.95
    assert ((parts[:, 0] > 0.5) == (masks > 0)).float().mean() > 0.98


def test_colours_of_the_background_change_places_like_those_of_the_image() -> None:
    b = 200
    images = torch.tensor([-0.9, 0.0, 0.9])[None, :, None, None].repeat(b, 1, 16, 16)
    parts = torch.ones(b, BACKGROUND_PARTS, 16, 16)
    parts[:, PARTS + 3 :] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    still = torch.zeros(b, 16, 16, dtype=torch.bool)
    images, parts, _ = augmented(images, parts, still, np.random.default_rng(3))
    known = parts[:, PARTS + 2, 0, 0] > 0
    assert 0.02 < 1 - known.float().mean() < 0.2
    assert (parts[~known, PARTS + 1 :] == 0).all()
    orders = images.mean((2, 3))[known].argsort(1).argsort(1)
    ratios = parts[known, PARTS + 3 :, 0, 0].round().long() - 1
    assert (orders == ratios).all(1).float().mean() > 0.9  # colours vary, too
    assert len(torch.unique(ratios, dim=0)) == 6
