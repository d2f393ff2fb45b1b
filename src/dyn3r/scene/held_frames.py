"""Frames without texture: left out of the reconstruction and kept in the timeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dyn3r.alignment.view_uncertainty import UNKNOWN_SIGMA
from dyn3r.scene.scene import PER_FRAME, Scene
from dyn3r.types import Clip, Priors


def priors_of(priors: Priors, rows: Int[np.ndarray, " m"]) -> Priors:
    """The priors of some frames."""
    known = {name: getattr(priors, name) for name in ("K", "T_world_camera", "depth")}
    return replace(
        priors, **{name: value[rows] for name, value in known.items() if value is not None}
    )


def with_held_frames(
    scene: Scene, clip: Clip, kept: Int[np.ndarray, " m"], priors: Priors
) -> Scene:
    """The scene of the frames `kept` of a clip, with the other frames of the clip in between.

    These have no depth, no dynamic pixels and quality 0. Their cameras lie between those of the
    nearest frames that are kept, in equal steps; before the first and after the last one the camera
    stands still. Known cameras are kept.
    """
    n = len(clip)

    def spread(values: np.ndarray | None, empty: float) -> np.ndarray | None:
        if values is None:
            return None
        out = np.full((n, *values.shape[1:]), empty, values.dtype)
        out[kept] = values
        return out

    T = _between(scene.T_world_camera, kept, n)
    K = scene.K[np.abs(np.arange(n)[:, None] - kept).argmin(axis=1)]
    for out, given, fixed in (
        (T, priors.T_world_camera, priors.fix_T),
        (K, priors.K, priors.fix_K),
    ):
        if given is not None and fixed:
            held = np.isfinite(given).all(axis=(1, 2))
            held[kept] = False
            out[held] = given[held]
    empty = {"sigma_log_depth": UNKNOWN_SIGMA}
    maps: dict[str, Any] = {
        name: spread(getattr(scene, name), empty.get(name, 0)) for name in PER_FRAME
    }
    return replace(
        scene,
        images=clip.images,
        mapping=clip.mapping,
        names=clip.names,
        times_s=clip.times_s,
        T_world_camera=T,
        K=K,
        **maps,
    )


def _between(
    T: Float[np.ndarray, "m 4 4"], kept: Int[np.ndarray, " m"], n: int
) -> Float[np.ndarray, "n 4 4"]:
    """Cameras of n frames from those of the frames kept; rotations along the shortest arc."""
    import torch

    from dyn3r.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat

    after = np.searchsorted(kept, np.arange(n)).clip(max=len(kept) - 1)
    before = np.searchsorted(kept, np.arange(n), side="right").clip(min=1) - 1
    gap = np.maximum(kept[after] - kept[before], 1)
    share = ((np.arange(n) - kept[before]) / gap).clip(0, 1)[:, None]
    R = torch.from_numpy(T[:, :3, :3])
    turn = rotmat_to_rotvec(R[before].mT @ R[after]) * torch.from_numpy(share)
    out = T[before].copy()
    out[:, :3, :3] = (R[before] @ rotvec_to_rotmat(turn)).numpy()
    out[:, :3, 3] = (1 - share) * T[before, :3, 3] + share * T[after, :3, 3]
    out[kept] = T
    return out
