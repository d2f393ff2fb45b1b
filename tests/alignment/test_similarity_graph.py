"""Loops of a long clip: drift is shared among the frames."""

from __future__ import annotations

import numpy as np
import torch

from dyn3r.alignment.similarity_graph import Loops, close_loops, drift_at
from dyn3r.geometry.registration import Similarity
from dyn3r.geometry.rotations import rotvec_to_rotmat


def circle(n: int, *, turns: float = 1.0) -> np.ndarray:
    """Cameras on a circle of radius 3 that look along it."""
    angle = torch.linspace(0, 2 * np.pi * turns, n, dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    T[:, :3, :3] = rotvec_to_rotmat(torch.stack([0 * angle, angle, 0 * angle], -1))
    T[:, :3, 3] = 3 * torch.stack([angle.sin(), 0 * angle, angle.cos()], -1)
    return T.numpy()


def drifted(T: np.ndarray, *, scale: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Cameras whose unit and heading drift by the same factor and angle in each step."""
    out, units = T.copy(), scale ** np.arange(len(T))
    lean = rotvec_to_rotmat(torch.tensor([turn, 0.0, 0.0], dtype=torch.float64)).numpy()
    for t in range(1, len(T)):
        step = np.linalg.inv(T[t - 1]) @ T[t]
        step[:3, 3] *= units[t]
        step[:3, :3] = step[:3, :3] @ lean
        out[t] = out[t - 1] @ step
    return out, units


def loop_of(T: np.ndarray, i: int, j: int, ratio: float) -> Loops:
    """The true similarity between two cameras; `ratio`: unit of i over that of j."""
    relative = np.linalg.inv(T[i]) @ T[j]
    similarity = Similarity(
        torch.tensor([ratio], dtype=torch.float64),
        torch.from_numpy(relative[None, :3, :3].copy()),
        torch.from_numpy(relative[None, :3, 3].copy()),
    )
    return Loops(np.array([[i, j]]), similarity)


def test_consistent_cameras_stay() -> None:
    T = circle(40)
    moved, factor = close_loops(T, loop_of(T, 0, 39, 1.0), 3.0)
    np.testing.assert_allclose(moved, T, atol=1e-8)
    np.testing.assert_allclose(factor, 1, atol=1e-8)


def test_a_loop_removes_drift_of_scale_and_rotation() -> None:
    T = circle(60)
    wrong, units = drifted(T, scale=1.004, turn=0.002)
    loop = loop_of(T, 0, 59, 1 / units[59])
    assert drift_at(T, loop_of(T, 0, 59, 1.0), 3.0) < 1e-6
    assert drift_at(wrong, loop, 3.0) > 10
    # what flow and depth of the two frames say: the camera is back, its unit has grown
    moved, factor = close_loops(wrong, loop, 3.0)
    before = np.linalg.norm(wrong[:, :3, 3] - T[:, :3, 3], axis=1)
    after = np.linalg.norm(moved[:, :3, 3] - T[:, :3, 3], axis=1)
    assert after[59] < 0.05 * before[59]
    assert after.mean() < 0.4 * before.mean()
    np.testing.assert_allclose(factor[59], 1 / units[59], rtol=0.02)
    assert (np.diff(factor) < 0).all()
    np.testing.assert_allclose(moved[0], T[0])


def test_a_false_loop_among_true_ones_is_outvoted() -> None:
    T = circle(60, turns=2.0)
    true = [loop_of(T, k, 30 + k, 1.0) for k in (2, 8, 14, 20)]
    far = circle(60, turns=2.0)
    far[40, :3, 3] += 6.0  # two radii
    false = loop_of(far, 10, 40, 1.0)
    parts = [*true, false]
    similarity = Similarity(
        *(torch.cat([getattr(p.similarity, name) for p in parts]) for name in ("scale", "R", "t"))
    )
    moved, factor = close_loops(T, Loops(np.concatenate([p.pairs for p in parts]), similarity), 3.0)
    assert np.linalg.norm(moved[:, :3, 3] - T[:, :3, 3], axis=1).max() < 0.3
    assert np.abs(np.log(factor)).max() < 0.1
