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

from functools import partial

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

PARALLAX_PRIOR = 1e-3
"""Weight of the prior of zero parallax, relative to that of the pixels. It decides only where the
pixels do not, as for a camera that only rotates."""
MIN_DENOMINATOR = 0.05
"""Lower bound of the projective denominator, for pixels that a matrix maps behind the camera."""
MIN_WEIGHT_DENOMINATOR = 0.2
"""Lower bound of the denominator in the weights, so that no single pixel dominates."""
SAMPLES = 1500
"""About as many pixels of a pair are used for the fit."""
MIN_SAMPLES = 50
"""Usable samples that a fit needs."""
L1_STEPS = 6
"""Steps of least absolute distances, before the redescending weights."""
ROBUST_STEPS = 20
"""Steps with Geman-McClure weights."""
_PAIRS = ((0, 1, 2, 3), (1, 4, 5, 6), (2, 5, 7, 8), (3, 6, 8, 9))
"""Number of the product of two coordinates of a point among the ten that are summed."""
_UNKNOWNS = tuple(
    (row, column) for row in range(3) for column in range(4) if (row, column) != (2, 2)
)
"""Entries of P that are unknown; P[2, 2] is 1."""


def centred_grid(
    size_hw: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "2 h w"]:
    """Coordinates of every pixel from the centre, in units of half the width."""
    v, u = (
        (torch.arange(side, device=device, dtype=dtype) - (side - 1) / 2) / (size_hw[1] / 2)
        for side in size_hw
    )
    return torch.stack(torch.meshgrid(u, v, indexing="xy"))


def length_of(field: Tensor) -> Tensor:
    """Length of every vector: (k, 2, *shape) to (k, *shape)."""
    return (field[:, 0].square() + field[:, 1].square()).sqrt()


def fit_stride(size_hw: tuple[int, int]) -> int:
    """Distance in pixels of the samples that are used for a fit."""
    return max(1, round((size_hw[0] * size_hw[1] / SAMPLES) ** 0.5))


def fit_static_flow(
    flow: Float[Tensor, "k 2 h w"],
    usable: Bool[Tensor, "k h w"],
    inverse_depth: Float[Tensor, "k h w"],
    noise_px: float,
) -> Float64[Tensor, "k 3 4"]:
    """Matrix P of each flow field: the motion that most of its pixels agree on.

    `inverse_depth` has a median of about 1. Robust least squares: least absolute distances, then
    Geman-McClure's redescending weights with a width that shrinks to the typical distance but not
    below `noise_px`. Deterministic. NaN where fewer than MIN_SAMPLES samples are usable. In double
    precision; nothing is read back from the device.
    """
    h, w = int(flow.shape[2]), int(flow.shape[3])
    stride = fit_stride((h, w))
    pick = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    grid = centred_grid((h, w), flow.device, torch.float64)[pick].flatten(1)
    target = grid + flow[pick].flatten(2).double() / (w / 2)
    ok = usable[pick].flatten(1)
    enough = ok.sum(1) >= MIN_SAMPLES
    ok = ok | ~enough[:, None]  # keeps the equations solvable; the result is replaced by NaN
    rho = inverse_depth[pick].flatten(1).double() - 1
    u, v = grid[:, None].expand(2, *rho.shape)
    points = torch.stack([u, v, torch.ones_like(u), rho], 1)
    P = _reweighted(points, target, ok, noise_px / (w / 2))
    return torch.where(enough[:, None, None], P, torch.nan)


def nearest_static_flow(
    P: Float64[Tensor, "k 3 4"],
    flow: Float32[Tensor, "k 2 h w"],
    inverse_depth: Float32[Tensor, "k h w"],
    depth_tolerance: float = 1.0,
    grid: Float32[Tensor, "2 h w"] | None = None,
) -> Float32[Tensor, "k 2 h w"]:
    """Flow in pixels that a static scene can show at each pixel, nearest to the measured flow.

    Any inverse depth within a factor of `depth_tolerance` of `inverse_depth` is possible, which
    allows a segment of the epipolar line. 1: exactly as predicted. Single precision. `grid`: that
    of `centred_grid`, if it is known.
    """
    h, w = int(flow.shape[2]), int(flow.shape[3])
    grid = centred_grid((h, w), flow.device) if grid is None else grid
    columns = P.float()[..., None, None].unbind(2)
    at_infinity, parallax = columns[0] * grid[0] + columns[1] * grid[1] + columns[2], columns[3]
    inverse = inverse_depth[:, None]
    nearest = _moved(at_infinity, parallax, inverse / depth_tolerance)
    if depth_tolerance > 1:
        target = grid + flow / (w / 2)
        along = _moved(at_infinity, parallax, inverse * depth_tolerance) - nearest
        share = ((target - nearest) * along).sum(1) / (along.square().sum(1) + 1e-15)
        nearest = nearest + share.clamp(0, 1)[:, None] * along
    return (nearest - grid) * (w / 2)


def _moved(
    at_infinity: Float[Tensor, "k 3 h w"],
    parallax: Float[Tensor, "k 3 1 1"],
    inverse_depth: Float[Tensor, "k 1 h w"],
) -> Float[Tensor, "k 2 h w"]:
    """Where P maps pixels of this inverse depth; `at_infinity`: those of inverse depth 1."""
    ends = torch.addcmul(at_infinity, parallax, inverse_depth - 1)
    return ends[:, :2] / ends[:, 2:].clamp(min=MIN_DENOMINATOR)


def _reweighted(
    points: Tensor, target: Tensor, ok: Tensor, noise: float
) -> Float64[Tensor, "k 3 4"]:
    """Iteratively re-weighted least squares: L1 steps, then steps with a shrinking width."""
    used, products = ok.double(), _products(points, target)
    solve = partial(_solve, products, _equations(ok.device))
    P = solve(used)
    for _ in range(L1_STEPS):
        distance, denominator = _distance(P, points, target)
        P = solve(used * _geometric_weight(denominator) / distance.clamp(min=noise))
    width = None
    for _ in range(ROBUST_STEPS):
        distance, denominator = _distance(P, points, target)
        # every row has some that are ok; this is several times as fast as a sort
        typical = torch.where(ok, distance, torch.nan).nanmedian(1).values
        typical = (1.48 * typical).clamp(min=noise)
        if width is None:
            width = 4 * typical
        else:
            width = torch.maximum(0.75 * width, torch.minimum(typical, width))
        squared = width.square()[:, None]
        weight = (squared / (squared + distance.square())).square()
        P = solve(used * _geometric_weight(denominator) * weight)
    return P


def _distance(
    P: Tensor, points: Tensor, target: Tensor
) -> tuple[Float64[Tensor, "k s"], Float64[Tensor, "k s"]]:
    """Distance of each mapped point from its target, and the projective denominator."""
    ends = P @ points
    off = ends[:, :2] / ends[:, 2:].clamp(min=MIN_DENOMINATOR) - target
    return length_of(off), ends[:, 2]


def _geometric_weight(denominator: Tensor) -> Tensor:
    """Weight that turns the algebraic into the geometric error; 0 behind the camera."""
    in_front = denominator > MIN_DENOMINATOR
    return in_front / denominator.clamp(min=MIN_WEIGHT_DENOMINATOR).square()


def _products(
    points: Float64[Tensor, "k 4 s"], target: Float64[Tensor, "k 2 s"]
) -> Float64[Tensor, "k 40 s"]:
    """What the normal equations sum with weights: products of the coordinates of each point, once,
    times x and y of its target, and times x^2 + y^2."""
    pairs = torch.cat([points[:, a : a + 1] * points[:, a:] for a in range(4)], 1)
    x, y = target[:, :1], target[:, 1:]
    return torch.cat([pairs, x * pairs, y * pairs, (x * x + y * y) * pairs], 1)


def _equations(device: torch.device) -> tuple[Int[Tensor, " 132"], Float64[Tensor, " 132"]]:
    """Where the normal equations and their right side, 11 x 12, are among the sums; their signs."""
    places, signs = [], []
    for row, column in _UNKNOWNS:
        for other, across in (*_UNKNOWNS, (2, 2)):
            # sums of products; times x; times y; times x^2 + y^2
            block = (0 if row < 2 else 3) if row == other else 1 + min(row, other)
            places.append(10 * block + _PAIRS[column][across])
            coupled = row == other or 2 in (row, other)
            signs.append(float(coupled) if row == other else -float(coupled))
        signs[-1] = -signs[-1]  # what is known is on the right side
    return (
        torch.tensor(places, device=device),
        torch.tensor(signs, dtype=torch.float64, device=device),
    )


def _solve(
    products: Float64[Tensor, "k 40 s"],
    equations: tuple[Int[Tensor, " 132"], Float64[Tensor, " 132"]],
    weight: Float64[Tensor, "k s"],
) -> Float64[Tensor, "k 3 4"]:
    """Weighted linear least squares for P with P[2, 2] = 1: 11 unknowns per pair."""
    places, signs = equations
    # a row times a matrix: on a CPU several times as fast as the matrix times a column
    sums = (weight[:, None] @ products.transpose(1, 2))[:, 0]
    normal, right = torch.split((sums[:, places] * signs).view(-1, 11, 12), [11, 1], 2)
    total = weight.sum(1, keepdim=True)
    diagonal = torch.diagonal(normal, dim1=1, dim2=2)
    diagonal += 1e-9 * total + 1e-12
    for parallax in (3, 7, 10):
        diagonal[:, parallax] += PARALLAX_PRIOR * total[:, 0]
    solution = torch.linalg.solve_ex(normal, right).result[..., 0]  # `solve` waits for the device
    one = torch.ones_like(total)
    return torch.cat([solution[:, :10], one, solution[:, 10:]], 1).view(-1, 3, 4)
