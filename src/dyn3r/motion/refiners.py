"""Mask refiners by name."""

from __future__ import annotations

from dyn3r.errors import InputError
from dyn3r.motion.mask_refiner import MaskRefiner
from dyn3r.motion.sam2 import Sam2Refiner
from dyn3r.motion.smoothing import EdgeRefiner


def mask_refiner(name: str, device: str = "cpu") -> MaskRefiner | None:
    """Refiner called `edges`, `sam2` or `sam2:WEIGHTS` (a folder or a name on the hub).

    None for `none`. `device`: of PyTorch. Nothing is loaded before masks are refined.
    Raises InputError for another name.
    """
    if name == "none":
        return None
    kind, _, weights = name.partition(":")
    if name == "edges":
        return EdgeRefiner(device=device)
    if kind == "sam2" and (weights or name == kind):
        return Sam2Refiner(weights, device=device) if weights else Sam2Refiner(device=device)
    raise InputError(f"unknown mask refiner '{name}': choose none, edges, sam2 or sam2:FOLDER")
