"""nerfstudio: transforms.json with pictures, masks, depth and a point cloud to start from.

Cameras are OpenGL's (x right, y up, z backward), camera to world; the world is z-up; integer
coordinates are pixel corners; masks are black where pixels are *not* to be used; depth is in
thousandths of the unit (nerfstudio's default `depth_unit_scale_factor` 0.001).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.export.camera_conventions import OPENGL_FROM_OPENCV, corner_K, move, one_K, z_up
from dyn3r.export.depth_maps import depth_to_16_bit
from dyn3r.export.frame_images import Size, chosen_size, intrinsics, read_frames, size_hw
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.export.pixels import write_deep, write_mask, write_photo
from dyn3r.export.ply import ply_bytes
from dyn3r.io.atomic import write_json
from dyn3r.scene import PointCloud, Scene, static_points
from dyn3r.types import Progress

DEFAULT_POINTS = 100_000
_STEP = 1e-3  # of the exported unit; what nerfstudio takes a depth value of 1 for


def write_nerfstudio(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress
) -> None:
    """`transforms.json`, `images/`, `masks/`, `depths/`, `sparse_pc.ply`.

    Raises:
        InputError: source resolution was asked for without source pictures.
    """
    size = chosen_size(options)
    if size == "source" and options.source is None:
        raise InputError(
            "nerfstudio needs the pictures themselves: give the source pictures (--source) "
            "or choose the prepared resolution"
        )
    scale = unit_scale(scene)
    places: list[dict[str, str]] = []
    stems = frame_stems(scene)
    for name in ("images", "masks", "depths"):
        (folder / name).mkdir()
    for t, frame in enumerate(read_frames(scene, options, size)):
        progress("writing pictures", t, len(scene))
        assert frame.image is not None
        place = {
            "file_path": f"images/{stems[t]}.{'png' if size == 'prepared' else 'jpg'}",
            "mask_path": f"masks/{stems[t]}.png",
            "depth_file_path": f"depths/{stems[t]}.png",
        }
        write_photo(folder / place["file_path"], frame.image)
        write_mask(folder / place["mask_path"], ~frame.dynamic)
        reachable = np.where(frame.depth * scale <= 65535 * _STEP, frame.depth, 0.0)
        write_deep(folder / place["depth_file_path"], depth_to_16_bit(reachable, _STEP / scale))
        places.append(place)
    progress("writing pictures", len(scene), len(scene))
    T = z_up(scene)
    cloud = static_points(
        scene,
        min_confidence=scene.confidence_threshold(options.drop),
        max_points=options.max_points or DEFAULT_POINTS,
    )
    moved = PointCloud((scale * move(T, cloud.points_world)).astype(np.float32), cloud.colors)
    (folder / "sparse_pc.ply").write_bytes(ply_bytes(moved))
    write_json(folder / "transforms.json", transforms(scene, size, T, scale, places))


def unit_scale(scene: Scene) -> float:
    """A power of ten that brings the median depth into 1..10, so that 16 bits hold the depth.

    The unit is arbitrary anyway; `applied_scale` in transforms.json has it.
    """
    return float(10.0 ** -np.floor(np.log10(scene.median_depth)))


def transforms(
    scene: Scene,
    size: Size,
    T_new_world: Float[np.ndarray, "4 4"],
    scale: float,
    places: list[dict[str, str]],
) -> dict[str, Any]:
    """The content of transforms.json; `places` are the file paths of each frame."""
    height, width = size_hw(scene, size)
    K = corner_K(intrinsics(scene, size))
    lenses = [
        {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height}
        for k in K
    ]
    T = T_new_world @ scene.T_world_camera @ OPENGL_FROM_OPENCV
    T[:, :3, 3] *= scale
    shared = one_K(K)
    frames = [
        {
            **place,
            **({} if shared else lenses[t]),
            "transform_matrix": T[t].tolist(),
            "time": float(scene.times_s[t]),
        }
        for t, place in enumerate(places)
    ]
    return {
        "camera_model": "OPENCV",
        **(lenses[0] if shared else {}),
        "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "applied_transform": T_new_world[:3].tolist(),
        "applied_scale": scale,
        "ply_file_path": "sparse_pc.ply",
        "frames": frames,
    }  # fmt: skip
