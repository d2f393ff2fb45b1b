"""Global alignment: pairwise pointmaps into cameras and depth of one world (SPEC 6)."""

from __future__ import annotations

from dyn3r.alignment.align import align
from dyn3r.alignment.clean import clean_confidence
from dyn3r.alignment.options import AlignmentOptions, Presets
from dyn3r.alignment.result import Alignment
from dyn3r.geometry.flow import MeasuredFlow

__all__ = [
    "Alignment",
    "AlignmentOptions",
    "MeasuredFlow",
    "Presets",
    "align",
    "clean_confidence",
]
