"""Evidence of motion from flow in NumPy and OpenCV, pair by pair."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from dyn3r.motion.residual_means import MAX_SPEED
from dyn3r.motion.rigid_flow import (
    L1_STEPS,
    MIN_DENOMINATOR,
    MIN_SAMPLES,
    MIN_WEIGHT_DENOMINATOR,
    PARALLAX_PRIOR,
    ROBUST_STEPS,
    SAMPLES,
)
from dyn3r.motion.rigid_residual import (
    COLOR_NOISE,
    COLOR_WINDOW_PX,
    MIN_VISIBLE,
    NOISE_FACTOR,
    NOISE_PX,
    NOISE_SHARE,
)
from dyn3r.types import FlowFields
from tests.oracles.flow_sampling import round_trip_px, sample_along_flow

Array = np.ndarray
_FIRST, _SECOND = np.triu_indices(4)


class PairResidual(NamedTuple):
    """As `dyn3r.motion.residual_means.PairResidual`, with velocities in percent of the width."""

    evidence: Array
    distance_px: Array
    by_distance: Array
    by_color: Array
    velocity: Array


def parts(inverse_depth: Array, images: Array, flow: FlowFields, tolerance: float) -> Array:
    """Means over the pairs of every frame: `FlowEvidence.parts`."""
    n, h, w = inverse_depth.shape
    row_of = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    sums, count, pairs = np.zeros((n, 6, h, w)), np.zeros((n, h, w)), np.zeros(n)
    for row, (i, j) in enumerate(flow.edges.tolist()):
        field, visible = flow.flow[row].astype(np.float32), flow.visible[row]
        if visible.mean() < MIN_VISIBLE:
            continue
        P = fit_static_flow(field[None], visible[None], inverse_depth[i][None], NOISE_PX)[0]
        static = nearest_static_flow(P, field, inverse_depth[i], tolerance)
        back = row_of.get((j, i))
        found = _pair_residual(
            field, static, None if back is None else flow.flow[back], visible, j - i
        )
        found = _with_colors(found, images[i], images[j], field, static)
        u, v = np.moveaxis(found.velocity, -1, 0).clip(-MAX_SPEED, MAX_SPEED)
        maps = [found.evidence, found.by_distance, found.by_color, found.evidence**2, u, v]
        sums[i] += np.where(visible, np.stack(maps), 0)
        count[i] += visible
        pairs[i] += 1
    mean, distance, color, squared, u, v = np.moveaxis(sums, 1, 0) / np.maximum(count, 1)
    deviation = np.sqrt((squared - mean**2).clip(0))
    share = count / np.maximum(pairs, 1)[:, None, None]
    return np.stack([mean, distance, color, deviation, share, u, v], 1)


def centred_grid(size_hw: tuple[int, int]) -> Array:
    """Coordinates of every pixel from the centre, in units of half the width; read-only."""
    height, width = size_hw
    v, u = np.mgrid[:height, :width].astype(np.float64)
    grid = np.stack([u - (width - 1) / 2, v - (height - 1) / 2], -1) / (width / 2)
    grid.setflags(write=False)
    return grid


def _homogeneous_grid(size_hw: tuple[int, int]) -> Array:
    """`centred_grid` with a third coordinate of 1, float32, coordinates along the first axis."""
    grid = centred_grid(size_hw).reshape(-1, 2).T
    out = np.concatenate([grid, np.ones_like(grid[:1])]).astype(np.float32)
    out.setflags(write=False)
    return out


def length_of(field: Array) -> Array:
    """Length of every vector. Several times as fast as `np.linalg.norm` along a short axis."""
    return np.asarray(np.sqrt(_product(field, field)))


def fit_static_flow(
    flow: Array,
    usable: Array,
    inverse_depth: Array,
    noise_px: float,
) -> Array:
    """Matrix P of each flow field: the motion that most of its pixels agree on.

    `inverse_depth` has a median of about 1. Robust least squares: least absolute distances, then
    Geman-McClure's redescending weights with a width that shrinks to the typical distance but not
    below `noise_px`. Deterministic. NaN where fewer than MIN_SAMPLES samples are usable.
    """
    h, w = (int(s) for s in flow.shape[1:3])
    stride = max(1, round((h * w / SAMPLES) ** 0.5))
    pick = np.s_[:, stride // 2 :: stride, stride // 2 :: stride]
    # coordinates first: arithmetic along many samples is faster than along two coordinates
    grid = centred_grid((h, w))[None][pick].reshape(-1, 2).T
    moved = flow[pick].reshape(len(flow), -1, 2).transpose(0, 2, 1).astype(np.float64)
    target = grid + moved / (w / 2)
    ok = usable[pick].reshape(len(flow), -1)
    enough = ok.sum(1) >= MIN_SAMPLES
    ok = ok | ~enough[:, None]  # keeps the equations solvable; the result is replaced by NaN
    points = np.empty((len(flow), 4, target.shape[2]))
    points[:, :2], points[:, 2] = grid, 1.0
    points[:, 3] = inverse_depth[pick].reshape(len(flow), -1) - 1
    P = _reweighted(points, target, ok, noise_px / (w / 2))
    P[~enough] = np.nan
    return P


def nearest_static_flow(
    P: Array,
    flow: Array,
    inverse_depth: Array,
    depth_tolerance: float = 1.0,
) -> Array:
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


def _product(a: Array, b: Array) -> Array:
    """Scalar products of two-vectors along the last axis."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1])


def _moved(
    at_infinity: Array,
    parallax: Array,
    inverse_depth: Array,
) -> Array:
    """Where P maps pixels of this inverse depth; `at_infinity`: those of inverse depth 1."""
    ends = at_infinity + parallax * (inverse_depth - 1)
    return np.asarray(ends[:2] / np.maximum(ends[2:], np.float32(MIN_DENOMINATOR)))


def _reweighted(points: Array, target: Array, ok: Array, noise: float) -> Array:
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


def _median_of(values: Array, ok: Array) -> Array:
    """Median of each row over the entries that are ok; every row has some."""
    ordered, count = np.sort(np.where(ok, values, np.inf), axis=1), ok.sum(1)
    low, high = (np.take_along_axis(ordered, m[:, None], 1) for m in ((count - 1) // 2, count // 2))
    return np.asarray((low + high)[:, 0] / 2)


def _distance(P: Array, points: Array, target: Array) -> tuple[Array, Array]:
    """Distance of each mapped point from its target, and the projective denominator."""
    ends = P @ points
    off = ends[:, :2] / np.maximum(ends[:, 2:], MIN_DENOMINATOR) - target
    return np.sqrt(off[:, 0] ** 2 + off[:, 1] ** 2), ends[:, 2]


def _geometric_weight(denominator: Array) -> Array:
    """Weight that turns the algebraic into the geometric error; 0 behind the camera."""
    return (denominator > MIN_DENOMINATOR) / np.maximum(denominator, MIN_WEIGHT_DENOMINATOR) ** 2


def _products(points: Array, target: Array) -> Array:
    """What the normal equations sum with weights: products of the coordinates of each point, once,
    times x and y of its target, and times x^2 + y^2."""
    pairs = points[:, _FIRST] * points[:, _SECOND]
    x, y = target[:, :1], target[:, 1:]
    return np.concatenate([pairs, x * pairs, y * pairs, (x * x + y * y) * pairs], 1)


def _solve(products: Array, weight: Array) -> Array:
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


def _pair_residual(
    measured: Array,
    static: Array,
    backward: Array | None,
    visible: Array,
    frames_apart: int,
) -> PairResidual:
    """Residual of one pair: evidence s^2 / (s^2 + k^2), s = distance / standard error."""
    distance_px = length_of(static - measured)
    miss_px = 0.0 if backward is None else round_trip_px(measured, backward)
    noise_px = np.sqrt(NOISE_PX**2 + (NOISE_SHARE * length_of(measured)) ** 2 + miss_px**2)
    # where the whole pair fits badly (wrong depth, failed flow) only outliers count
    noise_px = np.maximum(noise_px, 1.48 * np.median(distance_px[visible]))
    squared = (distance_px / (NOISE_FACTOR * noise_px)) ** 2
    evidence = squared / (squared + 1)
    velocity = (measured - static) * (100 / measured.shape[1] / float(frames_apart))
    return PairResidual(evidence, distance_px, evidence, np.ones_like(evidence), velocity)


def _with_colors(
    residual: PairResidual,
    source: Array,
    target: Array,
    measured: Array,
    static: Array,
) -> PairResidual:
    """Geometric mean of the evidence and of how much worse static-scene flow explains the colours.

    The latter is a^2 / (a^2 + 2 (b^2 + noise^2)), where a and b are the mean differences of colours
    after warping the target by static-scene and by measured flow: 1/3 where both are equally bad,
    near 0 where both are good.
    """
    a, b = (_color_difference(source, target, field) for field in (static, measured))
    by_color = a**2 / (a**2 + 2 * (b**2 + COLOR_NOISE**2))
    return residual._replace(evidence=np.sqrt(residual.evidence * by_color), by_color=by_color)


def _color_difference(
    source: Array,
    target: Array,
    field: Array,
) -> Array:
    """Mean absolute difference (0..255) of the source from the target warped by the flow."""
    warped = sample_along_flow(target, field).astype(np.float32)
    difference = np.abs(warped - source.astype(np.float32)) @ np.full(3, 1 / 3, np.float32)
    window = (COLOR_WINDOW_PX, COLOR_WINDOW_PX)
    return np.asarray(cv2.boxFilter(difference, -1, window, borderType=cv2.BORDER_REFLECT))
