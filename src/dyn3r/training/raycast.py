"""Compiled ray caster of the synthetic world: primitives, primary rays, and where points go.

Plain functions of scalars over flat float32 arrays (numba, no Python objects), so that the same
functions can later be compiled for a GPU. One thread per call, the interpreter lock released.

A primitive is a row of `prim` (kind, a, b, c, e0..e4) in its own axes; `rt[p]` holds its rotation
(row-major 3x3, local to world) and position. Ray directions are scaled to camera z = 1, so that the
ray parameter t is z depth. Frames: world z up; camera x right, y down, z forward.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BOX, ELLIPSOID, FRUSTUM, CAPSULE, TORUS, ROUNDBOX, SUPER, ARC, ROOM, GROUND = range(10)
MISS = 1e30
FAR = 400.0  # rays that come farther see the sky


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def wave(x):
    """A smooth wave of period 1 and amplitude 1 made of parabolas (cheaper than a sine)."""
    f = 2.0 * (x - math.floor(x)) - 1.0
    return 4.0 * f * (1.0 - abs(f))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def relief_height(relief, x, y):
    """Height of the ground at (x, y): rows of `relief` are amplitude, kx, ky, phase."""
    h = 0.0
    for k in range(relief.shape[0]):
        if relief[k, 0] != 0.0:
            h += relief[k, 0] * wave(relief[k, 1] * x + relief[k, 2] * y + relief[k, 3])
    return h


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_box(a, b, c, ox, oy, oz, dx, dy, dz):
    """First crossing t > 0 of an axis-aligned box with half sizes a, b, c, from outside."""
    ix = 1.0 / dx if abs(dx) > 1e-9 else 1e9
    iy = 1.0 / dy if abs(dy) > 1e-9 else 1e9
    iz = 1.0 / dz if abs(dz) > 1e-9 else 1e9
    ax, ay, az = abs(ix) * a, abs(iy) * b, abs(iz) * c
    mx, my, mz = -ox * ix, -oy * iy, -oz * iz
    near = max(mx - ax, max(my - ay, mz - az))
    far = min(mx + ax, min(my + ay, mz + az))
    if near > far or near <= 0.0:
        return MISS
    return near


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_ellipsoid(a, b, c, ox, oy, oz, dx, dy, dz):
    """First crossing of the ellipsoid with semi-axes a, b, c."""
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_frustum(a, b, c, k, ox, oy, oz, dx, dy, dz):
    """Cylinder or cone about z: semi-axes (a, b) at z = -c, k times that at z = +c, capped."""
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
        for sign in (-1.0, 1.0):
            t = (-bb + sign * root) / aa
            if 0.0 < t < best and abs(oz + t * dz) <= c and r0 + rv * t >= 0.0:
                best = t
    if abs(dz) > 1e-9:
        for sign in (-1.0, 1.0):
            t = (sign * c - oz) / dz
            if 0.0 < t < best:
                x, y = px + t * vx, py + t * vy
                r = 1.0 if sign < 0.0 else k
                if x * x + y * y <= r * r:
                    best = t
    return best


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_capsule(r, c, ox, oy, oz, dx, dy, dz):
    """Capsule of radius r about the segment from z = -c to z = +c."""
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def distance_bound(kind, a, b, c, e0, e1, x, y, z):
    """Signed distance (or a lower bound of it) of the marched primitives."""
    if kind == TORUS:  # ring radius a, tube radius b, axis z
        q = math.sqrt(x * x + y * y) - a
        return math.sqrt(q * q + z * z) - b
    if kind == ROUNDBOX:  # half sizes a, b, c with corners of radius e0
        qx, qy, qz = abs(x) - a + e0, abs(y) - b + e0, abs(z) - c + e0
        mx, my, mz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
        inner = min(max(qx, max(qy, qz)), 0.0)
        return math.sqrt(mx * mx + my * my + mz * mz) + inner - e0
    if kind == SUPER:  # |x/a|^4 + |y/b|^4 + |z/c|^4 = 1
        px, py, pz = x / a, y / b, z / c
        px, py, pz = px * px, py * py, pz * pz
        norm = math.sqrt(math.sqrt(px * px + py * py + pz * pz))
        return (norm - 1.0) * min(a, min(b, c))
    # ARC: a bent rod, ring radius a, tube radius b, half opening with sine e0 and cosine e1
    px = abs(x)
    k = px * e0 + y * e1 if e1 * px > e0 * y else math.sqrt(px * px + y * y)
    inside = px * px + y * y + z * z + a * a - 2.0 * a * k
    return math.sqrt(max(inside, 0.0)) - b


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_marched(kind, a, b, c, e0, e1, radius, ox, oy, oz, dx, dy, dz):
    """Sphere tracing inside the bounding sphere of `radius`."""
    dd = dx * dx + dy * dy + dz * dz
    length = math.sqrt(dd)
    bb = (ox * dx + oy * dy + oz * dz) / dd
    disc = bb * bb - (ox * ox + oy * oy + oz * oz - radius * radius) / dd
    if disc < 0.0:
        return MISS
    root = math.sqrt(disc)
    t, end = max(-bb - root, 0.0), -bb + root
    close = 2e-5 * radius
    for _ in range(64):
        if t > end:
            return MISS
        d = distance_bound(kind, a, b, c, e0, e1, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < close:
            return t if t > 0.0 else MISS
        t += d / length
    return t if d < 50.0 * close else MISS


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_room(prim, p, ox, oy, oz, dx, dy, dz):
    """The far wall of a box seen from inside; one wall may have a rectangular opening.

    prim: half sizes 1..3, e0 wall (0 +x, 1 -x, 2 +y, 3 -y, -1 none), e1 centre along the wall,
    e2 half width, e3 lower and e4 upper edge.
    """
    a, b, c = prim[p, 1], prim[p, 2], prim[p, 3]
    tx = ((a if dx > 0.0 else -a) - ox) / dx if abs(dx) > 1e-9 else MISS
    ty = ((b if dy > 0.0 else -b) - oy) / dy if abs(dy) > 1e-9 else MISS
    tz = ((c if dz > 0.0 else -c) - oz) / dz if abs(dz) > 1e-9 else MISS
    t = min(tx, min(ty, tz))
    wall = prim[p, 4]
    if wall >= 0.0 and t < tz:
        along, side = oy + t * dy, (0.0 if dx > 0.0 else 1.0)
        if ty < tx:
            along, side = ox + t * dx, (2.0 if dy > 0.0 else 3.0)
        z = oz + t * dz
        if side == wall and abs(along - prim[p, 5]) < prim[p, 6] and prim[p, 7] < z < prim[p, 8]:
            return MISS
    return t


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def hit_ground(relief, start, top, steep, ox, oy, oz, dx, dy, dz):
    """Relief ground; `top` is its highest point, `steep` its largest slope (0: the plane z = 0)."""
    if steep == 0.0:
        t = -oz / dz if dz < -1e-9 else MISS
        return t if 0.0 < t < FAR else MISS
    t = start
    if oz + t * dz > top:
        if dz > -1e-9:
            return MISS
        t = max(t, (top - oz) / dz)
    speed = steep * math.sqrt(dx * dx + dy * dy)
    closing = max(speed - dz, 1e-3)
    before, gap_before, gap = t, 0.0, 0.0
    for _ in range(100):
        z = oz + t * dz
        if t > FAR or (z > top and dz > 0.0):
            return MISS
        gap = z - relief_height(relief, ox + t * dx, oy + t * dy)
        if gap < 1e-4 * t:
            break
        before, gap_before = t, gap
        t += max(gap / closing, 5e-4 * t)
    for _ in range(3):  # secant steps from just above the ground onto it
        if abs(gap_before - gap) < 1e-12:
            break
        after = t - gap * (t - before) / (gap - gap_before)
        after = min(max(after, 0.99 * t), 1.01 * t)
        before, gap_before, t = t, gap, after
        gap = oz + t * dz - relief_height(relief, ox + t * dx, oy + t * dy)
    return t


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit(kind, prim, p, radius, relief, ox, oy, oz, dx, dy, dz):
    """First t > 0 where a ray in local axes meets primitive p, MISS if it does not."""
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
        return hit_room(prim, p, ox, oy, oz, dx, dy, dz)
    if kind == GROUND:
        return hit_ground(relief, 0.0, a, b, ox, oy, oz, dx, dy, dz)
    return hit_marched(kind, a, b, c, prim[p, 4], prim[p, 5], radius, ox, oy, oz, dx, dy, dz)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def hit_world(prim, rt, p, radius, relief, ox, oy, oz, dx, dy, dz):
    """`hit` for a ray in world axes."""
    qx, qy, qz = ox - rt[p, 9], oy - rt[p, 10], oz - rt[p, 11]
    return hit(
        int(prim[p, 0]),
        prim,
        p,
        radius,
        relief,
        rt[p, 0] * qx + rt[p, 3] * qy + rt[p, 6] * qz,
        rt[p, 1] * qx + rt[p, 4] * qy + rt[p, 7] * qz,
        rt[p, 2] * qx + rt[p, 5] * qy + rt[p, 8] * qz,
        rt[p, 0] * dx + rt[p, 3] * dy + rt[p, 6] * dz,
        rt[p, 1] * dx + rt[p, 4] * dy + rt[p, 7] * dz,
        rt[p, 2] * dx + rt[p, 5] * dy + rt[p, 8] * dz,
    )


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def screen_box(half, rt, p, cam, w, h):
    """Pixel window (u0, u1, v0, v1) of primitive p; u1 <= u0 if it is behind or outside.

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
def _fill(prim, p, kind, radius, relief, cam, m, ox, oy, oz, u0, u1, v0, v1, depth, index):
    """Test one primitive against a window of pixels; m (9) maps camera to local directions."""
    a, b, c, e0, e1 = prim[p, 1], prim[p, 2], prim[p, 3], prim[p, 4], prim[p, 5]
    ifx, ify, cx, cy = 1.0 / cam[0], 1.0 / cam[1], cam[2], cam[3]
    m0, m3, m6 = m[0] * ifx, m[3] * ifx, m[6] * ifx
    begin = np.zeros(u1 - u0)  # where the ground was met in the row below
    for v in range(v1 - 1, v0 - 1, -1):  # upwards: the ground recedes
        y = (v - cy) * ify
        bx, by, bz = m[1] * y + m[2], m[4] * y + m[5], m[7] * y + m[8]
        for u in range(u0, u1):
            x = u - cx
            dx, dy, dz = m0 * x + bx, m3 * x + by, m6 * x + bz
            if kind == BOX:
                t = hit_box(a, b, c, ox, oy, oz, dx, dy, dz)
            elif kind == ELLIPSOID:
                t = hit_ellipsoid(a, b, c, ox, oy, oz, dx, dy, dz)
            elif kind == FRUSTUM:
                t = hit_frustum(a, b, c, e0, ox, oy, oz, dx, dy, dz)
            elif kind == CAPSULE:
                t = hit_capsule(a, c, ox, oy, oz, dx, dy, dz)
            elif kind == ROOM:
                t = hit_room(prim, p, ox, oy, oz, dx, dy, dz)
            elif kind == GROUND:
                t = hit_ground(relief, begin[u - u0], a, b, ox, oy, oz, dx, dy, dz)
                begin[u - u0] = 0.9 * t if t < MISS else begin[u - u0]
            else:
                t = hit_marched(kind, a, b, c, e0, e1, radius, ox, oy, oz, dx, dy, dz)
            if t < depth[v, u]:
                depth[v, u] = t
                index[v, u] = p


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def trace(prim, half, radii, rt, relief, cam, depth, index):
    """Primary rays: fills z depth (0 sky) and primitive index (-1 sky), both (h, w)."""
    h, w = depth.shape
    for v in range(h):
        for u in range(w):
            depth[v, u] = 0.1 * MISS  # float32 would round MISS itself up, and a miss would win
            index[v, u] = -1
    m = np.empty(9)
    for p in range(prim.shape[0]):
        u0, u1, v0, v1 = screen_box(half, rt, p, cam, w, h)
        if u1 <= u0:
            continue
        kind = int(prim[p, 0])
        for i in range(3):
            for j in range(3):
                m[3 * i + j] = (
                    rt[p, i] * cam[4 + j] + rt[p, 3 + i] * cam[7 + j] + rt[p, 6 + i] * cam[10 + j]
                )
        qx, qy, qz = cam[13] - rt[p, 9], cam[14] - rt[p, 10], cam[15] - rt[p, 11]
        ox = rt[p, 0] * qx + rt[p, 3] * qy + rt[p, 6] * qz
        oy = rt[p, 1] * qx + rt[p, 4] * qy + rt[p, 7] * qz
        oz = rt[p, 2] * qx + rt[p, 5] * qy + rt[p, 8] * qz
        _fill(prim, p, kind, radii[p], relief, cam, m, ox, oy, oz, u0, u1, v0, v1, depth, index)
    for v in range(h):
        for u in range(w):
            if index[v, u] < 0:
                depth[v, u] = 0.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def flow_between(prim, radii, rt_i, rt_j, relief, cam_i, cam_j, depth_i, index_i, inverse_j,
                 index_j, flow, visible):  # fmt: skip
    """Where every surface point of frame i lies in frame j, and whether it is seen there.

    flow (h, w, 2) in pixels, 0 at the sky; visible (h, w); inverse_j is 1 / depth. Beside
    edges a ray is cast at the exact sub-pixel position against everything that shows up nearby.
    """
    h, w = depth_i.shape
    ifx, ify = 1.0 / cam_i[0], 1.0 / cam_i[1]
    for v in range(h):
        for u in range(w):
            flow[v, u, 0] = 0.0
            flow[v, u, 1] = 0.0
            visible[v, u] = False
            p = index_i[v, u]
            if p < 0:
                continue
            t = depth_i[v, u]
            x, y = (u - cam_i[2]) * ifx * t, (v - cam_i[3]) * ify * t
            gx = cam_i[4] * x + cam_i[5] * y + cam_i[6] * t + cam_i[13] - rt_i[p, 9]
            gy = cam_i[7] * x + cam_i[8] * y + cam_i[9] * t + cam_i[14] - rt_i[p, 10]
            gz = cam_i[10] * x + cam_i[11] * y + cam_i[12] * t + cam_i[15] - rt_i[p, 11]
            lx = rt_i[p, 0] * gx + rt_i[p, 3] * gy + rt_i[p, 6] * gz
            ly = rt_i[p, 1] * gx + rt_i[p, 4] * gy + rt_i[p, 7] * gz
            lz = rt_i[p, 2] * gx + rt_i[p, 5] * gy + rt_i[p, 8] * gz
            gx = rt_j[p, 0] * lx + rt_j[p, 1] * ly + rt_j[p, 2] * lz + rt_j[p, 9] - cam_j[13]
            gy = rt_j[p, 3] * lx + rt_j[p, 4] * ly + rt_j[p, 5] * lz + rt_j[p, 10] - cam_j[14]
            gz = rt_j[p, 6] * lx + rt_j[p, 7] * ly + rt_j[p, 8] * lz + rt_j[p, 11] - cam_j[15]
            z = cam_j[6] * gx + cam_j[9] * gy + cam_j[12] * gz
            if z < 1e-3:
                continue
            inverse = 1.0 / z
            a = (cam_j[4] * gx + cam_j[7] * gy + cam_j[10] * gz) * inverse
            b = (cam_j[5] * gx + cam_j[8] * gy + cam_j[11] * gz) * inverse
            a, b = a * cam_j[0] + cam_j[2], b * cam_j[1] + cam_j[3]
            flow[v, u, 0] = a - u
            flow[v, u, 1] = b - v
            if a < -0.5 or b < -0.5 or a > w - 0.5 or b > h - 0.5:
                continue
            u0, v0 = min(max(int(math.floor(a)), 0), w - 2), min(max(int(math.floor(b)), 0), h - 2)
            same = (
                index_j[v0, u0] == p
                and index_j[v0, u0 + 1] == p
                and index_j[v0 + 1, u0] == p
                and index_j[v0 + 1, u0 + 1] == p
            )
            if same:
                fa, fb = a - u0, b - v0
                over = (1 - fa) * inverse_j[v0, u0] + fa * inverse_j[v0, u0 + 1]
                under = (1 - fa) * inverse_j[v0 + 1, u0] + fa * inverse_j[v0 + 1, u0 + 1]
                if abs(((1 - fb) * over + fb * under) * z - 1.0) < 4e-3:
                    visible[v, u] = True
                    continue
            visible[v, u] = _unoccluded(
                prim, radii, rt_j, relief, cam_j, index_j, a, b, z, u0, v0, p
            )


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def _unoccluded(prim, radii, rt, relief, cam, index, a, b, z, u0, v0, p):
    h, w = index.shape
    x, y = (a - cam[2]) / cam[0], (b - cam[3]) / cam[1]
    dx = cam[4] * x + cam[5] * y + cam[6]
    dy = cam[7] * x + cam[8] * y + cam[9]
    dz = cam[10] * x + cam[11] * y + cam[12]
    limit = z * (1.0 - 2e-3)
    last = -1
    if hit_world(prim, rt, p, radii[p], relief, cam[13], cam[14], cam[15], dx, dy, dz) < limit:
        return False
    for v in range(max(v0 - 1, 0), min(v0 + 3, h)):
        for u in range(max(u0 - 1, 0), min(u0 + 3, w)):
            q = index[v, u]
            if q < 0 or q == p or q == last:  # noqa: SIM109
                continue
            last = q
            t = hit_world(prim, rt, q, radii[q], relief, cam[13], cam[14], cam[15], dx, dy, dz)
            if t < limit:
                return False
    return True
