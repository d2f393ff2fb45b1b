"""Compiled ray caster of the synthetic world: primitives, primary rays and optical flow.

Functions of scalars and flat float32 arrays (numba, no Python objects). One thread per call, the
interpreter lock released. Loops run over a row of pixels and one primitive, so that the compiler
can vectorise them.

A primitive is a row of `prim` (kind, a, b, c, e0..e4) in its own axes; `rt[p]` holds its rotation
(row-major 3x3, local to world) and position. Ray directions are scaled to camera z = 1, so that the
ray parameter t is z depth. Frames: world z up; camera x right, y down, z forward.
"""

# Compiled kernels take scalars and flat arrays, and branch by the kind of primitive:
# ruff: noqa: C901, PLR0913

from __future__ import annotations

import math

import numpy as np
from numba import njit

BOX, ELLIPSOID, FRUSTUM, CAPSULE, TORUS, ROUNDBOX, SUPER, ARC, ROOM, GROUND = range(10)
MISS = 1e30
"""Ray parameter of a ray without a hit."""
UNSURE = 2
"""Visibility that needs another ray."""
FAR = 400.0
"""Distance from which on a ray shows the sky."""


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def wave(x):
    """Compute a smooth wave of period 1 and amplitude 1 made of parabolas (faster than a sine)."""
    f = 2.0 * (x - math.floor(x)) - 1.0
    return 4.0 * f * (1.0 - abs(f))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def relief_height(relief, x, y):
    """Compute the height of the ground at (x, y); rows of `relief`: amplitude, kx, ky, phase."""
    h = 0.0
    for k in range(relief.shape[0]):
        if relief[k, 0] != 0.0:
            h += relief[k, 0] * wave(relief[k, 1] * x + relief[k, 2] * y + relief[k, 3])
    return h


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def relief_slope(relief, x, y):
    """Compute the slope of the ground at (x, y) along x and y."""
    sx, sy = 0.0, 0.0
    for k in range(relief.shape[0]):
        at = relief[k, 1] * x + relief[k, 2] * y + relief[k, 3]
        f = 2.0 * (at - math.floor(at)) - 1.0
        slope = 8.0 * relief[k, 0] * (1.0 - 2.0 * abs(f))
        sx, sy = sx + slope * relief[k, 1], sy + slope * relief[k, 2]
    return sx, sy


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def box_span(a, b, c, ox, oy, oz, dx, dy, dz):
    """Compute where a ray enters and leaves a box with half sizes a, b, c; a miss: near > far."""
    ix = 1.0 / dx if abs(dx) > 1e-9 else 1e9
    iy = 1.0 / dy if abs(dy) > 1e-9 else 1e9
    iz = 1.0 / dz if abs(dz) > 1e-9 else 1e9
    ax, ay, az = abs(ix) * a, abs(iy) * b, abs(iz) * c
    mx, my, mz = -ox * ix, -oy * iy, -oz * iz
    near = max(mx - ax, max(my - ay, mz - az))
    return near, min(mx + ax, min(my + ay, mz + az))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_box(a, b, c, ox, oy, oz, dx, dy, dz):
    """Compute the first crossing t > 0 of a box with half sizes a, b, c, from outside."""
    near, far = box_span(a, b, c, ox, oy, oz, dx, dy, dz)
    if near > far or near <= 0.0:
        return MISS
    return near


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_ellipsoid(a, b, c, ox, oy, oz, dx, dy, dz):
    """Compute the first crossing of an ellipsoid with semi-axes a, b, c."""
    px, py, pz = ox / a, oy / b, oz / c
    vx, vy, vz = dx / a, dy / b, dz / c
    aa = vx * vx + vy * vy + vz * vz
    bb = px * vx + py * vy + pz * vz
    cc = px * px + py * py + pz * pz - 1.0
    disc = bb * bb - aa * cc
    if disc < 0.0:
        return MISS
    t = (-bb - math.sqrt(disc)) / aa
    return t if t > 0.0 else MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_frustum(a, b, c, k, ox, oy, oz, dx, dy, dz):
    """Intersect a capped cone about z: semi-axes (a, b) at z = -c, k (a, b) at z = c."""
    px, py, vx, vy = ox / a, oy / b, dx / a, dy / b
    slope = 0.5 * (k - 1.0) / c
    r0 = 1.0 + slope * (oz + c)
    rv = slope * dz
    aa = vx * vx + vy * vy - rv * rv
    bb = px * vx + py * vy - r0 * rv
    cc = px * px + py * py - r0 * r0
    best = MISS
    disc = bb * bb - aa * cc
    if disc >= 0.0 and abs(aa) > 1e-12:
        root = math.sqrt(disc)
        t = (-bb - root) / aa
        if t > 0.0 and abs(oz + t * dz) <= c and r0 + rv * t >= 0.0:
            best = t
        t = (-bb + root) / aa
        if 0.0 < t < best and abs(oz + t * dz) <= c and r0 + rv * t >= 0.0:
            best = t
    if abs(dz) > 1e-9:
        t = (-c - oz) / dz
        x, y = px + t * vx, py + t * vy
        if 0.0 < t < best and x * x + y * y <= 1.0:
            best = t
        t = (c - oz) / dz
        x, y = px + t * vx, py + t * vy
        if 0.0 < t < best and x * x + y * y <= k * k:
            best = t
    return best


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_capsule(r, c, ox, oy, oz, dx, dy, dz):
    """Intersect a capsule of radius r about the segment from z = -c to z = +c."""
    aa = dx * dx + dy * dy
    bb = ox * dx + oy * dy
    cc = ox * ox + oy * oy - r * r
    disc = bb * bb - aa * cc
    if disc < 0.0:
        return MISS
    end = oz
    if aa > 1e-12:
        t = (-bb - math.sqrt(disc)) / aa
        z = oz + t * dz
        if abs(z) <= c:
            return t if t > 0.0 else MISS
        end = z
    else:
        end = -dz * 1e9
    cap = c if end > 0.0 else -c
    pz = oz - cap
    aa += dz * dz
    bb += pz * dz
    disc = bb * bb - aa * (cc + pz * pz)
    if disc < 0.0:
        return MISS
    t = (-bb - math.sqrt(disc)) / aa
    return t if t > 0.0 else MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def ring_distance(kind, a, b, e0, e1, x, y, z):
    """Compute the signed distance of a ring or an arc."""
    if kind == TORUS:  # ring radius a, tube radius b, axis z
        q = math.sqrt(x * x + y * y) - a
        return math.sqrt(q * q + z * z) - b
    # ARC: a bent rod, ring radius a, tube radius b, half opening with sine e0 and cosine e1
    px = abs(x)
    k = px * e0 + y * e1 if e1 * px > e0 * y else math.sqrt(px * px + y * y)
    inside = px * px + y * y + z * z + a * a - 2.0 * a * k
    return math.sqrt(max(inside, 0.0)) - b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_ring(kind, a, b, e0, e1, ox, oy, oz, dx, dy, dz):
    """Intersect a ring or an arc by sphere tracing inside the bounding box."""
    near, far = box_span(a + b, a + b, b, ox, oy, oz, dx, dy, dz)
    if near > far:
        return MISS
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    t, d = max(near, 0.0), 0.0
    close = 2e-5 * (a + b)
    for _ in range(64):
        if t > far:
            return MISS
        d = ring_distance(kind, a, b, e0, e1, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < close:
            return t if t > 0.0 else MISS
        t += d / length
    return t if d < 50.0 * close else MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_round_box(a, b, c, r, ox, oy, oz, dx, dy, dz):
    """Intersect a box of half sizes a, b, c with edges rounded by radius r, from outside.

    The distance is convex along a ray, so that Newton's method from before the first root converges
    to it monotonically.
    """
    near, far = box_span(a, b, c, ox, oy, oz, dx, dy, dz)
    if near > far:
        return MISS
    t, close = max(near, 0.0), 1e-6 * (a + b + c)
    for _ in range(24):
        if t > far:
            return MISS
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        qx, qy, qz = max(abs(x) - a + r, 0.0), max(abs(y) - b + r, 0.0), max(abs(z) - c + r, 0.0)
        length = math.sqrt(qx * qx + qy * qy + qz * qz)
        if length - r < close:
            return t if t > 0.0 else MISS
        slope = (qx if x > 0.0 else -qx) * dx + (qy if y > 0.0 else -qy) * dy
        slope += (qz if z > 0.0 else -qz) * dz
        if slope >= 0.0:
            return MISS
        t -= (length - r) * length / slope
    return MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_super(a, b, c, ox, oy, oz, dx, dy, dz):
    """Intersect |x/a|^4 + |y/b|^4 + |z/c|^4 = 1, from outside.

    The quartic is convex along a ray, so that Newton's method from before the first root converges
    to it monotonically.
    """
    near, far = box_span(a, b, c, ox, oy, oz, dx, dy, dz)
    if near > far:
        return MISS
    vx, vy, vz = dx / a, dy / b, dz / c
    t = max(near, 0.0)
    px, py, pz = ox / a + t * vx, oy / b + t * vy, oz / c + t * vz
    for _ in range(24):
        x2, y2, z2 = px * px, py * py, pz * pz
        value = x2 * x2 + y2 * y2 + z2 * z2 - 1.0
        if value < 4e-6:
            return t if t > 0.0 else MISS
        slope = 4.0 * (x2 * px * vx + y2 * py * vy + z2 * pz * vz)
        if slope >= 0.0:
            return MISS
        step = -value / slope
        t += step
        if t > far:
            return MISS
        px, py, pz = px + step * vx, py + step * vy, pz + step * vz
    return MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_room(a, b, c, wall, middle, wide, low, high, ox, oy, oz, dx, dy, dz):
    """Intersect the far wall of a box of half sizes a, b, c, from inside.

    One wall (0 +x, 1 -x, 2 +y, 3 -y, -1 none) may have a rectangular opening: its middle along the
    wall, half its width, its lower and upper edge.
    """
    tx = ((a if dx > 0.0 else -a) - ox) / dx if abs(dx) > 1e-9 else MISS
    ty = ((b if dy > 0.0 else -b) - oy) / dy if abs(dy) > 1e-9 else MISS
    tz = ((c if dz > 0.0 else -c) - oz) / dz if abs(dz) > 1e-9 else MISS
    t = min(tx, min(ty, tz))
    across = ty < tx
    along = ox + t * dx if across else oy + t * dy
    side = (2.0 if dy > 0.0 else 3.0) if across else (0.0 if dx > 0.0 else 1.0)
    z = oz + t * dz
    if t < tz and side == wall and abs(along - middle) < wide and low < z and z < high:
        return MISS
    return t


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_ground(relief, start, limit, top, steep, ox, oy, oz, dx, dy, dz):
    """Intersect the ground up to `limit`; `top`: its highest point, `steep`: 0 for the plane z = 0.

    Rays above ground at `start` are assumed to be above it before; the others start at 0.

    The waves of the relief are made of parabolas, so that the height above ground is piecewise
    quadratic in t. The pieces are solved one after the other.
    """
    if steep == 0.0:
        t = -oz / dz if dz < -1e-9 else MISS
        return t if 0.0 < t < FAR else MISS
    t = start
    if oz + t * dz > top:
        if dz > -1e-9:
            return MISS
        t = max(t, (top - oz) / dz)
    limit = min(limit, FAR)
    if t > 0.0 and oz + t * dz < relief_height(relief, ox + t * dx, oy + t * dy):
        t = 0.0
    for _ in range(500):
        if t > limit or (oz + t * dz > top and dz > 0.0):
            return MISS
        gap, slope, bend, length = oz + t * dz, dz, 0.0, limit - t + 1e-3
        for k in range(relief.shape[0]):
            if relief[k, 0] == 0.0:
                break  # the remaining rows are empty
            speed = 2.0 * (relief[k, 1] * dx + relief[k, 2] * dy)
            at = 2.0 * (relief[k, 1] * (ox + t * dx) + relief[k, 2] * (oy + t * dy) + relief[k, 3])
            whole = math.floor(at)
            x = at - whole
            high = 4.0 * relief[k, 0] if int(whole) & 1 else -4.0 * relief[k, 0]
            gap -= high * x * (1.0 - x)
            slope -= high * speed * (1.0 - 2.0 * x)
            bend += high * speed * speed
            ahead = 1.0 - x if speed > 0.0 else x
            length = min(length, ahead / max(abs(speed), 1e-9))
        if gap <= 0.0:
            return t if t > 0.0 else MISS
        disc = slope * slope - 4.0 * bend * gap
        if disc >= 0.0:
            below = math.sqrt(disc) - slope
            if below > 0.0 and 2.0 * gap <= length * below:
                return t + 2.0 * gap / below
        t += length + 1e-6 * (1.0 + t)  # slightly into the next piece
    return MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit(kind, prim, p, relief, start, limit, ox, oy, oz, dx, dy, dz):
    """Compute the first t > 0 at which a ray in local axes hits primitive p, else MISS.

    start, limit: see `hit_ground`; no effect on other primitives.
    """
    a, b, c = prim[p, 1], prim[p, 2], prim[p, 3]
    if kind == BOX:
        return hit_box(a, b, c, ox, oy, oz, dx, dy, dz)
    if kind == ELLIPSOID:
        return hit_ellipsoid(a, b, c, ox, oy, oz, dx, dy, dz)
    if kind == FRUSTUM:
        return hit_frustum(a, b, c, prim[p, 4], ox, oy, oz, dx, dy, dz)
    if kind == CAPSULE:
        return hit_capsule(a, c, ox, oy, oz, dx, dy, dz)
    if kind == ROOM:
        return hit_room(a, b, c, prim[p, 4], prim[p, 5], prim[p, 6], prim[p, 7], prim[p, 8],
                        ox, oy, oz, dx, dy, dz)  # fmt: skip
    if kind == GROUND:
        return hit_ground(relief, start, limit, a, b, ox, oy, oz, dx, dy, dz)
    if kind == SUPER:
        return hit_super(a, b, c, ox, oy, oz, dx, dy, dz)
    if kind == ROUNDBOX:
        return hit_round_box(a, b, c, prim[p, 4], ox, oy, oz, dx, dy, dz)
    return hit_ring(kind, a, b, prim[p, 4], prim[p, 5], ox, oy, oz, dx, dy, dz)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def eye_table(rt, cam):
    """Compute the camera in the axes of every primitive, and in world axes as the last row.

    Returns (p + 1, 12). Columns 0..8: rows of the matrix from (u, v, 1) to the ray direction of
    that pixel; 9..11: camera centre.
    """
    count = rt.shape[0]
    eye = np.empty((count + 1, 12))
    for p in range(count + 1):
        for i in range(3):
            start, right, down, ahead = 0.0, 0.0, 0.0, 0.0
            for k in range(3):
                turn, origin = (1.0 if i == k else 0.0), 0.0
                if p < count:
                    turn, origin = rt[p, 3 * k + i], rt[p, 9 + k]
                start += turn * (cam[13 + k] - origin)
                right += turn * cam[4 + 3 * k]
                down += turn * cam[5 + 3 * k]
                ahead += turn * cam[6 + 3 * k]
            right, down = right / cam[0], down / cam[1]
            eye[p, 3 * i] = right
            eye[p, 3 * i + 1] = down
            eye[p, 3 * i + 2] = ahead - right * cam[2] - down * cam[3]
            eye[p, 9 + i] = start
    return eye


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_seen(prim, p, relief, start, limit, eye, u, v):
    """Compute `hit` for the ray of pixel (u, v)."""
    return hit(
        int(prim[p, 0]),
        prim,
        p,
        relief,
        start,
        limit,
        eye[p, 9],
        eye[p, 10],
        eye[p, 11],
        eye[p, 0] * u + eye[p, 1] * v + eye[p, 2],
        eye[p, 3] * u + eye[p, 4] * v + eye[p, 5],
        eye[p, 6] * u + eye[p, 7] * v + eye[p, 8],
    )


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def screen_box(half, rt, p, cam, w, h):
    """Compute the pixel window (u0, u1, v0, v1) of primitive p; u1 <= u0 if it is not visible.

    cam: fx, fy, cx, cy, rotation camera-to-world (9, row-major), centre (3).
    """
    if half[p, 0] < 0.0:  # room and ground: everywhere
        return 0, w, 0, h
    u0, u1, v0, v1 = 1e9, -1e9, 1e9, -1e9
    behind = 0
    for k in range(8):
        x = half[p, 0] if k & 1 else -half[p, 0]
        y = half[p, 1] if k & 2 else -half[p, 1]
        z = half[p, 2] if k & 4 else -half[p, 2]
        gx = rt[p, 0] * x + rt[p, 1] * y + rt[p, 2] * z + rt[p, 9] - cam[13]
        gy = rt[p, 3] * x + rt[p, 4] * y + rt[p, 5] * z + rt[p, 10] - cam[14]
        gz = rt[p, 6] * x + rt[p, 7] * y + rt[p, 8] * z + rt[p, 11] - cam[15]
        depth = cam[6] * gx + cam[9] * gy + cam[12] * gz
        if depth < 1e-3:
            behind += 1
            continue
        u = (cam[4] * gx + cam[7] * gy + cam[10] * gz) / depth * cam[0] + cam[2]
        v = (cam[5] * gx + cam[8] * gy + cam[11] * gz) / depth * cam[1] + cam[3]
        u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
    if behind == 8:
        return 0, 0, 0, 0
    if behind > 0:
        return 0, w, 0, h
    left, right = max(u0, 0.0), min(u1 + 1.0, float(w))
    top, bottom = max(v0, 0.0), min(v1 + 1.0, float(h))
    if right <= left or bottom <= top:
        return 0, 0, 0, 0
    return int(left), int(right), int(top), int(bottom)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _row(prim, p, eye, u0, v, t):
    """Compute t (n) at which the rays of pixels u0, u0+1, ... of row v hit primitive p, no ground.

    One loop per kind, so that the compiler can vectorise it.
    """
    kind, n = int(prim[p, 0]), t.shape[0]
    a, b, c = prim[p, 1], prim[p, 2], prim[p, 3]
    e0, e1, e2, e3, e4 = prim[p, 4], prim[p, 5], prim[p, 6], prim[p, 7], prim[p, 8]
    m0, m3, m6 = eye[p, 0], eye[p, 3], eye[p, 6]
    x = eye[p, 0] * u0 + eye[p, 1] * v + eye[p, 2]
    y = eye[p, 3] * u0 + eye[p, 4] * v + eye[p, 5]
    z = eye[p, 6] * u0 + eye[p, 7] * v + eye[p, 8]
    ox, oy, oz = eye[p, 9], eye[p, 10], eye[p, 11]
    if kind == BOX:
        for i in range(n):
            t[i] = hit_box(a, b, c, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    elif kind == ELLIPSOID:
        for i in range(n):
            t[i] = hit_ellipsoid(a, b, c, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    elif kind == FRUSTUM:
        for i in range(n):
            t[i] = hit_frustum(a, b, c, e0, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    elif kind == CAPSULE:
        for i in range(n):
            t[i] = hit_capsule(a, c, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    elif kind == ROOM:
        for i in range(n):
            t[i] = hit_room(a, b, c, e0, e1, e2, e3, e4,
                            ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)  # fmt: skip
    elif kind == SUPER:
        for i in range(n):
            t[i] = hit_super(a, b, c, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    elif kind == ROUNDBOX:
        for i in range(n):
            t[i] = hit_round_box(a, b, c, e0, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)
    else:
        for i in range(n):
            t[i] = hit_ring(kind, a, b, e0, e1, ox, oy, oz, m0 * i + x, m3 * i + y, m6 * i + z)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _ground_row(prim, p, relief, eye, v, begin, depth, t):
    """Compute t (w) at which the rays of row v hit the ground, as far as it is visible.

    begin (w): t up to which the row below was above ground; depth (w): nearest hit so far.
    """
    m0, m3, m6 = eye[p, 0], eye[p, 3], eye[p, 6]
    x, y = eye[p, 1] * v + eye[p, 2], eye[p, 4] * v + eye[p, 5]
    z = eye[p, 7] * v + eye[p, 8]
    ox, oy, oz = eye[p, 9], eye[p, 10], eye[p, 11]
    top, steep = prim[p, 1], prim[p, 2]
    if steep == 0.0:
        for u in range(t.shape[0]):
            dz = m6 * u + z
            far = -oz / dz
            t[u] = far if dz < -1e-9 and far > 0.0 and far < FAR else MISS
        return
    for u in range(t.shape[0]):
        t[u] = hit_ground(relief, begin[u], 1.001 * depth[u], top, steep,
                          ox, oy, oz, m0 * u + x, m3 * u + y, m6 * u + z)  # fmt: skip
        met = min(t[u], depth[u])
        if met < FAR:
            begin[u] = 0.9 * met


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def trace(prim, half, rt, relief, cam, depth, index):
    """Trace primary rays: fill z depth (0: sky) and primitive index (-1: sky), both (h, w)."""
    h, w = depth.shape
    depth[:] = 0.1 * MISS  # below MISS, which float32 rounds up, so that a miss never replaces it
    index[:] = -1
    eye = eye_table(rt, cam)
    t = np.empty(w)
    for p in range(prim.shape[0]):
        if int(prim[p, 0]) == GROUND:
            continue
        u0, u1, v0, v1 = screen_box(half, rt, p, cam, w, h)
        n = max(u1 - u0, 0)
        for v in range(v0, v1 if n > 0 else v0):
            found, nearest, which = t[:n], depth[v, u0:u1], index[v, u0:u1]
            _row(prim, p, eye, u0, v, found)
            for i in range(n):
                closer = found[i] < nearest[i]
                nearest[i] = found[i] if closer else nearest[i]
                which[i] = p if closer else which[i]
    for p in range(prim.shape[0]):  # the ground last: most of it is occluded by then
        if int(prim[p, 0]) != GROUND:
            continue
        begin = np.zeros(w)
        for v in range(h - 1, -1, -1):  # upwards: the ground recedes
            nearest, which = depth[v], index[v]
            _ground_row(prim, p, relief, eye, v, begin, nearest, t)
            for u in range(w):
                closer = t[u] <= nearest[u]
                nearest[u] = t[u] if closer else nearest[u]
                which[u] = p if closer else which[u]
    for v in range(h):
        for u in range(w):
            depth[v, u] = 0.0 if index[v, u] < 0 else depth[v, u]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def carry_table(rt, eye, cam_j, rt_j):
    """Compute the map of surface points of frame i to frame j, per primitive: (p, 12).

    Columns 0..8: rows of a matrix A, 9..11: b. The point at depth t of pixel (u, v) maps to the
    homogeneous pixel t A (u, v, 1) + b. eye: `eye_table` of frame i.
    """
    carry = np.empty((rt.shape[0], 12))
    point, there = np.empty(3), np.empty(3)
    for p in range(rt.shape[0]):
        for column in range(4):
            for k in range(3):
                point[k] = eye[p, 9 + k] if column == 3 else eye[p, 3 * k + column]
            for k in range(3):
                there[k] = rt_j[p, 3 * k] * point[0]
                there[k] += rt_j[p, 3 * k + 1] * point[1] + rt_j[p, 3 * k + 2] * point[2]
                if column == 3:
                    there[k] += rt_j[p, 9 + k] - cam_j[13 + k]
            x = cam_j[4] * there[0] + cam_j[7] * there[1] + cam_j[10] * there[2]
            y = cam_j[5] * there[0] + cam_j[8] * there[1] + cam_j[11] * there[2]
            z = cam_j[6] * there[0] + cam_j[9] * there[1] + cam_j[12] * there[2]
            first = 9 if column == 3 else column
            step = 1 if column == 3 else 3
            carry[p, first] = cam_j[0] * x + cam_j[2] * z
            carry[p, first + step] = cam_j[1] * y + cam_j[3] * z
            carry[p, first + 2 * step] = z
    return carry


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def uniform_blocks(index, block):
    """Fill block (h, w) with the primitive of the four pixels from (u, v) on; -2: they differ."""
    h, w = index.shape
    block[:] = -2
    for v in range(h - 1):
        over, under, out = index[v], index[v + 1], block[v]
        for u in range(w - 1):
            p = over[u]
            same = (over[u + 1] == p) & (under[u] == p) & (under[u + 1] == p)
            out[u] = p if same else -2


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def flow_between(prim, carry, eye_j, relief, depth_i, index_i, inverse_j, index_j, block_j, flow,
                 visible):  # fmt: skip
    """Compute flow from frame i to frame j and the visibility of its end points.

    flow (h, w, 2) in pixels, 0 at the sky; visible (h, w). carry: `carry_table` from i to j;
    eye_j: `eye_table` of j; inverse_j: 1 / depth; block_j: `uniform_blocks` of j. Next to edges a
    ray is cast at the exact sub-pixel position against all primitives visible nearby.
    """
    h, w = depth_i.shape
    work = np.empty((9, w))
    a, b, z = work[0], work[1], work[2]  # pixel and depth in frame j; depth 0: none
    place, shown, seen = np.empty(w, np.int32), np.empty(w, np.int32), np.empty(w, np.int8)
    tested = np.full(prim.shape[0], -1, np.int32)
    for v in range(h):
        index = index_i[v]
        _carry_row(carry, v, depth_i[v], index, a, b, z)
        out = flow[v]
        for u in range(w):
            out[u, 0] = a[u] - u if z[u] > 0.0 else 0.0
            out[u, 1] = b[u] - v if z[u] > 0.0 else 0.0
        _compare(index, inverse_j.ravel(), block_j.ravel(), h, work, place, shown, seen)
        for u in range(w):
            if seen[u] == UNSURE:
                v0, u0 = place[u] // w, place[u] % w
                visible[v, u] = _unoccluded(prim, relief, eye_j, index_j, inverse_j, a[u], b[u],
                                            z[u], u0, v0, index[u], v * w + u, tested)  # fmt: skip
            else:
                visible[v, u] = seen[u] == 1


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _compare(index, inverse, block, h, work, place, shown, seen):
    """Fill seen (w): 1 visible, 0 occluded or outside, else UNSURE.

    Visible: the other frame shows the same primitive at the same depth. Occluded: it shows a much
    nearer one. index: of this frame's row; inverse, block (h*w): of the other frame; rows 0..2 of
    work (9, w): pixel and depth there. Fills place (w) with the other frame's pixel above left of
    the point, and shown (w) with the primitive of its block.
    """
    w = index.shape[0]
    a, b, z, fa, fb = work[0], work[1], work[2], work[3], work[4]
    p, q, r, s = work[5], work[6], work[7], work[8]
    for u in range(w):
        inside = (a[u] > -0.5) & (b[u] > -0.5) & (a[u] < w - 0.5) & (b[u] < h - 0.5)
        inside &= z[u] > 0.0
        u0 = min(int(max(a[u], 0.0)), w - 2) if inside else 0
        v0 = min(int(max(b[u], 0.0)), h - 2) if inside else 0
        fa[u], fb[u] = a[u] - u0, b[u] - v0
        place[u] = v0 * w + u0
        seen[u] = UNSURE if inside else 0
    for u in range(w):
        k = place[u]
        p[u], q[u], r[u], s[u] = inverse[k], inverse[k + 1], inverse[k + w], inverse[k + w + 1]
        shown[u] = block[k]
    for u in range(w):
        over, under = p[u] + fa[u] * (q[u] - p[u]), r[u] + fa[u] * (s[u] - r[u])
        closer = (over + fb[u] * (under - over)) * z[u] - 1.0
        same = (shown[u] == index[u]) & (abs(closer) < 4e-3)
        hidden = (shown[u] >= 0) & (closer > 0.1)
        sure = 1 if same else (0 if hidden else UNSURE)
        seen[u] = sure if seen[u] == UNSURE else 0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _carry_row(carry, v, depth, index, a, b, z):
    """Compute pixel (a, b) and depth z in the other frame of the points of row v; z = 0: none."""
    w = depth.shape[0]
    first = 0
    while first < w:
        p, last = index[first], first + 1
        while last < w and index[last] == p:
            last += 1
        n = last - first
        ta, tb, tz, t = a[first:last], b[first:last], z[first:last], depth[first:last]
        if p < 0:
            tz[:] = 0.0
        else:
            m = carry[p]
            m0, m3, m6, m9, m10, m11 = m[0], m[3], m[6], m[9], m[10], m[11]
            x = m[0] * first + m[1] * v + m[2]
            y = m[3] * first + m[4] * v + m[5]
            d = m[6] * first + m[7] * v + m[8]
            for i in range(n):
                far = (m6 * i + d) * t[i] + m11
                inverse = 1.0 / far
                ta[i] = ((m0 * i + x) * t[i] + m9) * inverse
                tb[i] = ((m3 * i + y) * t[i] + m10) * inverse
                tz[i] = 0.0 if far < 1e-3 else far
        first = last


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _unoccluded(prim, relief, eye, index, inverse, a, b, z, u0, v0, p, ray, tested):
    """Whether no primitive visible near pixel (a, b) occludes a point of primitive p at depth z.

    tested (p): identifier of the last `ray` that was cast at each primitive.
    """
    h, w = index.shape
    limit = z * (1.0 - 2e-3)
    tested[p] = ray
    if int(prim[p, 0]) != ROOM:  # convex: it does not occlude itself
        start = 0.7 / max(inverse[v0, u0], 1.0 / z)
        if hit_seen(prim, p, relief, start, limit, eye, a, b) < limit:
            return False
    for v in range(max(v0 - 1, 0), min(v0 + 3, h)):
        for u in range(max(u0 - 1, 0), min(u0 + 3, w)):
            q = index[v, u]
            # far behind the point: it can't occlude it
            if q < 0 or tested[q] == ray or inverse[v, u] * z < 0.7:
                continue
            tested[q] = ray
            start = 0.7 / inverse[v, u]
            if hit_seen(prim, q, relief, start, limit, eye, a, b) < limit:
                return False
    return True
