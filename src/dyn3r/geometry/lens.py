"""Lens distortion: from undistorted pixels to those of the source, and images without it.

Only this direction is needed: an undistorted image is sampled where the source shows each of its
pixels. Models: `dyn3r.types.Lens`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Shaped

from dyn3r.errors import InputError
from dyn3r.types import FrameMapping, Lens

MAX_ZOOM = 8.0
Image = Shaped[np.ndarray, "source_h source_w *channels"]
_RADIUS = np.linspace(0.0, 20.0, 20_001)  # tangents of the angle to the optical axis


def distort(lens: Lens, uv: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
    """Pixels of the undistorted source -> pixels of the source, integer pixel centres.

    NaN beyond the angle up to which the model is monotonic: there a polynomial turns back.
    """
    focal, centre = np.asarray(lens.focal_xy), np.asarray(lens.centre_xy)
    xy = (uv - centre) / (lens.zoom * focal)
    x, y = xy[..., 0], xy[..., 1]
    radius = np.hypot(x, y)
    p1, p2 = lens.tangential
    with np.errstate(all="ignore"):  # far outside the range of the model
        bent: np.ndarray = xy * _stretch(lens, radius)[..., None]
        bent[..., 0] += 2 * p1 * x * y + p2 * (radius**2 + 2 * x**2)
        bent[..., 1] += p1 * (radius**2 + 2 * y**2) + 2 * p2 * x * y
    bent[radius > _largest_radius(lens)] = np.nan
    return bent * focal + centre


def _stretch(lens: Lens, radius: np.ndarray) -> np.ndarray:
    """Distorted radius over undistorted radius."""
    if lens.model == "perspective":
        return _series(lens.radial, radius**2) / _series(lens.denominator, radius**2)
    angle = np.arctan(radius)
    ratio = np.divide(angle, radius, out=np.ones_like(angle), where=radius > 0)
    stretch: np.ndarray = ratio * _series(lens.radial, angle**2)
    return stretch


def _series(coefficients: tuple[float, ...], square: np.ndarray) -> np.ndarray:
    """1 + k1 s + k2 s^2 + ..."""
    out = np.zeros_like(square)
    for coefficient in reversed(coefficients):
        out = (out + coefficient) * square
    return out + 1.0


def _largest_radius(lens: Lens) -> float:
    """The radius up to which the distorted radius grows."""
    with np.errstate(all="ignore"):
        steps = np.diff(_RADIUS * _stretch(lens, _RADIUS))
    falling = np.flatnonzero(~(steps > 0))
    return float(_RADIUS[falling[0]] if len(falling) else _RADIUS[-1])


def undistorted_K(lens: Lens, K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of the source -> intrinsics of the undistorted source."""
    out = np.array(K, dtype=np.float64)
    out[:2, :2] *= lens.zoom
    out[:2, 2] = lens.centre_xy + lens.zoom * (out[:2, 2] - lens.centre_xy)
    return out


def distorted_K(lens: Lens, K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of the undistorted source -> intrinsics of the source."""
    out = np.array(K, dtype=np.float64)
    out[:2, :2] /= lens.zoom
    out[:2, 2] = lens.centre_xy + (out[:2, 2] - lens.centre_xy) / lens.zoom
    return out


def fit_zoom(lens: Lens, mapping: FrameMapping) -> Lens:
    """The lens with the smallest zoom, 1 or more, for which all pixels of the frames are known.

    Raises InputError if there is none up to MAX_ZOOM.
    """
    h, w = mapping.size_hw
    u, v = np.meshgrid(np.arange(w), np.arange(h))
    border = (u == 0) | (v == 0) | (u == w - 1) | (v == h - 1)
    uv = np.stack([u[border], v[border]], axis=-1).astype(np.float64)

    def fits(zoom: float) -> bool:
        seen = sampling_positions(replace(mapping, lens=replace(lens, zoom=zoom)), uv)
        return bool(((seen >= -0.5) & (seen <= [w - 0.5, h - 0.5])).all())

    if fits(1.0):
        return replace(lens, zoom=1.0)
    low, high = 1.0, MAX_ZOOM
    if not fits(high):
        raise InputError("the lens distortion is too strong for its own model: undistort first")
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return replace(lens, zoom=high)


def sampling_positions(
    mapping: FrameMapping, uv: Float[np.ndarray, "*batch 2"]
) -> Float[np.ndarray, "*batch 2"]:
    """Where the frames before undistortion show the pixels `uv` of the undistorted frames."""
    assert mapping.lens is not None
    return mapping.from_source(distort(mapping.lens, mapping.to_source(uv)))


def undistort(
    images: Shaped[np.ndarray, "n h w *channels"], mapping: FrameMapping, *, nearest: bool = False
) -> Shaped[np.ndarray, "n h w *channels"]:
    """Prepared frames without the distortion of their lenses; `nearest`: for masks and depth.

    Frames of a mapping without a lens stay as they are.
    """
    if mapping.frame_lenses or mapping.is_mixed:
        frames = [
            undistort(images[t : t + 1], mapping.of_frame(t), nearest=nearest)
            for t in range(len(images))
        ]
        return np.concatenate(frames)
    if mapping.lens is None:
        return images
    return _sampled(images, _grid(mapping.size_hw, mapping), nearest=nearest)


def source_undistorter(mapping: FrameMapping) -> Callable[[Image], Image]:
    """A function that removes the distortion of `mapping.lens` from source images.

    Without a lens it returns them as they are.
    """
    if mapping.lens is None:
        return lambda image: image
    hw = mapping.source_hw
    positions = _grid(hw, FrameMapping(hw, hw, (0, 0), hw, mapping.lens))
    return lambda image: _sampled(image[None], positions, nearest=False)[0]


def _grid(hw: tuple[int, int], mapping: FrameMapping) -> Float[np.ndarray, "h w 2"]:
    u, v = np.meshgrid(np.arange(hw[1]), np.arange(hw[0]))
    return sampling_positions(mapping, np.stack([u, v], axis=-1).astype(np.float64))


def _sampled(images: np.ndarray, positions: np.ndarray, *, nearest: bool) -> np.ndarray:
    import cv2

    where = np.nan_to_num(positions, nan=-1e4).astype(np.float32)
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    out = [
        cv2.remap(image, where[..., 0], where[..., 1], method, borderMode=cv2.BORDER_REPLICATE)
        for image in images
    ]
    return np.stack(out)
