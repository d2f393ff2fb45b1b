"""Similarity between the worlds of two windows, from the frames that both of them have.

Scale from depth, rotation and translation from cameras: the depth of a frame has thousands of
pixels and its camera is an estimate over all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from dyn3r.geometry.registration import Similarity, nearest_rotation
from dyn3r.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat

MIN_SHARE = 0.02
"""Share of a frame's pixels that both windows must know for it to say anything about scale."""
MOST_ROTATION_DEG, MOST_CENTRE_DEPTHS = 0.5, 0.02
"""Differences of shared cameras above which one of two windows is wrong. Source: ten times those on
development clips (docs/experiments.md)."""
ROUNDS = 10
"""Re-weightings of rotation and translation. Source: they converge in fewer."""


@dataclass(frozen=True)
class SharedFrames:
    """Frames that two windows share, as one of them has them."""

    T_world_camera: Float[np.ndarray, "k 4 4"]
    depth: Float[np.ndarray, "k h w"]
    usable: Bool[np.ndarray, "k h w"]
    """Pixels that are static and whose depth is not rejected."""
    found: Bool[np.ndarray, " k"]
    """Frames whose camera is no guess."""


@dataclass(frozen=True)
class Join:
    """Similarity that maps the world of a later window to that of the clip."""

    similarity: Similarity
    log_scale_spread: float
    """Standard deviation of the log ratio of depths, from frame to frame."""
    rotation_deg: float
    """Median difference of the cameras' rotations that is left."""
    centre_depths: float
    """Median difference of the cameras' centres that is left, over the median depth."""
    is_guess: bool
    """Whether no shared frame says anything about the scale."""

    @property
    def disagreement(self) -> float:
        """Difference of the shared cameras, over the largest one that is usual."""
        return max(self.rotation_deg / MOST_ROTATION_DEG, self.centre_depths / MOST_CENTRE_DEPTHS)

    @property
    def disagrees(self) -> bool:
        """Whether the windows have different cameras for the frames that they share."""
        return self.disagreement > 1

    def to_json(self) -> dict[str, float | bool]:
        """Numbers for metadata."""
        return {
            "scale": round(float(self.similarity.scale), 5),
            "log_scale_spread": round(self.log_scale_spread, 5),
            "rotation_deg": round(self.rotation_deg, 4),
            "centre_depths": round(self.centre_depths, 5),
            "guess": self.is_guess,
        }


def join(earlier: SharedFrames, later: SharedFrames) -> Join:
    """Similarity from the world of `later` to that of `earlier`; both have the same frames.

    The scale is the median over the frames of the median over their pixels of the ratio of depths.
    Rotation and translation minimise the sum of differences, not of their squares, over the frames'
    cameras. Frames whose camera is a guess are left out, unless all are.
    """
    ratios = _log_ratios(earlier, later)
    log_scale = float(np.median(ratios)) if len(ratios) else 0.0
    spread = 1.4826 * float(np.median(np.abs(ratios - log_scale))) if len(ratios) else 0.0
    found = earlier.found & later.found
    rows = np.flatnonzero(found if found.any() else ~found)
    T, before = (torch.from_numpy(s.T_world_camera[rows]) for s in (later, earlier))
    R = _mean_rotation(before[:, :3, :3] @ T[:, :3, :3].mT)
    rest = rotmat_to_rotvec(before[:, :3, :3] @ T[:, :3, :3].mT @ R.T).norm(dim=-1)
    offsets = before[:, :3, 3] - math.exp(log_scale) * T[:, :3, 3] @ R.T
    t = _geometric_median(offsets)
    known = earlier.depth[earlier.depth > 0]
    unit = float(np.median(known)) if len(known) else 1.0
    return Join(
        Similarity(torch.tensor(math.exp(log_scale), dtype=torch.float64), R, t),
        spread,
        math.degrees(float(rest.median())),
        float((offsets - t).norm(dim=-1).median()) / unit,
        is_guess=not len(ratios),
    )


def moved(T_world_camera: Float[np.ndarray, "k 4 4"], by: Similarity) -> Float[np.ndarray, "k 4 4"]:
    """Cameras in another world; depth is multiplied by the scale."""
    R, T = by.R.numpy(), T_world_camera.copy()
    T[:, :3, :3] = R @ T[:, :3, :3]
    T[:, :3, 3] = float(by.scale) * T[:, :3, 3] @ R.T + by.t.numpy()
    return T


def blended(
    first: Float[np.ndarray, "k 4 4"],
    second: Float[np.ndarray, "k 4 4"],
    share: Float[np.ndarray, " k"],
) -> Float[np.ndarray, "k 4 4"]:
    """Cameras between two estimates of each, `share` (0..1) of the way from first to second."""
    a, b, part = (torch.from_numpy(np.ascontiguousarray(x)) for x in (first, second, share))
    turn = rotmat_to_rotvec(a[:, :3, :3].mT @ b[:, :3, :3]) * part[:, None]
    out = a.clone()
    out[:, :3, :3] = a[:, :3, :3] @ rotvec_to_rotmat(turn)
    out[:, :3, 3] = torch.lerp(a[:, :3, 3], b[:, :3, 3], part[:, None])
    return out.numpy()


def _log_ratios(earlier: SharedFrames, later: SharedFrames) -> Float[np.ndarray, " f"]:
    """Median of log(depth of earlier / depth of later) of each frame that says something."""
    out = []
    for k in range(len(earlier.depth)):
        both = earlier.usable[k] & later.usable[k] & (earlier.depth[k] > 0) & (later.depth[k] > 0)
        if both.mean() >= MIN_SHARE:
            out.append(np.median(np.log(earlier.depth[k][both] / later.depth[k][both])))
    return np.array(out, np.float64)


def _mean_rotation(R: torch.Tensor) -> torch.Tensor:
    """Rotation with the least sum of angles to the given ones (k 3 3), by re-weighting."""
    weights = torch.ones(len(R), dtype=R.dtype)
    for _ in range(ROUNDS):
        mean = nearest_rotation((weights[:, None, None] * R).sum(0))[0]
        angles = rotmat_to_rotvec(R @ mean.T).norm(dim=-1)
        weights = 1 / (angles + 0.1 * angles.median() + 1e-9)
    return mean


def _geometric_median(points: torch.Tensor) -> torch.Tensor:
    """Point with the least sum of distances to the given ones (k 3), by re-weighting."""
    centre = points.median(0).values
    for _ in range(ROUNDS):
        distance = (points - centre).norm(dim=-1)
        weights = 1 / (distance + 0.1 * distance.median() + 1e-12)
        centre = (weights[:, None] * points).sum(0) / weights.sum()
    return centre
