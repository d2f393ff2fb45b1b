"""Tiny trees in exactly the layouts of the training sets, of the plane world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dyn3r.export.pixels import write_exr, write_rgb
from tests.datasets.plane_world import PlaneWorld, numbers, save_png, save_text

NED_FROM_CV = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
"""x forward, y right, z down from x right, y down, z forward."""


def save_jpg(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_rgb(file, image)


def write_pointodyssey(split: Path, name: str, world: PlaneWorld, tracks: int = 20) -> Path:
    """A sequence; its info.npz announces `tracks` tracks, or is empty for 0."""
    folder, n = split / name, len(world)
    for i in range(n):
        save_jpg(folder / f"rgbs/rgb_{i:05d}.jpg", world.images[i])
        metres = np.round(world.depth[i] * 65535 / 1000)
        save_png(folder / f"depths/depth_{i:05d}.png", metres.astype(np.uint16))
    np.savez(
        folder / "anno.npz",
        intrinsics=np.tile(world.K, (n, 1, 1)).astype(np.float32),
        extrinsics=np.linalg.inv(world.T_world_camera),
        trajs_3d=np.zeros((n, tracks, 3), np.float32),
    )
    np.savez(folder / "info.npz", **({"trajs_3d": np.array([n, tracks, 3])} if tracks else {}))
    return folder


def write_tartanair(folder: Path, world: PlaneWorld) -> Path:
    """A recording P000 in `folder`, its poses with x forward, y right, z down."""
    lines = []
    for i in range(len(world)):
        save_png(folder / f"image_left/{i:06d}_left.png", world.images[i])
        file = folder / f"depth_left/{i:06d}_left_depth.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, world.depth[i].astype(np.float32))
        R, t = world.T_world_camera[i][:3, :3], world.T_world_camera[i][:3, 3]
        turned = Rotation.from_matrix(NED_FROM_CV @ R @ NED_FROM_CV.T).as_quat()
        lines.append(f"{numbers(NED_FROM_CV @ t)} {numbers(turned)}")
    save_text(folder / "pose_left.txt", *lines)
    return folder


def write_spring(folder: Path, world: PlaneWorld, zoom: np.ndarray) -> Path:
    """A sequence of frames from 1, whose focal lengths are those of the world times `zoom`.

    Disparity has twice the picture's size; only its even rows and columns are right.
    """
    import h5py

    for i in range(len(world)):
        save_png(folder / f"frame_left/frame_left_{i + 1:04d}.png", world.images[i])
        disparity = np.full([2 * side for side in world.depth[i].shape], 12345.0, np.float32)
        disparity[::2, ::2] = world.K[0, 0] * zoom[i] * 0.065 / world.depth[i]
        file = folder / f"disp1_left/disp1_left_{i + 1:04d}.dsp5"
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as content:
            content.create_dataset("disparity", data=disparity, compression="gzip")
    K = world.K
    focal = [f"{K[0, 0] * z} {K[1, 1] * z} {K[0, 2]} {K[1, 2]}" for z in zoom]
    save_text(folder / "cam_data/intrinsics.txt", *focal)
    w2c = np.linalg.inv(world.T_world_camera)
    save_text(folder / "cam_data/extrinsics.txt", *(numbers(T) for T in w2c))
    return folder


def write_waymo(folder: Path, world: PlaneWorld, cameras: tuple[int, ...] = (1,)) -> Path:
    """A prepared segment."""
    for i in range(len(world)):
        for camera in cameras:
            base = folder / f"{i:05d}_{camera}"
            save_jpg(base.with_suffix(".jpg"), world.images[i])
            write_exr(base.with_suffix(".exr"), world.depth[i].astype(np.float32))
            np.savez(
                base.with_suffix(".npz"),
                intrinsics=world.K.astype(np.float32),
                cam2world=world.T_world_camera[i].astype(np.float32),
                distortion=np.array([0.1, 0.2, 0, 0, 0]),
            )
    return folder


def write_truth_folder(folder: Path, world: PlaneWorld) -> Path:
    """A truth folder (docs/metrics.md)."""
    for i in range(len(world)):
        save_png(folder / f"frames/{i:05d}.png", world.images[i])
    np.savez(folder / "depth.npz", depth=world.depth.astype(np.float32))
    np.savez(folder / "dynamic.npz", mask=world.moving)
    np.savez(folder / "camera.npz", cam2world=world.T_world_camera, K=world.K)
    return folder
