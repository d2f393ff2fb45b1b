"""Output folder of the published programs (MonST3R, Easi3R), for tools that read it (SPEC 10).

Files that a Scene has no data for are left out: the initial confidences (`init_conf_*.npy`) and
the videos of attention maps and clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dyn3r.export.glb import glb_bytes
from dyn3r.export.options import ExportOptions
from dyn3r.export.pixels import write_mask, write_rgb
from dyn3r.export.trajectories import tum_text
from dyn3r.export.video_file import DEFAULT_FPS, side_by_side
from dyn3r.scene import Scene
from dyn3r.scene.background import grow
from dyn3r.scene.drawing import depth_picture, write_video
from dyn3r.scene.pictures import find_limits
from dyn3r.types import Progress


def write_official(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write all files at the resolution of the prepared frames; frames are numbered from 0."""
    numbers = np.arange(len(scene), dtype=float)
    trajectory = tum_text(scene.T_world_camera, numbers, options.quaternion)
    (folder / "pred_traj.txt").write_text(trajectory)
    rows = [" ".join(f"{value:.9g}" for value in K.reshape(9)) for K in scene.K]
    (folder / "pred_intrinsics.txt").write_text("\n".join(rows) + "\n")
    for t in range(len(scene)):
        progress("writing frames", t, len(scene))
        write_rgb(folder / f"frame_{t:04d}.png", scene.images[t])
        np.save(folder / f"frame_{t:04d}.npy", scene.depth[t], allow_pickle=False)
        np.save(folder / f"conf_{t}.npy", scene.confidence[t], allow_pickle=False)
        write_mask(folder / f"dynamic_mask_{t}.png", scene.dynamic[t])
        write_mask(folder / f"enlarged_dynamic_mask_{t}.png", grow(scene.dynamic[t], 1))
    progress("writing frames", len(scene), len(scene))
    (folder / "scene.glb").write_bytes(glb_bytes(scene, options))
    fps = scene.fps or DEFAULT_FPS
    _write_depth_gif(scene, folder / "_depth_maps.gif", fps)
    write_video(_mask_images(scene), folder / "0_dynamic_masks.mp4", fps=fps)
    rows_of_panels = side_by_side(scene, ("frames", "depth", "confidence"), progress)
    write_video(rows_of_panels, folder / "visualization.mp4", fps=fps)


def _mask_images(scene: Scene) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    for mask in scene.dynamic:
        yield np.repeat(mask[:, :, None].astype(np.uint8) * 255, 3, axis=2)


def _write_depth_gif(scene: Scene, path: Path, fps: float) -> None:
    limits = find_limits(scene).inverse_depth
    images = [Image.fromarray(depth_picture(depth, limits)) for depth in scene.depth]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], loop=0,
        duration=max(20, round(1000 / fps)),
    )  # fmt: skip
