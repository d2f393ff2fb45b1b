"""Compiled shading of the synthetic world: textures, lights, shadows, contact shade, edges.

Shadow rays run against a grid of primitive lists laid over the plane z = 0 along the light, so that
each one meets a handful of candidates. Colours are linear here; `camera_effects` develops them.

Columns of a material row: 0 tile (-1 plain), 1 repeats per unit length, 2 3 cosine and sine of its
rotation, 4 5 offset, 6 mapping (0 by dominant axis, 1 about z, 2 about the centre), 7-9 colour A,
10-12 colour B, 13 mode (0 tile times A, 1 brightness of the tile blends A to B), 14 detail tile,
15 its repeats, 16 its strength, 17 shine, 18 its exponent, 19 glow, 20 mirrored repeats.

Light: 0-2 direction to the sun, 3-5 its colour, 6-8 ambient, 9-11 direction to the fill light,
12-14 its colour, 15-17 lamp, 18-20 its colour, 21 haze per unit depth, 22-24 haze colour, 25 sky,
26 its turn, 27 its gain, 28 size of the sun, 29 strength of contact shade, 30 length of the scene.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dyn3r.training.raycast import (
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    GROUND,
    MISS,
    ROOM,
    distance_bound,
    hit_world,
    relief_height,
)

TILE = 256
LAST_LEVEL = 7


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def light_grid(rt, half, radii, grow, lx, ly, lz, lo, step, starts, items):
    """Fill lists of primitives per cell of the plane z = 0, seen along (lx, ly, lz).

    Their boxes are widened by `grow` bounding radii.
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
        # the shadow of its box, and for a sun that jitters a little more
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def local_normal(prim, p, relief, x, y, z):
    """Outward unit normal at a surface point, in local axes."""
    kind = int(prim[p, 0])
    a, b, c = prim[p, 1], prim[p, 2], prim[p, 3]
    nx, ny, nz = 0.0, 0.0, 0.0
    if kind in (BOX, ROOM):
        qx, qy, qz = abs(x) / a, abs(y) / b, abs(z) / c
        sign = -1.0 if kind == ROOM else 1.0
        if qx > qy and qx > qz:
            nx = sign if x > 0.0 else -sign
        elif qy > qz:
            ny = sign if y > 0.0 else -sign
        else:
            nz = sign if z > 0.0 else -sign
        return nx, ny, nz
    if kind == ELLIPSOID:
        nx, ny, nz = x / (a * a), y / (b * b), z / (c * c)
    elif kind == FRUSTUM:
        k = prim[p, 4]
        slope = 0.5 * (k - 1.0) / c
        r = 1.0 + slope * (z + c)
        rho = math.sqrt((x / a) ** 2 + (y / b) ** 2)
        if abs(z) > c * 0.9995 and rho < r * 0.9995 + 1e-6:
            return 0.0, 0.0, (1.0 if z > 0.0 else -1.0)
        nx, ny, nz = x / (a * a), y / (b * b), -slope * r
    elif kind == CAPSULE:
        nx, ny, nz = x, y, z - min(max(z, -c), c)
    elif kind == GROUND:
        if b > 0.0:
            e = 0.02
            nx = relief_height(relief, x - e, y) - relief_height(relief, x + e, y)
            ny = relief_height(relief, x, y - e) - relief_height(relief, x, y + e)
            nz = 2.0 * e
        else:
            nz = 1.0
    else:
        e = 1e-3 * (a + b)
        e0, e1 = prim[p, 4], prim[p, 5]
        nx = distance_bound(kind, a, b, c, e0, e1, x + e, y, z)
        nx -= distance_bound(kind, a, b, c, e0, e1, x - e, y, z)
        ny = distance_bound(kind, a, b, c, e0, e1, x, y + e, z)
        ny -= distance_bound(kind, a, b, c, e0, e1, x, y - e, z)
        nz = distance_bound(kind, a, b, c, e0, e1, x, y, z + e)
        nz -= distance_bound(kind, a, b, c, e0, e1, x, y, z - e)
    s = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
    return nx * s, ny * s, nz * s


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def texel(tiles, n, level, u, v, mirrored):
    """Bilinear lookup of a mip level, u and v in repeats of the tile; RGB 0..255."""
    size = TILE >> level
    start = (4 * (TILE * TILE - size * size)) // 3  # texels of the larger levels
    if mirrored:
        u, v = u - 2.0 * math.floor(0.5 * u), v - 2.0 * math.floor(0.5 * v)
        u, v = (2.0 - u if u > 1.0 else u), (2.0 - v if v > 1.0 else v)
    x, y = u * size - 0.5, v * size - 0.5
    fx, fy = math.floor(x), math.floor(y)
    wx, wy = x - fx, y - fy
    x0, y0 = int(fx) & (size - 1), int(fy) & (size - 1)
    x1, y1 = (x0 + 1) & (size - 1), (y0 + 1) & (size - 1)
    if mirrored:  # the neighbour across the seam is the texel itself
        x1, y1 = (x0 if x1 < x0 else x1), (y0 if y1 < y0 else y1)
    i, j, k, m = start + y0 * size + x0, start + y0 * size + x1, start + y1 * size + x0, 0
    m = start + y1 * size + x1
    wa, wb, wc, wd = (1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy
    r = wa * tiles[n, i, 0] + wb * tiles[n, j, 0] + wc * tiles[n, k, 0] + wd * tiles[n, m, 0]
    g = wa * tiles[n, i, 1] + wb * tiles[n, j, 1] + wc * tiles[n, k, 1] + wd * tiles[n, m, 1]
    b = wa * tiles[n, i, 2] + wb * tiles[n, j, 2] + wc * tiles[n, k, 2] + wd * tiles[n, m, 2]
    return r, g, b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def albedo(mats, m, tiles, x, y, z, nx, ny, nz, footprint):
    """Linear colour of material m at a local point; `footprint` is a pixel's size there."""
    ar, ag, ab = mats[m, 7], mats[m, 8], mats[m, 9]
    n, detail = int(mats[m, 0]), int(mats[m, 14])
    if n < 0 and detail < 0:
        return ar, ag, ab
    mapping = mats[m, 6]
    s, t = x, y
    if mapping == 0.0 or abs(nz) > 0.98:
        if abs(nx) > abs(ny) and abs(nx) > abs(nz):
            s, t = (y if nx > 0.0 else -y), -z
        elif abs(ny) > abs(nz):
            s, t = (-x if ny > 0.0 else x), -z
    else:
        rho = math.sqrt(x * x + y * y)
        reach = mats[m, 21]
        s = math.atan2(y, x) * reach
        t = -z if mapping == 1.0 else -math.atan2(z, rho) * reach
    r, g, b = ar, ag, ab
    if n >= 0:
        scale = mats[m, 1]
        u = (mats[m, 2] * s - mats[m, 3] * t) * scale + mats[m, 4]
        v = (mats[m, 3] * s + mats[m, 2] * t) * scale + mats[m, 5]
        lod = math.log2(max(footprint * scale * TILE, 1.0))
        lod = min(lod, LAST_LEVEL - 0.01)
        level = int(lod)
        part = lod - level
        r, g, b = texel(tiles, n, level, u, v, mats[m, 20] > 0.0)
        if part > 0.05:
            r1, g1, b1 = texel(tiles, n, level + 1, u, v, mats[m, 20] > 0.0)
            r, g, b = r + part * (r1 - r), g + part * (g1 - g), b + part * (b1 - b)
        r, g, b = r / 255.0, g / 255.0, b / 255.0
        if mats[m, 13] == 0.0:
            r, g, b = r * r * ar, g * g * ag, b * b * ab
        else:
            k = (r + g + b) / 3.0
            r = ar + k * (mats[m, 10] - ar)
            g = ag + k * (mats[m, 11] - ag)
            b = ab + k * (mats[m, 12] - ab)
    if detail >= 0:
        scale = mats[m, 15]
        level = int(min(math.log2(max(footprint * scale * TILE, 1.0)) + 0.5, LAST_LEVEL))
        k, _, _ = texel(tiles, detail, level, s * scale, t * scale, False)
        k = 1.0 + mats[m, 16] * (k / 127.5 - 1.0)
        r, g, b = r * k, g * k, b * k
    return r, g, b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def sky_colour(skies, light, dx, dy, dz):
    """Linear colour of the sky in a world direction (any length)."""
    k = int(light[25])
    h, w = skies.shape[1], skies.shape[2]
    x = (math.atan2(dx, dy) + light[26]) / (2.0 * math.pi) * w - 0.5
    y = math.atan2(math.sqrt(dx * dx + dy * dy), dz) / math.pi * h - 0.5
    y = min(max(y, 0.0), h - 1.001)
    low_x = math.floor(x)
    fx = x - low_x
    y0 = int(y)
    fy = y - y0
    x0 = (int(low_x) + w) % w
    x1 = (x0 + 1) % w
    gain = light[27] / 65025.0
    wa, wb, wc, wd = (1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy
    r = wa * skies[k, y0, x0, 0] + wb * skies[k, y0, x1, 0]
    r += wc * skies[k, y0 + 1, x0, 0] + wd * skies[k, y0 + 1, x1, 0]
    g = wa * skies[k, y0, x0, 1] + wb * skies[k, y0, x1, 1]
    g += wc * skies[k, y0 + 1, x0, 1] + wd * skies[k, y0 + 1, x1, 1]
    b = wa * skies[k, y0, x0, 2] + wb * skies[k, y0, x1, 2]
    b += wc * skies[k, y0 + 1, x0, 2] + wd * skies[k, y0 + 1, x1, 2]
    return r * r * gain, g * g * gain, b * b * gain


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hash01(x, y, z):
    """A repeatable number in 0..1 from three integers."""
    k = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    k = ((k ^ (k >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((k ^ (k >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def shadow(prim, half, radii, rt, relief, light, lo, step, starts, items, x, y, z, jx, jy):
    """1 where the sun is seen from the world point, 0 in shadow."""
    lx, ly, lz = light[0] + jx, light[1] + jy, light[2]
    n = int(math.sqrt(starts.shape[0] - 1))
    i = int((x - z * light[0] / lz - lo) / step)
    j = int((y - z * light[1] / lz - lo) / step)
    if i < 0 or j < 0 or i >= n or j >= n:
        return 1.0
    for k in range(starts[i * n + j], min(starts[i * n + j + 1], items.shape[0])):
        p = items[k]
        cx, cy, cz = rt[p, 9] - x, rt[p, 10] - y, rt[p, 11] - z
        along = cx * lx + cy * ly + cz * lz
        r2 = radii[p] * radii[p]
        if along < 0.0 and along * along > r2 * 1.2:
            continue
        if cx * cx + cy * cy + cz * cz - along * along > r2 * 1.1:
            continue
        if hit_world(prim, rt, p, radii[p], relief, x, y, z, lx, ly, lz) < MISS:
            return 0.0
    return 1.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def contact(half, radii, rt, lo, step, starts, items, p, x, y, z):
    """Share of the ambient light left near other things (distance to their boxes)."""
    n = int(math.sqrt(starts.shape[0] - 1))
    i, j = int((x - lo) / step), int((y - lo) / step)
    if i < 0 or j < 0 or i >= n or j >= n:
        return 1.0
    left = 1.0
    for k in range(starts[i * n + j], min(starts[i * n + j + 1], items.shape[0])):
        q = items[k]
        if q == p:
            continue
        cx, cy, cz = x - rt[q, 9], y - rt[q, 10], z - rt[q, 11]
        reach = 0.5 * min(half[q, 0], min(half[q, 1], half[q, 2])) + 0.1 * radii[q]
        if cx * cx + cy * cy + cz * cz > (radii[q] + 2.0 * reach) ** 2:
            continue
        gap = 0.0
        for a in range(3):
            d = abs(rt[q, a] * cx + rt[q, 3 + a] * cy + rt[q, 6 + a] * cz) - half[q, a]
            if d > 0.0:
                gap += d * d
        left *= 1.0 - 0.5 * math.exp(-math.sqrt(gap) / reach)
    return max(left, 0.25)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shade(prim, rt, relief, mat_of, mats, tiles, light, cam, p, t, u, v, sun, left):
    """Linear colour of primitive p at pixel (u, v), depth t; sun, left: the light that comes."""
    x, y = (u - cam[2]) / cam[0], (v - cam[3]) / cam[1]
    dx = cam[4] * x + cam[5] * y + cam[6]
    dy = cam[7] * x + cam[8] * y + cam[9]
    dz = cam[10] * x + cam[11] * y + cam[12]
    wx, wy, wz = cam[13] + t * dx, cam[14] + t * dy, cam[15] + t * dz
    gx, gy, gz = wx - rt[p, 9], wy - rt[p, 10], wz - rt[p, 11]
    qx = rt[p, 0] * gx + rt[p, 3] * gy + rt[p, 6] * gz
    qy = rt[p, 1] * gx + rt[p, 4] * gy + rt[p, 7] * gz
    qz = rt[p, 2] * gx + rt[p, 5] * gy + rt[p, 8] * gz
    mx, my, mz = local_normal(prim, p, relief, qx, qy, qz)
    nx = rt[p, 0] * mx + rt[p, 1] * my + rt[p, 2] * mz
    ny = rt[p, 3] * mx + rt[p, 4] * my + rt[p, 5] * mz
    nz = rt[p, 6] * mx + rt[p, 7] * my + rt[p, 8] * mz
    inv = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    facing = -(nx * dx + ny * dy + nz * dz) * inv
    m = mat_of[p]
    if int(prim[p, 0]) == ROOM:
        m += 0 if mz > 0.5 else (2 if mz < -0.5 else 1)
    footprint = 0.7 * t / cam[0] / math.sqrt(max(facing, 0.06))
    r, g, b = albedo(mats, m, tiles, qx, qy, qz, mx, my, mz, footprint)
    one = max(nx * light[0] + ny * light[1] + nz * light[2], 0.0) * sun
    two = max(nx * light[9] + ny * light[10] + nz * light[11], 0.0)
    ex, ey, ez = light[15] - wx, light[16] - wy, light[17] - wz
    e2 = ex * ex + ey * ey + ez * ez
    lamp = max(nx * ex + ny * ey + nz * ez, 0.0) / math.sqrt(e2 + 1e-9)
    lamp *= left / (0.1 + e2 / (light[30] * light[30]))
    up = (0.75 + 0.25 * nz) * left
    glow = mats[m, 19]
    r *= light[3] * one + light[6] * up + light[12] * two * left + light[18] * lamp + glow
    g *= light[4] * one + light[7] * up + light[13] * two * left + light[19] * lamp + glow
    b *= light[5] * one + light[8] * up + light[14] * two * left + light[20] * lamp + glow
    if mats[m, 17] > 0.0 and one > 0.0:
        hx, hy, hz = light[0] - dx * inv, light[1] - dy * inv, light[2] - dz * inv
        hn = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
        s = mats[m, 17] * max(hn, 0.0) ** mats[m, 18] * sun
        r, g, b = r + s * light[3], g + s * light[4], b + s * light[5]
    if light[21] > 0.0:
        k = 1.0 - math.exp(-light[21] * t)
        r, g, b = r + k * (light[22] - r), g + k * (light[23] - g), b + k * (light[24] - b)
    return r, g, b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def light_pass(prim, half, radii, rt, relief, light, cam, depth, index, lo, step,
               starts, items, starts2, items2, sun, left):  # fmt: skip
    """Shadow and contact shade of every pixel; a large sun jitters and then smooths its shadows."""
    h, w = depth.shape
    soft = light[28]
    for v in range(h):
        for u in range(w):
            sun[v, u] = 1.0
            left[v, u] = 1.0
            p = index[v, u]
            if p < 0:
                continue
            t = depth[v, u]
            x, y = (u - cam[2]) / cam[0], (v - cam[3]) / cam[1]
            wx = cam[13] + t * (cam[4] * x + cam[5] * y + cam[6])
            wy = cam[14] + t * (cam[7] * x + cam[8] * y + cam[9])
            wz = cam[15] + t * (cam[10] * x + cam[11] * y + cam[12])
            if light[29] > 0.0:
                near = contact(half, radii, rt, lo, step, starts2, items2, p, wx, wy, wz)
                left[v, u] = 1.0 - light[29] * (1.0 - near)
            # start a little towards the eye and the light, so that nothing shades itself
            back = 2e-3 * light[30] / math.sqrt(1.0 + x * x + y * y)
            wx += back * ((cam[13] - wx) / t + light[0])
            wy += back * ((cam[14] - wy) / t + light[1])
            wz += back * ((cam[15] - wz) / t + light[2])
            jx, jy = 0.0, 0.0
            if soft > 0.0:
                jx = soft * (2.0 * hash01(u, v, 1) - 1.0)
                jy = soft * (2.0 * hash01(u, v, 2) - 1.0)
            sun[v, u] = shadow(
                prim, half, radii, rt, relief, light, lo, step, starts, items, wx, wy, wz, jx, jy
            )
    if soft > 0.0:
        _smooth(sun, index, 2)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _smooth(field, index, reach):
    """Separable box filter that does not cross from one primitive to another."""
    h, w = field.shape
    other = np.empty_like(field)
    for axis in range(2):
        for v in range(h):
            for u in range(w):
                total, count = 0.0, 0
                for k in range(-reach, reach + 1):
                    y, x = (v + k, u) if axis else (v, u + k)
                    if 0 <= y < h and 0 <= x < w and index[y, x] == index[v, u]:
                        total += field[y, x]
                        count += 1
                other[v, u] = total / count
        field[:] = other


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shade_frame(prim, half, radii, rt, relief, mat_of, mats, tiles, skies, light, cam, depth, index,
                sun, left, samples, image):  # fmt: skip
    """Linear colours (3, h, w) of a traced frame; edges get `samples` more rays a pixel."""
    h, w = depth.shape
    ids = np.empty(9, np.int32)
    at = np.empty(9, np.int32)
    for v in range(h):
        for u in range(w):
            p = index[v, u]
            if p >= 0:
                r, g, b = shade(prim, rt, relief, mat_of, mats, tiles, light, cam, p, depth[v, u],
                                u, v, sun[v, u], left[v, u])  # fmt: skip
            else:
                x, y = (u - cam[2]) / cam[0], (v - cam[3]) / cam[1]
                r, g, b = sky_colour(
                    skies,
                    light,
                    cam[4] * x + cam[5] * y + cam[6],
                    cam[7] * x + cam[8] * y + cam[9],
                    cam[10] * x + cam[11] * y + cam[12],
                )
            edge = 0
            if samples > 0:
                for k in range(5):  # the pixel and its four neighbours
                    y1 = min(max(v + (k == 1) - (k == 2), 0), h - 1)
                    x1 = min(max(u + (k == 3) - (k == 4), 0), w - 1)
                    q = index[y1, x1]
                    if k > 0 and q == p:
                        continue
                    new = True
                    for m in range(edge):
                        if ids[m] == q:
                            new = False
                    if new:
                        ids[edge] = q
                        at[edge] = y1 * w + x1
                        edge += 1
            if edge > 1:
                r, g, b = _edge(prim, radii, rt, relief, mat_of, mats, tiles, skies, light, cam,
                                sun, left, ids, at, edge, u, v, samples, r, g, b)  # fmt: skip
            image[0, v, u] = r
            image[1, v, u] = g
            image[2, v, u] = b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _edge(prim, radii, rt, relief, mat_of, mats, tiles, skies, light, cam, sun, left, ids, at, n,
          u, v, samples, r, g, b):  # fmt: skip
    """Average the centre's colour with rays at other places in the pixel, against n candidates."""
    w = sun.shape[1]
    for s in range(samples):
        turn = (s + 0.25) / samples * 2.0 * math.pi
        uu, vv = u + 0.36 * math.cos(turn), v + 0.36 * math.sin(turn)
        x, y = (uu - cam[2]) / cam[0], (vv - cam[3]) / cam[1]
        dx = cam[4] * x + cam[5] * y + cam[6]
        dy = cam[7] * x + cam[8] * y + cam[9]
        dz = cam[10] * x + cam[11] * y + cam[12]
        best, which = MISS, -1
        for k in range(n):
            q = ids[k]
            if q >= 0:
                t = hit_world(prim, rt, q, radii[q], relief, cam[13], cam[14], cam[15], dx, dy, dz)
                if t < best:
                    best, which = t, k
        if which >= 0:
            y1, x1 = at[which] // w, at[which] % w
            sr, sg, sb = shade(prim, rt, relief, mat_of, mats, tiles, light, cam, ids[which], best,
                               uu, vv, sun[y1, x1], left[y1, x1])  # fmt: skip
        else:
            sr, sg, sb = sky_colour(skies, light, dx, dy, dz)
        # bright edges would alias if averaged before the film's shoulder
        r, g, b = r + min(sr, 4.0), g + min(sg, 4.0), b + min(sb, 4.0)
    f = 1.0 / (samples + 1)
    return r * f, g * f, b * f
