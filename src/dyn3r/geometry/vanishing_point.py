"""Vertical direction of a scene from straight line segments in images with known cameras.

Edges of walls, doors and furniture are often vertical. The images of parallel lines meet in one
vanishing point (Barnard 1983). With known cameras the line segments of all frames vote for one
direction in the world (Kosecka and Zhang 2002, "Video Compass"): a segment and the camera centre
span a plane, and the direction of the 3-D line lies in that plane.

Each candidate direction is scored by the length of the segments that agree with it, times a prior
on the tilt of a hand-held camera, times the share of the visible surface that faces it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.geometry.surface_planes import PLANE_WINDOW_PX, inverse_depth_planes

MAX_FRAMES = 16
"""Number of frames, evenly spread over the clip, in which segments are detected.
Source: run time."""
MIN_SEGMENT_SHARE = 0.054
"""Shortest segment as a share of the long side of the frame (12 pixels of 224).
Source: chosen by hand."""
SEGMENT_END_SIGMA_PX = 0.3
"""Standard error of the ends of a segment across it, in pixels of a frame 224 pixels wide.
Source: chosen by hand."""
CAMERA_SIGMA_DEG = 0.15
"""Standard error of the orientation of a camera. Source: chosen by hand."""
PITCH_SIGMA_DEG, ROLL_SIGMA_DEG = 25.0, 5.0
"""Prior on the tilt of a hand-held camera: standard deviations of pitch and roll.
Source: chosen by hand."""
MAX_ROLL_DEG, MAX_PITCH_DEG = 14.0, 70.0
"""Range of the candidate directions about the mean up-vector of the cameras.
Source: just under three standard deviations of the prior."""
SURFACE_SIGMA_DEG, MIN_SURFACE_SCORE = 20.0, 0.03
"""Surface term: tolerance of the angle between a surface normal and a candidate (standard
deviation), and the score of a candidate that no surface faces.
Source: chosen by hand."""
MAX_SURFACE_FRAMES, MAX_NORMALS = 6, 600
"""Most frames and most normals that the surface term uses. Source: run time."""
MAX_REFINEMENT_DEG = 4.0
"""Largest angle between the refined direction and the best candidate.
Source: four steps of the grid of candidates."""
RIVAL_DEG = 10.0
"""Candidates farther than this from the best one are other directions.
Source: chosen by hand."""
MIN_LINE_SHARE, MAX_RIVAL_SCORE, MIN_SPREAD_DEG = 0.04, 0.85, 4.0
"""Thresholds of `VerticalDirection.reliable`. Source: fitted on 48 synthetic clips, whose tables
have stripes along the line of sight. 34 of them pass; 29 of the 34 are within 6 degrees. The median
error of all 48 is 2.3 degrees, that of the mean up-vector of the cameras 10.9 degrees."""
SEGMENTS_PER_BATCH = 64
"""Segments that vote at once; bounds the memory."""


@dataclass(frozen=True)
class VerticalDirection:
    """Direction in the world that line segments of the images agree on."""

    up_world: Float[np.ndarray, " 3"]
    """Unit vector in the world that points up."""
    share: float
    """Share of the total length of the segments that agrees with this direction, 0..1."""
    rival: float
    """Score of the best other direction over the score of this one, 0..1. A value near 1 means
    that the direction is ambiguous."""
    spread_deg: float
    """Standard deviation, in degrees, of the angle between the planes of the agreeing segments.
    Segments in one plane with the camera leave the direction within that plane undetermined."""

    @property
    def reliable(self) -> bool:
        """Whether the direction is well supported, unambiguous and well conditioned."""
        return (
            self.share >= MIN_LINE_SHARE
            and self.rival <= MAX_RIVAL_SCORE
            and self.spread_deg >= MIN_SPREAD_DEG
        )


@dataclass(frozen=True)
class _Segments:
    """Line segments of several frames."""

    normal: Float[np.ndarray, "m 3"]
    """Unit normals, in world axes, of the planes through a segment and its camera centre."""
    sigma: Float[np.ndarray, " m"]
    """Standard error of the normals in radians."""
    length: Float[np.ndarray, " m"]
    """Length in pixels."""


def find_vertical(
    images: UInt8[np.ndarray, "n h w 3"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    depth: Float[np.ndarray, "n h w"] | None = None,
) -> VerticalDirection | None:
    """Up direction that the line segments of the images support; None if there are too few.

    Segments on `dynamic` pixels are left out. `depth` (z in the camera; 0: unknown) tells which
    directions surfaces face: floors and tables face up, which separates the vertical from the
    direction of stripes on a table. Approximate depth is sufficient.
    """
    frames = np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_FRAMES)).astype(int))
    R = np.asarray(T_world_camera[:, :3, :3], dtype=np.float64)
    segments = _join(
        [
            _detect(
                images[t], None if dynamic is None else dynamic[t], np.asarray(K[t], float), R[t]
            )
            for t in frames
        ]
    )
    axes = _camera_axes(R)
    if len(segments.normal) < 10 or axes is None:
        return None
    camera_up, forward, right = axes
    candidates = _candidates(camera_up, forward, right)
    prior = _tilt_prior(candidates, camera_up, forward, right)
    if depth is not None:
        prior *= _surface_score(frames, depth, dynamic, np.asarray(K, float), R, candidates)
    score = prior * _votes(segments, candidates)
    best = int(score.argmax())
    if not score[best] > 0:
        return None
    others = score[candidates @ candidates[best] < math.cos(math.radians(RIVAL_DEG))]
    rival = float(others.max(initial=0.0) / score[best])
    up = _refined(segments, candidates[best])
    weight = segments.length * _agreement(segments, up)
    share = float(weight.sum() / segments.length.sum())
    return VerticalDirection(up, share, rival, _spread_deg(segments.normal, weight))


def _camera_axes(R: Float[np.ndarray, "n 3 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Mean up, horizontal forward and right of the cameras in the world; None if undefined."""
    camera_up, forward = -R[:, :, 1].mean(0), R[:, :, 2].mean(0)
    if np.linalg.norm(camera_up) < 0.1:
        return None
    camera_up /= np.linalg.norm(camera_up)
    forward -= (forward @ camera_up) * camera_up
    if np.linalg.norm(forward) < 0.1:
        return None
    forward /= np.linalg.norm(forward)
    return camera_up, forward, np.cross(forward, camera_up)


def _detect(
    image: UInt8[np.ndarray, "h w 3"],
    dynamic: Bool[np.ndarray, "h w"] | None,
    K: Float[np.ndarray, "3 3"],
    R: Float[np.ndarray, "3 3"],
) -> _Segments:
    """Straight line segments of one frame (LSD, von Gioi et al. 2012)."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_ADV).detect(grey)[0]
    ends = np.zeros((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64)
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    long_side = max(grey.shape)
    keep = length >= MIN_SEGMENT_SHARE * long_side
    if dynamic is not None:
        middle = np.rint((ends[:, :2] + ends[:, 2:]) / 2).astype(int)
        column, row = (middle.clip(0, [grey.shape[1] - 1, grey.shape[0] - 1])).T
        keep &= ~dynamic[row, column]
    ends, length = ends[keep], length[keep]
    first, last = (
        np.concatenate([ends[:, k : k + 2], np.ones((len(ends), 1))], 1) @ np.linalg.inv(K).T
        for k in (0, 2)
    )
    normal = np.cross(first, last) @ R.T
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    across = SEGMENT_END_SIGMA_PX * long_side / 224 / np.maximum(length / 2, 1)
    sigma = np.hypot(np.arctan(across), math.radians(CAMERA_SIGMA_DEG))
    return _Segments(normal, sigma, length)


def _join(parts: list[_Segments]) -> _Segments:
    return _Segments(
        np.concatenate([part.normal for part in parts]),
        np.concatenate([part.sigma for part in parts]),
        np.concatenate([part.length for part in parts]),
    )


def _candidates(
    camera_up: np.ndarray, forward: np.ndarray, right: np.ndarray
) -> Float[np.ndarray, "k 3"]:
    """Unit vectors about one degree apart within the range of pitch and roll."""
    pitches = np.radians(np.arange(-MAX_PITCH_DEG, MAX_PITCH_DEG + 0.5, 1.0))
    rolls = np.radians(np.arange(-MAX_ROLL_DEG, MAX_ROLL_DEG + 0.5, 1.0))
    return np.array(
        [
            math.cos(roll) * (math.cos(pitch) * camera_up + math.sin(pitch) * forward)
            + math.sin(roll) * right
            for pitch, roll in itertools.product(pitches, rolls)
        ]
    )


def _tilt_prior(
    candidates: np.ndarray, camera_up: np.ndarray, forward: np.ndarray, right: np.ndarray
) -> Float[np.ndarray, " k"]:
    """Gaussian prior on the pitch and roll of the cameras against each candidate."""
    roll = np.arcsin(candidates @ right)
    pitch = np.arctan2(candidates @ forward, candidates @ camera_up)
    roll_term = -0.5 * (roll / math.radians(ROLL_SIGMA_DEG)) ** 2
    return np.asarray(np.exp(roll_term - 0.5 * (pitch / math.radians(PITCH_SIGMA_DEG)) ** 2))


def _agreement(segments: _Segments, direction: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " m"]:
    """Agreement 0..1 of each segment with a direction."""
    angle = np.arcsin(np.abs(segments.normal @ direction[None].T).clip(0, 1))
    off = angle / segments.sigma[:, None]
    return np.asarray(np.exp(-0.5 * off**2))[:, 0]


def _votes(segments: _Segments, candidates: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, " k"]:
    """Length of the segments that agree with each candidate. Small angles: arcsin(x) = x."""
    votes = np.zeros(len(candidates), np.float32)
    for start in range(0, len(segments.normal), SEGMENTS_PER_BATCH):
        rows = slice(start, start + SEGMENTS_PER_BATCH)
        off = segments.normal[rows].astype(np.float32) @ candidates.T.astype(np.float32)
        off /= segments.sigma[rows, None].astype(np.float32)
        votes += segments.length[rows].astype(np.float32) @ np.exp(-0.5 * off**2)
    return votes


def _refined(segments: _Segments, start: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """Direction that lies in most planes, by iteratively reweighted least squares."""
    up, planes = start, segments.normal
    for _ in range(6):
        weight = segments.length * _agreement(segments, up) / segments.sigma**2
        found = np.linalg.eigh((planes * weight[:, None]).T @ planes)[1][:, 0]
        found = found * np.sign(found @ start)
        if found @ start < math.cos(math.radians(MAX_REFINEMENT_DEG)):
            break
        up = found
    return up


def _spread_deg(planes: Float[np.ndarray, "m 3"], weight: Float[np.ndarray, " m"]) -> float:
    size = np.linalg.eigvalsh((planes * weight[:, None]).T @ planes) / max(weight.sum(), 1e-12)
    return math.degrees(math.asin(min(1.0, math.sqrt(max(float(size[1]), 0.0)))))


def _surface_score(
    frames: np.ndarray,
    depth: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"] | None,
    K: Float[np.ndarray, "n 3 3"],
    R: Float[np.ndarray, "n 3 3"],
    candidates: Float[np.ndarray, "k 3"],
) -> Float[np.ndarray, " k"]:
    """Share of the visible surface that faces each candidate, MIN_SURFACE_SCORE..1."""
    inside = np.s_[PLANE_WINDOW_PX:-PLANE_WINDOW_PX:4, PLANE_WINDOW_PX:-PLANE_WINDOW_PX:4]
    found = [np.zeros((0, 3))]
    for t in frames[:: -(-len(frames) // MAX_SURFACE_FRAMES)]:
        known = depth[t] > 0
        plane = inverse_depth_planes(1 / np.where(known, depth[t], np.inf), K[t])
        normal = -plane / np.maximum(np.linalg.norm(plane, axis=-1, keepdims=True), 1e-12)
        if dynamic is not None:
            known &= ~dynamic[t]
        found.append(normal[inside][known[inside]] @ R[t].T)
    normals = np.concatenate(found)
    if not len(normals):
        return np.ones(len(candidates))
    few = normals[:: -(-len(normals) // MAX_NORMALS)]
    facing = np.exp((few @ candidates.T - 1) / math.radians(SURFACE_SIGMA_DEG) ** 2).mean(0)
    share = facing / max(facing.max(), 1e-12)
    return np.asarray(MIN_SURFACE_SCORE + (1 - MIN_SURFACE_SCORE) * share)
