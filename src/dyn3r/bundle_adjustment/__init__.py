"""After the alignment: cameras, focal length and depth from measured flow; depth of what moves."""

from dyn3r.bundle_adjustment.adjust import bundle_adjust, only_turns
from dyn3r.bundle_adjustment.ground_correction import level_ground
from dyn3r.bundle_adjustment.options import BundleOptions

__all__ = [
    "BundleOptions",
    "bundle_adjust",
    "level_ground",
    "only_turns",
]
