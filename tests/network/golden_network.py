"""The tiny network whose weights are given by a formula (golden numbers' README)."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

from dyn3r.network.config import NetworkConfig
from dyn3r.network.network import PointmapNetwork

GOLDEN = Path(__file__).parent.parent / "golden" / "network.npz"
SIZES = {
    "enc_embed_dim": 64,
    "enc_depth": 3,
    "enc_num_heads": 4,
    "dec_embed_dim": 96,
    "dec_depth": 12,
    "dec_num_heads": 12,
}


def formula(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights as a function of their name and shape."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    n = random.standard_normal(int(np.prod(shape))).reshape(shape)
    if len(shape) >= 2:
        n = n / np.sqrt(np.prod(shape[1:]))
    else:
        n = 1 + 0.1 * n if key.endswith(".weight") else 0.02 * n
    return torch.from_numpy(n.astype(np.float32))


def golden_network(head: str) -> PointmapNetwork:
    network = PointmapNetwork(NetworkConfig(**SIZES, head=head))
    state = {key: formula(key, tuple(t.shape)) for key, t in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def golden_images() -> np.ndarray:
    """(5, 80, 160, 3) uint8."""
    return np.load(GOLDEN)["images"].transpose(0, 2, 3, 1)


def golden_masks() -> np.ndarray:
    """(5, 80, 160) bool: the motion masks of the second pass."""
    packed = np.load(GOLDEN)["atten_mask"]
    return np.unpackbits(packed)[: 5 * 80 * 160].reshape(5, 80, 160).astype(bool)
