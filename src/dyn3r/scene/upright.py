"""Which way is up in a scene, and where a person should stand to see it. Pure numpy.

A reconstruction's world is the first camera's, tilted as that camera was. The cameras' mean
up-vector is a good guess (people hold cameras level, but tilt them down); the normal of a
ground-like plane is a better one where there is such a plane, as good as the depth is; and vertical
edges in the pictures are the best, where there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dyn3r.geometry.gravity import find_vertical
from dyn3r.scene.scene import Scene

_MAX_TILT_DEG = 35.0  # of the ground's normal against the cameras' mean up
_MIN_SHARE = 0.10  # of the points that must lie on a plane to make it the ground
_MAX_BELOW = 0.20  # of the points that may lie below it
_THICKNESS = 0.015  # half thickness of the plane, in median depths


@dataclass(frozen=True)
class Upright:
    """The world's up and how it was found."""

    up_world: Float[np.ndarray, " 3"]
    """Unit vector in world coordinates that points up."""
    source: str
    """`vertical edges`, `ground plane` or `cameras`."""
    ground_height: float | None
    """Height (up_world . point) of the ground; None without one."""


@dataclass(frozen=True)
class FirstView:
    """Where to stand and where to look, in world coordinates."""

    position: Float[np.ndarray, " 3"]
    look_at: Float[np.ndarray, " 3"]


def find_up(scene: Scene) -> Upright:
    """The world's up: by vertical edges in the pictures if they are sure of it, else the normal of
    a ground-like plane if there is one, else the cameras' mean up.

    Edges: see `dyn3r.geometry.gravity.find_vertical`. A plane counts as ground if its normal lies within 35
    degrees of the cameras' mean up, the cameras are above it, at least 10 % of a sample of static
    points lies on it and at most 20 % below it. Of such planes the one with most points wins
    (RANSAC with a fixed seed, then two least-squares refinements). Where edges tell up, the ground
    is the level plane for which the same holds.
    """
    camera_up = _unit(-scene.T_world_camera[:, :3, 1].mean(axis=0), -scene.T_world_camera[0, :3, 1])
    points = sample_static(scene, 4000)
    vertical = find_vertical(
        scene.images, scene.K, scene.T_world_camera, moving=scene.dynamic, depth=scene.depth
    )
    if vertical is not None and vertical.sure:
        level = _ground_plane(points, scene, camera_up, vertical.up_world)
        return Upright(vertical.up_world, "vertical edges", None if level is None else level[1])
    plane = _ground_plane(points, scene, camera_up)
    if plane is None:
        return Upright(camera_up, "cameras", None)
    return Upright(plane[0], "ground plane", plane[1])


def horizontal_axes(
    scene: Scene, up_world: Float[np.ndarray, " 3"]
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Unit vectors (right, ahead) that span the horizontal plane, as the first camera sees it."""
    T = scene.T_world_camera[0]
    ahead = T[:3, 2] - (T[:3, 2] @ up_world) * up_world
    # A camera that looks straight down or up has its ahead in the image's upward direction.
    fallback = -T[:3, 1] + (T[:3, 1] @ up_world) * up_world
    ahead = _unit(ahead if np.linalg.norm(ahead) > 0.2 else fallback, T[:3, 0])
    return np.cross(ahead, up_world), ahead


def first_view(scene: Scene, up_world: Float[np.ndarray, " 3"]) -> FirstView:
    """A view from behind and above the first camera towards the median of the static points."""
    points = sample_static(scene, 4000)
    T, unit = scene.T_world_camera[0], scene.median_depth
    look_at = np.median(points, axis=0) if len(points) else T[:3, 3] + unit * T[:3, 2]
    _, ahead = horizontal_axes(scene, up_world)
    return FirstView(T[:3, 3] + unit * (0.30 * up_world - 0.40 * ahead), look_at)


def sample_static(scene: Scene, count: int) -> Float[np.ndarray, "k 3"]:
    """About `count` static points of the surer four fifths, spread over frames and pixels."""
    threshold = scene.confidence_threshold(0.2)
    frames = np.unique(np.linspace(0, len(scene) - 1, min(len(scene), 16)).astype(int))
    rng = np.random.default_rng(0)
    found = [np.zeros((0, 3))]
    for t in frames:
        chosen = np.flatnonzero(scene.select(int(t), min_confidence=threshold, which="static"))
        few = rng.permutation(chosen)[: -(-count // len(frames))]
        thin = np.zeros(scene.size_hw, dtype=bool)
        thin.reshape(-1)[few] = True
        found.append(scene.points_of(int(t), thin).points_world.astype(np.float64))
    return np.concatenate(found)


def _ground_plane(
    points: Float[np.ndarray, "k 3"],
    scene: Scene,
    camera_up: Float[np.ndarray, " 3"],
    up_world: Float[np.ndarray, " 3"] | None = None,
) -> tuple[np.ndarray, float] | None:
    """(normal, height) of the best ground-like plane, or None; `up_world`: its normal, if known."""
    if len(points) < 100:
        return None
    thickness = _THICKNESS * scene.median_depth
    centres = scene.T_world_camera[:, :3, 3]
    triples = points[np.random.default_rng(0).integers(0, len(points), (400, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9 * scene.median_depth**2
    normals = normals[usable] / lengths[usable, None]
    normals *= np.where(normals @ camera_up < 0, -1.0, 1.0)[:, None]
    if up_world is not None:
        camera_up, usable = up_world, np.ones(len(triples), bool)
        normals = np.tile(up_world, (len(triples), 1))
    heights = (normals * triples[usable, 0]).sum(axis=1)

    def judge(normals: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """Share of points on each plane; 0 for planes that are no ground."""
        above = points @ normals.T - heights
        share = (np.abs(above) < thickness).mean(axis=0)
        good = (above < -2 * thickness).mean(axis=0) <= _MAX_BELOW
        good &= (centres @ normals.T - heights > thickness).mean(axis=0) >= 0.9
        good &= normals @ camera_up > np.cos(np.radians(_MAX_TILT_DEG))
        return np.where(good & (share >= _MIN_SHARE), share, 0.0)

    shares = judge(normals, heights)
    if not shares.any():
        return None
    best = int(np.argmax(shares))
    normal, height = normals[best], float(heights[best])
    if up_world is not None:
        return normal, height
    for _ in range(2):
        on_plane = points[np.abs(points @ normal - height) < thickness]
        middle = on_plane.mean(axis=0)
        refined = np.linalg.svd(on_plane - middle, full_matrices=False)[2][2]
        refined = refined * (1.0 if refined @ camera_up > 0 else -1.0)
        if judge(refined[None], np.array([refined @ middle]))[0] == 0:
            break
        normal, height = refined, float(refined @ middle)
    return normal, height


def _unit(vector: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0.1 else fallback / np.linalg.norm(fallback)
