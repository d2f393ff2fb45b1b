"""The compiled kernels of the synthetic world against slow, readable versions of the same."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

pytest.importorskip("numba")

from dyn3r.training.synthetic import (
    camera_effects,
    lighting,
    raycast,
    rendering,
    scene_sampling,
    shading,
    world,
)
from dyn3r.training.synthetic.scenes import SceneArrays

pytestmark = pytest.mark.slow  # compiles and renders

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[SceneArrays, np.ndarray, np.ndarray]]:
    """A few scenes: arrays, cameras (frames, 16), light."""
    options = world.WorldOptions(size_hw=SIZE_HW, frames=2, procedural_tiles=14)
    source = world.World(options, seed=4)
    scenes = [
        scene_sampling.sample_scene(random.Random(k), options, source.bank, dynamic=True)
        for k in range(6)
    ]
    return [(s.arrays, rendering.camera_rows(s.path, SIZE_HW), s.light) for s in scenes]


def trace(a: SceneArrays, cams: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    depth, index = np.empty(SIZE_HW, np.float32), np.empty(SIZE_HW, np.int32)
    raycast.trace(a.prim, a.half, a.rt[k], a.relief, cams[k], depth, index)
    return depth, index


def rays(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts on a sphere of radius 5, towards places near its middle; directions of any length."""
    start = rng.normal(size=(n, 3))
    start *= 5 / np.linalg.norm(start, axis=1, keepdims=True)
    return start, (rng.uniform(-1, 1, (n, 3)) - start) * rng.uniform(0.1, 2, (n, 1))


def round_box(p: np.ndarray, a: float, b: float, c: float, r: float) -> np.ndarray:
    q = np.abs(p) - [a - r, b - r, c - r]
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - r


def quartic(p: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return ((p / [a, b, c]) ** 4).sum(-1) - 1


@pytest.mark.parametrize("shape", ["round box", "super"])
def test_newton_finds_the_first_crossing(shape: str) -> None:
    hits = 0
    for o, d in zip(*rays(np.random.default_rng(0), 300)):
        if shape == "round box":
            t = raycast.hit_round_box(0.9, 0.5, 0.7, 0.3, *o, *d)
            field = lambda p: round_box(p, 0.9, 0.5, 0.7, 0.3)  # noqa: E731
        else:
            t = raycast.hit_super(0.9, 0.5, 0.7, *o, *d)
            field = lambda p: quartic(p, 0.9, 0.5, 0.7)  # noqa: E731
        far = 10 / np.linalg.norm(d)
        if t == raycast.MISS:
            assert field(o + np.linspace(0, far, 4000)[:, None] * d).min() > -1e-3
        else:
            hits += 1
            assert abs(field(o + t * d)) < 1e-5
            assert field(o + np.linspace(0, 0.999 * t, 4000)[:, None] * d).min() > 0
    assert 60 < hits < 300


def test_rolling_ground_is_met_where_it_first_rises_to_the_ray() -> None:
    rng = np.random.default_rng(1)
    relief = np.zeros((4, 4), np.float32)
    relief[0], relief[1] = (0.2, 0.3, 0.1, 0.4), (0.05, -0.2, 0.7, 0.1)
    top, steep = 0.25, 1.0

    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for amplitude, kx, ky, phase in relief.astype(float):
            f = 2 * ((kx * x + ky * y + phase) % 1) - 1
            total += amplitude * 4 * f * (1 - np.abs(f))
        return total

    for _ in range(200):
        o, d = np.array([*rng.uniform(-9, 9, 2), 1.0]), np.array([*rng.normal(size=2), -0.1])
        t = raycast.hit_ground(relief, 0.0, 1e30, top, steep, *o, *d)
        steps = np.linspace(0, 15, 20001)
        path = o + steps[:, None] * d
        below = path[:, 2] < height(path[:, 0], path[:, 1])
        assert t == pytest.approx(steps[below.argmax()], abs=2e-3)
        again = raycast.hit_ground(relief, 0.7 * t, 1e30, top, steep, *o, *d)
        assert again == pytest.approx(t, rel=1e-6)


def test_rows_agree_with_single_rays(scenes) -> None:  # type: ignore[no-untyped-def]
    """Depth and index are those of the nearest of all primitives, tried one after the other."""
    for a, cams, _ in scenes:
        depth, index = trace(a, cams, 0)
        eye = raycast.eye_table(a.rt[0], cams[0])
        for v, u in ((5, 9), (20, 40), (30, 3), (40, 50), (47, 63)):
            found = [
                raycast.hit_seen(a.prim, p, a.relief, 0.0, 1e30, eye, float(u), float(v))
                for p in range(len(a.prim))
            ]
            if min(found) > raycast.FAR:
                assert index[v, u] == -1
            else:
                assert depth[v, u] == pytest.approx(min(found), rel=1e-5)
                assert found[index[v, u]] == pytest.approx(min(found), rel=1e-5)


def test_shadows_are_what_a_ray_at_every_primitive_says(scenes) -> None:  # type: ignore[no-untyped-def]
    checked = 0
    for a, cams, light in scenes:
        light = light.copy()
        light[28] = 0.0
        depth, index = trace(a, cams, 0)
        world_at, order = np.empty((3, *SIZE_HW), np.float32), np.empty(depth.size, np.int32)
        eye = raycast.eye_table(a.rt[0], cams[0])[-1]
        lighting.points_of(eye, depth, world_at)
        n, lo, step = 96, -6.0 * float(light[30]), 12.0 * float(light[30]) / 96
        starts, items = np.empty(n * n + 1, np.int32), np.empty(64 * n * n, np.int32)
        sun_at = [float(x) for x in light[:3]]
        lighting.light_grid(a.rt[0], a.half, a.radii, 0.02, *sun_at, lo, step, starts, items)
        slant = (sun_at[0] / sun_at[2], sun_at[1] / sun_at[2])
        cell, first = np.empty(depth.size, np.int32), np.empty(n * n + 1, np.int32)
        lighting.sort_into_cells(world_at, index, *slant, lo, step, starts, cell, first, order)
        sun = np.empty(SIZE_HW, np.float32)
        lighting.shadows(a.prim, a.radii, a.rt[0], a.relief, light, eye, depth, world_at,
                         starts, items, first, order, sun)  # fmt: skip
        for v, u in ((10, 10), (30, 20), (40, 33), (25, 60), (44, 50)):
            at = world_at[:, v, u].astype(float)
            if index[v, u] < 0 or (np.abs(at[:2] - at[2] * np.array(slant)) > -lo).any():
                continue
            back = eye[9:12] - at
            start = at + 2e-3 * light[30] * (back / np.linalg.norm(back) + (light[:3]) / (
                np.linalg.norm(back) / depth[v, u]))  # fmt: skip
            blocked = False
            for p in range(len(a.prim)):
                R = a.rt[0, p, :9].reshape(3, 3).astype(float)
                o, d = R.T @ (start - a.rt[0, p, 9:]), R.T @ light[:3]
                kind = int(a.prim[p, 0])
                if a.half[p, 0] > 0:
                    t = raycast.hit(kind, a.prim, p, a.relief, 0.0, 1e30, *o, *d)
                    blocked |= t < raycast.MISS
            checked += 1
            assert sun[v, u] == (0.0 if blocked else 1.0)
    assert checked > 15


def test_smoothing_stays_within_a_primitive() -> None:
    rng = np.random.default_rng(2)
    field = rng.random((9, 11)).astype(np.float32)
    index = rng.integers(0, 2, (9, 11)).astype(np.int32)
    expected = field.astype(float)
    for axis in (1, 0):
        last = expected.copy()
        for v in range(9):
            for u in range(11):
                near = [(v, u + k) if axis else (v + k, u) for k in range(-2, 3)]
                near = [(y, x) for y, x in near if 0 <= y < 9 and 0 <= x < 11]
                near = [at for at in near if index[at] == index[v, u]]
                expected[v, u] = np.mean([last[at] for at in near])
    lighting.smooth(field, index, 2)
    np.testing.assert_allclose(field, expected, atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_texture_lookup_is_bilinear(mirrored: bool) -> None:
    rng = np.random.default_rng(3)
    tile = rng.integers(0, 1 << 24, 87380).astype(np.uint32)
    work = np.empty((shading.WORK, shading.CHUNK))
    ints = np.empty((shading.INTS, shading.CHUNK), np.int32)
    levels = rng.integers(0, 8, 40)
    half = 0.5 / (256 >> levels)[:, None]  # a texel: mirrored lookups are inexact at even seams
    places = rng.integers(-3, 3, (40, 2)) + rng.uniform(half, 1 - half, (40, 2))
    work[shading.TU, :40], work[shading.TV, :40] = places.T
    ints[shading.LEVEL, :40] = levels
    shading._corners(tile, mirrored, 40, ints, work)
    out = np.empty(shading.CHUNK)
    for channel in range(3):
        shading._blend(channel, 40, ints, work, out)
        for (u, v), level, value in zip(places, levels, out):
            size = 256 >> level
            first = sum((256 >> k) ** 2 for k in range(level))
            texels = (tile[first : first + size * size] >> 8 * channel & 255).reshape(size, size)
            if mirrored:
                texels = np.block([[texels, texels[:, ::-1]], [texels[::-1], texels[::-1, ::-1]]])
            x, y = u * size - 0.5, v * size - 0.5
            x0, y0, span = math.floor(x), math.floor(y), len(texels)
            fx, fy = x - x0, y - y0
            corner = texels[np.ix_([y0 % span, (y0 + 1) % span], [x0 % span, (x0 + 1) % span])]
            assert value == pytest.approx([1 - fy, fy] @ corner @ [1 - fx, fx], abs=1e-6)


def test_plain_arithmetic_stands_in_for_the_library() -> None:
    for x in np.geomspace(1e-6, 1e5, 300):
        assert shading.fast_log2(x) == pytest.approx(math.log2(x), abs=1e-5)
    for x in np.linspace(-30, 30, 301):
        assert shading.fast_exp2(x) == pytest.approx(2**x, rel=1e-5)
    for x in np.linspace(0, 40, 201):
        assert lighting.fade(x) == pytest.approx(math.exp(-x), abs=1e-4)


def test_noise_drawn_by_rows_is_the_generator_s_own_sequence() -> None:
    w, state = 24, np.array([12345], np.uint32)
    grain = np.empty((camera_effects.ROWS, w), np.float32)
    camera_effects._grain(camera_effects.jump_columns(3 * w), state, grain)
    x, expected = 12345, []
    for _ in range(grain.size):
        total = 0.0
        for _ in range(3):
            x ^= x << 13 & 0xFFFFFFFF
            x ^= x >> 17
            x ^= x << 5 & 0xFFFFFFFF
            total += x / 2**32 - 0.5
        expected.append(total)
    np.testing.assert_allclose(grain.ravel(), expected, atol=1e-6)
    assert state[0] == x
