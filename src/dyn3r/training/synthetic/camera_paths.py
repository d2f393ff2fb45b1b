"""Camera paths of synthetic clips."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class CameraPath:
    """Cameras of one clip: z up, the middle one above the origin, pointing along +y."""

    R: np.ndarray
    """(frames, 3, 3) world from camera, OpenCV axes."""
    t: np.ndarray
    """(frames, 3) camera centres in the world."""
    f_px: float
    """Focal length in pixels."""
    half_angle: float
    """Half the horizontal field of view in radians."""
    distance: float
    """Distance to the content of the scene."""
    times: list[float]
    """Times of the frames, 0..1, irregular."""
    kind: str
    """Kind of camera motion."""


def make_times(rng: random.Random, frames: int) -> list[float]:
    """Sample irregular times 0..1 of the frames."""
    steps = [rng.choice((1, 1, 2, 3, 5)) * rng.uniform(0.7, 1.3) for _ in range(max(frames - 1, 1))]
    total, at, out = sum(steps), 0.0, [0.0]
    for step in steps[: frames - 1]:
        at += step
        out.append(at / total)
    return out


def camera_path(
    rng: random.Random,
    frames: int,
    size_hw: tuple[int, int],
    distance: float,
    height: float,
    pitch: float,
    hfov_deg: tuple[float, float],
    max_baseline: float,
) -> CameraPath:
    """Sample a hand-held, orbiting, dollying, panning, rotating or static camera.

    distance: of the content; height, pitch: of the middle camera; hfov_deg: range of the field of
    view along the longer side. max_baseline: largest distance between two camera centres in units
    of `distance`; consecutive frames are at most half of that apart.
    """
    h, w = size_hw
    angle = math.radians(rng.uniform(*hfov_deg))
    f_px = 0.5 * max(h, w) / math.tan(0.5 * angle)
    half_angle = math.atan(0.5 * w / f_px)
    kind = rng.choices(
        ("still", "rotation", "pan", "dolly", "orbit", "handheld"), (4, 9, 16, 30, 30, 11)
    )[0]
    times = make_times(rng, frames)
    t = np.zeros((frames, 3))
    aim = np.zeros((frames, 2))  # yaw and pitch relative to the base
    s = np.array(times) - 0.5
    turn = rng.uniform(-0.8, 0.8) * half_angle
    reach = distance * max_baseline * rng.random() ** 0.8
    if kind in ("rotation", "pan"):
        aim[:, 0], aim[:, 1] = turn * s * 1.6, rng.gauss(0, 0.1) * s
        reach *= 0.0 if kind == "rotation" else 0.5
    if kind in ("pan", "dolly"):
        side, rise = rng.uniform(0, 2 * math.pi), rng.gauss(0, 0.12)
        t += reach * s[:, None] * [math.cos(side), math.sin(side), rise]
        aim[:, 0] += 0.15 * turn * s
    if kind == "orbit":
        around = rng.choice((-1, 1)) * reach / distance * s
        t[:, 0], t[:, 1] = distance * np.sin(around), distance * (1 - np.cos(around))
        t[:, 2] = rng.gauss(0, 0.2) * reach * s
        aim[:, 0] = -around * rng.uniform(0.6, 1.1)
    if kind == "handheld":
        for axis in range(3):
            wave, phase = rng.uniform(2, 6), rng.uniform(0, 6)
            t[:, axis] = 0.3 * reach * np.sin(wave * s + phase)
    if kind == "dolly" and rng.random() < 0.5:
        aim[:, 0] += rng.uniform(0.3, 1) * np.arctan2(-t[:, 0], distance - t[:, 1])
    step = np.linalg.norm(np.diff(t, axis=0), axis=1).max() if frames > 1 else 0.0
    t *= min(1.0, 0.5 * max_baseline * distance / (step + 1e-9))
    roll = np.full(frames, math.radians(rng.gauss(0, 2.5)))
    if kind != "still":
        shake = math.radians(rng.uniform(0.05, 1.5))
        aim += [[rng.gauss(0, shake), rng.gauss(0, shake)] for _ in times]
        roll += [rng.gauss(0, shake) for _ in times]
        if kind != "rotation":
            sway = 0.01 * distance * rng.random()
            t += [[rng.gauss(0, sway) for _ in range(3)] for _ in times]
    t -= t[frames // 2]
    t[:, 2] = np.maximum(t[:, 2] + height, 0.25 * height)
    R = np.stack([camera_rotation(a, pitch + p, r) for (a, p), r in zip(aim, roll)])
    return CameraPath(R, t, f_px, half_angle, distance, times, kind)


def following(
    rng: random.Random,
    path: CameraPath,
    target: np.ndarray,
    inside: Callable[[float, float, float], bool],
) -> CameraPath:
    """Return the path of a camera that also turns with a moving target, or travels beside it.

    target: (frames, 3) positions. inside: whether a disc on the floor (x, y, radius) is a place for
    cameras; the path is shortened until all its places are.
    """
    middle = len(target) // 2
    gain = rng.uniform(0.6, 1.1)
    if rng.random() < 0.5:
        seen = target - path.t
        bearing = np.unwrap(np.arctan2(seen[:, 0], seen[:, 1]))
        yaw = gain * (bearing - bearing[middle])
        return replace(path, R=Rotation.from_euler("z", -yaw[:, None]).as_matrix() @ path.R)
    travel = gain * (target - target[middle]) * [1.0, 1.0, 0.0]
    for _ in range(4):
        t = path.t + travel
        if all(inside(float(x), float(y), 0.05 * path.distance) for x, y, _ in t):
            return replace(path, t=t)
        travel *= 0.6
    return path


def camera_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Compute the world-from-camera rotation; columns right, down, forward; yaw 0 points to +y."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    forward = np.array([sy * cp, cy * cp, sp])
    right = np.array([cy, -sy, 0.0])
    down = np.array([sy * sp, cy * sp, -cp])
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward], 1)
