"""Layouts of synthetic scenes: rooms, streets, table tops and open ground."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dyn3r.training.synthetic.camera_paths import CameraPath
from dyn3r.training.synthetic.scenes import BOX, ELLIPSOID, GROUND, ROOM, Builder, Vec

NO_OPENING = (-1.0, 0.0, 0.0, 0.0, 0.0)
NEAR_FAR_WALL = (math.log(0.85), math.log(3.0))
"""Range of the log distance of the wall behind the content of a room, over the distance to the
content."""

WALL_TABLE_SHARE = 0.5
"""Share of tables that stand against the wall in view, as desks and kitchen tops do."""


@dataclass
class Layout:
    """Scene in construction, and the parts of its floor that are free."""

    b: Builder
    rng: random.Random
    path: CameraPath
    occupied: list[tuple[float, float, float]] = field(default_factory=list)
    """Discs on the floor that objects occupy: x, y, radius."""
    inside: Callable[[float, float, float], bool] = lambda _x, _y, _r: True
    """Whether a disc on the floor (x, y, radius) lies inside the scene."""
    height: Callable[[float, float], float] = lambda _x, _y: 0.0
    """Height of the ground at (x, y)."""

    def free(self, x: float, y: float, r: float, gap: float = 1.0) -> bool:
        """Whether a disc on the floor is inside and touches neither an object nor a camera."""
        keep = r + 0.2 * self.path.distance
        if any((x - t[0]) ** 2 + (y - t[1]) ** 2 < keep * keep for t in self.path.t):
            return False
        if any((x - a) ** 2 + (y - c) ** 2 < (gap * (r + s)) ** 2 for a, c, s in self.occupied):
            return False
        return self.inside(x, y, r)

    def sample_place(self, near: float, far: float, wide: float) -> tuple[float, float]:
        """Sample a place in view, x and y; near, far: range of y over the content's distance."""
        rng, path = self.rng, self.path
        y = path.distance * math.exp(rng.uniform(math.log(near), math.log(far)))
        return rng.uniform(-wide, wide) * y * math.tan(path.half_angle), y


@dataclass(frozen=True)
class Room:
    """Box around cameras and content."""

    group: int
    """Group of the box; its axes are the local axes."""
    half: tuple[float, float, float]
    """Half sizes."""
    yaw: float
    local: Callable[[float, float], tuple[float, float]]
    """Converts a place on the floor from world to local axes."""
    world: Callable[[float, float], tuple[float, float]]
    """Converts a place on the floor from local to world axes."""


def room(lay: Layout, floor: float, ceiling: float) -> Room:
    """Add a room around cameras and content, with wall panels, an opening and furniture."""
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
    extra = _opening(rng, hx, hy, hz)
    size = 0.5 * (hx + hy)
    mat = b.material(0.6 * size, plain=0.1)
    b.material(rng.uniform(0.5, 2) * size, plain=0.45)
    b.material(size, plain=0.7)
    g = b.static_group(cx, cy, floor + hz, yaw)
    b.add(ROOM, (hx, hy, hz), mat, g, extra=extra)
    _add_panels(lay, g, (hx, hy, hz))
    around = Room(g, (hx, hy, hz), yaw, local, world)
    furnish(lay, around)
    return around


def _opening(rng: random.Random, hx: float, hy: float, hz: float) -> tuple[float, ...]:
    """Sample a window or door of a room with these half sizes; see `raycast.hit_room`."""
    if rng.random() >= 0.35:
        return NO_OPENING
    side = float(rng.randrange(4))
    along = hy if side < 2 else hx
    half = along * rng.uniform(0.1, 0.4)
    bottom = -1.0 if rng.random() < 0.25 else rng.uniform(-0.5, 0.0)
    middle = rng.uniform(-0.5, 0.5) * along
    return (side, middle, half, bottom * hz, rng.uniform(0.3, 0.8) * hz)


def _add_panels(lay: Layout, g: int, half: Vec) -> None:
    """Add flat panels to the walls of a room with half sizes `half`."""
    b, rng, (hx, hy, hz) = lay.b, lay.rng, half
    for _ in range(rng.randrange(0, 6)):
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


def furnish(lay: Layout, around: Room) -> None:
    """Add cupboards, sideboards and sofas along the walls of the room."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    g, (hx, hy, hz) = around.group, around.half
    for _ in range(rng.randrange(0, 6)):
        wide, deep = D * rng.uniform(0.08, 0.5), D * rng.uniform(0.04, 0.2)
        tall = hz * rng.uniform(0.15, 0.9)
        side = rng.choice((0, 1, 3, 3))  # mostly the wall in view
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
    """Add a table whose top is the plane z = 0, in the room or against the wall in view."""
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
    b.add(BOX, (wide, deep, thick), mat, b.static_group(x, y, -thick, yaw))
    c, s = math.cos(yaw), math.sin(yaw)
    inside = lay.inside

    def on_top(px: float, py: float, r: float) -> bool:
        u, v = c * (px - x) + s * (py - y), -s * (px - x) + c * (py - y)
        return inside(px, py, r) and abs(u) + 0.7 * r < wide and abs(v) + 0.7 * r < deep

    lay.inside = on_top


def street(lay: Layout) -> None:
    """Add a flat road between two rows of facades, open or closed at its end."""
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
            length = _add_facade(lay, side, at, v, yaw)
            v += length + (D * rng.uniform(0, 0.8) if rng.random() < 0.3 else 0.0)
    if rng.random() < 0.6:
        far = D * rng.uniform(3.5, 7)
        g = b.static_group(-s * far, c * far, 0.0, yaw)
        b.add(BOX, (3 * D, 0.5 * D, D * rng.uniform(0.5, 2)), b.material(D, plain=0.05), g)


def _add_facade(lay: Layout, side: float, at: float, v: float, yaw: float) -> float:
    """Add a house on one side (-1, 1) of a street, from v on; returns its length."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    c, s = math.cos(yaw), math.sin(yaw)
    length, tall = D * rng.uniform(0.6, 2.5), D * rng.uniform(0.5, 2.0)
    deep = D * rng.uniform(0.3, 1.0)
    u = at + side * (deep + D * rng.choice((0, 0, 0.1)) * rng.random())
    mid = v + 0.5 * length
    g = b.static_group(c * u - s * mid, s * u + c * mid, 0.5 * tall, yaw)
    b.add(BOX, (deep, 0.5 * length, 0.5 * tall), b.material(0.8 * D, plain=0.05), g)
    if rng.random() < 0.6:  # windows and doors as shallow boxes
        m = b.material(0.2 * D, plain=0.3)
        n = rng.randrange(1, 4)
        for k in range(n):
            place = (
                -side * deep,
                length * ((k + 0.5) / n - 0.5),
                rng.choice((0.0, 0.0, -0.3)) * tall,
            )
            half = (0.01 * D, 0.3 * length / n, tall * rng.uniform(0.08, 0.2))
            b.add(BOX, half, m, g, place)
    return length


def ground(lay: Layout, *, flat: bool) -> None:
    """Add unbounded ground, flat or hilly."""
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
    group = b.static_group(0.0, 0.0, 0.0, 0.0)
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
    """Add a house front, a fence or a hedge across the view, close behind the content."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    yaw, at = rng.gauss(0, 0.35), D * math.exp(rng.uniform(0.0, 0.8))
    c, s = math.cos(yaw), math.sin(yaw)
    tall, thick = D * rng.uniform(0.25, 1.6), D * rng.uniform(0.03, 0.5)
    inside = lay.inside
    lay.inside = lambda x, y, r: inside(x, y, r) and c * y - s * x + r < at
    x, y = -s * (at + thick), c * (at + thick)
    g = b.static_group(x, y, lay.height(x, y) + 0.7 * tall, yaw)
    mat = b.material(0.8 * D, plain=0.1)
    b.add(BOX, (D * rng.uniform(1.5, 5.0), thick, 0.9 * tall), mat, g)
    for _ in range(rng.randrange(0, 6)):  # windows, doors, signs
        half = (D * rng.uniform(0.05, 0.3), 0.01 * D, tall * rng.uniform(0.08, 0.35))
        place = (D * rng.uniform(-1.2, 1.2), -thick, tall * rng.uniform(-0.5, 0.4))
        b.add(BOX, half, b.material(2 * half[0], plain=0.3), g, place)


def hills(lay: Layout) -> None:
    """Add distant hills (ellipsoids) and houses."""
    b, rng, D = lay.b, lay.rng, lay.path.distance
    for _ in range(rng.randrange(2, 9)):
        y = D * rng.uniform(3, 14)
        x = y * rng.uniform(-1.2, 1.2)
        s = D * rng.uniform(0.5, 3)
        g = b.static_group(x, y, lay.height(x, y), rng.uniform(0, 3))
        mat = b.material(s, plain=0.05)
        if rng.random() < 0.5:
            b.add(ELLIPSOID, (s, s * rng.uniform(0.5, 1), s * rng.uniform(0.2, 0.8)), mat, g)
        else:
            b.add(BOX, (0.5 * s, 0.4 * s, 0.5 * s * rng.uniform(0.4, 1.5)), mat, g)
