"""Easi3R step by step: pairs, attention scores, motion masks, second pass, alignment.

python examples/02_pairs_and_motion.py
"""

import dyn3r
from dyn3r.assets.demo import demo_clip_folder

model = dyn3r.load_model("compact")
clip = dyn3r.read_clip(
    demo_clip_folder() / "frames", size=model.image_size, fit=model.fit(), num_frames=6
)
edges = dyn3r.make_pairs("swinstride-3-noncyclic", len(clip))

# first pass: attention scores only, without the heads
tokens = dyn3r.encode_frames(model, clip)
first = dyn3r.predict_pairs(model, clip, edges, tokens=tokens, heads=False)
motion = dyn3r.find_motion(first.scores1, first.scores2, edges, tokens.features, clip.size_hw)
print(motion.reason)

# second pass: static tokens of view 1 ignore dynamic tokens of view 2
second = dyn3r.predict_pairs(model, clip, edges, motion.masks, tokens=tokens)
print("pointmaps of frames i and j, both in camera i:", second.points1.shape, second.points2.shape)
print("confidences:", second.conf1.shape, "attention scores:", second.scores1.shape)

geometry = dyn3r.align(second, dynamic=motion.masks)
print("objective:", {name: round(value, 4) for name, value in geometry.diagnostics.terms.items()})
print("last camera to world:\n", geometry.T_world_camera[-1].round(3))
