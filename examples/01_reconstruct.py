"""Reconstruct a video, or the bundled clip, and use the scene.

python examples/01_reconstruct.py [VIDEO_OR_FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import dyn3r
from dyn3r.assets.demo import demo_clip_folder

source = Path(sys.argv[1]) if len(sys.argv) > 1 else demo_clip_folder() / "frames"
model = dyn3r.load_model("compact")
clip = dyn3r.read_clip(source, size=model.image_size, fit=model.fit(), num_frames=8)
scene = dyn3r.reconstruct(clip, model, dyn3r.Options(method="auto"))

focal = scene.K[0, 0, 0]
print(f"{len(scene)} frames, focal length {focal:.0f} pixels at a width of {scene.size_hw[1]}")
print(
    f"median depth {scene.median_depth:.3f}, {scene.dynamic.mean():.1%} of the pixels are dynamic"
)
steps = np.linalg.norm(np.diff(scene.T_world_camera[:, :3, 3], axis=0), axis=1)
print(f"camera path: {steps.sum() / scene.median_depth:.3f} median depths")

points, colors = scene.points(0, min_confidence=scene.confidence_threshold(0.2))
print(f"frame 0: {len(points)} points, the first at {points[0].round(3)} with colour {colors[0]}")

path = scene.save(Path(tempfile.mkdtemp()) / "scene.dyn3r")
assert len(dyn3r.Scene.load(path)) == len(scene)
print(f"saved {path}; look at it with: dyn3r view {path}")
