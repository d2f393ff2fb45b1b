"""Small values for tests, made from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dyn3r.scene import Scene
from dyn3r.types import FrameMapping

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
