"""Frames of a long clip moved so that places seen twice agree: a graph of similarities.

Unknown are the scale, rotation and translation of every frame. Successive frames keep their
relative pose and scale as far as possible; two frames that show the same place at different times
(a loop) have a measured one. Source: Strasdat, Montiel, Davison, Scale Drift-Aware Large Scale
Monocular SLAM, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.geometry.registration import Similarity
from dyn3r.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat

STEP_ROTATION = 0.002
"""Standard error of the rotation between successive frames, in radians. Only ratios of these errors
matter much: drift is shared among the steps, and loops are met."""
STEP_TRANSLATION = 0.005
"""Standard error of the translation between successive frames, over the median depth."""
STEP_LOG_SCALE = 0.005
"""Standard error of the log ratio of the scales of successive frames."""
LOOP_SIGMA = (0.003, 0.01, 0.01)
"""Standard errors of a loop: rotation, translation over the median depth, log scale."""
KERNELS = (1000.0, 100.0, 30.0, 10.0, 10.0, 10.0)
"""Standard errors beyond which the weight of a loop falls (Cauchy), in rounds: a single loop may be
far from what drift has made of it, and a false one among true ones must not count."""
ITERATIONS = 5
"""Steps of a round, at most."""
SMALLEST_STEP = 1e-6
"""Radians, log scale and median depths below which a round ends."""
STEP = 1e-6
"""Step of the numeric derivatives. Source: the root of the precision, about."""


@dataclass(frozen=True)
class Loops:
    """Pairs of frames that show the same place, with the similarity between them."""

    pairs: Int[np.ndarray, "q 2"]
    """Frames (i, j)."""
    similarity: Similarity
    """Maps camera coordinates of j to those of i, (q,): scale is the ratio of their units."""


def close_loops(
    T_world_camera: Float[np.ndarray, "n 4 4"], loops: Loops, unit: float
) -> tuple[Float[np.ndarray, "n 4 4"], Float[np.ndarray, " n"]]:
    """Cameras that agree with the loops, and a factor on the depth of each frame.

    `unit`: the median depth. The first camera stays. Gauss-Newton with a robust kernel on loops;
    the normal equations are banded but for the loops, so time is linear in the number of frames.
    """
    state = _State.of(torch.from_numpy(T_world_camera).double())
    edges = _edges(state, loops, unit)
    for kernel in KERNELS:
        for _ in range(ITERATIONS):
            step = _step(state, edges, kernel)
            state = state.moved(step)
            if float(step.abs().max()) < SMALLEST_STEP:
                break
    out = T_world_camera.copy()
    out[:, :3, :3], out[:, :3, 3] = state.R.numpy(), state.t.numpy()
    return out, state.log_scale.exp().numpy()


def drift_at(T_world_camera: Float[np.ndarray, "n 4 4"], loops: Loops, unit: float) -> float:
    """Median over the loops of how far the cameras are from them, in standard errors.

    Of rotation, translation and scale the largest counts.
    """
    state = _State.of(torch.from_numpy(T_world_camera).double())
    edges = _edges(state, loops, unit)
    residual = edges.residuals(state[edges.i], state[edges.j])[edges.is_loop].abs()
    return float(residual.amax(-1).median())


@dataclass(frozen=True)
class _State:
    """Similarities from the camera of each frame to the world: s R x + t."""

    log_scale: Tensor
    R: Tensor
    t: Tensor

    @classmethod
    def of(cls, T: Tensor) -> _State:
        return cls(torch.zeros(len(T), dtype=T.dtype), T[:, :3, :3], T[:, :3, 3])

    def __getitem__(self, rows: Tensor) -> _State:
        return _State(self.log_scale[rows], self.R[rows], self.t[rows])

    def moved(self, step: Tensor) -> _State:
        """Moved on the right by steps (n, 7): rotation, translation in units of s, log scale."""
        turned = self.R @ rotvec_to_rotmat(step[:, :3])
        moved = self.t + self.log_scale.exp()[:, None] * (self.R @ step[:, 3:6, None])[..., 0]
        return _State(self.log_scale + step[:, 6], turned, moved)

    def relative(self, other: _State) -> _State:
        """Similarities from the cameras of `other` to these cameras."""
        t = (self.R.mT @ (other.t - self.t)[..., None])[..., 0]
        scale = self.log_scale
        return _State(other.log_scale - scale, self.R.mT @ other.R, t / scale.exp()[:, None])


@dataclass(frozen=True)
class _Edges:
    i: Tensor
    j: Tensor
    measured: _State
    whiten: Tensor
    """(e, 7) inverse standard errors."""
    is_loop: Tensor

    def residuals(self, first: _State, second: _State) -> Tensor:
        """(e, 7) in standard errors."""
        found = first.relative(second)
        turn = rotmat_to_rotvec(self.measured.R.mT @ found.R)
        shift = found.t - self.measured.t
        scale = found.log_scale - self.measured.log_scale
        return torch.cat([turn, shift, scale[:, None]], -1) * self.whiten


def _edges(state: _State, loops: Loops, unit: float) -> _Edges:
    n = len(state.t)
    i, j = torch.arange(n - 1), torch.arange(1, n)
    steps = state[i].relative(state[j])
    a, b = torch.from_numpy(np.ascontiguousarray(loops.pairs.T)).long()
    seen = loops.similarity
    measured = _State(
        torch.cat([steps.log_scale, seen.scale.double().log()]),
        torch.cat([steps.R, seen.R.double()]),
        torch.cat([steps.t, seen.t.double()]),
    )
    step = torch.tensor([STEP_ROTATION] * 3 + [unit * STEP_TRANSLATION] * 3 + [STEP_LOG_SCALE])
    rotation, centre, scale = LOOP_SIGMA
    loop = torch.tensor([rotation] * 3 + [unit * centre] * 3 + [scale])
    sigma = torch.cat([step.expand(n - 1, 7), loop.expand(len(a), 7)]).double()
    is_loop = torch.arange(n - 1 + len(a)) >= n - 1
    return _Edges(torch.cat([i, a]), torch.cat([j, b]), measured, 1 / sigma, is_loop)


def _step(state: _State, edges: _Edges, kernel: float) -> Tensor:
    """Gauss-Newton step (n, 7); the first frame stays."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    n = len(state.t)
    first, second = state[edges.i], state[edges.j]
    residual = edges.residuals(first, second)
    squared = (residual**2).sum(-1)
    weight = torch.where(edges.is_loop, 1 / (1 + squared / kernel**2), 1.0)
    blocks = [
        torch.stack([_derivative(state, edges, end, k) for k in range(7)], -1) for end in (0, 1)
    ]
    rows = torch.arange(len(residual))[:, None, None] * 7 + torch.arange(7)[None, :, None]
    values, index = [], []
    for block, ends in zip(blocks, (edges.i, edges.j)):
        columns = ends[:, None, None] * 7 + torch.arange(7)[None, None, :]
        values.append((block * weight.sqrt()[:, None, None]).flatten())
        index.append(torch.stack([rows.expand(-1, 7, 7), columns.expand(-1, 7, 7)]).flatten(1))
    row, column = torch.cat(index, 1).numpy()
    shape = (7 * len(residual), 7 * n)
    J: Any = coo_array((torch.cat(values).numpy(), (row, column)), shape=shape).tocsc()[:, 7:]
    right = J.T @ (residual * weight.sqrt()[:, None]).flatten().numpy()
    solution = spsolve((J.T @ J).tocsc(), -right)
    return torch.cat([torch.zeros(1, 7), torch.from_numpy(solution).reshape(-1, 7)]).double()


def _derivative(state: _State, edges: _Edges, end: int, k: int) -> Tensor:
    """Derivatives (e, 7) of the residuals by number k of the step of one end of every edge."""
    moved = []
    for sign in (1, -1):
        step = torch.zeros(len(edges.i), 7, dtype=torch.float64)
        step[:, k] = sign * STEP
        ends = [state[edges.i], state[edges.j]]
        ends[end] = ends[end].moved(step)
        moved.append(edges.residuals(*ends))
    return (moved[0] - moved[1]) / (2 * STEP)
