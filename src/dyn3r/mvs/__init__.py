"""Multi-view depth: plane sweep and a small network, with the cameras fixed."""

from __future__ import annotations

from dyn3r.mvs.depth_network import DepthNetwork
from dyn3r.mvs.estimate import load_depth_network, multi_view_depth

__all__ = ["DepthNetwork", "load_depth_network", "multi_view_depth"]
