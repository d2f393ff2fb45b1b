"""For people who build on it: the network's raw answers, and motion masks made from them.

python examples/02_pairs_and_motion.py
"""

import dyn3r
from dyn3r.assets.demo import demo_clip_folder

model = dyn3r.load_model("compact")
clip = dyn3r.read_clip(demo_clip_folder() / "frames", size=model.image_size, num_frames=6)
edges = dyn3r.make_pairs("swinstride-3-noncyclic", len(clip))

tokens = dyn3r.encode_frames(model, clip)  # once per frame, for both passes
first = dyn3r.predict_pairs(model, clip, edges, tokens=tokens, heads=False)  # scores only
motion = dyn3r.find_motion(first.scores1, first.scores2, edges, tokens.features, clip.size_hw)
print(motion.reason)

second = dyn3r.predict_pairs(model, clip, edges, motion.masks, tokens=tokens)
print(
    "points of frame i and of frame j, both in camera i:",
    second.points1.shape,
    second.points2.shape,
)
print("confidences:", second.conf1.shape, "attention scores:", second.scores1.shape)

result = dyn3r.align(second, dynamic=motion.masks)
print("objective:", {name: round(value, 4) for name, value in result.terms.items()})
print("last camera:\n", result.T_world_camera[-1].round(3))
