"""After the alignment: cameras, focal length and depth from measured flow; depth of what moves."""

from dyn3r.bundle.bundle import bundle_adjust
from dyn3r.bundle.movers import farther_than_predicted, stand_on_ground
from dyn3r.bundle.options import BundleOptions

__all__ = ["BundleOptions", "bundle_adjust", "farther_than_predicted", "stand_on_ground"]
