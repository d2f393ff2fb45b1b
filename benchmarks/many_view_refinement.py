"""What refinement does to many-view predictions of a known error; prints one Markdown table.

    python benchmarks/many_view_refinement.py CLIPS_FOLDER [--depth 0.05 0.15]

The published weights of many-view networks could not be run where dyn3r is developed. So their
predictions are simulated: true depth and cameras of clips with ground truth (the layout of the
bundled one), with errors. Log depth gets a smooth error of the given standard deviation in every
frame and a scale of its own (20 % of it); cameras get errors of 0.3 degrees and of 1 % of the
length of the path; the focal length is 3 % off, and 1 % more in every frame. The two statements of
the network about its cameras differ as much. The table compares the
prediction, after bundle adjustment, after multi-view depth too, and with ground contact. It says
what the stages do to errors of this kind, not how good a network is.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dyn3r
import dyn3r.alignment.many_view
import dyn3r.pipeline
from dyn3r.evaluation import evaluate
from dyn3r.evaluation.truth import read_truth
from dyn3r.geometry.ground_contact import snap_to_ground_contact
from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import ManyViewConfig
from dyn3r.network.model import prepare_model
from dyn3r.network.predict_views import ViewPrediction
from dyn3r.types import Clip, Geometry

ROTATION_DEG, PATH_SHARE, FOCAL, FOCAL_OF_FRAME = 0.3, 0.01, 0.03, 0.01
GRID = (5, 7)
"""Cells of the smooth error of depth."""


def simulated(clip: Clip, folder: Path, depth_error: float) -> Any:
    """A network whose output is the truth with errors; the same errors in every run."""
    import cv2

    truth = read_truth(folder, clip.mapping, clip.names)
    assert truth.depth is not None
    assert truth.T_world_camera is not None
    assert truth.K is not None
    random = np.random.default_rng(0)
    n, h, w = truth.depth.shape
    depth = np.where(truth.depth > 0, truth.depth, truth.depth.max())
    for t in range(n):
        error = cv2.resize(random.normal(size=GRID), (w, h), interpolation=cv2.INTER_CUBIC)
        error *= depth_error / error.std()
        depth[t] *= np.exp(error + depth_error / 5 * random.normal())
    T = truth.T_world_camera.copy()
    path = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).sum()
    turn = np.radians(ROTATION_DEG) * random.normal(size=(n, 3)) / 3**0.5
    T[:, :3, :3] @= rotvec_to_rotmat(torch.from_numpy(turn)).numpy()
    T[:, :3, 3] += PATH_SHARE * path * random.normal(size=(n, 3)) / 3**0.5
    log_focal = np.log(truth.K[:, 0, 0]) + FOCAL + FOCAL_OF_FRAME * random.normal(size=n)
    focal = np.exp(log_focal)[:, None] * [1.0, 1.0]
    moved = PATH_SHARE * path / np.median(depth)
    disagreement = np.tile([ROTATION_DEG, FOCAL_OF_FRAME, moved], (n, 1))

    def predict(model: Any, images: np.ndarray, **more: Any) -> ViewPrediction:
        assert len(images) == n, "one window"
        confidence = np.full(depth.shape, 2, np.float32)
        return ViewPrediction(T, focal, depth.astype(np.float32), confidence, disagreement)

    return predict


class Stages:
    """Geometry before and after every stage of a run, from one run."""

    def __init__(self) -> None:
        self.seen: dict[str, Geometry] = {}
        predict, sharpen = dyn3r.pipeline.many_view_geometry, dyn3r.pipeline.multi_view_depth

        def predicting(*args: Any, **named: Any) -> Any:
            self.seen.clear()
            found = predict(*args, **named)
            self.seen["prediction"] = found[0]
            return found

        def sharpening(geometry: Geometry, images: np.ndarray, **named: Any) -> Geometry:
            self.seen["+ bundle adjustment"] = geometry
            out = self.seen["+ multi-view depth"] = sharpen(geometry, images, **named)
            if named["dynamic"] is not None:
                depth = snap_to_ground_contact(out.depth, named["dynamic"])
                self.seen["+ ground contact"] = replace(out, depth=depth)
            return out

        dyn3r.pipeline.many_view_geometry = predicting
        dyn3r.pipeline.multi_view_depth = sharpening


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--depth", type=float, nargs="+", default=[0.05, 0.15])
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    facts = {"motion_cue": "flow", "bundle": "on", "refine": "edges"}
    model = prepare_model(ManyViewNetwork(ManyViewConfig()), "sim", device="cpu", facts=facts)
    head = ("clip", "depth error", "stage", "abs rel", "d<1.25", "abs rel (s+s)", "ATE/path",
            "rot deg", "focal", "J")  # fmt: skip
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    stages = Stages()
    for depth_error in args.depth:
        for folder in sorted(p.parent for p in args.clips.glob("*/camera.npz")):
            clip = dyn3r.read_clip(folder / "frames", size=args.size)
            dyn3r.alignment.many_view.predict_views = simulated(clip, folder, depth_error)
            scene = dyn3r.reconstruct(clip, model)
            for stage, seen in stages.seen.items():
                values = {name: getattr(seen, name) for name in ("depth", "K", "T_world_camera")}
                ours = evaluate(replace(scene, **values), folder).scene
                row = (
                    folder.name, f"{depth_error:g}", stage, f"{ours.depth.abs_rel:.3f}",
                    f"{100 * ours.depth.delta1:.1f} %", f"{ours.depth_scale_shift.abs_rel:.3f}",
                    f"{100 * ours.trajectory.ate_share:.2f} %",
                    f"{ours.trajectory.rotation_deg:.2f}", f"{100 * ours.focal_error:.1f} %",
                    f"{ours.masks.j_mean:.2f}",
                )  # fmt: skip
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
