"""Placement of static objects, and trajectories of moving ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dyn3r.training.synthetic import objects
from dyn3r.training.synthetic.layouts import Layout
from dyn3r.training.synthetic.scenes import Builder, Joint


def add_objects(
    lay: Layout, count: int, scale: float, near: float, far: float, solid_share: float
) -> None:
    """Place `count` static objects of about `scale` in view; a share of them are random solids."""
    b, rng = lay.b, lay.rng
    others: list[Callable[[Builder, int, float], float]] = [
        objects.pole, objects.table, objects.chair, objects.shelf, objects.plant, objects.plant,
        objects.stack, objects.stack, objects.person, objects.car, objects.animal,
    ]  # fmt: skip
    for _ in range(count):
        size = scale * math.exp(rng.gauss(0, 0.45))
        make = objects.solid if rng.random() < solid_share else rng.choice(others)
        for _ in range(6):
            x, y = lay.sample_place(near, far, 1.1)
            if lay.free(x, y, 0.45 * size, 0.9):
                lay.occupied.append((x, y, 0.45 * size))
                tilt = rng.uniform(-0.6, 0.6) if rng.random() < 0.06 else 0.0
                z = lay.height(x, y) + (size * rng.uniform(0.3, 1) if rng.random() < 0.04 else 0.0)
                make(b, b.static_group(x, y, z, rng.uniform(0, 2 * math.pi), tilt), size)
                break


def add_moving_object(lay: Layout, scale: float) -> None:
    """Add one object that travels over the ground, rolls, rotates in place or flies."""
    b, rng, path = lay.b, lay.rng, lay.path
    s = np.array(path.times) - 0.5
    size = scale * math.exp(rng.gauss(0.1, 0.35))
    x, y = 0.0, path.distance
    for _ in range(12):
        x, y = lay.sample_place(0.55, 1.5, 0.7)
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
    t[:, 1] = np.maximum(t[:, 1], 0.35 * path.distance)
    style = rng.choices(("walk", "drive", "run", "roll", "slide", "spin", "fly"),
                        (26, 14, 10, 14, 16, 8, 12))[0]  # fmt: skip
    if style == "spin":
        t[:, :2] = x, y
        angle = heading + rng.choice((-1, 1)) * rng.uniform(0.4, 2.5) * s
    elif style in ("slide", "fly") and rng.random() < 0.6:
        angle = angle + rng.uniform(-2.0, 2.0) * s
    t[:, 2] = [lay.height(float(u), float(v)) for u, v, _ in t]
    if style == "fly":
        t[:, 2] += size * rng.uniform(0.3, 1.2) + rng.uniform(-0.6, 0.6) * size * s
    R = np.zeros((len(s), 3, 3))
    R[:, 0, 0] = R[:, 1, 1] = np.cos(angle)
    R[:, 1, 0], R[:, 0, 1], R[:, 2, 2] = np.sin(angle), -np.sin(angle), 1.0
    g = b.moving_group(R, t)
    phase = rng.uniform(0, 6)
    per_length = rng.uniform(2.5, 5) / size
    lay.occupied.append((x, y, 0.4 * size))
    travelled = [length * float(k) for k in s]
    _add_shape(lay, style, g, size, travelled, [phase + per_length * length * float(k) for k in s])


def _add_shape(
    lay: Layout, style: str, g: int, size: float, travelled: list[float], phases: list[float]
) -> None:
    """Add the primitives of a moving object to its group.

    travelled, phases: distance and gait (radians) per frame.
    """
    b, rng = lay.b, lay.rng
    if style == "walk":
        objects.person(b, g, size * 1.3, phases)
    elif style == "drive":
        objects.car(b, g, size * 1.3, phases)
    elif style == "run":
        objects.animal(b, g, size, phases)
    elif style == "roll":
        size *= rng.uniform(0.4, 1.0)
        objects.ball(b, g, size)
        angles = [distance / (0.5 * size) for distance in travelled]
        b.joints.append(Joint(len(b.rows) - 1, (0.0, 0.0, 0.5 * size), (0.0, 1.0, 0.0), angles))
    elif style == "slide" and rng.random() < 0.5:
        rng.choice((objects.chair, objects.stack, objects.shelf, objects.table))(b, g, size)
    else:
        objects.solid(b, g, size)
