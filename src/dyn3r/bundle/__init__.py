"""After the alignment: cameras, focal length and depth from measured flow; depth of what moves."""

from dyn3r.bundle.bundle import bundle_adjust, only_turns
from dyn3r.bundle.movers import farther_than_predicted, stand_on_ground
from dyn3r.bundle.options import BundleOptions
from dyn3r.bundle.relief import level_ground

__all__ = [
    "BundleOptions",
    "bundle_adjust",
    "farther_than_predicted",
    "level_ground",
    "only_turns",
    "stand_on_ground",
]
