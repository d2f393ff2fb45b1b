"""Compiled shading of the synthetic world: textures, lights, edges, sky.

Samples (pixel centres, and additional positions in pixels at object edges) are sorted by primitive
and shaded in chunks, stage by stage, in loops that the compiler can vectorise. All computations are
in the axes of the primitive. Colours are linear; `camera_effects` converts them.

Columns of a material row: 0 tile (-1 plain), 1 repeats per unit length, 2 3 cosine and sine of its
rotation, 4 5 offset, 6 mapping (0 by dominant axis, 1 about z, 2 about the centre), 7-9 colour A,
10-12 colour B, 13 mode (0 tile times A, 1 brightness of the tile blends A to B), 14 detail tile,
15 its repeats, 16 its strength, 17 shine, 18 its exponent, 19 glow, 20 mirrored repeats.

Light: 0-2 direction to the sun, 3-5 its colour, 6-8 ambient, 9-11 direction to the fill light,
12-14 its colour, 15-17 lamp, 18-20 its colour, 21 haze per unit depth, 22-24 haze colour, 25 sky,
26 its rotation, 27 its gain, 28 size of the sun, 29 strength of contact shadows, 30 length of the
scene.
"""

# Compiled kernels take scalars and flat arrays, and branch by the kind of primitive:
# ruff: noqa: C901, FBT003, PLR0913

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dyn3r.training.synthetic.raycast import (
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    GROUND,
    MISS,
    ROOM,
    ROUNDBOX,
    SUPER,
    TORUS,
    eye_table,
    hit_seen,
    relief_slope,
)

TILE = 256
LAST_LEVEL = 7
CHUNK = 128
"""Samples shaded at a time."""

# rows of a chunk's work array (WORK, CHUNK)
U, V, T, SUN, LEFT = 0, 1, 2, 3, 4  # the sample: pixel, depth, incident light
X, Y, Z, NX, NY, NZ = 5, 6, 7, 8, 9, 10  # the point and its normal in the primitive's axes
DX, DY, DZ = 11, 12, 13  # unit direction from the eye
WIDE, LOD, S, Q = 14, 15, 16, 17  # size of a pixel there, mip level, coordinates on the surface
RED, GREEN, BLUE, DETAIL = 18, 19, 20, 21
TU, TV, WX, WY, PART, OTHER = 22, 23, 24, 25, 26, 27  # of texture lookups
WORK = 28
LEVEL, TEXEL, WHO = 0, 1, 5  # rows of its integers (INTS, CHUNK)
INTS = 6


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def fast_log2(x):
    """Approximate log2 of a normal float32 number to about 1e-5."""
    bits = np.float32(x).view(np.int32)
    m = float(np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)) - 1.0  # mantissa 0..1
    k = 0.19133031 + m * (-0.07731441 + m * 0.01486540)
    k = -0.72048783 + m * (0.47291558 + m * (-0.32397182 + m * k))
    return (bits >> 23) - 127 + m * (1.44266276 + m * k)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def fast_exp2(x):
    """Approximate 2^x for x from -126 to 126 to about 1e-6."""
    x = min(max(x, -126.0), 126.0)
    whole = math.floor(x)
    f = x - whole
    k = 0.05585335 + f * (0.00895056 + f * 0.00189556)
    k = 1.0 + f * (0.69315297 + f * (0.24014756 + f * k))
    return k * np.int32((int(whole) + 127) << 23).view(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _corners(tile, mirrored, n, ints, work):
    """Fetch the four texels of a tile (texels,) uint32 around each of n positions.

    From rows LEVEL of ints and TU, TV of work (in repeats of the tile); fills rows TEXEL..TEXEL+3,
    and WX, WY: the weights of the right and the lower ones.
    """
    u, v, wx, wy, level = work[TU], work[TV], work[WX], work[WY], ints[LEVEL]
    a, b, c, d = ints[TEXEL], ints[TEXEL + 1], ints[TEXEL + 2], ints[TEXEL + 3]
    if mirrored:
        for i in range(n):
            x, y = u[i] - 2.0 * math.floor(0.5 * u[i]), v[i] - 2.0 * math.floor(0.5 * v[i])
            u[i], v[i] = (2.0 - x if x > 1.0 else x), (2.0 - y if y > 1.0 else y)
    for i in range(n):
        size = TILE >> level[i]
        x, y = u[i] * size - 0.5, v[i] * size - 0.5
        left, top = math.floor(x), math.floor(y)
        wx[i], wy[i] = x - left, y - top
        x0, y0 = int(left) & (size - 1), int(top) & (size - 1)
        x1, y1 = (x0 + 1) & (size - 1), (y0 + 1) & (size - 1)
        if mirrored:  # the neighbour across the seam is the texel itself
            x1, y1 = max(x0, x1), max(y0, y1)
        a[i], b[i], c[i], d[i] = y0 * size + x0, y0 * size + x1, y1 * size + x0, y1 * size + x1
    for i in range(n):
        size = TILE >> level[i]
        start = (4 * (TILE * TILE - size * size)) // 3  # texels of the larger levels
        a[i], b[i] = tile[start + a[i]], tile[start + b[i]]
        c[i], d[i] = tile[start + c[i]], tile[start + d[i]]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _blend(channel, n, ints, work, out):
    """Interpolate bilinearly one channel (n), 0..255, of the texels fetched by `_corners`."""
    wx, wy, shift = work[WX], work[WY], 8 * channel
    a, b, c, d = ints[TEXEL], ints[TEXEL + 1], ints[TEXEL + 2], ints[TEXEL + 3]
    for i in range(n):
        ta, tb = float((a[i] >> shift) & 255), float((b[i] >> shift) & 255)
        tc, td = float((c[i] >> shift) & 255), float((d[i] >> shift) & 255)
        over, under = ta + wx[i] * (tb - ta), tc + wx[i] * (td - tc)
        out[i] = over + wy[i] * (under - over)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def sky_colour(skies, light, dx, dy, dz):
    """Compute the linear colour of the sky in a world direction (any length)."""
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def light_table(rt, light):
    """Compute directions to sun and fill light, the lamp's position and up, per primitive."""
    table = np.empty((rt.shape[0], 12))
    for p in range(rt.shape[0]):
        for i in range(3):
            a, b, c = rt[p, i], rt[p, 3 + i], rt[p, 6 + i]
            table[p, i] = a * light[0] + b * light[1] + c * light[2]
            table[p, 3 + i] = a * light[9] + b * light[10] + c * light[11]
            x, y, z = light[15] - rt[p, 9], light[16] - rt[p, 10], light[17] - rt[p, 11]
            table[p, 6 + i] = a * x + b * y + c * z
            table[p, 9 + i] = c
    return table


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _points(eye, n, work):
    """Fill X..Z and DX..DZ from U, V, T; `eye`: the primitive's row of `eye_table`."""
    u, v, t, x, y, z = work[U], work[V], work[T], work[X], work[Y], work[Z]
    dx, dy, dz = work[DX], work[DY], work[DZ]
    m0, m1, m2, m3, m4, m5 = eye[0], eye[1], eye[2], eye[3], eye[4], eye[5]
    m6, m7, m8, ox, oy, oz = eye[6], eye[7], eye[8], eye[9], eye[10], eye[11]
    for i in range(n):
        a = m0 * u[i] + m1 * v[i] + m2
        b = m3 * u[i] + m4 * v[i] + m5
        c = m6 * u[i] + m7 * v[i] + m8
        x[i], y[i], z[i] = ox + t[i] * a, oy + t[i] * b, oz + t[i] * c
        k = 1.0 / math.sqrt(a * a + b * b + c * c)
        dx[i], dy[i], dz[i] = k * a, k * b, k * c


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _normals(prim, p, relief, n, work):
    """Fill NX..NZ, outward unit normals at the surface points X..Z."""
    kind = int(prim[p, 0])
    a, b, c, e0, e1 = prim[p, 1], prim[p, 2], prim[p, 3], prim[p, 4], prim[p, 5]
    xs, ys, zs, nx, ny, nz = work[X], work[Y], work[Z], work[NX], work[NY], work[NZ]
    if kind in (BOX, ROOM):
        side = -1.0 if kind == ROOM else 1.0
        for i in range(n):
            qx, qy, qz = abs(xs[i]) / a, abs(ys[i]) / b, abs(zs[i]) / c
            along_x = (qx > qy) & (qx > qz)
            along_y = (not along_x) & (qy > qz)
            nx[i] = (side if xs[i] > 0.0 else -side) if along_x else 0.0
            ny[i] = (side if ys[i] > 0.0 else -side) if along_y else 0.0
            nz[i] = 0.0 if along_x or along_y else (side if zs[i] > 0.0 else -side)
        return
    if kind == ELLIPSOID:
        ka, kb, kc = 1.0 / (a * a), 1.0 / (b * b), 1.0 / (c * c)
        for i in range(n):
            nx[i], ny[i], nz[i] = xs[i] * ka, ys[i] * kb, zs[i] * kc
    elif kind == FRUSTUM:
        ka, kb = 1.0 / (a * a), 1.0 / (b * b)
        slope = 0.5 * (e0 - 1.0) / c
        for i in range(n):
            x, y, z = xs[i], ys[i], zs[i]
            r = 1.0 + slope * (z + c)
            rho = math.sqrt(x * x * ka + y * y * kb)
            cap = (abs(z) > c * 0.9995) & (rho < r * 0.9995 + 1e-6)
            nx[i], ny[i] = 0.0 if cap else x * ka, 0.0 if cap else y * kb
            nz[i] = (1.0 if z > 0.0 else -1.0) if cap else -slope * r
    elif kind == CAPSULE:
        for i in range(n):
            nx[i], ny[i], nz[i] = xs[i], ys[i], zs[i] - min(max(zs[i], -c), c)
    elif kind == GROUND:
        for i in range(n):
            nx[i], ny[i] = 0.0, 0.0
            if b > 0.0:
                sx, sy = relief_slope(relief, xs[i], ys[i])
                nx[i], ny[i] = -sx, -sy
            nz[i] = 1.0
    elif kind == SUPER:
        for i in range(n):
            x, y, z = xs[i] / a, ys[i] / b, zs[i] / c
            nx[i], ny[i], nz[i] = x * x * x / a, y * y * y / b, z * z * z / c
    elif kind == ROUNDBOX:
        for i in range(n):
            x, y, z = xs[i], ys[i], zs[i]
            qx, qy, qz = abs(x) - a + e0, abs(y) - b + e0, abs(z) - c + e0
            nx[i] = math.copysign(max(qx, 0.0), x)
            ny[i] = math.copysign(max(qy, 0.0), y)
            nz[i] = math.copysign(max(qz, 0.0), z)
    else:  # rings: away from the nearest point of the circle, or of the arc's end
        for i in range(n):
            x, y = xs[i], ys[i]
            k = a / math.sqrt(x * x + y * y + 1e-20)
            cx, cy = x * k, y * k
            if kind != TORUS and e1 * abs(x) > e0 * y:
                cx, cy = math.copysign(a * e0, x), a * e1
            nx[i], ny[i], nz[i] = x - cx, y - cy, zs[i]
    for i in range(n):
        k = 1.0 / math.sqrt(nx[i] * nx[i] + ny[i] * ny[i] + nz[i] * nz[i] + 1e-20)
        nx[i], ny[i], nz[i] = k * nx[i], k * ny[i], k * nz[i]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _on_surface(mat, n, work):
    """Fill S and Q, the texture coordinates on the surface."""
    x, y, z, nx, ny, nz = work[X], work[Y], work[Z], work[NX], work[NY], work[NZ]
    s, q = work[S], work[Q]
    for i in range(n):
        ax, ay, az = abs(nx[i]), abs(ny[i]), abs(nz[i])
        along_x = (ax > ay) & (ax > az)
        along_y = (not along_x) & (ay > az)
        s[i] = (y[i] if nx[i] > 0.0 else -y[i]) if along_x else x[i]
        s[i] = (-x[i] if ny[i] > 0.0 else x[i]) if along_y else s[i]
        q[i] = -z[i] if along_x or along_y else y[i]
    mapping, reach = mat[6], mat[21]
    if mapping != 0.0:
        for i in range(n):
            if abs(nz[i]) <= 0.98:
                s[i] = math.atan2(y[i], x[i]) * reach
                q[i] = -z[i]
                if mapping != 1.0:
                    rho = math.sqrt(x[i] * x[i] + y[i] * y[i])
                    q[i] = -math.atan2(z[i], rho) * reach


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _footprints(focal, n, work):
    """Fill WIDE, a pixel's size on the surface; `focal` in pixels."""
    t, nx, ny, nz, dx, dy, dz = (
        work[T], work[NX], work[NY], work[NZ], work[DX], work[DY], work[DZ],
    )  # fmt: skip
    wide, k = work[WIDE], 0.7 / focal
    for i in range(n):
        facing = -(nx[i] * dx[i] + ny[i] * dy[i] + nz[i] * dz[i])
        wide[i] = k * t[i] / math.sqrt(max(facing, 0.06))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _levels(scale, n, work):
    """Fill LOD, the mip level of a tile that repeats `scale` times per unit length."""
    wide, lod = work[WIDE], work[LOD]
    for i in range(n):
        lod[i] = fast_log2(max(wide[i] * (scale * TILE), 1.0))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tile_colours(mat, tile, n, ints, work):
    """Fill RED..BLUE with a tile's colours 0..255, blended between two mip levels."""
    s, q, lod, u, v = work[S], work[Q], work[LOD], work[TU], work[TV]
    level, who, part, other = ints[LEVEL], ints[WHO], work[PART], work[OTHER]
    scale, mirrored = mat[1], mat[20] > 0.0
    kc, ks, ku, kv = mat[2] * scale, mat[3] * scale, mat[4], mat[5]
    _levels(scale, n, work)
    for i in range(n):
        u[i], v[i] = kc * s[i] - ks * q[i] + ku, ks * s[i] + kc * q[i] + kv
        lod[i] = min(lod[i], LAST_LEVEL - 0.01)
        level[i] = int(lod[i])
    _corners(tile, mirrored, n, ints, work)
    for c in range(3):
        _blend(c, n, ints, work, work[RED + c])
    m = 0  # samples between two levels are looked up in the coarser one as well
    for i in range(n):
        between = lod[i] - level[i]
        if between > 0.05:
            u[m], v[m], level[m], part[m], who[m] = u[i], v[i], level[i] + 1, between, i
            m += 1
    _corners(tile, mirrored, m, ints, work)
    for c in range(3):
        out = work[RED + c]
        _blend(c, m, ints, work, other)
        for k in range(m):
            out[who[k]] += part[k] * (other[k] - out[who[k]])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _albedos(mat, tiles, n, ints, work):
    """Fill RED..BLUE with the linear colours of a material; needs S, Q and WIDE."""
    ar, ag, ab = mat[7], mat[8], mat[9]
    tile, detail = int(mat[0]), int(mat[14])
    red, green, blue = work[RED], work[GREEN], work[BLUE]
    s, q, lod, fine = work[S], work[Q], work[LOD], work[DETAIL]
    if tile < 0:
        red[:n], green[:n], blue[:n] = ar, ag, ab
    else:
        _tile_colours(mat, tiles[tile], n, ints, work)
        unit = 1.0 / 255.0
        if mat[13] == 0.0:
            ar, ag, ab = ar * unit * unit, ag * unit * unit, ab * unit * unit
            for i in range(n):
                red[i] = red[i] * red[i] * ar
                green[i] = green[i] * green[i] * ag
                blue[i] = blue[i] * blue[i] * ab
        else:
            br, bg, bb = mat[10] - ar, mat[11] - ag, mat[12] - ab
            for i in range(n):
                k = (red[i] + green[i] + blue[i]) * (unit / 3.0)
                red[i], green[i], blue[i] = ar + k * br, ag + k * bg, ab + k * bb
    if detail >= 0:
        scale, strength, u, v, level = mat[15], mat[16], work[TU], work[TV], ints[LEVEL]
        _levels(scale, n, work)
        for i in range(n):
            u[i], v[i] = s[i] * scale, q[i] * scale
            level[i] = int(min(lod[i] + 0.5, LAST_LEVEL))
        _corners(tiles[detail], False, n, ints, work)
        _blend(0, n, ints, work, fine)
        for i in range(n):
            k = 1.0 + strength * (fine[i] / 127.5 - 1.0)
            red[i], green[i], blue[i] = red[i] * k, green[i] * k, blue[i] * k


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _light_up(mat, light, lit, n, work):
    """Convert RED..BLUE from albedo to reflected light; lit: row of `light_table`."""
    x, y, z, nx, ny, nz = work[X], work[Y], work[Z], work[NX], work[NY], work[NZ]
    sun, left, ones = work[SUN], work[LEFT], work[S]
    sx, sy, sz, fx, fy, fz = lit[0], lit[1], lit[2], lit[3], lit[4], lit[5]
    px, py, pz, ux, uy, uz = lit[6], lit[7], lit[8], lit[9], lit[10], lit[11]
    nearby, fills, lamps = 1.0 / (light[30] * light[30]), work[Q], work[LOD]
    for i in range(n):
        a, b, c = nx[i], ny[i], nz[i]
        ones[i] = max(a * sx + b * sy + c * sz, 0.0) * sun[i]
        fills[i] = max(a * fx + b * fy + c * fz, 0.0) * left[i]
        ex, ey, ez = px - x[i], py - y[i], pz - z[i]
        e2 = ex * ex + ey * ey + ez * ez
        lamp = max(a * ex + b * ey + c * ez, 0.0) / math.sqrt(e2 + 1e-9)
        lamps[i] = lamp * left[i] / (0.1 + e2 * nearby)
    ups, glow = work[DETAIL], mat[19]
    for i in range(n):
        ups[i] = (0.75 + 0.25 * (nx[i] * ux + ny[i] * uy + nz[i] * uz)) * left[i]
    for k in range(3):
        one, up, two, lamp = light[3 + k], light[6 + k], light[12 + k], light[18 + k]
        out = work[RED + k]
        for i in range(n):
            out[i] *= one * ones[i] + up * ups[i] + two * fills[i] + lamp * lamps[i] + glow
    if mat[17] > 0.0:
        _shine(mat, light, lit, n, work)
    if light[21] > 0.0:
        t, haze = work[T], light[21] * 1.4426950408889634
        for k in range(3):
            colour, out = light[22 + k], work[RED + k]
            for i in range(n):
                clear = fast_exp2(-haze * t[i])
                out[i] = colour + clear * (out[i] - colour)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _shine(mat, light, lit, n, work):
    """Add the sun's highlight (Blinn-Phong) to RED..BLUE; S: diffuse light of the sun."""
    nx, ny, nz, dx, dy, dz = work[NX], work[NY], work[NZ], work[DX], work[DY], work[DZ]
    sun, ones, high = work[SUN], work[S], work[DETAIL]
    sx, sy, sz, shine, power = lit[0], lit[1], lit[2], mat[17], mat[18]
    for i in range(n):
        hx, hy, hz = sx - dx[i], sy - dy[i], sz - dz[i]
        hn = nx[i] * hx + ny[i] * hy + nz[i] * hz
        hn /= math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
        k = shine * fast_exp2(power * fast_log2(max(hn, 1e-6))) * sun[i]
        high[i] = k if ones[i] > 0.0 else 0.0
    for k in range(3):
        colour, out = light[3 + k], work[RED + k]
        for i in range(n):
            out[i] += colour * high[i]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def face_of(prim, p, eye, u, v, t):
    """Identify the material of a room at a pixel: 0 floor, 1 wall, 2 ceiling; other kinds: 0."""
    if int(prim[p, 0]) != ROOM:
        return 0
    x = eye[p, 9] + t * (eye[p, 0] * u + eye[p, 1] * v + eye[p, 2])
    y = eye[p, 10] + t * (eye[p, 3] * u + eye[p, 4] * v + eye[p, 5])
    z = eye[p, 11] + t * (eye[p, 6] * u + eye[p, 7] * v + eye[p, 8])
    qx, qy, qz = abs(x) / prim[p, 1], abs(y) / prim[p, 2], abs(z) / prim[p, 3]
    if qx > qz or qy > qz:
        return 1
    return 2 if z > 0.0 else 0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shade_samples(prim, relief, mat_of, mats, tiles, skies, light, eye, lit, focal, keys, count,
                  u, v, t, sun, left, pixel, add, image):  # fmt: skip
    """Shade `count` samples; write the colours to image (3, h*w), or add them.

    keys: 3 times the primitive plus its face; the largest key is the sky. u, v (pixels), t (depth),
    sun, left (incident light) and pixel: of each sample.
    """
    sky = 3 * prim.shape[0]
    first = np.zeros(sky + 2, np.int32)
    order = np.empty(count, np.int32)
    for k in range(count):
        first[keys[k] + 1] += 1
    for key in range(sky + 1):
        first[key + 1] += first[key]
    place = first.copy()
    for k in range(count):
        order[place[keys[k]]] = k
        place[keys[k]] += 1
    work, ints = np.empty((WORK, CHUNK)), np.empty((INTS, CHUNK), np.int32)
    for key in range(sky + 1):
        for begin in range(first[key], first[key + 1], CHUNK):
            chosen = order[begin : min(begin + CHUNK, first[key + 1])]
            n = chosen.shape[0]
            wu, wv, wt, ws, wl = work[U], work[V], work[T], work[SUN], work[LEFT]
            for i in range(n):
                k = chosen[i]
                wu[i], wv[i], wt[i], ws[i], wl[i] = u[k], v[k], t[k], sun[k], left[k]
            if key == sky:
                _sky(skies, light, eye[prim.shape[0]], n, work)
            else:
                p = key // 3
                mat = mats[mat_of[p] + key - 3 * p]
                _points(eye[p], n, work)
                _normals(prim, p, relief, n, work)
                if mat[0] >= 0.0 or mat[14] >= 0.0:
                    _on_surface(mat, n, work)
                    _footprints(focal, n, work)
                _albedos(mat, tiles, n, ints, work)
                _light_up(mat, light, lit[p], n, work)
            for c in range(3):
                plane, colour = image[c], work[RED + c]
                if add:  # clamped: bright edges would alias
                    for i in range(n):
                        plane[pixel[chosen[i]]] += min(colour[i], 4.0)
                else:
                    for i in range(n):
                        plane[pixel[chosen[i]]] = colour[i]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sky(skies, light, eye, n, work):
    """Fill RED..BLUE of samples of the sky; `eye`: the world's row of `eye_table`."""
    for i in range(n):
        u, v = work[U, i], work[V, i]
        work[RED, i], work[GREEN, i], work[BLUE, i] = sky_colour(
            skies,
            light,
            eye[0] * u + eye[1] * v + eye[2],
            eye[3] * u + eye[4] * v + eye[5],
            eye[6] * u + eye[7] * v + eye[8],
        )


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shade_frame(prim, rt, relief, mat_of, mats, tiles, skies, light, cam, depth, index,
                sun, left, samples, image):  # fmt: skip
    """Shade a traced frame (3, h, w), linear; edge pixels get `samples` additional rays."""
    h, w = depth.shape
    eye, lit = eye_table(rt, cam), light_table(rt, light)
    keys, pixel = np.empty(h * w, np.int32), np.arange(h * w)
    us, vs = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    sky, flat = 3 * prim.shape[0], image.reshape(3, h * w)
    for v in range(h):
        for u in range(w):
            p = index[v, u]
            us[v, u], vs[v, u] = u, v
            keys[v * w + u] = 3 * p + face_of(prim, p, eye, u, v, depth[v, u]) if p >= 0 else sky
    shade_samples(prim, relief, mat_of, mats, tiles, skies, light, eye, lit, cam[0], keys, h * w,
                  us.ravel(), vs.ravel(), depth.ravel(), sun.ravel(), left.ravel(), pixel, False,
                  flat)  # fmt: skip
    if samples > 0:
        edges = find_edges(index)
        place = np.empty((5, len(edges) * samples), np.float32)
        shown = np.empty((2, len(edges) * samples), np.int32)
        _edge_samples(prim, relief, eye, depth, index, sun, left, edges, samples,
                      place, shown)  # fmt: skip
        shade_samples(prim, relief, mat_of, mats, tiles, skies, light, eye, lit, cam[0],
                      shown[0], shown.shape[1], place[0], place[1], place[2], place[3], place[4],
                      shown[1], True, flat)  # fmt: skip
        f = 1.0 / (samples + 1)
        for c in range(3):
            for k in edges:
                flat[c, k] *= f


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def find_edges(index):
    """Find the pixels (as v * w + u) with a neighbour of another primitive."""
    h, w = index.shape
    edges, count = np.empty(h * w, np.int32), 0
    for v in range(h):
        over, row, under = index[max(v - 1, 0)], index[v], index[min(v + 1, h - 1)]
        for u in range(w):
            p = row[u]
            other = (over[u] ^ p) | (under[u] ^ p)
            other |= (row[max(u - 1, 0)] ^ p) | (row[min(u + 1, w - 1)] ^ p)
            edges[count] = v * w + u
            count += other != 0
    return edges[:count]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _edge_samples(prim, relief, eye, depth, index, sun, left, edges, samples,
                  place, shown):  # fmt: skip
    """Trace `samples` additional positions in each of the pixels `edges`.

    Only primitives visible in the pixel and its four neighbours are tested. Fills place (5, m): u,
    v, depth, and sun and contact shadow of the pixel with the same primitive; shown (2, m): key and
    pixel.
    """
    h, w = index.shape
    ids, at = np.empty(5, np.int32), np.empty(5, np.int32)
    aside = np.empty((2, samples))
    for s in range(samples):
        turn = (s + 0.25) / samples * 2.0 * math.pi
        aside[0, s], aside[1, s] = 0.36 * math.cos(turn), 0.36 * math.sin(turn)
    m = 0
    for k in edges:
        v, u = k // w, k % w
        n = 0
        for side in range(5):  # the pixel and its four neighbours
            y = min(max(v + (side == 1) - (side == 2), 0), h - 1)
            x = min(max(u + (side == 3) - (side == 4), 0), w - 1)
            new = True
            for other in range(n):
                new &= ids[other] != index[y, x]
            if new:
                ids[n] = index[y, x]
                at[n] = y * w + x
                n += 1
        for s in range(samples):
            uu, vv = u + aside[0, s], v + aside[1, s]
            best, which = MISS, -1
            for other in range(n):
                q = ids[other]
                if q >= 0:
                    near = 0.7 * depth[at[other] // w, at[other] % w]
                    t = hit_seen(prim, q, relief, near, best, eye, uu, vv)
                    if t < best:
                        best, which = t, other
            place[0, m], place[1, m] = uu, vv
            shown[0, m], shown[1, m] = 3 * prim.shape[0], k
            if which >= 0:
                q, y, x = ids[which], at[which] // w, at[which] % w
                place[2, m], place[3, m], place[4, m] = best, sun[y, x], left[y, x]
                shown[0, m] = 3 * q + face_of(prim, q, eye, uu, vv, best)
            m += 1
