"""What moves: from attention (SPEC 4), optical flow (SPEC 7), or a motion head (ours)."""

from dyn3r.errors import InputError
from dyn3r.motion.attention_cue import find_motion, motion_from_masks, with_more
from dyn3r.motion.background_model import OtherFrames, other_frames
from dyn3r.motion.combine import combine_motion
from dyn3r.motion.flow_options import FlowMotionOptions
from dyn3r.motion.flow_residual import flow_evidence, flow_residual_motion
from dyn3r.motion.learned import LearnedMotionOptions, fuse_motion, learned_motion
from dyn3r.motion.mask_refiner import MaskRefiner
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.sam2 import Sam2Refiner
from dyn3r.motion.smoothing import EdgeRefiner
from dyn3r.network.patches import token_mask

__all__ = [
    "MaskRefiner",
    "mask_refiner",
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


def mask_refiner(name: str, device: str = "cpu") -> MaskRefiner:
    """The refiner called `edges`, `sam2` or `sam2:WEIGHTS` (a folder, or a name on the hub).

    `device` is where SAM 2 runs. Nothing is loaded before masks are to be refined. Raises
    InputError for another name.
    """
    kind, _, weights = name.partition(":")
    if name == "edges":
        return EdgeRefiner()
    if kind == "sam2" and (weights or name == kind):
        return Sam2Refiner(weights, device=device) if weights else Sam2Refiner(device=device)
    raise InputError(
        f"there is no way '{name}' to refine masks: choose none, edges, sam2 or sam2:FOLDER"
    )
