"""How good models are on a real stereo pair with true disparity; prints one Markdown table.

    python benchmarks/motorcycle.py [--models compact ...] [--size N] [--picture FILE.png]

The pair is Middlebury 2014's Motorcycle at quarter size, which scikit-image carries. Two views of a
still scene, the second 0.193 m to the right of the first and parallel to it; nothing moves, so
motion is not looked for. Depth is compared after one (median) scale, on the left picture, where the
true disparity is known. `direction` is the angle between the true and the found way from the left
camera to the right one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import dyn3r
from dyn3r.metrics import evaluate
from dyn3r.metrics.trajectory import rotation_angle_deg
from dyn3r.pictures import find_limits, panels

FOCAL, CENTRE, BASELINE_M, DOFFS = 994.978, (311.193, 254.877), 0.193001, 31.086


def write_pair(folder: Path) -> None:
    """The pair in the layout of our test clips: frames, depth, masks, cameras."""
    left, right, disparity = data.stereo_motorcycle()
    (folder / "frames").mkdir()
    for name, picture in (("0_left", left), ("1_right", right)):
        Image.fromarray(picture).save(folder / "frames" / f"{name}.png")
    known = np.isfinite(disparity) & (disparity + DOFFS > 0)
    depth = np.zeros((2, *disparity.shape), np.float32)
    depth[0][known] = FOCAL * BASELINE_M / (disparity[known] + DOFFS)
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 0, 3] = BASELINE_M
    K = np.array([[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]])
    np.savez(folder / "depth.npz", depth=depth)
    np.savez(folder / "dynamic.npz", mask=np.zeros(depth.shape, bool))
    np.savez(folder / "camera.npz", cam2world=T, K=K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["compact"])
    parser.add_argument("--size", type=int)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    print("| model | abs rel | d<1.25 | abs rel (s+s) | rotation | direction | focal |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pair(folder)
        for model_name in args.models:
            model = dyn3r.load_model(model_name)
            clip = dyn3r.read_clip(folder / "frames", size=args.size or model.image_size)
            scene = dyn3r.reconstruct(clip, model, dyn3r.Options(motion="none"))
            result = evaluate(scene, folder)
            right_in_left = np.linalg.inv(scene.T_world_camera[0]) @ scene.T_world_camera[1]
            turn = float(rotation_angle_deg(right_in_left[:3, :3]))
            way = right_in_left[:3, 3] / np.linalg.norm(right_in_left[:3, 3])
            ours = result.scene
            print(
                f"| {Path(model_name).stem} | {ours.depth.abs_rel:.3f} "
                f"| {100 * ours.depth.delta1:.1f} % | {ours.depth_scale_shift.abs_rel:.3f} "
                f"| {turn:.2f} deg | {np.degrees(np.arccos(np.clip(way[0], -1, 1))):.1f} deg "
                f"| {100 * (ours.focal_error or 0):.1f} % |",
                flush=True,
            )
        base = result.baseline
        print(f"| flat wall | {base.depth.abs_rel:.3f} | {100 * base.depth.delta1:.1f} % "
              f"| {base.depth_scale_shift.abs_rel:.3f} | 0.00 deg | - | - |")  # fmt: skip
        if args.picture:
            shown = panels(scene, 0, find_limits(scene))
            Image.fromarray(np.concatenate(shown[:2], axis=1)).save(args.picture)


if __name__ == "__main__":
    main()
