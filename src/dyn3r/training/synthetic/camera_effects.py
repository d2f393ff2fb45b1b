"""Camera effects: exposure, colour balance, blur, tone curve, vignetting, noise, JPEG."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit
from PIL import Image

ROWS = 16
"""Rows of noise generated at a time; frame heights are multiples of it."""


@dataclass(frozen=True)
class CameraEffects:
    """Camera effects of one clip; those that vary between frames are sampled when applied."""

    target: float
    """Target of the mean linear brightness."""
    balance: tuple[float, float, float]
    """Gain of red, green, blue."""
    gamma: float
    """Exponent of the tone curve, about 1."""
    contrast: float
    """Slope of the tone curve about its middle."""
    vignette: float
    """Relative loss of light in the corners."""
    noise: float
    """Amplitude of the noise, 1 is the full range."""
    blur: float
    """Strength of a 3x3 blur, 0..1."""
    flicker: float
    """Standard deviation of the log exposure between frames."""
    jpeg: int
    """JPEG quality, 0 for none."""


def sample_effects(rng: random.Random) -> CameraEffects:
    """Sample effects: mostly weak, sometimes noisy, blurred or compressed."""
    strength = 0.12 if rng.random() < 0.3 else 0.05
    balance = tuple(math.exp(rng.gauss(0, strength)) for _ in range(3))
    return CameraEffects(
        target=math.exp(rng.uniform(math.log(0.11), math.log(0.34))),
        balance=(balance[0], balance[1], balance[2]),
        gamma=math.exp(rng.gauss(0, 0.12)),
        contrast=rng.uniform(0.85, 1.3),
        vignette=rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0,
        noise=rng.uniform(0, 0.012) if rng.random() < 0.75 else rng.uniform(0.01, 0.05),
        blur=rng.uniform(0.3, 1.0) if rng.random() < 0.3 else rng.uniform(0, 0.25),
        flicker=rng.uniform(0, 0.06) if rng.random() < 0.3 else 0.0,
        jpeg=rng.randint(45, 92) if rng.random() < 0.25 else 0,
    )


def apply_effects(
    linear: Float[np.ndarray, "v 3 h w"], effects: CameraEffects, rng: random.Random
) -> Float[np.ndarray, "v 3 h w"]:
    """Convert linear light to images 0..1 (8-bit steps), in place, with one exposure per clip."""
    gain = effects.target / max(float(np.minimum(linear[:, :, ::4, ::4], 3.0).mean()), 1e-4)
    for image in linear:
        gains = [gain * math.exp(rng.gauss(0, effects.flicker)) * k for k in effects.balance]
        _apply(
            image,
            np.array(gains, np.float32),
            effects.gamma,
            effects.contrast,
            effects.vignette,
            effects.noise,
            effects.blur,
            rng.getrandbits(31),
        )
        if effects.jpeg:
            pixels = np.empty((*image.shape[1:], 3), np.uint8)
            _to_bytes(image, pixels)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=effects.jpeg)
            with Image.open(stream) as back:
                _from_bytes(np.asarray(back), image)
    return linear


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _to_bytes(image, pixels):
    """Convert an image (3, h, w) 0..1 to bytes (h, w, 3)."""
    for v in range(image.shape[1]):
        for u in range(image.shape[2]):
            for c in range(3):
                pixels[v, u, c] = int(image[c, v, u] * 255.0 + 0.5)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _from_bytes(pixels, image):
    """Convert bytes (h, w, 3) to an image (3, h, w) 0..1."""
    for v in range(image.shape[1]):
        for u in range(image.shape[2]):
            for c in range(3):
                image[c, v, u] = pixels[v, u, c] / 255.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _apply(image, gains, gamma, contrast, vignette, noise, blur, seed):  # noqa: C901  kernel
    """Apply blur, vignetting, noise and tone curve to an image (3, h, w) in place."""
    h, w = image.shape[1], image.shape[2]
    side = 0.25 * min(blur, 1.0)
    curve = np.empty(512)  # tone curve, sampled over 128 times the square root of the light
    for k in range(512):
        x = (k / 128.0) ** 2
        x = min(x * (1.0 + 0.1 * x) / (1.0 + 0.65 * x * x / (1.0 + 0.3 * x)), 1.0)  # shoulder
        curve[k] = 0.45 + (x ** (0.48 * gamma) - 0.45) * contrast
    fade, part, low = np.empty(w), np.empty(w), np.empty(w, np.int32)
    below, above, grain = np.empty(w), np.empty(w), np.zeros((ROWS, w), np.float32)
    states = np.full(1, seed | 1, np.uint32)
    jump = jump_columns(3 * w)
    for c in range(3):
        if side > 0.02:
            _soften(image[c], side)
        for first in range(0, h, ROWS):
            if noise > 0.0:
                _grain(jump, states, grain)
            for v in range(first, min(first + ROWS, h)):
                y = (v - 0.5 * h) / (0.5 * h)
                for u in range(w):
                    x = (u - 0.5 * w) / (0.5 * w)
                    fade[u] = gains[c] * (1.0 - vignette * 0.5 * (x * x + y * y))
                row, rough = image[c, v], grain[v - first]
                for u in range(w):
                    place = min(math.sqrt(max(row[u] * fade[u], 0.0)) * 128.0, 510.0)
                    low[u] = int(place)
                    part[u] = place - low[u]
                for u in range(w):
                    below[u], above[u] = curve[low[u]], curve[low[u] + 1]
                for u in range(w):
                    k = below[u] + part[u] * (above[u] - below[u]) + 2.0 * noise * rough[u]
                    row[u] = int(min(max(k, 0.0), 1.0) * 255.0 + 0.5) / 255.0


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _soften(plane, side):
    """Blur a plane (h, w) in place with the kernel (side, 1 - 2 side, side) along both axes."""
    h, w = plane.shape
    last, now = np.empty(w, np.float32), np.empty(w, np.float32)
    for v in range(h):
        row = plane[v]
        now[:] = row
        left, right = now[: w - 2], now[2:]
        for u in range(w - 2):
            row[u + 1] = (1.0 - 2.0 * side) * row[u + 1] + side * (left[u] + right[u])
        row[0] = (1.0 - side) * now[0] + side * now[1]
        row[w - 1] = (1.0 - side) * now[w - 1] + side * now[w - 2]
    last[:] = plane[0]
    for v in range(h):
        row, under = plane[v], plane[min(v + 1, h - 1)]
        now[:] = row
        for u in range(w):
            row[u] = (1.0 - 2.0 * side) * row[u] + side * (last[u] + under[u])
        last, now = now, last


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def xorshift(state):
    """Compute the next state of Marsaglia's 32-bit xorshift generator."""
    state ^= np.uint32(state << np.uint32(13))
    state ^= np.uint32(state >> np.uint32(17))
    return np.uint32(state ^ np.uint32(state << np.uint32(5)))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def jump_columns(steps):
    """Compute the states that `xorshift` reaches from each single bit in a number of steps.

    The generator is linear over bits: any state leads to the exclusive or of its bits' columns.
    """
    columns = np.empty(32, np.uint32)
    for k in range(32):
        columns[k] = 1 << k
    for _ in range(steps):
        for k in range(32):
            columns[k] = xorshift(columns[k])
    return columns


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _grain(jump, state, grain):
    """Fill grain (ROWS, w) with sums of three uniform numbers -0.5..0.5 and advance `state` (1,).

    All rows are generated at the same time, each from the final state of the row before (`jump`).
    """
    w = grain.shape[1]
    states, columns = np.empty(ROWS, np.uint32), np.empty((w, ROWS), np.float32)
    now = state[0]
    for k in range(ROWS):
        states[k] = now
        after = np.uint32(0)
        for bit in range(32):
            after ^= jump[bit] * ((now >> np.uint32(bit)) & np.uint32(1))
        now = np.uint32(after)
    state[0] = now
    for u in range(w):
        out = columns[u]
        for k in range(ROWS):
            a = xorshift(states[k])
            b = xorshift(a)
            states[k] = xorshift(b)
            total = float(a) + float(b) + float(states[k])
            out[k] = total * 2.3283064e-10 - 1.5
    for k in range(ROWS):
        for u in range(w):
            grain[k, u] = columns[u, k]
