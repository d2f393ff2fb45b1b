"""The 4D scene: what a run finds out about a clip, its file, its images and its merging."""

from dyn3r.scene.background import static_points
from dyn3r.scene.scene import PointCloud, Scene, Which
from dyn3r.scene.summary import summarise
from dyn3r.scene.verdict import PartVerdict, Verdict

__all__ = [
    "PartVerdict",
    "PointCloud",
    "Scene",
    "Verdict",
    "Which",
    "static_points",
    "summarise",
]
