"""Objects of the synthetic world: simple solids, furniture, plants, people, cars, animals.

Each function adds its primitives to group `g` of a builder, in the group's axes: the base at z = 0,
about `s` tall or long, the front along +x. It returns the radius of its footprint.
"""

from __future__ import annotations

import math

from dyn3r.training.synthetic.scenes import (
    ARC,
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    ROUNDBOX,
    SUPER,
    TORUS,
    Builder,
    Joint,
    Vec,
    rotation,
)


def solid(b: Builder, g: int, s: float) -> float:
    """Add a random solid, standing or lying."""
    rng = b.rng
    kind = rng.choice((BOX, BOX, BOX, ROUNDBOX, ROUNDBOX, ELLIPSOID, ELLIPSOID, FRUSTUM, FRUSTUM,
                       FRUSTUM, CAPSULE, TORUS, SUPER, ARC))  # fmt: skip
    x, y, z = (0.5 * s * rng.uniform(0.25, 1.0) for _ in range(3))
    curved = kind in (ELLIPSOID, FRUSTUM, CAPSULE)
    mat = b.material(s, rng.choice((1, 2)) if curved and rng.random() < 0.7 else 0)
    if kind == ELLIPSOID and rng.random() < 0.5:
        x = y = z
    extra: tuple[float, ...] = ()
    R = rotation((0.0, 0.0, 1.0), 0.0)
    foot = z
    if kind == ROUNDBOX:
        extra = (min(x, y, z) * rng.uniform(0.1, 0.95),)
    elif kind == FRUSTUM:
        extra = (rng.choice((1.0, 1.0, 0.0, rng.uniform(0.1, 1.4))),)
        y = x if rng.random() < 0.7 else y
    elif kind == CAPSULE:
        x *= 0.5
        foot = x
        if rng.random() < 0.5:
            R = rotation((0.0, 1.0, 0.0), math.pi / 2)
        else:
            foot = x + z
    elif kind in (TORUS, ARC):
        y = x * rng.uniform(0.12, 0.5)
        foot = y
        opening = rng.uniform(0.6, 2.6)
        extra = (math.sin(opening), math.cos(opening)) if kind == ARC else ()
        if rng.random() < 0.4:
            R = rotation((1.0, 0.0, 0.0), math.pi / 2)
            foot = x + y
    b.add(kind, (x, y, z), mat, g, (0.0, 0.0, foot * 0.995), R, extra)
    return max(x + (y if kind in (TORUS, ARC) else 0.0), y, z if kind == CAPSULE else 0.0) * 1.2


def pole(b: Builder, g: int, s: float) -> float:
    """Add a thin pole with a head: lamp, sign, bollard."""
    rng = b.rng
    mat = b.material(0.3 * s, 1)
    r = s * rng.uniform(0.012, 0.04)
    b.add(FRUSTUM, (r, r, 0.5 * s), mat, g, (0.0, 0.0, 0.5 * s), extra=(rng.uniform(0.6, 1.0),))
    b.add(FRUSTUM, (3 * r, 3 * r, r), mat, g, (0.0, 0.0, r), extra=(0.8,))
    head = s * rng.uniform(0.06, 0.16)
    top = b.material(2 * head, glow=rng.choice((0.0, 0.0, 1.5)))
    if rng.random() < 0.5:
        b.add(ELLIPSOID, (head, head, head), top, g, (0.0, 0.0, s))
    else:
        b.add(BOX, (0.1 * head, 1.5 * head, head), top, g, (2 * r, 0.0, s))
    return 0.15 * s


def table(b: Builder, g: int, s: float) -> float:
    """Add a table, sometimes with objects on it."""
    rng = b.rng
    mat = b.material(s)
    legs = mat if rng.random() < 0.6 else b.material(0.4 * s)
    x, y, h = 0.5 * s * rng.uniform(0.7, 1), 0.5 * s * rng.uniform(0.45, 1), s * 0.55
    t = s * rng.uniform(0.01, 0.04)
    b.add(BOX, (x, y, t), mat, g, (0.0, 0.0, h - t))
    r = s * rng.uniform(0.015, 0.035)
    for i in (-1, 1):
        for j in (-1, 1):
            at = (i * (x - r), j * (y - r), 0.5 * (h - 2 * t))
            b.add(BOX, (r, r, 0.5 * (h - 2 * t)), legs, g, at)
    for _ in range(rng.randrange(4)):
        z = s * rng.uniform(0.05, 0.2)
        at = (rng.uniform(-0.7, 0.7) * x, rng.uniform(-0.7, 0.7) * y, h + z)
        m = b.material(2 * z, 1)
        if rng.random() < 0.5:
            b.add(FRUSTUM, (0.5 * z, 0.5 * z, z), m, g, at, extra=(rng.uniform(0.5, 1.2),))
        else:
            yaw = rotation((0.0, 0.0, 1.0), rng.uniform(0, 3))
            b.add(BOX, (0.8 * z, 0.4 * z, z), m, g, at, yaw)
    return math.hypot(x, y)


def chair(b: Builder, g: int, s: float) -> float:
    """Add a chair: seat, back and four legs."""
    rng = b.rng
    mat = b.material(s)
    w, h, t = 0.22 * s, 0.45 * s, 0.025 * s
    b.add(ROUNDBOX, (w, w, t), mat, g, (0.0, 0.0, h), extra=(0.8 * t,))
    back = rotation((0.0, 1.0, 0.0), -0.12)
    b.add(BOX, (t, w, 0.27 * s), mat, g, (-w, 0.0, h + 0.27 * s), back)
    r = s * rng.uniform(0.012, 0.025)
    for i in (-1, 1):
        for j in (-1, 1):
            at = (i * (w - r), j * (w - r), 0.5 * h)
            b.add(FRUSTUM, (r, r, 0.5 * h), mat, g, at, extra=(1.0,))
    return 1.4 * w


def shelf(b: Builder, g: int, s: float) -> float:
    """Add a cupboard or an open shelf with books."""
    rng = b.rng
    mat = b.material(s)
    d, w = 0.16 * s, 0.5 * s * rng.uniform(0.4, 0.9)
    if rng.random() < 0.4:
        b.add(BOX, (d, w, 0.5 * s), mat, g, (0.0, 0.0, 0.5 * s))
        door = b.material(0.5 * s)
        for j in (-1, 1):
            b.add(BOX, (0.02 * s, 0.47 * w, 0.44 * s), door, g, (d, 0.5 * j * w, 0.5 * s))
        return math.hypot(d, w)
    b.add(BOX, (0.02 * s, w, 0.5 * s), mat, g, (-d, 0.0, 0.5 * s))
    for j in (-1, 1):
        b.add(BOX, (d, 0.02 * s, 0.5 * s), mat, g, (0.0, j * w, 0.5 * s))
    levels = rng.randrange(2, 5)
    for k in range(levels + 1):
        z = s * (0.02 + 0.96 * k / levels)
        b.add(BOX, (d, w, 0.015 * s), mat, g, (0.0, 0.0, z))
        if k < levels:
            for _ in range(rng.randrange(3)):
                h = 0.4 * s / levels * rng.uniform(0.4, 0.95)
                book = b.material(2 * h)
                wide = w * rng.uniform(0.05, 0.3)
                at = (0.0, rng.uniform(-0.6, 0.6) * w, z + h)
                b.add(BOX, (0.7 * d, wide, h), book, g, at)
    return math.hypot(d, w)


def plant(b: Builder, g: int, s: float) -> float:
    """Add a plant or a tree: a trunk and a crown of ellipsoids, sometimes in a pot."""
    rng = b.rng
    leaf = b.material(0.3 * s)
    green = (rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.5), rng.uniform(0.02, 0.15))
    b.mats[leaf][7:10], b.mats[leaf][13] = green, 1.0
    b.mats[leaf][10:13] = [0.3 * c for c in green]
    trunk = b.material(0.2 * s, 1)
    r = s * rng.uniform(0.02, 0.06)
    b.add(FRUSTUM, (r, r, 0.3 * s), trunk, g, (0.0, 0.0, 0.3 * s), extra=(0.7,))
    if rng.random() < 0.5:
        p = 0.16 * s
        b.add(FRUSTUM, (0.6 * p, 0.6 * p, 0.6 * p), trunk, g, (0.0, 0.0, 0.6 * p), extra=(1.4,))
    for _ in range(rng.randrange(3, 9)):
        size = s * rng.uniform(0.1, 0.22)
        at = (s * rng.gauss(0, 0.12), s * rng.gauss(0, 0.12), s * rng.uniform(0.5, 0.85))
        flat = size * rng.uniform(0.25, 1.0)
        R = rotation((0.0, 1.0, 0.0), rng.uniform(-1, 1))
        b.add(ELLIPSOID, (size, size * rng.uniform(0.4, 1), flat), leaf, g, at, R)
    return 0.25 * s


def stack(b: Builder, g: int, s: float) -> float:
    """Add a stack of boxes and drums."""
    rng = b.rng
    z, w = 0.0, 0.35 * s * rng.uniform(0.6, 1.0)
    for _ in range(rng.randrange(2, 5)):
        h = 0.5 * s * rng.uniform(0.2, 0.5)
        yaw = rotation((0.0, 0.0, 1.0), rng.uniform(0, 3))
        mat = b.material(2 * w, rng.choice((0, 1)))
        kind = rng.choice((BOX, BOX, ROUNDBOX, FRUSTUM))
        extra = (1.0,) if kind == FRUSTUM else ((0.2 * min(h, w),) if kind == ROUNDBOX else ())
        deep = w if kind == FRUSTUM else w * rng.uniform(0.5, 1)
        b.add(kind, (w, deep, h), mat, g, (0.0, 0.0, z + h), yaw, extra)
        z += 2 * h
        w *= rng.uniform(0.6, 1.0)
    return 0.45 * s


def person(b: Builder, g: int, s: float, phases: list[float] | None = None) -> float:
    """Add a person made of capsules; `phases` (radians, per frame) swing arms and legs."""
    rng = b.rng
    skin, shirt, legs = b.material(0.3 * s, 1), b.material(0.4 * s, 1), b.material(0.4 * s, 1)
    b.mats[skin][7:10], b.mats[skin][0] = (rng.uniform(0.1, 0.7), rng.uniform(0.08, 0.45), 0.2), -1
    hair = b.material(0.2 * s)
    wide = s * rng.uniform(0.09, 0.12)
    b.limb((0.0, 0.0, 0.52 * s), (0.0, 0.0, 0.76 * s), 0.9 * wide, shirt, g)
    b.limb((0.0, -wide, 0.78 * s), (0.0, wide, 0.78 * s), 0.05 * s, shirt, g)
    b.add(ELLIPSOID, (0.065 * s, 0.055 * s, 0.075 * s), skin, g, (0.01 * s, 0.0, 0.92 * s))
    b.add(ELLIPSOID, (0.06 * s, 0.06 * s, 0.05 * s), hair, g, (-0.015 * s, 0.0, 0.96 * s))
    b.limb((0.0, 0.0, 0.8 * s), (0.0, 0.0, 0.88 * s), 0.03 * s, skin, g)
    pose = rng.uniform(0, 6.3)
    gait = phases if phases is not None else [pose] * b.frames
    swing, across = rng.uniform(0.3, 0.6), (0.0, 1.0, 0.0)
    for side in (-1, 1):
        hip: Vec = (0.0, side * 0.055 * s, 0.5 * s)
        knee: Vec = (0.015 * s, hip[1], 0.27 * s)
        foot: Vec = (0.0, hip[1], 0.05 * s)
        shoulder: Vec = (0.0, side * 1.25 * wide, 0.78 * s)
        elbow: Vec = (-0.01 * s, side * 1.4 * wide, 0.6 * s)
        hand: Vec = (0.05 * s, side * 1.4 * wide, 0.44 * s)
        leg = [
            b.limb(hip, knee, 0.05 * s, legs, g),
            b.limb(knee, foot, 0.035 * s, legs, g),
            b.limb(foot, (0.09 * s, hip[1], 0.03 * s), 0.03 * s, hair, g),
        ]
        arm = [
            b.limb(shoulder, elbow, 0.033 * s, shirt, g),
            b.limb(elbow, hand, 0.026 * s, skin, g),
        ]
        for part in leg:
            b.joints.append(Joint(part, hip, across, [side * swing * math.sin(p) for p in gait]))
        for part in arm:
            angles = [-side * 0.8 * swing * math.sin(p) for p in gait]
            b.joints.append(Joint(part, shoulder, across, angles))
    return 0.2 * s


def car(b: Builder, g: int, s: float, phases: list[float] | None = None) -> float:
    """Add a car: body, cabin, four wheels that rotate with `phases` (radians, per frame)."""
    rng = b.rng
    body, glass, tyre = b.material(s, plain=0.6), b.material(0.5 * s), b.material(0.2 * s)
    b.mats[body][17:19] = (0.6, 40.0)
    b.mats[glass][0], b.mats[glass][7:10] = -1.0, (0.05, 0.06, 0.08)
    b.mats[tyre][7:10], b.mats[tyre][10:13], b.mats[tyre][13] = (0.02,) * 3, (0.15,) * 3, 1.0
    w, r = 0.2 * s, 0.075 * s
    h = s * rng.uniform(0.07, 0.12)
    b.add(ROUNDBOX, (0.5 * s, w, h), body, g, (0.0, 0.0, r + h), extra=(0.5 * h,))
    cabin, tall = s * rng.uniform(0.2, 0.34), s * rng.uniform(0.06, 0.14)
    at = (s * rng.uniform(-0.12, 0.02), 0.0, r + 2 * h + 0.7 * tall)
    shape = rng.choice((ROUNDBOX, SUPER))
    extra = (0.3 * tall,) if shape == ROUNDBOX else ()
    b.add(shape, (cabin, 0.9 * w, tall), glass, g, at, extra=extra)
    b.add(BOX, (0.8 * cabin, 0.8 * w, 0.012 * s), body, g, (at[0], 0.0, at[2] + tall))
    flat = rotation((1.0, 0.0, 0.0), math.pi / 2)
    for i in (-1, 1):
        for j in (-1, 1):
            hub: Vec = (0.3 * i * s, 0.93 * j * w, r)
            k = b.add(FRUSTUM, (r, r, 0.1 * w), tyre, g, hub, flat, (1.0,))
            if phases is not None:
                b.joints.append(Joint(k, hub, (0.0, 1.0, 0.0), [2.0 * p for p in phases]))
    return 0.5 * s


def animal(b: Builder, g: int, s: float, phases: list[float] | None = None) -> float:
    """Add a four-legged animal; `phases` (radians, per frame) swing its legs."""
    rng = b.rng
    coat = b.material(0.6 * s, 1)
    z, r = s * rng.uniform(0.4, 0.6), s * rng.uniform(0.1, 0.17)
    b.limb((-0.3 * s, 0.0, z), (0.25 * s, 0.0, z), r, coat, g)
    b.limb((0.25 * s, 0.0, z), (0.4 * s, 0.0, z + 0.22 * s), 0.06 * s, coat, g)
    b.add(ELLIPSOID, (0.12 * s, 0.07 * s, 0.07 * s), coat, g, (0.46 * s, 0.0, z + 0.25 * s))
    b.limb((-0.35 * s, 0.0, z), (-0.5 * s, 0.0, z + 0.15 * s), 0.02 * s, coat, g)
    gait = phases if phases is not None else [rng.uniform(0, 6)] * b.frames
    for i in (-1, 1):
        for j in (-1, 1):
            hip: Vec = (0.25 * i * s, 0.6 * j * r, z)
            k = b.limb(hip, (hip[0], hip[1], 0.035 * s), 0.035 * s, coat, g)
            b.joints.append(
                Joint(k, hip, (0.0, 1.0, 0.0), [0.4 * i * j * math.sin(p) for p in gait])
            )
    return 0.5 * s


def ball(b: Builder, g: int, s: float) -> float:
    """Add a ball on the origin of the group."""
    r = 0.5 * s
    b.add(ELLIPSOID, (r, r, r), b.material(s, b.rng.choice((0, 1, 2)), plain=0.1), g, (0.0, 0.0, r))
    return r
