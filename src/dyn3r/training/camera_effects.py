"""What a camera does to light: exposure, colour balance, blur, tone, vignetting, noise, JPEG."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit
from PIL import Image


@dataclass(frozen=True)
class Film:
    """How one clip is developed; what varies from frame to frame is drawn in `develop`."""

    target: float
    """Mean linear brightness aimed at."""
    balance: tuple[float, float, float]
    """Gain of red, green, blue."""
    gamma: float
    contrast: float
    vignette: float
    noise: float
    blur: float
    flicker: float
    jpeg: int
    """JPEG quality, 0 for none."""


def draw_film(rng: random.Random) -> Film:
    """A random film: mostly gentle, sometimes noisy, blurred or compressed."""
    strength = 0.12 if rng.random() < 0.3 else 0.05
    balance = tuple(math.exp(rng.gauss(0, strength)) for _ in range(3))
    return Film(
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


def develop(
    linear: Float[np.ndarray, "v 3 h w"], film: Film, rng: random.Random
) -> Float[np.ndarray, "v 3 h w"]:
    """Linear light of a clip -> pictures 0..1 (8-bit steps), in place; one exposure for all."""
    gain = film.target / max(float(np.minimum(linear[:, :, ::4, ::4], 3.0).mean()), 1e-4)
    for image in linear:
        gains = [gain * math.exp(rng.gauss(0, film.flicker)) * k for k in film.balance]
        _develop(
            image,
            np.array(gains, np.float32),
            film.gamma,
            film.contrast,
            film.vignette,
            film.noise,
            film.blur,
            rng.getrandbits(31),
        )
        if film.jpeg:
            pixels = (image.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=film.jpeg)
            with Image.open(stream) as back:
                image[:] = np.asarray(back, np.float32).transpose(2, 0, 1) / 255
    return linear


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _develop(image, gains, gamma, contrast, vignette, noise, blur, seed):
    h, w = image.shape[1], image.shape[2]
    side = 0.25 * min(blur, 1.0)
    row = np.empty(max(h, w), np.float32)
    state = np.uint32(seed | 1)
    curve = np.empty(512)  # the tone curve over 128 times the root of the light
    for k in range(512):
        x = (k / 128.0) ** 2
        x = min(x * (1.0 + 0.1 * x) / (1.0 + 0.65 * x * x / (1.0 + 0.3 * x)), 1.0)  # shoulder
        curve[k] = 0.45 + (x ** (0.48 * gamma) - 0.45) * contrast
    for c in range(3):
        plane = image[c]
        if side > 0.02:
            for v in range(h):
                for u in range(w):
                    row[u] = plane[v, u]
                for u in range(w):
                    plane[v, u] = (1.0 - 2.0 * side) * row[u] + side * (
                        row[max(u - 1, 0)] + row[min(u + 1, w - 1)]
                    )
            for u in range(w):
                for v in range(h):
                    row[v] = plane[v, u]
                for v in range(h):
                    plane[v, u] = (1.0 - 2.0 * side) * row[v] + side * (
                        row[max(v - 1, 0)] + row[min(v + 1, h - 1)]
                    )
        for v in range(h):
            y = (v - 0.5 * h) / (0.5 * h)
            for u in range(w):
                x = (u - 0.5 * w) / (0.5 * w)
                k = plane[v, u] * gains[c] * (1.0 - vignette * 0.5 * (x * x + y * y))
                place = min(math.sqrt(max(k, 0.0)) * 128.0, 510.0)
                low = int(place)
                k = curve[low] + (place - low) * (curve[low + 1] - curve[low])
                if noise > 0.0:
                    total = 0.0
                    for _ in range(3):
                        state ^= np.uint32(state << np.uint32(13))
                        state ^= np.uint32(state >> np.uint32(17))
                        state ^= np.uint32(state << np.uint32(5))
                        total += state * 2.3283064e-10 - 0.5
                    k += 2.0 * noise * total
                k = min(max(k, 0.0), 1.0)
                plane[v, u] = math.floor(k * 255.0 + 0.5) / 255.0
