"""Filters of images on any device of PyTorch: means over windows, and their borders; medians."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import pad


def window_sum(x: Float[Tensor, "*batch h w"], side: int) -> Float[Tensor, "*batch h2 w2"]:
    """Sums over all windows of `side` x `side` pixels that lie within the image.

    Along one axis after the other, by sums of 1, 2, 4, ... pixels: on a CPU several times as fast
    as pooling.
    """
    return _runs(_runs(x, side, -1), side, -2)


def _runs(x: Tensor, side: int, axis: int) -> Tensor:
    """Sums of `side` successive values along an axis."""
    length = int(x.shape[axis]) - side + 1
    out, covered, size = None, 0, 1
    while True:  # `x` holds sums of `size` values
        if side & size:
            part = x.narrow(axis, covered, length)
            out, covered = part if out is None else out + part, covered + size
        if covered == side:
            assert out is not None
            return out
        reach = int(x.shape[axis]) - size
        x, size = x.narrow(axis, 0, reach) + x.narrow(axis, size, reach), 2 * size


def window_mean_reflect(x: Float[Tensor, "n h w"], side: int) -> Float[Tensor, "n h w"]:
    """Means over the windows around all pixels; `side` is odd, at most twice the image less one.

    Outside is the mirror image about the outermost pixels (OpenCV's BORDER_REFLECT_101).
    """
    return window_sum(pad(x, (side // 2,) * 4, mode="reflect"), side) / side**2


def window_mean_repeat(x: Float[Tensor, "*batch h w"], side: int) -> Float[Tensor, "*batch h w"]:
    """Means over the windows around all pixels; `side` is odd, at most twice the image.

    Outside is the mirror image with the outermost pixels repeated (OpenCV's BORDER_REFLECT).
    """
    reach = side // 2
    if not reach:
        return x
    wide = torch.cat([x[..., :reach].flip(-1), x, x[..., -reach:].flip(-1)], -1)
    wide = torch.cat([wide[..., :reach, :].flip(-2), wide, wide[..., -reach:, :].flip(-2)], -2)
    return window_sum(wide, side) / side**2


def window_mean_inside(x: Float[Tensor, "*batch h w"], side: int) -> Float[Tensor, "*batch h w"]:
    """Means over those pixels of the windows (`side` is odd) that lie within the image."""
    around = (side // 2,) * 4
    count = window_sum(pad(torch.ones_like(x[(0,) * (x.dim() - 2)]), around), side)
    return window_sum(pad(x, around), side) / count


def window_max(x: Shaped[Tensor, "*batch h w"], side: int) -> Shaped[Tensor, "*batch h w"]:
    """Largest values of the windows (`side` is odd) around all pixels; outside nothing counts."""
    out = x
    for axis in (-1, -2):
        before, length = out, int(x.shape[axis])
        out = before.clone()
        for shift in range(1, min(side // 2, length - 1) + 1):
            first, last = (before.narrow(axis, k, length - shift) for k in (0, shift))
            for here, values in ((0, last), (shift, first)):
                part = out.narrow(axis, here, length - shift)
                part.copy_(torch.maximum(part, values))
    return out


def gaussian_blur(x: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """Image blurred by a Gaussian of standard deviation `sigma` pixels.

    With the window of OpenCV for single precision, 4 standard deviations, and its border: the
    mirror image about the outermost pixels. Sides of the image are larger than half the window.
    """
    reach = (round(8 * sigma + 1) | 1) // 2
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    out = pad(x, (reach,) * 4, mode="reflect")
    for axis in (-1, -2):
        length = int(x.shape[axis])
        parts = [out.narrow(axis, k, length) for k in range(len(weights))]
        out = parts[0] * (weights[0] / sum(weights))
        for part, weight in zip(parts[1:], weights[1:]):
            out.add_(part, alpha=weight / sum(weights))
    return out


def lowest_first(maps: Sequence[Tensor], count: int) -> list[Tensor]:
    """Maps with the `count` lowest values of every pixel first, in order.

    By comparisons of whole maps: for a few maps several times as fast as sorting.
    """
    out = list(maps)
    for first in range(count):
        for k in range(len(out) - 1, first, -1):
            out[k - 1], out[k] = (
                torch.minimum(out[k - 1], out[k]), torch.maximum(out[k - 1], out[k])
            )  # fmt: skip
    return out


def masked_median(values: Float[Tensor, "m k"], known: Bool[Tensor, "m k"]) -> Float[Tensor, " m"]:
    """Median of each row over the values that are known (of two the mean); inf where none is."""
    ordered = values.masked_fill(~known, torch.inf).sort(1).values
    count = known.sum(1, keepdim=True)
    low, high = ((count - k).clamp(min=0) // 2 for k in (1, 0))
    high = high.clamp(max=ordered.shape[1] - 1)
    return (ordered.gather(1, low) + ordered.gather(1, high))[:, 0] / 2
