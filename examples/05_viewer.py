"""A scene from your own depth, cameras and masks, written as a web page and an image.

python examples/05_viewer.py
"""

import numpy as np

import dyn3r
from dyn3r.assets.demo import DEMO_FPS, demo_clip_folder
from dyn3r.viewer import Appearance, save_recording, write_screenshot

folder = demo_clip_folder()  # here: ground truth of the bundled clip
clip = dyn3r.read_clip(folder / "frames", size=320, fps=DEMO_FPS)
depth = np.load(folder / "depth.npz")["depth"]
camera = np.load(folder / "camera.npz")

scene = dyn3r.Scene(
    images=clip.images,
    depth=depth,
    confidence=np.ones(depth.shape),
    dynamic=np.load(folder / "dynamic.npz")["mask"],
    K=np.tile(camera["K"], (len(clip), 1, 1)),
    T_world_camera=camera["cam2world"],
    mapping=clip.mapping,
    names=clip.names,
    times_s=clip.times_s,
    fps=clip.fps,
)

# scene.show() opens the scene in the browser, or below the cell in a notebook. As files:
page = save_recording(scene, "scene.html", appearance=Appearance(step_static=2), overwrite=True)
write_screenshot(scene, "scene.png", frame=8, overwrite=True)
print(f"open {page} in any browser; scene.png is its first view")
