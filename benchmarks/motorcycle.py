"""Accuracy on a real stereo pair with true disparity; prints one Markdown table.

    python benchmarks/motorcycle.py [--models compact ...] [--size N] [--picture FILE.png]

The pair is Motorcycle of Middlebury 2014 at quarter size, which is part of scikit-image: two views
of a static scene, the second 0.193 m to the right of the first and parallel to it. Motion is not
estimated. Depth is compared after one (median) scale, on the left image, where the true disparity
is known. `direction` is the angle between the true and the estimated baseline.

dyn3r (like DUSt3R) assumes the principal point in the middle of the image. Here it is 59 pixels
left of the middle in the left image and 31 pixels further right (`doffs`) in the right one, which
looks like a rotation by 1.8 degrees. So both images are cropped until it is in the middle of both;
`uncropped` is the original pair, whose depth error is that of these 31 pixels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import dyn3r
from dyn3r.datasets.folder import write_truth_folder
from dyn3r.evaluation import evaluate
from dyn3r.evaluation.trajectory import rotation_angle_deg
from dyn3r.motion.options import MotionOptions
from dyn3r.options import Options
from dyn3r.scene.pictures import find_limits, panels

FOCAL, CENTRE, BASELINE_M, DOFFS = 994.978, (311.193, 254.877), 0.193001, 31.086


def write_pair(folder: Path, crop: bool) -> None:
    """Write the pair in the layout of our test clips: frames, depth, masks, cameras.

    `crop`: the principal point is in the middle of both images.
    """
    left, right, disparity = data.stereo_motorcycle()
    (cx, cy), aside = CENTRE, 0
    if crop:
        aside, wide, high = round(DOFFS), round(2 * cx) + 1, disparity.shape[0]
        top = round(2 * cy + 1) - high
        left, disparity = left[top:, :wide], disparity[top:, :wide]
        right, cy = right[top:, aside : aside + wide], cy - top
    known = np.isfinite(disparity) & (disparity + DOFFS > 0)
    depth = np.zeros((2, *disparity.shape), np.float32)
    depth[0][known] = FOCAL * BASELINE_M / (disparity[known] + DOFFS)
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 0, 3] = BASELINE_M
    K = np.array([[FOCAL, 0, cx], [0, FOCAL, cy], [0, 0, 1]])
    write_truth_folder(
        folder, (left, right), T_world_camera=T, K=K, depth=depth,
        dynamic=np.zeros(depth.shape, bool), names=("0_left", "1_right"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["compact"])
    parser.add_argument("--size", type=int)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    print("| images | model | abs rel | d<1.25 | abs rel (s+s) | rotation | direction | focal |")
    print("|---|---|---|---|---|---|---|---|")
    for crop in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "pair"
            write_pair(folder, crop)
            shown = compare(folder, "cropped" if crop else "uncropped", args.models, args.size)
        if crop and args.picture:
            Image.fromarray(shown).save(args.picture)


def compare(folder: Path, images: str, models: list[str], size: int | None) -> np.ndarray:
    """Print a row per model and one of constant depth; return the last model's image and depth."""
    for model_name in models:
        model = dyn3r.load_model(model_name)
        clip = dyn3r.read_clip(folder / "frames", size=size or model.image_size)
        scene = dyn3r.reconstruct(clip, model, Options(motion=MotionOptions(cue="none")))
        result = evaluate(scene, folder)
        right_in_left = np.linalg.inv(scene.T_world_camera[0]) @ scene.T_world_camera[1]
        turn = float(rotation_angle_deg(right_in_left[:3, :3]))
        way = right_in_left[:3, 3] / np.linalg.norm(right_in_left[:3, 3])
        ours = result.scene
        print(
            f"| {images} | {Path(model_name).stem} | {ours.depth.abs_rel:.3f} "
            f"| {100 * ours.depth.delta1:.1f} % | {ours.depth_scale_shift.abs_rel:.3f} "
            f"| {turn:.2f} deg | {np.degrees(np.arccos(np.clip(way[0], -1, 1))):.1f} deg "
            f"| {100 * (ours.focal_error or 0):.1f} % |",
            flush=True,
        )
    base = result.baseline
    print(
        f"| {images} | constant depth | {base.depth.abs_rel:.3f} "
        f"| {100 * base.depth.delta1:.1f} % | {base.depth_scale_shift.abs_rel:.3f} "
        "| 0.00 deg | - | - |"
    )
    return np.concatenate(panels(scene, 0, find_limits(scene))[:2], axis=1)


if __name__ == "__main__":
    main()
