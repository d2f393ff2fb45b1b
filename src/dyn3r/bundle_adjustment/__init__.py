"""Bundle adjustment on measured flow: cameras, focal length and depth after the alignment."""

from __future__ import annotations

from dyn3r.bundle_adjustment.adjust import (
    bundle_adjust,
    calibrated_bundle_adjust,
    is_rotation_only,
)
from dyn3r.bundle_adjustment.ground_correction import correct_ground_tilt
from dyn3r.bundle_adjustment.known_cameras import known_throughout, with_known_cameras
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.stated_focal import adjust_with_stated_focal

__all__ = [
    "BundleAdjustmentOptions",
    "adjust_with_stated_focal",
    "bundle_adjust",
    "calibrated_bundle_adjust",
    "correct_ground_tilt",
    "is_rotation_only",
    "known_throughout",
    "with_known_cameras",
]
