"""Which way is up, by the vertical edges in pictures whose cameras are known. Numpy and OpenCV.

Walls, doors, legs, shelves and cans end in vertical lines. All pictures of parallel lines pass
through one vanishing point (Barnard 1983); with cameras known, the lines of all frames vote for one
direction in the world (Kosecka and Zhang 2002, "Video Compass"): a line in a picture spans a plane
with the camera's centre, and the line's direction lies in it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

FRAMES = 16
"""So many frames, spread over the clip, are looked at."""
SHORTEST = 0.054
"""Of the long side: shorter lines don't count."""
END_PX = 0.3
"""Standard error of a line's ends, across it (frames of 224 pixels)."""
CAMERA_DEG = 0.15
"""Standard error of a camera's direction."""
PITCH_DEG, ROLL_DEG = 25.0, 5.0
"""How far people tilt cameras up or down, and to the side: standard deviations."""
LARGEST_ROLL_DEG, LARGEST_TILT_DEG = 14.0, 70.0
"""Directions farther than this from the cameras' own up are not considered."""
SURFACE_DEG, ANY_SURFACE = 20.0, 0.03
"""Up is where surfaces face: how alike (standard deviation), and what counts where none does."""
REFINED_DEG = 4.0
"""The final direction lies this near to the best of those tried."""
RIVAL_DEG = 10.0
"""A direction farther away than this is another one."""
LEAST_SHARE, LARGEST_RIVAL, LEAST_SPREAD_DEG = 0.04, 0.85, 4.0
"""On 48 clips of the synthetic world, whose tables have stripes along the line of sight, 34 are
sure by this; 29 of them are within 6 degrees, the median of all 48 is 2.3 (the cameras' own up:
10.9)."""


@dataclass(frozen=True)
class Vertical:
    """A direction that lines of the pictures agree on."""

    up_world: Float[np.ndarray, " 3"]
    """Unit vector in the world that points up."""
    share: float
    """Share of the length of all lines that points there."""
    rival: float
    """The score of the best other direction as a share of this one's; near 1: it may be that."""
    spread_deg: float
    """How far apart its lines are, as seen from the camera (standard deviation of the angle between
    their planes). Lines in one plane with the camera could point anywhere in it."""

    @property
    def sure(self) -> bool:
        """Whether it should be relied on."""
        return (
            self.share >= LEAST_SHARE
            and self.rival <= LARGEST_RIVAL
            and self.spread_deg >= LEAST_SPREAD_DEG
        )


def find_vertical(
    images: UInt8[np.ndarray, "n h w 3"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    *,
    moving: Bool[np.ndarray, "n h w"] | None = None,
    depth: Float[np.ndarray, "n h w"] | None = None,
) -> Vertical | None:
    """Up, as the lines in the pictures say; None where there are too few of them.

    Pixels of `moving` take no part. `depth` (z in the camera; 0: unknown) tells which directions
    surfaces face: floors and tables face up, which tells up from the direction in which stripes on
    a table run. It may be as wrong as a small network's.
    """
    frames = np.unique(np.linspace(0, len(images) - 1, min(len(images), FRAMES)).astype(int))
    R = np.asarray(T_world_camera[:, :3, :3], dtype=np.float64)
    lines = [
        _lines(images[t], None if moving is None else moving[t], np.asarray(K[t], float), R[t])
        for t in frames
    ]
    planes, sigma, length = (np.concatenate(x) for x in zip(*lines))
    camera_up, ahead = -R[:, :, 1].mean(0), R[:, :, 2].mean(0)
    if len(planes) < 10 or np.linalg.norm(camera_up) < 0.1:
        return None
    camera_up /= np.linalg.norm(camera_up)
    ahead -= (ahead @ camera_up) * camera_up
    if np.linalg.norm(ahead) < 0.1:
        return None
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, camera_up)
    tried = _directions(camera_up, ahead, right)
    roll, pitch = np.arcsin(tried @ right), np.arctan2(tried @ ahead, tried @ camera_up)
    likely = np.exp(
        -0.5 * (roll / math.radians(ROLL_DEG)) ** 2 - 0.5 * (pitch / math.radians(PITCH_DEG)) ** 2
    )
    if depth is not None:
        likely *= _faced(frames, depth, moving, np.asarray(K, float), R, tried)
    score = likely * _votes(planes, sigma, length, tried)
    best = int(score.argmax())
    if not score[best] > 0:
        return None
    others = score[tried @ tried[best] < math.cos(math.radians(RIVAL_DEG))]
    rival = float(others.max(initial=0.0) / score[best])
    up = _refined(planes, sigma, length, tried[best])
    weight = length * _agree(planes, sigma, up[None])[:, 0]
    share = float(weight.sum() / length.sum())
    return Vertical(up, share, rival, _spread_deg(planes, weight))


def _lines(
    image: UInt8[np.ndarray, "h w 3"],
    moving: Bool[np.ndarray, "h w"] | None,
    K: Float[np.ndarray, "3 3"],
    R: Float[np.ndarray, "3 3"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each straight line (von Gioi et al. 2012, LSD): unit normal (k, 3) of the plane through it
    and the camera in world axes, its standard error in radians (k,), and its length in pixels."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_ADV).detect(grey)[0]
    ends = np.zeros((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64)
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    long_side = max(grey.shape)
    keep = length >= SHORTEST * long_side
    if moving is not None:
        middle = np.rint((ends[:, :2] + ends[:, 2:]) / 2).astype(int)
        column, row = (middle.clip(0, [grey.shape[1] - 1, grey.shape[0] - 1])).T
        keep &= ~moving[row, column]
    ends, length = ends[keep], length[keep]
    one, other = (
        np.concatenate([ends[:, k : k + 2], np.ones((len(ends), 1))], 1) @ np.linalg.inv(K).T
        for k in (0, 2)
    )
    normal = np.cross(one, other) @ R.T
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    across = END_PX * long_side / 224 / np.maximum(length / 2, 1)
    return normal, np.hypot(np.arctan(across), math.radians(CAMERA_DEG)), length


def _directions(
    camera_up: np.ndarray, ahead: np.ndarray, right: np.ndarray
) -> Float[np.ndarray, "k 3"]:
    """Unit vectors a degree apart or so that may be up."""
    tilts = np.radians(np.arange(-LARGEST_TILT_DEG, LARGEST_TILT_DEG + 0.5, 1.0))
    rolls = np.radians(np.arange(-LARGEST_ROLL_DEG, LARGEST_ROLL_DEG + 0.5, 1.0))
    return np.array(
        [
            math.cos(roll) * (math.cos(tilt) * camera_up + math.sin(tilt) * ahead)
            + math.sin(roll) * right
            for tilt, roll in itertools.product(tilts, rolls)
        ]
    )


def _agree(
    planes: Float[np.ndarray, "m 3"], sigma: Float[np.ndarray, " m"], up: Float[np.ndarray, "k 3"]
) -> Float[np.ndarray, "m k"]:
    """0..1: how well each line may be parallel to each direction."""
    off = np.arcsin(np.abs(planes @ up.T).clip(0, 1)) / sigma[:, None]
    return np.asarray(np.exp(-0.5 * off**2))


def _votes(
    planes: np.ndarray, sigma: np.ndarray, length: np.ndarray, tried: np.ndarray
) -> Float[np.ndarray, " k"]:
    """Length of the lines that may be parallel to each direction."""
    votes, at_once = np.zeros(len(tried), np.float32), 64
    for start in range(0, len(planes), at_once):
        rows = slice(start, start + at_once)
        off = planes[rows].astype(np.float32) @ tried.T.astype(np.float32)
        off /= sigma[rows, None].astype(np.float32)  # an angle, where it is small enough to count
        votes += length[rows].astype(np.float32) @ np.exp(-0.5 * off**2)
    return votes


def _refined(
    planes: np.ndarray, sigma: np.ndarray, length: np.ndarray, start: np.ndarray
) -> Float[np.ndarray, " 3"]:
    """The direction in most of the lines' planes: iteratively reweighted least squares."""
    up = start
    for _ in range(6):
        weight = length * _agree(planes, sigma, up[None])[:, 0] / sigma**2
        found = np.linalg.eigh((planes * weight[:, None]).T @ planes)[1][:, 0]
        found = found * np.sign(found @ start)
        if found @ start < math.cos(math.radians(REFINED_DEG)):
            break
        up = found
    return up


def _spread_deg(planes: np.ndarray, weight: np.ndarray) -> float:
    size = np.linalg.eigvalsh((planes * weight[:, None]).T @ planes) / max(weight.sum(), 1e-12)
    return math.degrees(math.asin(min(1.0, math.sqrt(max(float(size[1]), 0.0)))))


def _faced(
    frames: np.ndarray,
    depth: Float[np.ndarray, "n h w"],
    moving: Bool[np.ndarray, "n h w"] | None,
    K: Float[np.ndarray, "n 3 3"],
    R: Float[np.ndarray, "n 3 3"],
    tried: Float[np.ndarray, "k 3"],
) -> Float[np.ndarray, " k"]:
    """`ANY_SURFACE`..1: how much of what is seen faces each direction."""
    found = [np.zeros((0, 3))]
    for t in frames[:: -(-len(frames) // 6)]:
        known = depth[t] > 0
        inverse = 1 / np.where(known, depth[t], np.inf)
        normal = plane_of_inverse_depth(inverse, K[t])
        towards = -normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
        if moving is not None:
            known &= ~moving[t]
        found.append(towards[WINDOW:-WINDOW:4, WINDOW:-WINDOW:4][
            known[WINDOW:-WINDOW:4, WINDOW:-WINDOW:4]
        ] @ R[t].T)  # fmt: skip
    facing = np.concatenate(found)
    if not len(facing):
        return np.ones(len(tried))
    few = facing[:: -(-len(facing) // 600)]
    many = np.exp((few @ tried.T - 1) / math.radians(SURFACE_DEG) ** 2).mean(0)
    return np.asarray(ANY_SURFACE + (1 - ANY_SURFACE) * many / max(many.max(), 1e-12))


WINDOW = 9
"""Planes are fitted to windows of this side, in pixels."""


def plane_of_inverse_depth(
    inverse: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w 3"]:
    """The plane of the surface around each pixel, in camera axes: p with p . ray = 1 / depth for
    rays with z = 1, by least squares in a window. The surface faces -p; its distance is 1 / |p|."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(
            cv2.boxFilter(values, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)
        )

    v, u = np.mgrid[: inverse.shape[0], : inverse.shape[1]].astype(np.float64)
    x, y, d = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], inverse.astype(np.float64)
    mx, my, md = mean(x), mean(y), mean(d)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    xd, yd = mean(x * d) - mx * md, mean(y * d) - my * md
    determinant = np.maximum(xx * yy - xy * xy, 1e-30)
    a, b = (xd * yy - yd * xy) / determinant, (yd * xx - xd * xy) / determinant
    return np.stack([a, b, md - a * mx - b * my], -1)
