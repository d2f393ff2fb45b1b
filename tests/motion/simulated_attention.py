"""Simulated attention scores of a clip: effects of a camera, a moving object and noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GRID_HW = (12, 16)
SIZE_HW = (GRID_HW[0] * 16, GRID_HW[1] * 16)


class SimulatedClip(NamedTuple):
    scores1: np.ndarray
    scores2: np.ndarray
    edges: np.ndarray
    tokens: np.ndarray
    dynamic: np.ndarray
    """(n, gh, gw) bool: tokens of the moving object."""


def simulate(
    num_frames: int = 8,
    *,
    mover: bool = True,
    camera: float = 0.1,
    noise: float = 0.02,
    window: int = 3,
    seed: int = 0,
) -> SimulatedClip:
    """Nine kinds of background and one moving object; scores are linear in the tokens.

    `camera`: how much the scores change with the distance of the partner frame; `noise`: how much
    they change at random from pair to pair. Both relative to the spread over the image.
    """
    rng = np.random.default_rng(seed)
    (gh, gw), dim, channels = GRID_HW, 32, 24
    kinds = rng.standard_normal((10, dim))
    label = np.repeat(
        (np.add.outer(np.arange(gh) // 4 * 4, np.arange(gw) // 4) % 9)[None], num_frames, 0
    )
    dynamic = np.zeros((num_frames, gh, gw), bool)
    if mover:
        for t in range(num_frames):
            left = 1 + t * (gw - 5) // num_frames
            dynamic[t, 5:9, left : left + 3] = True
    label[dynamic] = 9
    tokens = kinds[label] + 0.1 * rng.standard_normal((1, gh, gw, dim))
    edges = np.array(
        [
            (i, j)
            for i in range(num_frames)
            for j in range(num_frames)
            if i != j and abs(i - j) <= window
        ]
    )
    scores = []
    for view, sign in ((1, -1.0), (0, 1.0)):
        seen = tokens[edges[:, view]]
        to_score, to_drift = rng.standard_normal((2, dim, channels)) / np.sqrt(dim)
        step = np.tanh((edges[:, 1] - edges[:, 0]) / 3)[:, None, None, None]
        score = seen @ to_score + camera * step * (seen @ to_drift)
        wobble = rng.standard_normal((len(edges), 1, 1, channels)) if view == 1 else 0.0
        score = score + sign * dynamic[edges[:, view]][..., None] * (1.5 + wobble)
        scores.append((score + noise * rng.standard_normal(score.shape)).astype(np.float32))
    flat = tokens.reshape(num_frames, gh * gw, dim).astype(np.float32)
    return SimulatedClip(scores[0], scores[1], edges, flat, dynamic)
