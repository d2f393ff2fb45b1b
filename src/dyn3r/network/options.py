"""Options of inference: batches, precision of stored predictions, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dyn3r.errors import InputError


@dataclass(frozen=True)
class InferenceOptions:
    """Options of inference. Raises InputError for values out of range."""

    batch_pairs: int = 0
    """Directed pairs decoded at once; larger is faster until memory is full. 0: from frame size."""
    storage: Literal["half", "full"] = "half"
    """Stored precision of pointmaps and confidences; `full` (float32) doubles the memory."""
    memory_gb: float = 2.0
    """Size in GB above which predictions go to a temporary file; larger is faster."""
    spill_folder: str | None = None
    """Folder of that temporary file; None: the system's folder for temporary files."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.batch_pairs < 0:
            raise InputError(f"batch_pairs must be 0 (automatic) or more, not {self.batch_pairs}")
        if not self.memory_gb > 0:
            raise InputError(f"memory_gb must be positive, not {self.memory_gb}")
