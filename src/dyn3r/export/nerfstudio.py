"""nerfstudio: transforms.json with images, masks, depth and an initial point cloud.

Cameras are OpenGL's (x right, y up, z backward), camera to world. The world is z-up. Integer
coordinates are pixel corners. Masks are black on pixels that are *not* to be used. Depth is in
thousandths of the unit (nerfstudio's default `depth_unit_scale_factor` 0.001).

Poses, points and depth have one unit. There is no `applied_scale`: nerfstudio's loader multiplies
points and depth by it, but not poses (nerfstudio 1.1.5, `nerfstudio_dataparser.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.export.camera_conventions import (
    OPENGL_FROM_OPENCV,
    K_at_pixel_corners,
    is_K_constant,
    transform_points,
    z_up,
)
from dyn3r.export.depth_maps import depth_to_16_bit
from dyn3r.export.frame_images import Size, chosen_size, intrinsics, read_frames, sizes_hw
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.export.pixels import write_mask, write_rgb, write_uint16
from dyn3r.export.ply import ply_bytes
from dyn3r.io.atomic import write_json
from dyn3r.scene import PointCloud, Scene, static_points
from dyn3r.types import Progress

DEFAULT_POINTS = 100_000
_DEPTH_STEP = 1e-3  # exported units per step of the 16-bit depth


def write_nerfstudio(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress
) -> None:
    """Write `transforms.json`, `images/`, `masks/`, `depths/`, `sparse_pc.ply`.

    Raises:
        InputError: source resolution without source images.
    """
    size = chosen_size(options)
    if size == "source" and options.source is None:
        raise InputError(
            "nerfstudio at source resolution needs the source images: give them (--source) "
            "or choose the prepared resolution"
        )
    scale = unit_scale(scene)
    paths: list[dict[str, str]] = []
    stems = frame_stems(scene)
    for name in ("images", "masks", "depths"):
        (folder / name).mkdir()
    for t, frame in enumerate(read_frames(scene, options, size)):
        progress("writing images", t, len(scene))
        assert frame.image is not None
        files = {
            "file_path": f"images/{stems[t]}.{'png' if size == 'prepared' else 'jpg'}",
            "mask_path": f"masks/{stems[t]}.png",
            "depth_file_path": f"depths/{stems[t]}.png",
        }
        write_rgb(folder / files["file_path"], frame.image)
        write_mask(folder / files["mask_path"], ~frame.dynamic)
        in_range = np.where(frame.depth * scale <= 65535 * _DEPTH_STEP, frame.depth, 0.0)
        values = depth_to_16_bit(in_range, _DEPTH_STEP / scale)
        write_uint16(folder / files["depth_file_path"], values)
        paths.append(files)
    progress("writing images", len(scene), len(scene))
    T = z_up(scene)
    cloud = static_points(
        scene,
        min_confidence=scene.confidence_threshold(options.drop),
        max_points=options.max_points or DEFAULT_POINTS,
    )
    points = (scale * transform_points(T, cloud.points_world)).astype(np.float32)
    (folder / "sparse_pc.ply").write_bytes(ply_bytes(PointCloud(points, cloud.colors)))
    write_json(folder / "transforms.json", transforms(scene, size, T, scale, paths))


def unit_scale(scene: Scene) -> float:
    """Power of ten that brings the median depth into 1..10, so that 16 bits suffice for the depth.

    It is `unit_per_scene_unit` in transforms.json, which nerfstudio does not read.
    """
    return float(10.0 ** -np.floor(np.log10(scene.median_depth)))


def transforms(
    scene: Scene,
    size: Size,
    T_new_world: Float[np.ndarray, "4 4"],
    scale: float,
    paths: list[dict[str, str]],
) -> dict[str, Any]:
    """Content of transforms.json; `paths` are the file paths of each frame."""
    sizes = sizes_hw(scene, size)
    K = K_at_pixel_corners(intrinsics(scene, size))
    lenses = [
        {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": width, "h": height}
        for k, (height, width) in zip(K, sizes)
    ]
    T = T_new_world @ scene.T_world_camera @ OPENGL_FROM_OPENCV
    T[:, :3, 3] *= scale
    applied = T_new_world[:3].copy()  # of the scene in the exported unit
    applied[:, 3] *= scale
    shared = is_K_constant(K) and len(set(sizes)) == 1
    frames = [
        {
            **files,
            **({} if shared else lenses[t]),
            "transform_matrix": T[t].tolist(),
            "time": float(scene.times_s[t]),
        }
        for t, files in enumerate(paths)
    ]
    return {
        "camera_model": "OPENCV",
        **(lenses[0] if shared else {}),
        "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "applied_transform": applied.tolist(),
        "unit_per_scene_unit": scale,
        "ply_file_path": "sparse_pc.ply",
        "frames": frames,
    }  # fmt: skip
