"""Masks made better after motion was found: along edges of the pictures, or by SAM 2 (SPEC 8)."""

from dyn3r.refine.edges import EdgeRefiner
from dyn3r.refine.protocol import MaskRefiner, mask_refiner
from dyn3r.refine.sam2 import Sam2Refiner

__all__ = ["EdgeRefiner", "MaskRefiner", "Sam2Refiner", "mask_refiner"]
