"""Augmentation of image pairs with exact flow, as cameras, codecs and editors change images."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

AFFINE_SHARE = 0.35
"""Share of pairs whose second frame is turned, zoomed and shifted."""
LARGEST_TURN, LARGEST_ZOOM, LARGEST_SHIFT = math.radians(35.0), 1.35, 0.28
"""Of that motion; the shift in frame sides. Together with the camera: up to a third of the frame,
often more."""
EDGE_PX = 0.3
"""Pixels whose flow changes by more within a pixel's width are unknown after resampling."""


@dataclass(frozen=True)
class FlowPair:
    """Two frames with exact flow in both directions; index 0: from the first to the second."""

    images: UInt8[np.ndarray, "2 h w 3"]
    """RGB."""
    flow: Float[np.ndarray, "2 h w 2"]
    """Displacement in pixels."""
    visible: Bool[np.ndarray, "2 h w"]
    """Whether the point is seen in the other frame."""
    known: Bool[np.ndarray, "2 h w"]
    """Where flow and visibility are known."""


def augmented(pair: FlowPair, rng: random.Random) -> FlowPair:
    """Sample one augmentation of a pair."""
    if rng.random() < 0.5:
        pair = _mirrored(pair)
    if rng.random() < AFFINE_SHARE:
        pair = _second_moved(pair, rng)
    images = list(pair.images)
    shared = _Colours.sample(rng, 0.15)
    for k in range(2):
        image = images[k]
        if rng.random() < 0.2:
            image = motion_blur(image, rng.uniform(2, 9), rng.uniform(0, math.pi))
        if rng.random() < 0.15:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
        own = _Colours.sample(rng, 0.12 if rng.random() < 0.3 else 0.02)
        images[k] = own.applied(shared.applied(image))
    pair = FlowPair(np.stack(images), pair.flow, pair.visible, pair.known)
    if rng.random() < 0.15:
        pair = _overlaid(pair, _drawing(pair.images.shape[1:3], rng))
    if rng.random() < 0.08:
        pair = _overlaid(pair, _bars(pair.images.shape[1:3], rng))
    noise = rng.uniform(1, 10) if rng.random() < 0.35 else 0.0
    quality = rng.randint(25, 95) if rng.random() < 0.35 else 0
    return FlowPair(
        np.stack([_coded(_noisy(image, noise, rng), quality) for image in pair.images]),
        pair.flow, pair.visible, pair.known,
    )  # fmt: skip


def _mirrored(pair: FlowPair) -> FlowPair:
    sign = np.array([-1, 1], np.float32)
    return FlowPair(
        pair.images[:, :, ::-1].copy(), pair.flow[:, :, ::-1] * sign,
        pair.visible[:, :, ::-1].copy(), pair.known[:, :, ::-1].copy(),
    )  # fmt: skip


def _second_moved(pair: FlowPair, rng: random.Random) -> FlowPair:
    """Turn, zoom and shift the second frame; flow follows exactly."""
    h, w = pair.images.shape[1:3]
    strength = rng.random()
    turn = strength * rng.uniform(-LARGEST_TURN, LARGEST_TURN)
    zoom = LARGEST_ZOOM ** (strength * rng.uniform(-1, 1))
    shift = [strength * rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT) * side for side in (w, h)]
    centre = np.array([(w - 1) / 2, (h - 1) / 2])
    A = zoom * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    b = centre + shift - A @ centre
    inverse = np.linalg.inv(A)
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float64)
    back = ((grid - b) @ inverse.T).astype(np.float32)  # where a new pixel was
    forward = (grid + pair.flow[0]) @ A.T + b - grid
    inside = (back >= 0).all(-1) & (back[..., 0] <= w - 1) & (back[..., 1] <= h - 1)
    x, y = back[..., 0], back[..., 1]

    def moved(array: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.remap(array, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)

    image = moved(pair.images[1], cv2.INTER_LINEAR if zoom > 0.8 else cv2.INTER_AREA)
    smooth, nearest = (
        moved(np.ascontiguousarray(pair.flow[1], np.float32), kind)
        for kind in (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    )
    same = np.abs(smooth - nearest).max(-1) < EDGE_PX
    known, seen = (
        moved(mask.astype(np.uint8), cv2.INTER_NEAREST) > 0
        for mask in (pair.known[1], pair.visible[1])
    )
    target = grid + forward
    still_in = (target >= 0).all(-1) & (target[..., 0] <= w - 1) & (target[..., 1] <= h - 1)
    return FlowPair(
        np.stack([pair.images[0], image]),
        np.stack([forward, back + smooth - grid]).astype(np.float32),
        np.stack([pair.visible[0] & still_in, seen]),
        np.stack([pair.known[0], known & inside & same]),
    )


@dataclass(frozen=True)
class _Colours:
    """Change of exposure, colour balance, contrast and gamma."""

    gain: tuple[float, float, float]
    contrast: float
    gamma: float

    @classmethod
    def sample(cls, rng: random.Random, strength: float) -> _Colours:
        exposure = rng.gauss(0, strength)
        gain = tuple(math.exp(exposure + rng.gauss(0, 0.4 * strength)) for _ in range(3))
        contrast, gamma = math.exp(rng.gauss(0, strength)), math.exp(rng.gauss(0, strength))
        return cls((gain[0], gain[1], gain[2]), contrast, gamma)

    def applied(self, image: np.ndarray) -> np.ndarray:
        levels = (np.arange(256) / 255) ** self.gamma
        table = [(levels - 0.45) * self.contrast + 0.45 for _ in range(3)]
        table = [255 * (channel * gain).clip(0, 1) for channel, gain in zip(table, self.gain)]
        out = cv2.LUT(image, np.stack(table, -1)[None].astype(np.uint8))
        return np.asarray(out)


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a straight path of `length` pixels in the direction `angle`."""
    side = 2 * math.ceil(length / 2) + 1
    kernel, middle = np.zeros((side, side), np.float32), side // 2
    for s in np.linspace(-length / 2, length / 2, 4 * side):
        x, y = middle + s * math.cos(angle), middle + s * math.sin(angle)
        u, v = int(x), int(y)
        fx, fy = x - u, y - v
        for dv, du, share in (
            (0, 0, (1 - fx) * (1 - fy)), (0, 1, fx * (1 - fy)),
            (1, 0, (1 - fx) * fy), (1, 1, fx * fy),
        ):  # fmt: skip
            if share > 0 and 0 <= v + dv < side and 0 <= u + du < side:
                kernel[v + dv, u + du] += share
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()))


def _drawing(hw: tuple[int, int], rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """A text or an emblem: colours (h, w, 3) and opacity (h, w), 0..1."""
    h, w = hw
    colours = np.full((h, w, 3), [rng.choice((0, 255, rng.randint(0, 255))) for _ in range(3)])
    mask = np.zeros((h, w), np.uint8)
    at = (int(rng.uniform(0, 0.7) * w), int(rng.uniform(0.1, 1) * h))
    if rng.random() < 0.7:
        text = "".join(rng.choice("abcdefghknorstuwxyzABEKMRSTW0123456789 .:") for _ in range(14))
        font, size = rng.choice((0, 1, 2, 3, 4)), rng.uniform(0.3, 0.9)
        cv2.putText(mask, text[: rng.randint(3, 14)], at, font, size, 255, rng.randint(1, 2))
    else:
        radius = int(rng.uniform(0.03, 0.1) * w) + 2
        cv2.circle(mask, at, radius, 255, rng.choice((-1, 2)), cv2.LINE_AA)
    return colours.astype(np.uint8), mask.astype(np.float32) / 255 * rng.uniform(0.5, 1.0)


def _bars(hw: tuple[int, int], rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Black bars above and below, or at both sides."""
    h, w = hw
    opacity = np.zeros((h, w), np.float32)
    if rng.random() < 0.7:
        size = int(rng.uniform(0.04, 0.18) * h)
        opacity[:size] = opacity[h - size :] = 1
    else:
        size = int(rng.uniform(0.04, 0.25) * w)
        opacity[:, :size] = opacity[:, w - size :] = 1
    return np.zeros((h, w, 3), np.uint8), opacity


def _overlaid(pair: FlowPair, overlay: tuple[np.ndarray, np.ndarray]) -> FlowPair:
    """Draw over both frames at the same place: there, nothing moves and all is seen.

    Points that move behind the overlay are hidden. Half-transparent pixels are unknown.
    """
    colours, opacity = overlay
    a = opacity[..., None]
    images = (pair.images * (1 - a) + colours * a + 0.5).astype(np.uint8)
    on = opacity > 0.45
    h, w = on.shape
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1)
    flow, visible, known = pair.flow.copy(), pair.visible.copy(), pair.known.copy()
    for k in range(2):
        at = np.rint(grid + flow[k]).astype(int)
        covered = on[at[..., 1].clip(0, h - 1), at[..., 0].clip(0, w - 1)]
        visible[k] &= ~covered
        flow[k][on], visible[k][on] = 0, True
        known[k] = (known[k] | on) & ~((opacity > 0.05) & ~on)
    return FlowPair(images, flow, visible, known)


def _noisy(image: np.ndarray, deviation: float, rng: random.Random) -> np.ndarray:
    if deviation == 0:
        return image
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(image.shape, np.float32)
    return np.asarray((image + deviation * noise + 0.5).clip(0, 255).astype(np.uint8))


def _coded(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress as JPEG and decompress; quality 0: neither."""
    if quality == 0:
        return image
    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1])
