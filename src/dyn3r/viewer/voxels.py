"""Voxel occupancy in a hash table of fixed size, for streams without an end."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_BITS = 24  # 16 MiB of table; a million points occupy one slot in sixteen
_PRIMES = np.array([73856093, 19349669, 83492791], dtype=np.int64)


class VoxelTable:
    """Occupied voxels, hashed into 2^24 slots (Teschner et al. 2003).

    Two voxels may share a slot. The second one then counts as occupied, and its point is left out.
    """

    def __init__(self, voxel_size: float) -> None:
        """Start empty; `voxel_size` is the edge length in scene units, above 0."""
        assert voxel_size > 0
        self.voxel_size = voxel_size
        self._occupied = np.zeros(2**_BITS, dtype=bool)

    def insert(
        self, points: Float[np.ndarray, "k 3"]
    ) -> tuple[Bool[np.ndarray, " k"], Int[np.ndarray, " m"]]:
        """Occupy the voxels of the points.

        Returns a mask of the points in voxels that were empty (the first point of each voxel), and
        the slots of those voxels.
        """
        cells = np.floor(points / self.voxel_size)
        cells = np.clip(np.nan_to_num(cells), -(2**40), 2**40).astype(np.int64)
        slots = np.bitwise_xor.reduce(cells * _PRIMES, axis=1) & (2**_BITS - 1)
        first = np.zeros(len(slots), dtype=bool)
        first[np.unique(slots, return_index=True)[1]] = True
        new = first & ~self._occupied[slots]
        self._occupied[slots[new]] = True
        return new, slots[new].astype(np.int32)

    def remove(self, slots: Int[np.ndarray, " m"]) -> None:
        """Mark these slots as empty."""
        self._occupied[slots] = False
