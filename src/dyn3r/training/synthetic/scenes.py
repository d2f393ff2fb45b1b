"""Scenes of the synthetic world as flat arrays: primitives, materials, moving groups.

The middle camera is above the origin and points along +y; z is up and the floor is z = 0. All
random numbers come from one `random.Random`, so that a scene is a pure function of its seed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np

BOX, ELLIPSOID, FRUSTUM, CAPSULE, TORUS, ROUNDBOX, SUPER, ARC, ROOM, GROUND = range(10)
MATERIAL_COLUMNS = 24

Vec = tuple[float, float, float]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def rotation(axis: Vec, angle: float) -> tuple[float, ...]:
    """Compute the row-major rotation about a unit axis (Rodrigues)."""
    x, y, z = axis
    c, s = math.cos(angle), math.sin(angle)
    k = 1 - c
    return (
        c + x * x * k, x * y * k - z * s, x * z * k + y * s,
        y * x * k + z * s, c + y * y * k, y * z * k - x * s,
        z * x * k - y * s, z * y * k + x * s, c + z * z * k,
    )  # fmt: skip


def multiply(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """Multiply two row-major rotations."""
    return tuple(
        a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]
        for i in range(3)
        for j in range(3)
    )


@dataclass
class Joint:
    """Rotation of primitive `prim` about `axis` through `pivot` (group axes), per frame."""

    prim: int
    pivot: Vec
    axis: Vec
    angles: list[float]


@dataclass
class Group:
    """Primitives with a common motion: world rotation and position, per frame if they move."""

    R: np.ndarray | tuple[float, ...]  # (frames, 3, 3), or row-major
    t: np.ndarray | Vec  # (frames, 3), or one for all
    moving: bool


@dataclass
class SceneArrays:
    """Input of the kernels; see `raycast` and `shading` for the columns."""

    prim: np.ndarray  # (p, 9) float32
    half: np.ndarray  # (p, 3) float32, negative for rooms and grounds
    radii: np.ndarray  # (p,) float32
    rt: np.ndarray  # (frames, p, 12) float32
    moving: np.ndarray  # (p,) bool
    mat_of: np.ndarray  # (p,) int32
    mats: np.ndarray  # (m, 24) float32
    relief: np.ndarray  # (4, 4) float32


@dataclass
class Builder:
    """Collects primitives and converts them to `SceneArrays`."""

    rng: random.Random
    frames: int
    num_procedural: int
    """Number of procedural tiles in the texture bank (they come first)."""
    num_tiles: int
    rows: list[list[float]] = field(default_factory=list)
    half: list[Vec] = field(default_factory=list)
    radii: list[float] = field(default_factory=list)
    place: list[tuple[float, ...]] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    mat_of: list[int] = field(default_factory=list)
    mats: list[list[float]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    joints: list[Joint] = field(default_factory=list)
    relief: list[Vec | tuple[float, ...]] = field(default_factory=list)

    def colour(self) -> Vec:
        """Sample a linear colour, from dark to light and from grey to saturated."""
        random = self.rng.random
        grey = self.rng.uniform(0.15, 0.95) ** 2
        vivid = random() ** 1.7 * 0.9
        r, g, b = random(), random(), random()
        mean = (r + g + b) / 3
        return (
            min(max(grey * (1 + vivid * 2 * (r - mean)), 0.01), 0.95),
            min(max(grey * (1 + vivid * 2 * (g - mean)), 0.01), 0.95),
            min(max(grey * (1 + vivid * 2 * (b - mean)), 0.01), 0.95),
        )

    def material(self, size: float, mapping: int = 0, glow: float = 0.0, plain: float = 0.2) -> int:
        """Add a random material for an object about `size` long; returns its row."""
        rng = self.rng
        row = [0.0] * MATERIAL_COLUMNS
        row[0] = -1.0
        row[7:10] = self.colour()
        row[10:13] = self.colour()
        if rng.random() > plain:
            photo = self.num_tiles > self.num_procedural and rng.random() < 0.45
            low, high = (self.num_procedural, self.num_tiles) if photo else (0, self.num_procedural)
            row[0] = float(rng.randrange(low, high))
            row[13] = 0.0 if rng.random() < (0.8 if photo else 0.55) else 1.0
            row[20] = 1.0 if photo else 0.0
            if row[13] == 0.0:
                tint = rng.uniform(0.75, 1.2)
                row[7:10] = [tint * math.exp(rng.gauss(0, 0.08)) for _ in range(3)]
        row[1] = math.exp(rng.uniform(math.log(0.35), math.log(2.5))) / size
        turn = rng.choice((0.0, 0.0, math.pi / 2, rng.uniform(0, 6.3)))
        row[2], row[3] = math.cos(turn), math.sin(turn)
        row[4], row[5] = rng.random() * 8, rng.random() * 8
        row[6] = float(mapping)
        row[14] = -1.0
        if rng.random() < 0.6:
            row[14] = float(rng.randrange(0, self.num_procedural))
            row[15] = row[1] * rng.uniform(0.3, 5.0)
            row[16] = rng.uniform(0.05, 0.5)
        if rng.random() < 0.35:
            row[17], row[18] = rng.uniform(0.05, 0.8), math.exp(rng.uniform(2, 4.6))
        row[19] = glow
        row[21] = 0.5 * size
        self.mats.append(row)
        return len(self.mats) - 1

    def static_group(self, x: float, y: float, z: float, yaw: float, tilt: float = 0.0) -> int:
        """Add a group at rest; returns its index."""
        R = rotation((0.0, 0.0, 1.0), yaw)
        if tilt:
            R = multiply(R, rotation((1.0, 0.0, 0.0), tilt))
        self.groups.append(Group(R, (x, y, z), moving=False))
        return len(self.groups) - 1

    def moving_group(self, R: np.ndarray, t: np.ndarray) -> int:
        """Add a moving group, world from group per frame; returns its index."""
        self.groups.append(Group(R, t, moving=True))
        return len(self.groups) - 1

    def _motions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rotations (frames, g, 3, 3) and positions (frames, g, 3) of all groups."""
        count = len(self.groups)
        R, t = np.empty((self.frames, count, 3, 3)), np.empty((self.frames, count, 3))
        static = [k for k, g in enumerate(self.groups) if isinstance(g.R, tuple)]
        R[:, static] = np.array([self.groups[k].R for k in static]).reshape(-1, 3, 3)
        t[:, static] = np.array([self.groups[k].t for k in static]).reshape(-1, 3)
        for k, group in enumerate(self.groups):
            if not isinstance(group.R, tuple):
                R[:, k], t[:, k] = group.R, group.t
        return R, t

    def add(
        self,
        kind: int,
        size: Vec,
        mat: int,
        group: int,
        at: Vec = (0.0, 0.0, 0.0),
        R: tuple[float, ...] = IDENTITY,
        extra: tuple[float, ...] = (),
    ) -> int:
        """Add a primitive in group axes; returns its index."""
        a, b, c = size
        half: Vec = (a, b, c)
        if kind == FRUSTUM:
            wide = max(1.0, extra[0])
            half = (a * wide, b * wide, c)
            radius = math.hypot(max(half[0], half[1]), c)
        elif kind == CAPSULE:
            half, radius = (a, a, c + a), a + c
        elif kind in (TORUS, ARC):
            half, radius = (a + b, a + b, b), a + b
        elif kind == ELLIPSOID:
            radius = max(size)
        elif kind in (ROOM, GROUND):
            half, radius = (-1.0, -1.0, -1.0), 1e6
        else:
            radius = math.sqrt(a * a + b * b + c * c)
        self.rows.append([float(kind), a, b, c, *extra, *([0.0] * (5 - len(extra)))])
        self.half.append(half)
        self.radii.append(radius * 1.001)
        self.place.append((*R, *at))
        self.group_of.append(group)
        self.mat_of.append(mat)
        return len(self.rows) - 1

    def limb(self, start: Vec, end: Vec, r: float, mat: int, group: int) -> int:
        """Add a capsule between two points in group axes; returns its index."""
        d = [e - s for s, e in zip(start, end)]
        length = math.sqrt(sum(x * x for x in d)) + 1e-9
        x, y, z = (v / length for v in d)
        R: tuple[float, ...] = IDENTITY
        if z < -0.9999:
            R = rotation((1.0, 0.0, 0.0), math.pi)
        elif z < 0.9999:
            s = math.hypot(x, y)
            R = rotation((-y / s, x / s, 0.0), math.acos(z))
        middle = (
            0.5 * (start[0] + end[0]),
            0.5 * (start[1] + end[1]),
            0.5 * (start[2] + end[2]),
        )
        return self.add(CAPSULE, (r, r, 0.5 * length), mat, group, middle, R)

    def finish(self) -> SceneArrays:
        """Place all primitives in the world for every frame."""
        place = np.array(self.place)
        group = np.array(self.group_of)
        Rl = np.broadcast_to(place[:, :9].reshape(-1, 3, 3), (self.frames, len(place), 3, 3)).copy()
        tl = np.broadcast_to(place[:, 9:], (self.frames, len(place), 3)).copy()
        for joint in self.joints:
            pivot = np.array(joint.pivot)
            for k, angle in enumerate(joint.angles):
                turn = np.array(rotation(joint.axis, angle)).reshape(3, 3)
                Rl[k, joint.prim] = turn @ Rl[k, joint.prim]
                tl[k, joint.prim] = turn @ (tl[k, joint.prim] - pivot) + pivot
        of_groups, at_groups = self._motions()
        Rg = of_groups[:, group]
        R = Rg @ Rl
        t = (Rg @ tl[..., None])[..., 0] + at_groups[:, group]
        relief = np.zeros((4, 4), np.float32)
        if self.relief:
            relief[: len(self.relief)] = self.relief
        return SceneArrays(
            prim=np.array(self.rows, np.float32),
            half=np.array(self.half, np.float32),
            radii=np.array(self.radii, np.float32),
            rt=np.concatenate([R.reshape(*R.shape[:2], 9), t], -1).astype(np.float32),
            moving=np.array([g.moving for g in self.groups])[group],
            mat_of=np.array(self.mat_of, np.int32),
            mats=np.array(self.mats, np.float32),
            relief=relief,
        )
