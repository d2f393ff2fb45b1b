"""Small values for tests, made from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dyn3r.io.clip import clip_from_images
from dyn3r.scene import Scene
from dyn3r.types import Clip, FrameMapping, Geometry

if TYPE_CHECKING:
    from dyn3r.network.network import PointmapNetwork


def tiny_scene(n: int = 4, h: int = 32, w: int = 48, **changes) -> Scene:
    """A floor and a wall seen by a camera that moves right; a square moves to the left.

    The camera is 1.5 above the floor, level, with the wall 6 ahead of it; world = first camera, so
    the world's up is -y. Frame t's mover is 8x6 pixels at depth 2.5.
    """
    rng = np.random.default_rng(7)
    f = 0.8 * w
    K = np.tile(np.array([[f, 0, w / 2], [0, f, h / 2], [0, 0, 1]]), (n, 1, 1))
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = 0.2 * np.arange(n)
    rows = np.arange(h, dtype=float)[:, None] - h / 2
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0, 1.5 * f / rows, np.inf)
    depth = np.tile(np.minimum(floor, 6.0).astype(np.float32), (n, 1, w))
    images = rng.integers(0, 255, (n, h, w, 3), dtype=np.uint8)
    dynamic = np.zeros((n, h, w), bool)
    for t in range(n):
        left = w - 12 - 4 * (t % ((w - 12) // 4))
        dynamic[t, h // 2 - 4 : h // 2 + 4, left : left + 6] = True
    depth[dynamic] = 2.5
    images[dynamic] = (250, 20, 20)
    confidence = (1 + 4 * rng.random((n, h, w))).astype(np.float32)
    confidence[:, 0, :] = 0
    depth[:, :, 0] = 0
    fields = {
        "images": images,
        "depth": depth,
        "confidence": confidence,
        "dynamic": dynamic,
        "K": K,
        "T_world_camera": T,
        "mapping": FrameMapping((4 * h, 2 * w + 8), (2 * h, w + 4), (2, h // 2), (h, w)),
        "names": tuple(f"frame_{t:06d}" for t in range(n)),
        "times_s": np.arange(n) / 10,
        "fps": 10.0,
        "metadata": {"model": "none", "warnings": ["made up"]},
    }
    return Scene(**(fields | changes))


def tiny_network() -> PointmapNetwork:
    """An untrained network that runs in milliseconds; the same weights every time."""
    from dyn3r.network.config import NetworkConfig
    from dyn3r.network.initialise import initialise
    from dyn3r.network.network import PointmapNetwork

    network = PointmapNetwork(
        NetworkConfig(
            enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=24, dec_depth=4,
            dec_num_heads=2, dpt_features=8, dpt_layer_dims=(8, 8, 8, 8), image_size=64,
        )
    )  # fmt: skip
    initialise(network, seed=0)
    return network.eval().requires_grad_(False)


def moving_square(frames: int, hw: tuple[int, int] = (48, 64)) -> Clip:
    """A textured background that slides, and a square that moves on its own."""
    random = np.random.default_rng(0)
    wall = random.integers(0, 256, (hw[0], hw[1] + 4 * frames, 3), dtype=np.uint8)
    images = np.stack([wall[:, 2 * t : 2 * t + hw[1]] for t in range(frames)])
    for t in range(frames):
        images[t, 10:26, 4 * t : 4 * t + 16] = (200, 30, 30)
    return clip_from_images(images, size=max(hw), fps=10.0)


def geometry_of(
    T_world_camera: np.ndarray, K: np.ndarray, depth: np.ndarray, **changes: Any
) -> Geometry:
    """Geometry with these cameras and this depth, everything else plain."""
    n, h, w = depth.shape
    fields: dict[str, Any] = {
        "T_world_camera": np.asarray(T_world_camera, np.float64),
        "K": np.asarray(K, np.float64),
        "depth": depth.astype(np.float32),
        "confidence": np.full((n, h, w), 2, np.float32),
        "sigma_log_depth": np.full((n, h, w), 0.05, np.float32),
        "valid": np.ones((n, h, w), bool),
        "frame_quality": np.ones(n),
        "determined": np.ones(n, bool),
    }
    return Geometry(**(fields | changes))
