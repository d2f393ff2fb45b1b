"""Depth along known rays.

With cameras and pair similarities fixed, the objective separates into one problem per pixel:
minimise over d the sum over views of w |d g - y|, where g is the ray and y the point of a view.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

SMOOTHING = 0.02
"""The absolute value is smooth below this share of a pixel's mean distance: depth does not snap to
the value of one view, and the weights are bounded. Source: chosen by hand."""


@dataclass(frozen=True)
class RayObservations:
    """Points of views for pixels, decomposed along and across the ray of the pixel."""

    along: Float[Tensor, "k p"]
    """Depth at which the ray is closest to the point."""
    across: Float[Tensor, "k p"]
    """Squared distance of ray and point there."""
    ray_length: Float[Tensor, " p"]
    weights: Float[Tensor, "k p"]

    def distances(self, depth: Float[Tensor, " p"]) -> Float[Tensor, "k p"]:
        """Distance between the point of a pixel at `depth` and the point of each view."""
        return (((depth - self.along) * self.ray_length) ** 2 + self.across).sqrt()


def decompose_along_rays(
    rays: Float[Tensor, "p 3"], points: Float[Tensor, "k p 3"], weights: Float[Tensor, "k p"]
) -> RayObservations:
    """Decompose points (in the frame of the rays, origin at the camera) along and across rays."""
    squared = (rays * rays).sum(-1)
    along = (points * rays).sum(-1) / squared
    across = ((points - along[..., None] * rays) ** 2).sum(-1)
    return RayObservations(along, across, squared.sqrt(), weights)


def median_depth(seen: RayObservations) -> Float[Tensor, " p"]:
    """Weighted median of depth along the rays: the minimiser if points differ along them only."""
    order = seen.along.argsort(0)
    weight = seen.weights.gather(0, order).cumsum(0)
    middle = (weight < weight[-1] / 2).sum(0).clamp_max(len(weight) - 1)
    return seen.along.gather(0, order).gather(0, middle[None])[0]


def depth_step(slope: Float[Tensor, "k p"], squared: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
    """Factor on the curvature w/r of one observation in a depth step.

    Re-weighting uses the curvature w/r, an overestimate: the component of the residual along the
    ray (`slope`, with squared residual `squared`) has none. Half of that component is subtracted.
    This at most doubles the step, and a doubled step of a majorising quadratic never increases the
    objective.
    """
    return 1 - 0.5 * slope * slope / squared.clamp_min(1e-30)


def best_depth(
    seen: RayObservations, reweightings: int = 6, smallest: float = 1e-6
) -> Float[Tensor, " p"]:
    """Depth that minimises the sum of w * distance, by re-weighting from the weighted median.

    Pixels without any weight get an arbitrary depth. All depths are at least `smallest`.
    """
    depth = median_depth(seen)
    total = seen.weights.sum(0).clamp_min(1e-12)
    smoothing = SMOOTHING * (seen.weights * seen.distances(depth)).sum(0) / total
    for _ in range(reweightings):
        slope = (depth - seen.along) * seen.ray_length
        squared = slope * slope + seen.across + smoothing * smoothing
        weight = seen.weights / squared.sqrt().clamp_min(1e-20)
        gradient = (weight * slope).sum(0)
        curvature = (weight * depth_step(slope, squared)).sum(0)
        depth = depth - gradient / (curvature * seen.ray_length).clamp_min(1e-20)
    return depth.clamp_min(smallest)
