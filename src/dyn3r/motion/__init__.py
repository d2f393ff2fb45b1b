"""What moves: from attention (SPEC 4), optical flow (SPEC 7), or a motion head (ours)."""

from dyn3r.motion.combine import combine_motion
from dyn3r.motion.consensus import OtherFrames, other_frames
from dyn3r.motion.find import find_motion, motion_from_masks, with_more
from dyn3r.motion.flow_options import FlowMotionOptions
from dyn3r.motion.flow_residual import flow_evidence, flow_residual_motion
from dyn3r.motion.learned import LearnedMotionOptions, fuse_motion, learned_motion
from dyn3r.motion.options import MotionOptions
from dyn3r.patches import token_mask

__all__ = [
    "FlowMotionOptions",
    "LearnedMotionOptions",
    "MotionOptions",
    "OtherFrames",
    "combine_motion",
    "find_motion",
    "flow_evidence",
    "flow_residual_motion",
    "fuse_motion",
    "learned_motion",
    "motion_from_masks",
    "other_frames",
    "token_mask",
    "with_more",
]
