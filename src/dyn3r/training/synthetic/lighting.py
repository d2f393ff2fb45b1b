"""Compiled lighting of the synthetic world: shadows of the sun, and contact shadows.

Primitives are listed per cell of a grid over the plane z = 0, projected along the light (shadows)
or from above (contact shadows). Pixels are sorted into the same cells, so that each primitive of a
cell is tested against all pixels of the cell in one loop, which the compiler can vectorise.

Columns of `light`: see `shading`.
"""

# Compiled kernels take scalars and flat arrays, and branch by the kind of primitive:
# ruff: noqa: C901, PLR0913

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dyn3r.training.synthetic.raycast import (
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    MISS,
    eye_table,
    hit,
    hit_box,
    hit_capsule,
    hit_ellipsoid,
    hit_frustum,
)

CHUNK = 256
"""Pixels processed at a time."""


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def light_grid(rt, half, radii, grow, lx, ly, lz, lo, step, starts, items):
    """Fill lists of primitives per cell of the plane z = 0, projected along (lx, ly, lz).

    Their boxes are enlarged by `grow` bounding radii.
    starts (n*n+1) offsets into items; cells of size `step` from (lo, lo). Returns the items used.
    """
    n = int(math.sqrt(starts.shape[0] - 1))
    used = 0
    count = rt.shape[0]
    span = np.empty((count, 4), np.int32)
    starts[:] = 0
    for p in range(count):
        span[p, 0] = 1
        span[p, 1] = 0
        if half[p, 0] < 0.0:
            continue
        kx, ky = lx / lz, ly / lz
        x, y = rt[p, 9] - rt[p, 11] * kx, rt[p, 10] - rt[p, 11] * ky
        # the shadow of its box, with a margin for a jittered sun
        rx = ry = grow * radii[p]
        for k in range(3):
            rx += abs(rt[p, k] - rt[p, 6 + k] * kx) * half[p, k]
            ry += abs(rt[p, 3 + k] - rt[p, 6 + k] * ky) * half[p, k]
        span[p, 0] = min(max(int((x - rx - lo) / step), 0), n - 1)
        span[p, 1] = min(max(int((x + rx - lo) / step), 0), n - 1)
        span[p, 2] = min(max(int((y - ry - lo) / step), 0), n - 1)
        span[p, 3] = min(max(int((y + ry - lo) / step), 0), n - 1)
        for i in range(span[p, 0], span[p, 1] + 1):
            for j in range(span[p, 2], span[p, 3] + 1):
                starts[i * n + j + 1] += 1
    for k in range(n * n):
        starts[k + 1] += starts[k]
    fill = starts[:-1].copy()
    for p in range(count):
        for i in range(span[p, 0], span[p, 1] + 1):
            for j in range(span[p, 2], span[p, 3] + 1):
                k = fill[i * n + j]
                if k < items.shape[0]:
                    items[k] = p
                    used += 1
                fill[i * n + j] += 1
    return used


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def points_of(eye, depth, world):
    """Compute world positions (3, h, w) float32 of surface points; `eye`: the world's row."""
    h, w = depth.shape
    for v in range(h):
        t = depth[v]
        for k in range(3):
            out, across = world[k, v], eye[3 * k]
            row, start = eye[3 * k + 1] * v + eye[3 * k + 2], eye[9 + k]
            for u in range(w):
                out[u] = start + t[u] * (across * u + row)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def sort_into_cells(world, index, kx, ky, lo, step, starts, cell, first, order):
    """Sort surface pixels by grid cell, projected to the ground by (kx, ky) per height.

    Pixels in cells without primitives are left out. Fills cell (h*w): cell of each pixel; first
    (n*n+1) and order (h*w): offsets of the cells, and the pixels by cell.
    """
    n = int(math.sqrt(starts.shape[0] - 1))
    x, y, z = world[0].ravel(), world[1].ravel(), world[2].ravel()
    flat = index.ravel()
    for k in range(flat.shape[0]):
        i = int((x[k] - z[k] * kx - lo) / step)
        j = int((y[k] - z[k] * ky - lo) / step)
        inside = (flat[k] >= 0) & (i >= 0) & (j >= 0) & (i < n) & (j < n)
        cell[k] = i * n + j if inside else -1
    first[:] = 0
    for k in range(flat.shape[0]):
        c = cell[k]
        if c >= 0 and starts[c + 1] > starts[c]:
            first[c + 1] += 1
        else:
            cell[k] = -1
    for c in range(n * n):
        first[c + 1] += first[c]
    for k in range(flat.shape[0]):
        c = cell[k]
        if c >= 0:
            order[first[c]] = k
            first[c] += 1
    for c in range(n * n, 0, -1):
        first[c] = first[c - 1]
    first[0] = 0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _cast(prim, p, radius, rt, relief, light, soft, n, at, tilt, blocked):
    """Mark in blocked (n) the points at (3, n) that primitive p occludes from the sun.

    tilt (2, n): deviation of each ray in x and y from the direction to the sun, if `soft`. Rays
    that it shortens have a shorter reach, so that soft shadows of distant objects are faint.
    """
    kind = int(prim[p, 0])
    a, b, c, e0 = prim[p, 1], prim[p, 2], prim[p, 3], prim[p, 4]
    r0, r1, r2, r3, r4, r5 = rt[p, 0], rt[p, 1], rt[p, 2], rt[p, 3], rt[p, 4], rt[p, 5]
    r6, r7, r8, tx, ty, tz = rt[p, 6], rt[p, 7], rt[p, 8], rt[p, 9], rt[p, 10], rt[p, 11]
    lx, ly, lz = light[0], light[1], light[2]
    sx, sy = r0 * lx + r3 * ly + r6 * lz, r1 * lx + r4 * ly + r7 * lz
    sz = r2 * lx + r5 * ly + r8 * lz
    px, py, pz, jx, jy = at[0], at[1], at[2], tilt[0], tilt[1]
    ray = np.empty((7, CHUNK))
    ox, oy, oz, dx, dy, dz, reach = ray[0], ray[1], ray[2], ray[3], ray[4], ray[5], ray[6]
    reach[:n] = MISS
    for i in range(n):
        x, y, z = px[i] - tx, py[i] - ty, pz[i] - tz
        ox[i] = r0 * x + r3 * y + r6 * z
        oy[i] = r1 * x + r4 * y + r7 * z
        oz[i] = r2 * x + r5 * y + r8 * z
    if soft:
        for i in range(n):
            dx[i] = sx + r0 * jx[i] + r3 * jy[i]
            dy[i] = sy + r1 * jx[i] + r4 * jy[i]
            dz[i] = sz + r2 * jx[i] + r5 * jy[i]
            along = ox[i] * dx[i] + oy[i] * dy[i] + oz[i] * dz[i]
            beside = ox[i] * ox[i] + oy[i] * oy[i] + oz[i] * oz[i] - along * along
            reach[i] = 0.0 if beside > 1.1 * radius * radius else MISS
    else:
        dx[:n], dy[:n], dz[:n] = sx, sy, sz
    if kind == BOX:
        for i in range(n):
            t = hit_box(a, b, c, ox[i], oy[i], oz[i], dx[i], dy[i], dz[i])
            blocked[i] = 1.0 if t < reach[i] else blocked[i]
    elif kind == ELLIPSOID:
        for i in range(n):
            t = hit_ellipsoid(a, b, c, ox[i], oy[i], oz[i], dx[i], dy[i], dz[i])
            blocked[i] = 1.0 if t < reach[i] else blocked[i]
    elif kind == FRUSTUM:
        for i in range(n):
            t = hit_frustum(a, b, c, e0, ox[i], oy[i], oz[i], dx[i], dy[i], dz[i])
            blocked[i] = 1.0 if t < reach[i] else blocked[i]
    elif kind == CAPSULE:
        for i in range(n):
            t = hit_capsule(a, c, ox[i], oy[i], oz[i], dx[i], dy[i], dz[i])
            blocked[i] = 1.0 if t < reach[i] else blocked[i]
    else:
        for i in range(n):
            if blocked[i] == 0.0 and reach[i] > 0.0:
                t = hit(kind, prim, p, relief, 0.0, MISS,
                        ox[i], oy[i], oz[i], dx[i], dy[i], dz[i])  # fmt: skip
                blocked[i] = 1.0 if t < reach[i] else 0.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hash01(x, y, z):
    """Hash three integers to 0..1."""
    k = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    k = ((k ^ (k >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((k ^ (k >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tilts(pixels, w, soft, tilt):
    """Fill tilt (2, n), the deviations in x and y of the directions to an extended sun."""
    one, two = tilt[0], tilt[1]
    for i in range(pixels.shape[0]):
        v = int((pixels[i] + 0.5) * (1.0 / w))
        u = pixels[i] - v * w
        one[i] = soft * (2.0 * hash01(u, v, 1) - 1.0)
        two[i] = soft * (2.0 * hash01(u, v, 2) - 1.0)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shadows(prim, radii, rt, relief, light, eye, depth, world, starts, items, first, order, sun):
    """Fill sun (h, w): 1 where the sun is visible, 0 in shadow.

    eye: `eye_table`'s row for the world; world: `points_of`; first, order: `sort_into_cells`.
    """
    sun[:] = 1.0
    w = sun.shape[1]
    x, y, z = world[0].ravel(), world[1].ravel(), world[2].ravel()
    t, out = depth.ravel(), sun.ravel()
    soft = light[28]
    at, tilt, blocked = np.empty((4, CHUNK)), np.zeros((2, CHUNK)), np.empty(CHUNK)
    for cell in range(first.shape[0] - 1):
        for begin in range(first[cell], first[cell + 1], CHUNK):
            n = min(CHUNK, first[cell + 1] - begin)
            for i in range(n):
                k = order[begin + i]
                at[0, i], at[1, i], at[2, i], at[3, i] = x[k], y[k], z[k], t[k]
            _lift(eye, light, n, at)
            if soft > 0.0:
                _tilts(order[begin : begin + n], w, soft, tilt)
            blocked[:n] = 0.0
            last = min(starts[cell + 1], items.shape[0])
            for slow in (False, True):  # slow primitives last, for the remaining pixels
                for k in range(starts[cell], last):
                    p = items[k]
                    if (prim[p, 0] > CAPSULE) == slow:
                        _cast(prim, p, radii[p], rt, relief, light, soft > 0.0, n, at, tilt,
                              blocked)  # fmt: skip
            for i in range(n):
                out[order[begin + i]] = 1.0 - blocked[i]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _lift(eye, light, n, at):
    """Offset points (4, n: position, depth) to eye and light, against self-shadowing."""
    x, y, z, t = at[0], at[1], at[2], at[3]
    ex, ey, ez, lx, ly, lz = eye[9], eye[10], eye[11], light[0], light[1], light[2]
    lift = 2e-3 * light[30]
    for i in range(n):
        inverse = 1.0 / t[i]
        dx, dy, dz = (ex - x[i]) * inverse, (ey - y[i]) * inverse, (ez - z[i]) * inverse
        back = lift / math.sqrt(dx * dx + dy * dy + dz * dz)
        x[i], y[i], z[i] = x[i] + back * (dx + lx), y[i] + back * (dy + ly), z[i] + back * (dz + lz)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def fade(x):
    """Approximate exp(-x) for x >= 0 to within 1e-4, by polynomials; 4e-5 beyond 10."""
    y = min(0.125 * x, 1.25)
    k = 1.0 - y * (1.0 - y * (0.5 - y * (1.0 / 6.0 - y * (1.0 / 24.0 - y * (1.0 / 120.0)))))
    k *= k
    k *= k
    return k * k


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def contacts(half, radii, rt, strength, index, world, starts, items, first, order, left):
    """Fill left (h, w), the ambient light that is left near other primitives, 0..1."""
    left[:] = 1.0
    x, y, z = world[0].ravel(), world[1].ravel(), world[2].ravel()
    flat, out = index.ravel(), left.ravel()
    at, share, own = np.empty((3, CHUNK)), np.empty(CHUNK), np.empty(CHUNK, np.int32)
    for cell in range(first.shape[0] - 1):
        for begin in range(first[cell], first[cell + 1], CHUNK):
            n = min(CHUNK, first[cell + 1] - begin)
            for i in range(n):
                k = order[begin + i]
                at[0, i], at[1, i], at[2, i] = x[k], y[k], z[k]
                own[i] = flat[k]
                share[i] = 1.0
            for k in range(starts[cell], min(starts[cell + 1], items.shape[0])):
                _near(half, radii[items[k]], rt, items[k], n, at, own, share)
            for i in range(n):
                out[order[begin + i]] = 1.0 - strength * (1.0 - max(share[i], 0.25))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _near(half, radius, rt, p, n, at, own, share):
    """Multiply share (n) by the light that primitive p leaves at the points at (3, n) of others."""
    a, b, c = half[p, 0], half[p, 1], half[p, 2]
    r0, r1, r2, r3, r4, r5 = rt[p, 0], rt[p, 1], rt[p, 2], rt[p, 3], rt[p, 4], rt[p, 5]
    r6, r7, r8, tx, ty, tz = rt[p, 6], rt[p, 7], rt[p, 8], rt[p, 9], rt[p, 10], rt[p, 11]
    reach = 0.5 * min(a, min(b, c)) + 0.1 * radius
    inverse, most = 1.0 / reach, (radius + 2.0 * reach) ** 2
    px, py, pz = at[0], at[1], at[2]
    for i in range(n):
        x, y, z = px[i] - tx, py[i] - ty, pz[i] - tz
        gx = max(abs(r0 * x + r3 * y + r6 * z) - a, 0.0)
        gy = max(abs(r1 * x + r4 * y + r7 * z) - b, 0.0)
        gz = max(abs(r2 * x + r5 * y + r8 * z) - c, 0.0)
        dark = 0.5 * fade(math.sqrt(gx * gx + gy * gy + gz * gz) * inverse)
        far = (x * x + y * y + z * z > most) | (own[i] == p)
        share[i] *= 1.0 if far else 1.0 - dark


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def light_pass(prim, half, radii, rt, relief, light, cam, depth, index, lo, step,
               starts, items, starts2, items2, sun, left):  # fmt: skip
    """Compute shadow and contact shadow of every pixel; soft shadows are jittered and smoothed.

    starts, items and starts2, items2: `light_grid` along the light and from above.
    """
    h, w = depth.shape
    world = np.empty((3, h, w), np.float32)
    cell, order = np.empty(h * w, np.int32), np.empty(h * w, np.int32)
    first = np.empty(starts.shape[0], np.int32)
    eye = eye_table(rt, cam)[rt.shape[0]]
    points_of(eye, depth, world)
    sort_into_cells(world, index, light[0] / light[2], light[1] / light[2], lo, step,
                    starts, cell, first, order)  # fmt: skip
    shadows(prim, radii, rt, relief, light, eye, depth, world,
            starts, items, first, order, sun)  # fmt: skip
    sort_into_cells(world, index, 0.0, 0.0, lo, step, starts2, cell, first, order)
    contacts(half, radii, rt, light[29], index, world, starts2, items2, first, order, left)
    if light[28] > 0.0:
        smooth(sun, index, 2)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def smooth(field, index, reach):
    """Apply a box filter to field (h, w), within each primitive."""
    h, w = field.shape
    total, count = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    for axis in range(2):
        total[:] = field
        count[:] = 1.0
        for k in range(-reach, reach + 1):
            if k == 0:
                continue
            rows, shift = (k, 0) if axis else (0, k)
            left, right = max(-shift, 0), w - max(shift, 0)
            for v in range(max(-rows, 0), h - max(rows, 0)):
                own, sums, counts = index[v, left:right], total[v, left:right], count[v, left:right]
                other = index[v + rows, left + shift : right + shift]
                values = field[v + rows, left + shift : right + shift]
                for u in range(right - left):
                    same = own[u] == other[u]
                    sums[u] += values[u] if same else np.float32(0.0)
                    counts[u] += np.float32(1.0) if same else np.float32(0.0)
        for v in range(h):
            for u in range(w):
                field[v, u] = total[v, u] / count[v, u]
