"""Options of inference: batches, precision of stored predictions, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dyn3r.errors import InputError
from dyn3r.io.numbers import checked_number, checked_whole

SMALLEST_GB = 1e-9
"""Smallest memory_gb: one byte."""


@dataclass(frozen=True)
class InferenceOptions:
    """Options of inference."""

    batch_pairs: int = 0
    """Directed pairs decoded at once; larger is faster until memory is full. 0: from frame size."""
    storage: Literal["half", "full"] = "half"
    """Stored precision of pointmaps and confidences; `full` (float32) doubles the memory."""
    memory_gb: float = 2.0
    """Size in GB above which predictions go to a temporary file; larger is faster."""
    spill_folder: str | None = None
    """Folder of that temporary file; None: the system's folder for temporary files."""

    def __post_init__(self) -> None:
        """Check every value. Raises InputError for one out of range."""
        checked_whole(self.batch_pairs, "batch_pairs", low=0, high=10**6)
        checked_number(self.memory_gb, "memory_gb", low=SMALLEST_GB, high=1e6)
        if self.storage not in ("half", "full"):
            raise InputError(f"storage is half or full, not {self.storage!r:.40}")
