"""Static-scene flow fitted to measured flow.

A static scene with inverse depth rho moves every pixel x = (u, v, 1) to x' ~ K R K^-1 x + rho K t:
a 3x4 matrix P applied to (u, v, 1, rho). It holds for any rotation, translation and focal length,
so nothing of the camera needs to be known. P also absorbs a wrong scale, shift and tilt of rho (all
affine in u, v, 1), so only the shape of the predicted depth counts. Without parallax, or with
constant rho, it is a homography. Source: Hartley and Zisserman 2004, sections 7.1 (resectioning)
and 13.3 (plane and parallax). Coordinates are pixels from the centre of the image over half its
width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

PARALLAX_PRIOR = 1e-3
"""Weight of the prior of zero parallax, relative to that of the pixels. It decides only where the
pixels do not, as for a camera that only rotates."""
MIN_DENOMINATOR = 0.05
"""Lower bound of the projective denominator, for pixels that a matrix maps behind the camera."""
MIN_WEIGHT_DENOMINATOR = 0.2
"""Lower bound of the denominator in the weights, so that no single pixel dominates."""
SAMPLES = 1500
"""About as many pixels of a pair are used for the fit."""
MIN_PIXELS = 50
"""Usable pixels that a fit needs."""
L1_STEPS = 6
"""Steps of least absolute distances, before the redescending weights."""
ROBUST_STEPS = 20
"""Steps with Geman-McClure weights."""
_FIRST, _SECOND = np.triu_indices(4)
"""Entries of a symmetric 4x4 matrix that are stored."""


@lru_cache(maxsize=4)
def centred_grid(size_hw: tuple[int, int]) -> Float[np.ndarray, "h w 2"]:
    """Coordinates of every pixel from the centre, in units of half the width; read-only."""
    height, width = size_hw
    v, u = np.mgrid[:height, :width].astype(np.float64)
    grid = np.stack([u - (width - 1) / 2, v - (height - 1) / 2], -1) / (width / 2)
    grid.setflags(write=False)
    return grid


@lru_cache(maxsize=4)
def _homogeneous_grid(size_hw: tuple[int, int]) -> Float[np.ndarray, "3 p"]:
    """`centred_grid` with a third coordinate of 1, float32, coordinates along the first axis."""
    grid = centred_grid(size_hw).reshape(-1, 2).T
    out = np.concatenate([grid, np.ones_like(grid[:1])]).astype(np.float32)
    out.setflags(write=False)
    return out


def length_of(field: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape"]:
    """Length of every vector. Several times as fast as `np.linalg.norm` along a short axis."""
    return np.asarray(np.sqrt(_product(field, field)))


def fit_static_flow(
    flow: Float[np.ndarray, "k h w 2"],
    usable: Bool[np.ndarray, "k h w"],
    inverse_depth: Float[np.ndarray, "k h w"],
    noise_px: float,
) -> Float[np.ndarray, "k 3 4"]:
    """Matrix P of each flow field: the motion that most of its pixels agree on.

    `inverse_depth` has a median of about 1. Robust least squares: least absolute distances, then
    Geman-McClure's redescending weights with a width that shrinks to the typical distance but not
    below `noise_px`. Deterministic. NaN where fewer than MIN_PIXELS pixels are usable.
    """
    h, w = (int(s) for s in flow.shape[1:3])
    stride = max(1, round((h * w / SAMPLES) ** 0.5))
    pick = np.s_[:, stride // 2 :: stride, stride // 2 :: stride]
    # coordinates first: arithmetic along many samples is faster than along two coordinates
    grid = centred_grid((h, w))[None][pick].reshape(-1, 2).T
    moved = flow[pick].reshape(len(flow), -1, 2).transpose(0, 2, 1).astype(np.float64)
    target = grid + moved / (w / 2)
    ok = usable[pick].reshape(len(flow), -1)
    enough = ok.sum(1) * stride**2 >= MIN_PIXELS
    ok = ok | ~enough[:, None]  # keeps the equations solvable; the result is replaced by NaN
    points = np.empty((len(flow), 4, target.shape[2]))
    points[:, :2], points[:, 2] = grid, 1.0
    points[:, 3] = inverse_depth[pick].reshape(len(flow), -1) - 1
    P = _reweighted(points, target, ok, noise_px / (w / 2))
    P[~enough] = np.nan
    return P


def nearest_static_flow(
    P: Float[np.ndarray, "3 4"],
    flow: Float[np.ndarray, "h w 2"],
    inverse_depth: Float[np.ndarray, "h w"],
    depth_tolerance: float = 1.0,
) -> Float[np.ndarray, "h w 2"]:
    """Flow in pixels that a static scene can show at each pixel, nearest to the measured flow.

    Any inverse depth within a factor of `depth_tolerance` of `inverse_depth` is possible, which
    allows a segment of the epipolar line. 1: exactly as predicted. Single precision.
    """
    h, w = (int(side) for side in flow.shape[:2])
    half, grid = np.float32(w / 2), _homogeneous_grid((h, w))
    matrix, inverse = P.astype(np.float32), inverse_depth.reshape(1, -1).astype(np.float32)
    at_infinity, parallax = matrix[:, :3] @ grid, matrix[:, 3:]
    nearest = _moved(at_infinity, parallax, inverse / np.float32(depth_tolerance))
    if depth_tolerance > 1:
        target = grid[:2] + flow.reshape(-1, 2).T.astype(np.float32) / half
        along = _moved(at_infinity, parallax, inverse * np.float32(depth_tolerance)) - nearest
        share = ((target - nearest) * along).sum(0) / ((along * along).sum(0) + np.float32(1e-15))
        nearest = nearest + share.clip(0, 1) * along
    return np.ascontiguousarray(((nearest - grid[:2]) * half).T).reshape(h, w, 2)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products of two-vectors along the last axis."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1])


def _moved(
    at_infinity: Float[np.ndarray, "3 p"],
    parallax: Float[np.ndarray, "3 1"],
    inverse_depth: Float[np.ndarray, "1 p"],
) -> Float[np.ndarray, "2 p"]:
    """Where P maps pixels of this inverse depth; `at_infinity`: those of inverse depth 1."""
    ends = at_infinity + parallax * (inverse_depth - 1)
    return np.asarray(ends[:2] / np.maximum(ends[2:], np.float32(MIN_DENOMINATOR)))


def _reweighted(
    points: np.ndarray, target: np.ndarray, ok: np.ndarray, noise: float
) -> Float[np.ndarray, "k 3 4"]:
    """Iteratively re-weighted least squares: L1 steps, then steps with a shrinking width."""
    used, products = ok.astype(np.float64), _products(points, target)
    P = _solve(products, used)
    for _ in range(L1_STEPS):
        distance, denominator = _distance(P, points, target)
        P = _solve(products, used * _geometric_weight(denominator) / np.maximum(distance, noise))
    width = np.full(len(points), np.inf)
    for step in range(ROBUST_STEPS):
        distance, denominator = _distance(P, points, target)
        typical = 1.48 * _median_of(distance, ok)
        typical = np.maximum(typical, noise)
        width = 4 * typical if step == 0 else np.maximum(0.75 * width, np.minimum(typical, width))
        squared = (width**2)[:, None]
        weight = (squared / (squared + distance**2)) ** 2
        P = _solve(products, used * _geometric_weight(denominator) * weight)
    return P


def _median_of(values: np.ndarray, ok: np.ndarray) -> Float[np.ndarray, " k"]:
    """Median of each row over the entries that are ok; every row has some."""
    ordered, count = np.sort(np.where(ok, values, np.inf), axis=1), ok.sum(1)
    low, high = (np.take_along_axis(ordered, m[:, None], 1) for m in ((count - 1) // 2, count // 2))
    return np.asarray((low + high)[:, 0] / 2)


def _distance(
    P: np.ndarray, points: np.ndarray, target: np.ndarray
) -> tuple[Float[np.ndarray, "k s"], Float[np.ndarray, "k s"]]:
    """Distance of each mapped point from its target, and the projective denominator."""
    ends = P @ points
    off = ends[:, :2] / np.maximum(ends[:, 2:], MIN_DENOMINATOR) - target
    return np.sqrt(off[:, 0] ** 2 + off[:, 1] ** 2), ends[:, 2]


def _geometric_weight(denominator: np.ndarray) -> np.ndarray:
    """Weight that turns the algebraic into the geometric error; 0 behind the camera."""
    return (denominator > MIN_DENOMINATOR) / np.maximum(denominator, MIN_WEIGHT_DENOMINATOR) ** 2


def _products(
    points: Float[np.ndarray, "k 4 s"], target: Float[np.ndarray, "k 2 s"]
) -> Float[np.ndarray, "k 40 s"]:
    """What the normal equations sum with weights: products of the coordinates of each point, once,
    times x and y of its target, and times x^2 + y^2."""
    pairs = points[:, _FIRST] * points[:, _SECOND]
    x, y = target[:, :1], target[:, 1:]
    return np.concatenate([pairs, x * pairs, y * pairs, (x * x + y * y) * pairs], 1)


def _solve(
    products: Float[np.ndarray, "k 40 s"], weight: Float[np.ndarray, "k s"]
) -> Float[np.ndarray, "k 3 4"]:
    """Weighted linear least squares for P with P[2, 2] = 1: 11 unknowns per pair.

    The unknowns are the first row, the second row, and entries 0, 1, 3 of the third.
    """
    third, count = [0, 1, 3], len(products)
    sums = (products @ weight[..., None]).reshape(count, 4, len(_FIRST))
    matrices = np.empty((count, 4, 4, 4))
    matrices[:, :, _FIRST, _SECOND] = matrices[:, :, _SECOND, _FIRST] = sums
    plain, *once, twice = np.moveaxis(matrices, 1, 0)
    normal, right = np.zeros((count, 11, 11)), np.zeros((count, 11))
    for axis in (0, 1):
        rows = slice(4 * axis, 4 * axis + 4)
        normal[:, rows, rows] = plain
        normal[:, rows, 8:] = -once[axis][:, :, third]
        normal[:, 8:, rows] = -once[axis][:, third, :]
        right[:, rows] = once[axis][:, :, 2]
    normal[:, 8:, 8:] = twice[:, third][:, :, third]
    right[:, 8:] = -twice[:, third, 2]
    total = weight.sum(1)
    for parallax in (3, 7, 10):
        normal[:, parallax, parallax] += PARALLAX_PRIOR * total
    diagonal = np.arange(11)
    normal[:, diagonal, diagonal] += 1e-9 * total[:, None] + 1e-12
    solution = np.linalg.solve(normal, right[..., None])[..., 0]
    P = np.ones((count, 3, 4))
    P[:, :2] = solution[:, :8].reshape(-1, 2, 4)
    P[:, 2, third] = solution[:, 8:]
    return P
