"""Depth of every pixel from all frames at once: plane sweep, and a network that draws from it."""

from dyn3r.mvs.depth_network import DepthNetwork
from dyn3r.mvs.estimate import load_depth_network, multi_view_depth

__all__ = ["DepthNetwork", "load_depth_network", "multi_view_depth"]
