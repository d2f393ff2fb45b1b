"""The system of cameras and focal length that is left when depths are eliminated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CameraBlocks:
    """A part of the symmetric reduced matrix and of the right-hand side."""

    row: Int[Tensor, " b"]
    """Camera of the rows of each block; every block is there with its transpose."""
    column: Int[Tensor, " b"]
    values: Float[Tensor, "b 6 6"]
    camera: Int[Tensor, " c"]
    border: Float[Tensor, "c 6 2"]
    """Of these cameras: second derivatives by the log focal length, and right-hand side."""
    corner: Float[Tensor, " 2"]
    """The same of the log focal length."""


def solve_dense(
    blocks: Iterable[CameraBlocks],
    diagonal: Float[Tensor, " u"],
    right: Float[Tensor, " u"],
    free: Bool[Tensor, " u"],
) -> Float[Tensor, " u"] | None:
    """Solution with `diagonal` and `right` added to the blocks; None if the matrix is singular.

    Unknowns that are not `free` are 0.
    """
    n = len(right) // 6
    cameras, border = right.new_zeros(n * n, 6, 6), right.new_zeros(6 * n + 1, 2)
    for some in blocks:
        cameras.index_add_(0, some.row * n + some.column, some.values)
        border[:-1].view(n, 6, 2).index_add_(0, some.camera, some.border)
        border[-1] += some.corner
    matrix = torch.diag(diagonal)
    matrix[:-1, :-1] += cameras.view(n, n, 6, 6).transpose(1, 2).reshape(6 * n, 6 * n)
    matrix[-1] += border[:, 0]  # the lower half is read
    matrix = torch.where(free[:, None] & free, matrix, torch.diag((~free).to(matrix)))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        return None
    total = torch.where(free, right + border[:, 1], 0.0)
    return torch.cholesky_solve(total[:, None], factor)[:, 0]


def solve_sparse(
    blocks: Iterable[CameraBlocks],
    diagonal: Float[Tensor, " u"],
    right: Float[Tensor, " u"],
    free: Bool[Tensor, " u"],
) -> Float[Tensor, " u"] | None:
    """The same on the CPU, with a sparse factorisation (SuperLU)."""
    from scipy.sparse.linalg import splu

    parts = list(blocks)
    kept = np.flatnonzero(free.cpu().numpy())
    matrix, known = _on_the_cpu(parts, diagonal, right)
    symmetric = {"SymmetricMode": True}
    try:
        factor = splu(
            matrix[kept][:, kept], "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric
        )
    except RuntimeError:  # exactly singular
        return None
    found = np.zeros(len(right))
    found[kept] = factor.solve(known[kept])
    return torch.from_numpy(found).to(right.device) if np.isfinite(found).all() else None


def _on_the_cpu(
    parts: list[CameraBlocks], diagonal: Float[Tensor, " u"], right: Float[Tensor, " u"]
) -> tuple[Any, Float[np.ndarray, " u"]]:
    """The matrix in compressed columns, and the right-hand side."""
    from scipy.sparse import coo_matrix

    def joined(name: str) -> np.ndarray:
        return torch.cat([getattr(part, name) for part in parts]).cpu().numpy()

    size, six = len(right), np.arange(6)
    values, border, camera = joined("values"), joined("border"), joined("camera")
    camera = (6 * camera[:, None] + six).ravel()
    row, column = (6 * joined(name)[:, None] + six for name in ("row", "column"))
    own, known = torch.stack([diagonal, right]).cpu().numpy()
    corner = torch.stack([part.corner for part in parts]).sum(0).cpu().numpy()
    own[-1] += corner[0]
    known[-1] += corner[1]
    np.add.at(known, camera, border[..., 1].ravel())
    every, last, focal = np.arange(size), np.full(len(camera), size - 1), border[..., 0].ravel()
    rows = np.broadcast_to(row[:, :, None], values.shape).ravel()
    columns = np.broadcast_to(column[:, None], values.shape).ravel()
    entries = np.concatenate([values.ravel(), focal, focal, own])
    at = (
        np.concatenate([rows, camera, last, every]),
        np.concatenate([columns, last, camera, every]),
    )
    return coo_matrix((entries, at), shape=(size, size)).tocsc(), known
