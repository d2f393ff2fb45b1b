"""Resuming an earlier scene: only new frames are computed, tied to the known ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.scene.scene import PER_FRAME, Scene
from dyn3r.types import Clip, FrameMapping, Priors


@dataclass(frozen=True)
class Continuation:
    """What is left to compute of a clip whose beginning an earlier scene knows."""

    earlier: Scene
    clip: Clip
    """The last frames of the earlier scene, then the new ones."""
    skipped: int
    """Frames at the beginning of the whole clip that `clip` leaves out."""
    shared: int
    """How many frames of `clip` the earlier scene has."""
    priors: Priors
    """Cameras, depth and focal length of the shared frames, kept exactly."""

    def append(self, later: Scene) -> Scene:
        """The earlier scene, kept exactly, followed by the new frames of `later`."""
        earlier, new = self.earlier, slice(self.shared, None)

        def both(name: str) -> np.ndarray | None:
            first, second = getattr(earlier, name), getattr(later, name)
            if first is None or second is None or first.shape[1:] != second.shape[1:]:
                return None
            return np.concatenate([first, second[new]])

        names = ("images", "K", "T_world_camera", "times_s", *PER_FRAME)
        fields: dict[str, Any] = {name: both(name) for name in names}
        start = len(earlier) - self.shared
        notes = [
            *earlier.notes,
            f"frames {len(earlier)} to {len(earlier) + len(later) - self.shared - 1} were added "
            f"later; the notes that follow count frames from frame {start}",
            *later.notes,
        ]
        past = {"frames": len(earlier), "metadata": earlier.metadata}
        about = {key: value for key, value in later.metadata.items() if key != "unit"}
        if "unit" in earlier.metadata:  # of the same world
            about["unit"] = earlier.metadata["unit"]
        if earlier.verdict is not None and later.verdict is not None:
            about["verdict"] = earlier.verdict.worse(later.verdict).to_json()
        return Scene(
            **fields,
            mapping=_followed(earlier.mapping, later.mapping.part(range(self.shared, len(later)))),
            names=earlier.names + later.names[self.shared :],
            fps=earlier.fps,
            up_world=earlier.up_world,
            ground_height=earlier.ground_height,
            metadata={**about, "notes": notes, "continued_from": past},
        )


def continuation(
    clip: Clip, earlier: Scene, given: Priors, *, overlap_frames: int, shared_focal: bool
) -> Continuation:
    """Where a clip continues an earlier scene.

    The clip begins with a frame of the earlier scene (the first or a later one, identified by its
    name), has all that follow, and then new ones. Of the shared frames the last `overlap_frames`
    are used. `given`: priors of the caller, which must be empty.

    Raises InputError if they share no frames, the shared frames differ, or nothing is new.
    """
    if not (given.K is None and given.T_world_camera is None and given.depth is None):
        raise InputError("known cameras or depth and an earlier scene can't be combined")
    _check_same_frames(clip, earlier)
    first = earlier.names.index(clip.names[0])
    known = len(earlier) - first
    shared = min(known, max(1, overlap_frames))
    rows = slice(known - shared, None)
    part = clip.part(rows)
    priors = _priors(earlier, shared, len(part), shared_focal=shared_focal)
    return Continuation(earlier, part, known - shared, shared, priors)


def _followed(earlier: FrameMapping, new: FrameMapping) -> FrameMapping:
    """The mapping of the frames of an earlier scene and of new ones."""
    return replace(earlier, frame_mappings=earlier.frame_mappings + new.frame_mappings)


def _agree(clip: Clip, earlier: Scene) -> bool:
    """Whether the mappings are the same, for the frames that both have."""
    if clip.mapping.is_mixed != earlier.mapping.is_mixed or clip.size_hw != earlier.size_hw:
        return False
    if not clip.mapping.is_mixed:
        return clip.mapping == earlier.mapping
    known = earlier.mapping.frame_mappings[earlier.names.index(clip.names[0]) :]
    return all(a == b for a, b in zip(known, clip.mapping.frame_mappings))


def _check_same_frames(clip: Clip, earlier: Scene) -> None:
    last = earlier.names[-1]
    if clip.names[0] not in earlier.names:
        raise InputError(
            f"the clip can't continue the earlier scene: its first frame {clip.names[0]} is not "
            f"in there (it ends with {last}); start earlier, with the same frames per second"
        )
    if not _agree(clip, earlier):
        raise InputError(
            f"the clip has frames of {clip.size_hw[1]}x{clip.size_hw[0]} pixels and the earlier "
            f"scene {earlier.size_hw[1]}x{earlier.size_hw[0]}: source, size and fit must agree"
        )
    first = earlier.names.index(clip.names[0])
    known = len(earlier) - first
    if clip.names[:known] != earlier.names[first : first + len(clip)]:
        raise InputError(
            f"frames are missing between {clip.names[0]} and {last}: "
            "read the clip with the frames per second of the earlier scene"
        )
    if len(clip) <= known:
        raise InputError(
            f"nothing to add: the clip has no frame after {last} (the frames of the earlier scene "
            "are continued with the same spacing)"
        )
    if not np.array_equal(clip.images[:known], earlier.images[first:]):
        raise InputError(
            "the clip's pictures differ from those of the earlier scene: is it the same source?"
        )


def _priors(earlier: Scene, shared: int, num_frames: int, *, shared_focal: bool) -> Priors:
    """What the earlier scene knows of its last frames; NaN elsewhere and where it was unsure."""
    height, width = earlier.size_hw
    K = np.full((num_frames, 3, 3), np.nan)
    T = np.full((num_frames, 4, 4), np.nan)
    depth = np.full((num_frames, height, width), np.nan, np.float32)
    K[:shared], T[:shared] = earlier.K[-shared:], earlier.T_world_camera[-shared:]
    if shared_focal:
        K[shared:] = earlier.K[-1]
    sure = (earlier.confidence[-shared:] > 0) & (earlier.depth[-shared:] > 0)
    depth[:shared] = np.where(sure, earlier.depth[-shared:], np.nan)
    quality = earlier.frame_quality
    if quality is not None and (quality[-shared:] > 0).any():
        lost = np.flatnonzero(quality[-shared:] <= 0)  # their cameras were guesses
        T[lost], depth[lost] = np.nan, np.nan
    return Priors(K=K, T_world_camera=T, depth=depth)
