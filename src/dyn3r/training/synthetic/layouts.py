"""Where things stand, how cameras and movers travel: rooms, streets, table tops and open ground."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dyn3r.training.synthetic import objects as things
from dyn3r.training.synthetic.scenes import BOX, ELLIPSOID, GROUND, ROOM, Builder, Swing

WITHOUT_OPENING = (-1.0, 0.0, 0.0, 0.0, 0.0)
NEAR_FAR_WALL = (math.log(0.85), math.log(3.0))
"""Of rooms: log distance of the wall behind the content, in units of the distance to that."""

WALL_TABLE_SHARE = 0.5
"""Of tables, that stand against the wall looked at, as desks, sideboards and kitchen tops do."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras of one clip: z up, the middle one above the origin looking along +y."""

    R: np.ndarray  # (frames, 3, 3) world from camera, OpenCV axes
    t: np.ndarray  # (frames, 3)
    f_px: float
    half_angle: float  # half the horizontal field of view, radians
    distance: float  # to the content looked at
    times: list[float]  # 0..1, irregular
    kind: str


@dataclass
class Layout:
    """State while a scene is being laid out."""

    b: Builder
    rng: random.Random
    path: CameraPath
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    inside: Callable[[float, float, float], bool] = lambda x, y, r: True
    height: Callable[[float, float], float] = lambda x, y: 0.0

    def free(self, x: float, y: float, r: float, gap: float = 1.0) -> bool:
        """True if a disc on the floor touches nothing, no camera, and lies inside."""
        keep = r + 0.2 * self.path.distance
        if any((x - t[0]) ** 2 + (y - t[1]) ** 2 < keep * keep for t in self.path.t):
            return False
        if any((x - a) ** 2 + (y - c) ** 2 < (gap * (r + s)) ** 2 for a, c, s in self.taken):
            return False
        return self.inside(x, y, r)

    def spot(self, near: float, far: float, wide: float) -> tuple[float, float, float]:
        """A random place in view: x, y and its distance along the view."""
        rng, path = self.rng, self.path
        y = path.distance * math.exp(rng.uniform(math.log(near), math.log(far)))
        return rng.uniform(-wide, wide) * y * math.tan(path.half_angle), y, y


def make_times(rng: random.Random, frames: int) -> list[float]:
    """Irregular times 0..1."""
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
    """A hand-held, orbiting, dollying, panning, rotating or still camera.

    `max_baseline` is the largest distance between any two centres, in units of `distance`;
    neighbouring frames are at most half of that apart.
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
    aim = np.zeros((frames, 2))  # yaw, pitch beside the base
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
    R = np.stack([look(a, pitch + p, r) for (a, p), r in zip(aim, roll)])
    return CameraPath(R, t, f_px, half_angle, distance, times, kind)


def look(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """World-from-camera rotation; columns are right, down, forward; yaw 0 looks along +y."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    forward = np.array([sy * cp, cy * cp, sp])
    right = np.array([cy, -sy, 0.0])
    down = np.array([sy * sp, cy * sp, -cp])
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward], 1)


@dataclass(frozen=True)
class Room:
    """The box around cameras and content: its group, in whose coordinates it is, and half sizes."""

    group: int
    half: tuple[float, float, float]
    yaw: float
    local: Callable[[float, float], tuple[float, float]]  # of a place on the floor in the world
    world: Callable[[float, float], tuple[float, float]]  # and back


def room(lay: Layout, floor: float, ceiling: float) -> Room:
    """The inside of a box around cameras and content, with pictures, a window, and cupboards."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    yaw = rng.choice((0.0, rng.uniform(-0.8, 0.8), rng.gauss(0, 0.1)))
    front, back = D * math.exp(rng.uniform(*NEAR_FAR_WALL)), D * rng.uniform(0.3, 1.2)
    hx, hy = D * rng.uniform(0.9, 2.0), 0.5 * (front + back)
    cx, cy = D * rng.uniform(-0.4, 0.4), 0.5 * (front - back)
    c, s = math.cos(yaw), math.sin(yaw)

    def local(x: float, y: float) -> tuple[float, float]:
        return c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)

    def world(u: float, v: float) -> tuple[float, float]:
        return cx + c * u - s * v, cy + s * u + c * v

    for t in lay.path.t:
        x, y = local(t[0], t[1])
        hx, hy = max(hx, abs(x) + 0.2 * D), max(hy, abs(y) + 0.2 * D)

    def inside(x: float, y: float, r: float) -> bool:
        u, v = local(x, y)
        return abs(u) + r < hx and abs(v) + r < hy

    lay.inside = inside
    hz = 0.5 * (ceiling - floor)
    extra: tuple[float, ...] = WITHOUT_OPENING
    if rng.random() < 0.35:  # an opening: window or door
        side = float(rng.randrange(4))
        along = hy if side < 2 else hx
        half = along * rng.uniform(0.1, 0.4)
        bottom = -1.0 if rng.random() < 0.25 else rng.uniform(-0.5, 0.0)
        extra = (
            side,
            rng.uniform(-0.5, 0.5) * along,
            half,
            bottom * hz,
            rng.uniform(0.3, 0.8) * hz,
        )
    size = 0.5 * (hx + hy)
    mat = b.material(0.6 * size, plain=0.1)
    b.material(rng.uniform(0.5, 2) * size, plain=0.45)
    b.material(size, plain=0.7)
    g = b.still_group(cx, cy, floor + hz, yaw)
    b.add(ROOM, (hx, hy, hz), mat, g, extra=extra)
    for _ in range(rng.randrange(0, 6)):  # flat things on the walls
        side = rng.randrange(4)
        along, out = (hy, hx) if side < 2 else (hx, hy)
        sign = 1.0 if side % 2 == 0 else -1.0
        w, h = hz * rng.uniform(0.1, 0.6), hz * rng.uniform(0.1, 0.5)
        u, z, thick = rng.uniform(-0.8, 0.8) * along, rng.uniform(-0.1, 0.5) * hz, 0.015 * hz
        m = b.material(2 * max(w, h), plain=0.05, glow=0.6 if rng.random() < 0.1 else 0.0)
        if side < 2:
            b.add(BOX, (thick, w, h), m, g, (sign * out, u, z))
        else:
            b.add(BOX, (w, thick, h), m, g, (u, sign * out, z))
    around = Room(g, (hx, hy, hz), yaw, local, world)
    furnish(lay, around)
    return around


def furnish(lay: Layout, around: Room) -> None:
    """Cupboards, sideboards and sofas along the walls of the room."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    g, (hx, hy, hz) = around.group, around.half
    for _ in range(rng.randrange(0, 6)):
        wide, deep = D * rng.uniform(0.08, 0.5), D * rng.uniform(0.04, 0.2)
        tall = hz * rng.uniform(0.15, 0.9)
        side = rng.choice((0, 1, 3, 3))  # mostly the wall looked at
        if side == 3:
            x, y, u, v = rng.uniform(-0.9, 0.9) * (hx - wide), hy - deep, wide, deep
        else:
            x, y = (1 - 2 * side) * (hx - deep), rng.uniform(-0.9, 0.9) * (hy - wide)
            u, v = deep, wide
        near = max(u, v) + 0.25 * D
        if any(math.dist(around.local(t[0], t[1]), (x, y)) < near for t in lay.path.t):
            continue
        mat = b.material(2 * max(wide, tall), plain=0.25)
        b.add(BOX, (u, v, tall), mat, g, (x, y, tall - hz))
        if rng.random() < 0.4:  # a back rest, a drawer, a top
            above = rng.uniform(0.02, 0.5) * tall
            b.add(BOX, (u * rng.uniform(0.8, 1.05), v * rng.uniform(0.3, 1.05), above),
                  b.material(wide, plain=0.3), g, (x, y, 2 * tall + above - hz))  # fmt: skip


def table_top(lay: Layout, around: Room) -> None:
    """The table whose top is the plane z = 0, in the room or against the wall looked at."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    wide, thick = D * rng.uniform(0.7, 2.0), 0.02 * D
    mat = b.material(D, plain=0.15)
    if rng.random() < WALL_TABLE_SHARE:
        u = around.local(0.0, 0.0)[0] + D * rng.uniform(-0.5, 0.5)
        near = max(around.local(t[0], t[1])[1] for t in lay.path.t) + D * rng.uniform(0.1, 0.6)
        deep = 0.5 * max(around.half[1] - near, 0.4 * D)
        (x, y), yaw = around.world(u, around.half[1] - deep), around.yaw
    else:
        x, y, yaw, deep = (
            0.0,
            D * rng.uniform(0.6, 1.1),
            rng.gauss(0, 0.4),
            D * rng.uniform(0.6, 1.4),
        )
    b.add(BOX, (wide, deep, thick), mat, b.still_group(x, y, -thick, yaw))
    c, s = math.cos(yaw), math.sin(yaw)
    inside = lay.inside

    def on_top(px: float, py: float, r: float) -> bool:
        u, v = c * (px - x) + s * (py - y), -s * (px - x) + c * (py - y)
        return inside(px, py, r) and abs(u) + 0.7 * r < wide and abs(v) + 0.7 * r < deep

    lay.inside = on_top


def street(lay: Layout) -> None:
    """A flat road between two rows of facades, open or closed at its end."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    yaw = rng.choice((0.0, rng.gauss(0, 0.25), rng.uniform(-1.2, 1.2)))
    c, s = math.cos(yaw), math.sin(yaw)
    left, right = -D * rng.uniform(0.5, 1.4), D * rng.uniform(0.5, 1.4)
    across = [c * t[0] + s * t[1] for t in lay.path.t]
    left, right = min(left, min(across) - 0.3 * D), max(right, max(across) + 0.3 * D)
    lay.inside = lambda x, y, r: left + r < c * x + s * y < right - r
    ground(lay, flat=True)
    for side, at in ((-1.0, left), (1.0, right)):
        v = -1.5 * D
        while v < 7 * D:
            length, tall = D * rng.uniform(0.6, 2.5), D * rng.uniform(0.5, 2.0)
            deep = D * rng.uniform(0.3, 1.0)
            u, mid = (
                at + side * (deep + D * rng.choice((0, 0, 0.1)) * rng.random()),
                v + 0.5 * length,
            )
            g = b.still_group(c * u - s * mid, s * u + c * mid, 0.5 * tall, yaw)
            b.add(BOX, (deep, 0.5 * length, 0.5 * tall), b.material(0.8 * D, plain=0.05), g)
            if rng.random() < 0.6:  # windows and doors as shallow boxes
                m = b.material(0.2 * D, plain=0.3)
                n = rng.randrange(1, 4)
                for k in range(n):
                    spot = (
                        -side * deep,
                        length * ((k + 0.5) / n - 0.5),
                        rng.choice((0.0, 0.0, -0.3)) * tall,
                    )
                    half = (0.01 * D, 0.3 * length / n, tall * rng.uniform(0.08, 0.2))
                    b.add(BOX, half, m, g, spot)
            v += length + (D * rng.uniform(0, 0.8) if rng.random() < 0.3 else 0.0)
    if rng.random() < 0.6:
        far = D * rng.uniform(3.5, 7)
        g = b.still_group(-s * far, c * far, 0.0, yaw)
        b.add(BOX, (3 * D, 0.5 * D, D * rng.uniform(0.5, 2)), b.material(D, plain=0.05), g)


def ground(lay: Layout, flat: bool) -> None:
    """The floor without end, flat or rolling."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    top = steep = 0.0
    if not flat:
        for _ in range(rng.randrange(2, 5)):
            length = D * rng.uniform(0.8, 6)
            height = length * rng.uniform(0.005, 0.05)
            angle = rng.uniform(0, 6.3)
            row = (height, math.cos(angle) / length, math.sin(angle) / length, rng.random())
            b.relief.append(row)
            top, steep = top + height, steep + 8 * height / length
    group = b.still_group(0.0, 0.0, 0.0, 0.0)
    b.add(GROUND, (top, steep, 1.0), b.material(D * rng.uniform(0.3, 1.5), plain=0.0), group)

    def height_at(x: float, y: float) -> float:
        total = 0.0
        for a, kx, ky, phase in b.relief:  # type: ignore[misc]
            v = kx * x + ky * y + phase
            f = 2 * (v - math.floor(v)) - 1
            total += a * 4 * f * (1 - abs(f))
        return total

    lay.height = height_at


def backdrop(lay: Layout) -> None:
    """A house front, a fence or a hedge across the view, close behind the content."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    yaw, at = rng.gauss(0, 0.35), D * math.exp(rng.uniform(0.0, 0.8))
    c, s = math.cos(yaw), math.sin(yaw)
    tall, thick = D * rng.uniform(0.25, 1.6), D * rng.uniform(0.03, 0.5)
    inside = lay.inside
    lay.inside = lambda x, y, r: inside(x, y, r) and c * y - s * x + r < at
    x, y = -s * (at + thick), c * (at + thick)
    g = b.still_group(x, y, lay.height(x, y) + 0.7 * tall, yaw)
    mat = b.material(0.8 * D, plain=0.1)
    b.add(BOX, (D * rng.uniform(1.5, 5.0), thick, 0.9 * tall), mat, g)
    for _ in range(rng.randrange(0, 6)):  # windows, doors, signs
        half = (D * rng.uniform(0.05, 0.3), 0.01 * D, tall * rng.uniform(0.08, 0.35))
        spot = (D * rng.uniform(-1.2, 1.2), -thick, tall * rng.uniform(-0.5, 0.4))
        b.add(BOX, half, b.material(2 * half[0], plain=0.3), g, spot)


def hills(lay: Layout) -> None:
    """Far things of open ground: half-sunk ellipsoids, houses."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    for _ in range(rng.randrange(2, 9)):
        y = D * rng.uniform(3, 14)
        x = y * rng.uniform(-1.2, 1.2)
        s = D * rng.uniform(0.5, 3)
        g = b.still_group(x, y, lay.height(x, y), rng.uniform(0, 3))
        mat = b.material(s, plain=0.05)
        if rng.random() < 0.5:
            b.add(ELLIPSOID, (s, s * rng.uniform(0.5, 1), s * rng.uniform(0.2, 0.8)), mat, g)
        else:
            b.add(BOX, (0.5 * s, 0.4 * s, 0.5 * s * rng.uniform(0.4, 1.5)), mat, g)


def clutter(lay: Layout, count: int, scale: float, near: float, far: float, natural: float) -> None:
    """Stand `count` things of about `scale` in view; `natural` is the share of made-up solids."""
    b, rng = lay.b, lay.rng
    others: list[Callable[[Builder, int, float], float]] = [
        things.pole, things.table, things.chair, things.shelf, things.plant, things.plant,
        things.stack, things.stack, things.person, things.car, things.animal,
    ]  # fmt: skip
    for _ in range(count):
        size = scale * math.exp(rng.gauss(0, 0.45))
        make = things.solid if rng.random() < natural else rng.choice(others)
        for _ in range(6):
            x, y, _far = lay.spot(near, far, 1.1)
            if lay.free(x, y, 0.45 * size, 0.9):
                lay.taken.append((x, y, 0.45 * size))
                tilt = rng.uniform(-0.6, 0.6) if rng.random() < 0.06 else 0.0
                z = lay.height(x, y) + (size * rng.uniform(0.3, 1) if rng.random() < 0.04 else 0.0)
                make(b, b.still_group(x, y, z, rng.uniform(0, 2 * math.pi), tilt), size)
                break


def mover(lay: Layout, scale: float, width_px: int) -> None:
    """One thing that travels over the floor, rolls, spins in place or flies."""
    b, rng, path = lay.b, lay.rng, lay.path
    s = np.array(path.times) - 0.5
    size = scale * math.exp(rng.gauss(0.1, 0.35))
    x, y, z = 0.0, path.distance, 0.0
    for _ in range(12):
        x, y, _far = lay.spot(0.55, 1.5, 0.7)
        if lay.free(x, y, 0.4 * size, 0.7):
            break
    wide = 2 * y * math.tan(path.half_angle)
    size = min(size, 0.45 * wide)
    gap = float(np.diff(s).max()) if len(s) > 1 else 1.0
    length = min(wide * math.exp(rng.uniform(math.log(0.04), math.log(0.8))), 0.25 * wide / gap)
    heading = rng.choice((0.0, math.pi)) + rng.gauss(0, 0.7)
    bend = rng.gauss(0, 0.5)
    t = np.zeros((len(s), 3))
    angle = heading + bend * s
    t[:, 0] = x + length * s * np.cos(heading + 0.5 * bend * s)
    t[:, 1] = y + length * s * np.sin(heading + 0.5 * bend * s)
    near = 0.35 * path.distance
    t[:, 1] = np.maximum(t[:, 1], near + 0.0 * s)
    style = rng.choices(("walk", "drive", "run", "roll", "slide", "spin", "fly"),
                        (26, 14, 10, 14, 16, 8, 12))[0]  # fmt: skip
    if style == "spin":
        t[:, :2] = x, y
        angle = heading + rng.choice((-1, 1)) * rng.uniform(0.4, 2.5) * s
    elif style in ("slide", "fly") and rng.random() < 0.6:
        angle = angle + rng.uniform(-2.0, 2.0) * s
    t[:, 2] = [lay.height(float(u), float(v)) for u, v, _ in t]
    if style == "fly":
        z = size * rng.uniform(0.3, 1.2)
        t[:, 2] += z + rng.uniform(-0.6, 0.6) * size * s
    R = np.zeros((len(s), 3, 3))
    R[:, 0, 0] = R[:, 1, 1] = np.cos(angle)
    R[:, 1, 0], R[:, 0, 1], R[:, 2, 2] = np.sin(angle), -np.sin(angle), 1.0
    g = b.add_group(R, t, True)
    phase = rng.uniform(0, 6)
    per_length = rng.uniform(2.5, 5) / size
    phases = [phase + per_length * length * float(k) for k in s]
    lay.taken.append((x, y, 0.4 * size))
    if style == "walk":
        things.person(b, g, size * 1.3, phases)
    elif style == "drive":
        things.car(b, g, size * 1.3, phases)
    elif style == "run":
        things.animal(b, g, size, phases)
    elif style == "roll":
        size *= rng.uniform(0.4, 1.0)
        things.ball(b, g, size)
        turns = [length * float(k) / (0.5 * size) for k in s]
        b.swings.append(Swing(len(b.rows) - 1, (0.0, 0.0, 0.5 * size), (0.0, 1.0, 0.0), turns))
    elif style == "slide" and rng.random() < 0.5:
        rng.choice((things.chair, things.stack, things.shelf, things.table))(b, g, size)
    else:
        things.solid(b, g, size)
