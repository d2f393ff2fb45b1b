"""Global alignment: pairwise pointmaps into cameras and depth of one world (SPEC 6)."""

from __future__ import annotations

from dyn3r.alignment.align import align
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.geometry.visibility import clean_confidence
from dyn3r.types import FlowFields, Geometry, Priors

__all__ = [
    "Geometry",
    "AlignmentOptions",
    "FlowFields",
    "Priors",
    "align",
    "clean_confidence",
]
