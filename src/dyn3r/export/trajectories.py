"""Camera trajectories as text: TUM and KITTI. World axes are the scene's, cameras are OpenCV's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.export.camera_conventions import quaternions_wxyz
from dyn3r.export.options import ExportOptions, QuaternionOrder
from dyn3r.scene import Scene
from dyn3r.types import Progress


def write_tum(
    scene: Scene,
    path: Path,
    options: ExportOptions,
    _progress: Progress,
) -> None:
    """Write lines `t tx ty tz qx qy qz qw`, camera to world, t in seconds."""
    path.write_text(tum_text(scene.T_world_camera, scene.times_s, options.quaternion))


def write_kitti(
    scene: Scene,
    path: Path,
    _options: ExportOptions,
    _progress: Progress,
) -> None:
    """Write the 3x4 camera-to-world matrix of each frame, row by row: twelve numbers per line."""
    rows = scene.T_world_camera[:, :3].reshape(len(scene), 12)
    path.write_text("".join(" ".join(map(_number, row)) + "\n" for row in rows))


def tum_text(
    T_world_camera: Float[np.ndarray, "n 4 4"],
    times_s: Float[np.ndarray, " n"],
    order: QuaternionOrder = "xyzw",
) -> str:
    """Content of a TUM trajectory file; the header names the columns."""
    quat = quaternions_wxyz(T_world_camera)
    if order == "xyzw":
        quat = np.roll(quat, -1, axis=1)
    table = np.concatenate([times_s[:, None], T_world_camera[:, :3, 3], quat], axis=1)
    header = f"# timestamp tx ty tz {' '.join(f'q{axis}' for axis in order)}\n"
    return header + "".join(" ".join(map(_number, row)) + "\n" for row in table)


def _number(value: float) -> str:
    return f"{value + 0.0:.9g}"  # + 0.0 removes the sign of -0.0
