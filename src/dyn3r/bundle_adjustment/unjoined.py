"""Frames that no flow joins to the others keep their place beside the nearest joined frame."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from dyn3r.bundle_adjustment.problem import BundleProblem

LEAST_SAMPLES = 6
"""Measured samples of a pair that join its frames: one for each unknown of a camera."""


def with_unjoined_frames(
    T: Float[np.ndarray, "n 4 4"], T_start: Float[np.ndarray, "n 4 4"], problem: BundleProblem
) -> tuple[Float[np.ndarray, "n 4 4"], Int[np.ndarray, " k"]]:
    """Camera-to-world matrices of a solution with the place of unjoined frames, and these frames.

    Frames are joined over pairs that measure LEAST_SAMPLES, in either direction. A group that holds
    no known camera is moved as one rigid body: its frame nearest in time to a joined one is placed
    beside that as in `T_start`. Stated cameras, which are a prior of the solution, are left as they
    are.
    """
    if problem.camera_prior is not None:
        return T, np.zeros(0, int)
    group = _groups(problem)
    fixed = problem.fixed.cpu().numpy()
    joined = np.isin(group, group[fixed])
    frames, found = np.flatnonzero(~joined), T.copy()
    for number in np.unique(group[frames]):
        members, others = np.flatnonzero(group == number), np.flatnonzero(joined)
        apart = np.abs(members[:, None] - others)
        m, o = np.unravel_index(apart.argmin(), apart.shape)
        first, beside = members[m], others[o]
        placed = T[beside] @ np.linalg.inv(T_start[beside]) @ T_start[first]
        found[members] = placed @ np.linalg.inv(T[first]) @ T[members]
    return found, frames


def _groups(problem: BundleProblem) -> Int[np.ndarray, " n"]:
    """Number of the group of joined frames of every frame."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, rows = len(problem.fixed), [np.zeros((0, 2), int)]
    for m in problem.batches:
        measured = (m.weight > 0).sum(1) >= LEAST_SAMPLES
        rows.append(torch.stack([m.source, m.target], 1)[measured].cpu().numpy())
    source, target = np.concatenate(rows).T
    graph = coo_array((np.ones(len(source)), (source, target)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])
