"""One view: K follows crops and scaling, so that points stay where they are."""

from __future__ import annotations

import numpy as np
import pytest
from tests.datasets.plane_world import DISTANCE, PlaneWorld, pixel_rays, plane_depth, plane_world

from dyn3r.errors import InputError
from dyn3r.training.sets.views import Augmentation, View, fit_view, sample_augmentation

K = np.array([[150.0, 0, 90.0], [0, 140.0, 60.0], [0, 0, 1]])


def view_of(world: PlaneWorld, frame: int = 0) -> View:
    return View(
        world.images[frame],
        world.depth[frame].astype(np.float32),
        world.moving[frame],
        world.K,
        world.T_world_camera[frame],
    )


@pytest.fixture(scope="module")
def view() -> View:
    """160x120 pixels with the principal point right of the centre."""
    return view_of(plane_world(1, K=K, size_hw=(120, 160)))


def exact_depth(view: View) -> np.ndarray:
    """Depth of the plane at every pixel, for the camera of the view."""
    return plane_depth(pixel_rays(view.K, view.size_hw), view.T_world_camera, DISTANCE)


@pytest.mark.parametrize("target", [(48, 64), (64, 48), (96, 128), (240, 320)])
@pytest.mark.parametrize("focal_and_slack", [(1.0, 0), (0.9, 15), (0.93, 7)])
def test_depth_is_still_that_of_the_plane(
    view: View, target: tuple[int, int], focal_and_slack: tuple[float, int]
) -> None:
    """A wrong K or a shifted depth map would be off by far more than a nearest neighbour."""
    fitted = fit_view(view, target, Augmentation(*focal_and_slack))
    assert fitted.size_hw == target
    assert fitted.image.shape == (*target, 3)
    static = ~fitted.moving
    exact = exact_depth(fitted)
    magnification = fitted.K[0, 0] / view.K[0, 0]
    slope = sum(np.abs(g).max() for g in np.gradient(exact)) * magnification  # per source pixel
    assert np.abs(fitted.depth - exact)[static].max() < 0.51 * slope
    # a shift by half a source pixel would be half a slope
    assert abs(np.mean((fitted.depth - exact)[static])) < 0.05 * slope


def test_the_principal_point_comes_to_the_centre(view: View) -> None:
    fitted = fit_view(view, (96, 96), Augmentation())
    # 160x120 with (90, 60): columns 20 to 159, 140x120, scaled by 0.8 to 112x96, columns 8 to 103
    np.testing.assert_allclose(fitted.K[0], [120, 0, (70 + 0.5) * 0.8 - 0.5 - 8])
    np.testing.assert_allclose(fitted.K[1], [0, 112, (60 + 0.5) * 0.8 - 0.5])


def test_focal_crop_and_slack_magnify(view: View) -> None:
    plain = fit_view(view, (96, 96), Augmentation())
    cropped = fit_view(view, (96, 96), Augmentation(focal_crop=0.9))
    np.testing.assert_allclose(cropped.K[1, 1] / plain.K[1, 1], 1 / 0.9, rtol=1e-6)
    slack = fit_view(view, (96, 96), Augmentation(slack_px=12))
    np.testing.assert_allclose(slack.K[1, 1] / plain.K[1, 1], 108 / 96, rtol=1e-6)


def test_depth_is_never_interpolated(view: View) -> None:
    sparse = np.where(np.arange(160) % 7 == 0, np.float32(5), np.float32(0))
    sparse = np.broadcast_to(sparse, (120, 160)).copy()
    fitted = fit_view(View(view.image, sparse, view.moving, view.K, view.T_world_camera),
                      (48, 64), Augmentation(0.95, 3))  # fmt: skip
    assert set(np.unique(fitted.depth)) == {0, 5}


def test_a_principal_point_at_the_border_is_refused(view: View) -> None:
    far = view.K.copy()
    far[0, 2] = 20
    with pytest.raises(InputError, match=r"principal point \(20, 60\) of an image of 160x120"):
        fit_view(View(view.image, view.depth, view.moving, far, view.T_world_camera), (48, 64),
                 Augmentation())  # fmt: skip


def test_augmentation_is_drawn_as_published() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_augmentation(rng) for _ in range(4000)]
    focal = np.array([a.focal_crop for a in drawn])
    assert focal.min() >= 0.9
    assert focal.max() <= 1
    # Beta(1/2, 1/2): the arcsine law, whose quartiles are at (2 - sqrt 2) / 4 and its mirror image
    np.testing.assert_allclose(
        (np.quantile(focal, (0.25, 0.5, 0.75)) - 0.9) / 0.1, [0.146, 0.5, 0.854], atol=0.03
    )
    assert {a.slack_px for a in drawn} == set(range(16))


def test_colours_change_within_limits(view: View) -> None:
    grey = View(np.full((120, 160, 3), 100, np.uint8), view.depth, view.moving, view.K,
                view.T_world_camera)  # fmt: skip
    values = []
    for seed in range(60):
        fitted = fit_view(grey, (48, 64), Augmentation(jitter=np.random.default_rng(seed)))
        assert np.ptp(fitted.image.astype(int)) <= 1  # no hue, no contrast
        values.append(int(fitted.image[0, 0, 0]))
    assert 49 <= min(values) < 60
    assert 140 < max(values) <= 150
