"""What moves: attention scores -> dynamic map -> segments -> masks (SPEC section 4)."""

from dyn3r.motion.find import find_motion, motion_from_masks
from dyn3r.motion.options import MotionOptions
from dyn3r.patches import token_mask

__all__ = ["MotionOptions", "find_motion", "motion_from_masks", "token_mask"]
