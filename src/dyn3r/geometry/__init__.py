"""Cameras, registration and induced flow: geometry that every stage may import."""

from __future__ import annotations

from dyn3r.geometry.cameras import (
    focal_from_points,
    intrinsics,
    invert,
    pixel_grid,
    project,
    rays,
    transform,
    unproject,
)
from dyn3r.geometry.induced_flow import forward_backward_visible, induced_flow
from dyn3r.geometry.registration import (
    Similarity,
    robust_similarity,
    solve_camera,
    weighted_similarity,
)
from dyn3r.types import FlowFields

__all__ = [
    "FlowFields",
    "Similarity",
    "focal_from_points",
    "forward_backward_visible",
    "induced_flow",
    "intrinsics",
    "invert",
    "pixel_grid",
    "project",
    "rays",
    "robust_similarity",
    "solve_camera",
    "transform",
    "unproject",
    "weighted_similarity",
]
