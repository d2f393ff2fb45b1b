"""Depth along known rays: the part of the objective that has a solution of its own.

With cameras and pair similarities fixed, the objective falls apart into one problem per pixel:
minimise over d the sum over views of w |d g - y|, with g the ray and y what a view says.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

KINK = 0.02
"""Differences below this share of a pixel's mean distance are rounded off, so that depth does not
snap to one view's value; it also bounds the weights."""


@dataclass(frozen=True)
class RayObservations:
    """Points that views propose for pixels, split along and across the pixel's ray."""

    along: Float[Tensor, "k p"]
    """Depth at which the ray comes closest to the proposed point."""
    across: Float[Tensor, "k p"]
    """Squared distance at that place."""
    ray_length: Float[Tensor, " p"]
    weights: Float[Tensor, "k p"]

    def distances(self, depth: Float[Tensor, " p"]) -> Float[Tensor, "k p"]:
        """Distance between the pixel's point at `depth` and every proposed point."""
        return (((depth - self.along) * self.ray_length) ** 2 + self.across).sqrt()


def on_rays(
    rays: Float[Tensor, "p 3"], points: Float[Tensor, "k p 3"], weights: Float[Tensor, "k p"]
) -> RayObservations:
    """Split points (in the frame of the rays, origin at the camera) along and across the rays."""
    squared = (rays * rays).sum(-1)
    along = (points * rays).sum(-1) / squared
    across = ((points - along[..., None] * rays) ** 2).sum(-1)
    return RayObservations(along, across, squared.sqrt(), weights)


def median_depth(seen: RayObservations) -> Float[Tensor, " p"]:
    """Weighted median along the rays: the best depth if all that differs is depth."""
    order = seen.along.argsort(0)
    weight = seen.weights.gather(0, order).cumsum(0)
    middle = (weight < weight[-1] / 2).sum(0).clamp_max(len(weight) - 1)
    return seen.along.gather(0, order).gather(0, middle[None])[0]


def depth_step(slope: Float[Tensor, "k p"], squared: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
    """Factor on the curvature w/r of one observation in a depth step.

    Plain re-weighting steps with curvature w/r, an overestimate: the part of the residual along the
    ray (`slope`, of squared length `squared`) has none. Leaving out half of that part at most
    doubles the step, and doubling the step of a majorising quadratic still never goes uphill.
    """
    return 1 - 0.5 * slope * slope / squared.clamp_min(1e-30)


def best_depth(
    seen: RayObservations, reweightings: int = 6, smallest: float = 1e-6
) -> Float[Tensor, " p"]:
    """Minimise sum of w * distance over depth by re-weighting from the weighted median.

    Pixels without any weight get an arbitrary depth; everything is kept at or above `smallest`.
    """
    depth = median_depth(seen)
    total = seen.weights.sum(0).clamp_min(1e-12)
    blunt = KINK * (seen.weights * seen.distances(depth)).sum(0) / total
    for _ in range(reweightings):
        slope = (depth - seen.along) * seen.ray_length
        squared = slope * slope + seen.across + blunt * blunt
        weight = seen.weights / squared.sqrt().clamp_min(1e-20)
        pull, curvature = (weight * slope).sum(0), (weight * depth_step(slope, squared)).sum(0)
        depth = depth - pull / (curvature * seen.ray_length).clamp_min(1e-20)
    return depth.clamp_min(smallest)
