"""Lens models against COLMAP's and OpenCV's own, and images that are undistorted with them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.geometry.lens import distort, fit_zoom, sampling_positions, source_undistorter, undistort
from dyn3r.io.camera_layouts import _colmap_lens
from dyn3r.io.images import frame_mapping
from dyn3r.types import FrameMapping, Lens

W, H = 320, 240
COLMAP = {
    "SIMPLE_RADIAL": [200, 163, 118, -0.15],
    "RADIAL": [200, 163, 118, -0.15, 0.03],
    "OPENCV": [200, 210, 163, 118, -0.15, 0.03, 0.002, -0.003],
    "FULL_OPENCV": [200, 210, 163, 118, -0.15, 0.03, 0.002, -0.003, 0.01, 0.02, 0.01, 0.005],
    "OPENCV_FISHEYE": [200, 210, 163, 118, -0.05, 0.02, -0.003, 0.001],
    "SIMPLE_RADIAL_FISHEYE": [200, 163, 118, 0.04],
    "RADIAL_FISHEYE": [200, 163, 118, 0.04, -0.01],
    "SIMPLE_FISHEYE": [200, 163, 118],
    "FISHEYE": [200, 210, 163, 118],
}


def grid(step: int = 20) -> np.ndarray:
    u, v = np.meshgrid(np.arange(0, W, step), np.arange(0, H, step))
    return np.stack([u, v], axis=-1).astype(float).reshape(-1, 2)


@pytest.mark.parametrize("model", list(COLMAP))
def test_colmap_has_the_same_pixels(model):
    pycolmap = pytest.importorskip("pycolmap")
    if not hasattr(pycolmap.CameraModelId, model):
        pytest.skip(f"this pycolmap has no model {model}")
    camera = pycolmap.Camera(model=model, width=W, height=H, params=COLMAP[model])
    lens = _colmap_lens(camera)
    uv = grid()
    K = lens.K
    rays = (uv - K[:2, 2]) / K[[0, 1], [0, 1]]
    expected = camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))])) - 0.5
    np.testing.assert_allclose(distort(lens, uv), expected, atol=1e-9)


@pytest.mark.parametrize("model", ["FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE",
                                   "EQUIRECTANGULAR", "DIVISION", "EUCM"])  # fmt: skip
def test_colmaps_other_models_are_refused_by_name(model):
    pycolmap = pytest.importorskip("pycolmap")
    kind = getattr(pycolmap.CameraModelId, model, None)
    if kind is None:
        pytest.skip(f"this pycolmap has no model {model}")
    camera = pycolmap.Camera.create_from_model_id(1, kind, 200.0, W, H)
    with pytest.raises(InputError, match=f"{model}.*not supported"):
        _colmap_lens(camera)


@pytest.mark.parametrize("fisheye", [False, True])
def test_opencv_undistorts_to_the_same_image(fisheye):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (H, W, 3), dtype=np.uint8), (0, 0), 3)
    K = np.array([[200.0, 0, 163], [0, 210, 118], [0, 0, 1]])
    if fisheye:
        k = (-0.05, 0.02, -0.003, 0.001)
        lens = Lens("fisheye", (200, 210), (163, 118), k)
        expected = cv2.fisheye.undistortImage(image, K, np.array(k), Knew=K)
    else:
        lens = Lens("perspective", (200, 210), (163, 118), (-0.15, 0.03, 0.01), (), (0.002, -0.003))
        expected = cv2.undistort(image, K, np.array([-0.15, 0.03, 0.002, -0.003, 0.01]))
    hw = (H, W)
    found = source_undistorter(FrameMapping(hw, hw, (0, 0), hw, lens))(image)
    assert np.abs(found.astype(float) - image).mean() > 3
    assert np.abs(found.astype(float) - expected)[4:-4, 4:-4].mean() < 1


def test_an_image_without_a_lens_stays():
    image = np.zeros((H, W, 3), np.uint8)
    assert source_undistorter(frame_mapping((H, W), size=64))(image) is image


@pytest.mark.parametrize(
    "lens",
    [
        Lens("perspective", (200, 200), (160, 120), (-0.2, 0.05)),  # barrel
        Lens("perspective", (200, 200), (150, 130), (0.25,)),  # pincushion
        Lens("perspective", (150, 150), (160, 120), (-0.35,)),  # folds in the corners
        Lens("fisheye", (120, 120), (160, 120)),
    ],
)
def test_every_pixel_of_undistorted_frames_is_known(lens):
    mapping = frame_mapping((H, W), size=160)
    lens = fit_zoom(lens, mapping)
    h, w = mapping.size_hw
    v, u = np.mgrid[:h, :w].astype(float)
    seen = sampling_positions(replace(mapping, lens=lens), np.stack([u, v], axis=-1))
    assert (seen >= -0.5).all()
    assert (seen <= [w - 0.5, h - 0.5]).all()
    if lens.zoom > 1:  # and no more than needed
        smaller = replace(mapping, lens=replace(lens, zoom=0.99 * lens.zoom))
        seen = sampling_positions(smaller, np.stack([u, v], axis=-1))
        assert not ((seen >= -0.5) & (seen <= [w - 0.5, h - 0.5])).all()


def test_straight_lines_become_straight_in_small_frames():
    """A grid of lines that is straight in the world, at a fifth of the source's size."""
    lens = Lens("perspective", (600, 600), (480, 360), (-0.25, 0.05))
    mapping = frame_mapping((720, 960), size=192)
    lens = fit_zoom(lens, mapping)
    u, v = np.meshgrid(np.arange(960.0), np.arange(720.0))
    # forward: paint the distorted source from the straight one by inverting the map on a grid
    K = np.array([[600.0, 0, 480], [0, 600, 360], [0, 0, 1]])
    points = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    straight = cv2.undistortPoints(points, K, np.array([-0.25, 0.05, 0, 0]), P=lens.K)
    x, y = straight.reshape(720, 960, 2).transpose(2, 0, 1)
    pattern = 128 + 60 * np.sin(x / 40) + 60 * np.sin(y / 30)
    small = cv2.resize(pattern, (192, 144), interpolation=cv2.INTER_AREA).astype(np.uint8)
    found = undistort(small[None], replace(mapping, lens=lens))[0].astype(float)
    u, v = np.meshgrid(np.arange(192.0), np.arange(144.0))
    xy = mapping.to_source(np.stack([u, v], axis=-1))
    expected = 128 + 60 * np.sin(xy[..., 0] / 40) + 60 * np.sin(xy[..., 1] / 30)
    assert np.abs(small - expected).mean() > 20
    assert np.abs(found - expected).mean() < 2


def test_masks_stay_masks():
    lens = Lens("perspective", (200, 200), (160, 120), (-0.2, 0.05))
    hw = (H, W)
    mapping = FrameMapping(hw, hw, (0, 0), hw, lens)
    mask = np.zeros((1, H, W), np.uint8)
    mask[0, 50:90, 30:80] = 1
    found = undistort(mask, mapping, nearest=True)
    assert set(np.unique(found)) == {0, 1}
    assert found.sum() != mask.sum()
