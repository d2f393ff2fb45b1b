"""Which places already have a point: a table of fixed size for streams that never end."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_BITS = 24  # 16 MiB of table; a million points fill one place in sixteen
_PRIMES = np.array([73856093, 19349669, 83492791], dtype=np.int64)


class VoxelTable:
    """Voxels hashed into a table of 2^24 places (Teschner et al. 2003).

    Two voxels may share a place; then the later one's point is left out, as if it were known.
    """

    def __init__(self, voxel_size: float) -> None:
        assert voxel_size > 0
        self.voxel_size = voxel_size
        self._full = np.zeros(2**_BITS, dtype=bool)

    def fill(
        self, points: Float[np.ndarray, "k 3"]
    ) -> tuple[Bool[np.ndarray, " k"], Int[np.ndarray, " m"]]:
        """Which points lie in an empty voxel (the first of several in one), and those places."""
        cells = np.floor(points / self.voxel_size)
        cells = np.clip(np.nan_to_num(cells), -(2**40), 2**40).astype(np.int64)
        place = np.bitwise_xor.reduce(cells * _PRIMES, axis=1) & (2**_BITS - 1)
        first = np.zeros(len(place), dtype=bool)
        first[np.unique(place, return_index=True)[1]] = True
        new = first & ~self._full[place]
        self._full[place[new]] = True
        return new, place[new].astype(np.int32)

    def free(self, places: Int[np.ndarray, " m"]) -> None:
        """Empty these places."""
        self._full[places] = False
