"""One last adjustment of key frames over a whole long clip, after its windows are joined.

Windows do not know of each other, so their small errors add up from one to the next. Key frames are
chosen by how much of a frame the next one still sees, and are compared with all that see the same
place, whatever lies between them in time. Flow between them gives cameras, the scale of depth and
the focal length; the frames between two key frames move along with both. Source: local and global
bundle adjustment over key frames (Mur-Artal and Tardos, ORB-SLAM, 2015).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from dyn3r.bundle_adjustment.from_start import Correction, adjust_from_start
from dyn3r.flow import FlowEstimator, measure_flow
from dyn3r.geometry.registration import Similarity
from dyn3r.geometry.reprojection import pixel_maps
from dyn3r.mvs.source_frames import overlap_and_parallax
from dyn3r.scene.scene import Scene
from dyn3r.scene.windows.join import blended, moved
from dyn3r.types import Clip, Geometry, RunContext

LEAST_OVERLAP = 0.75
"""Share of a key frame that the next one still sees. 0.6 and 0.85 give a similar result
(docs/experiments.md)."""
KEYS_PER_WINDOW = 10
"""Key frames of a window at least, however slow the camera is. Source: with fewer, a window's own
cameras are better (docs/experiments.md)."""
NEXT = 2
"""Key frames before and after that each is compared with."""
OTHERS = 5
"""Further key frames that each is compared with, those with the largest overlap first."""
COMPARABLE = 0.3
"""Overlap of these. Source: that of loops."""
LEFT_OUT = 10
"""Of the pairs that are not next to each other, one of so many is left out to judge the result."""
SCALE_STEP = 2e-4
"""Standard error of the change of log scale from frame to frame. Source: with it the depth of the
joined windows flickers no more than before, and with 0.0005 to 0.005 more (docs/experiments.md)."""
MIN_SCALE_SIGMA = 1e-4
"""Smallest standard error of a log scale. Source: far below what is visible."""
FLOW_MEMORY_GB = 0.5
"""Memory of flow, above which it is a temporary file. Source: what a window's flow takes."""


def with_key_frames_adjusted(
    scene: Scene,
    clip: Clip,
    estimator: FlowEstimator,
    longest: int,
    focal_sigma: float,
    context: RunContext,
) -> tuple[Scene, dict[str, Any]]:
    """The scene after the adjustment, and what was found.

    The adjustment is kept if pairs that it has not seen agree with it, and better than before; else
    the scene is returned as it is. `longest`: frames of the longest window. `focal_sigma`: standard
    error of the log focal length; 0: it is known.
    """
    keys = key_frames(scene, max(1, longest // KEYS_PER_WINDOW))
    pairs = key_pairs(scene, keys)
    about: dict[str, Any] = {"frames": len(keys), "pairs": len(pairs), "kept": False}
    left_out = _left_out(pairs)
    if not left_out.any():
        return scene, about
    flow = measure_flow(
        scene.images[keys], pairs, estimator, ignored=clip.overlay, memory_gb=FLOW_MEMORY_GB,
        progress=context.progress,
    )  # fmt: skip
    judged = {tuple(pair) for pair in pairs[left_out].tolist()}
    unused = np.array([(min(edge), max(edge)) in judged for edge in flow.edges.tolist()], bool)
    found = adjust_from_start(
        geometry_of(scene, keys), scene.images[keys], flow, dynamic=scene.dynamic[keys],
        left_out=unused, focal_sigma=focal_sigma, progress=context.progress,
        device=context.device,
    )  # fmt: skip
    if found is None:
        return scene, about
    about |= {
        "error": round(found.error, 3),
        "left_out_cost": [round(cost, 1) for cost in found.left_out_cost],
        "focal_change": round(float(np.expm1(found.log_focal)), 4),
    }
    about["kept"] = found.is_better
    return corrected(scene, keys, found) if found.is_better else scene, about


def key_frames(scene: Scene, spacing: int) -> Int[np.ndarray, " k"]:
    """Frames of which the next one still sees LEAST_OVERLAP, at most `spacing` frames apart.

    Frames whose camera is a guess are left out.
    """
    quality = scene.frame_quality
    usable = np.arange(len(scene)) if quality is None else np.flatnonzero(quality > 0)
    if not len(usable):
        return usable
    keys = [0]
    while keys[-1] + 1 < len(usable):
        here = keys[-1]
        ahead = np.arange(here + 1, len(usable))
        ahead = ahead[usable[ahead] - usable[here] <= spacing]
        if not len(ahead):  # a gap
            keys.append(here + 1)
            continue
        seen = _overlap(scene, int(usable[here]), usable[ahead]) >= LEAST_OVERLAP
        reached = len(seen) if seen.all() else int(np.argmin(seen))
        keys.append(int(ahead[max(reached - 1, 0)]))
    return usable[keys]


def key_pairs(scene: Scene, keys: Int[np.ndarray, " k"]) -> Int[np.ndarray, "q 2"]:
    """Pairs of key frames (numbers in `keys`, the lower first) to be compared, sorted."""
    pairs = {(a, a + step) for step in range(1, NEXT + 1) for a in range(len(keys) - step)}
    for a in range(len(keys)):
        others = np.flatnonzero(np.abs(np.arange(len(keys)) - a) > NEXT)
        if not len(others):
            continue
        seen = _overlap(scene, int(keys[a]), keys[others])
        best = np.argsort(-seen, kind="stable")[:OTHERS]
        for b in others[best[seen[best] >= COMPARABLE]].tolist():
            pairs.add((min(a, b), max(a, b)))
    return np.array(sorted(pairs), int).reshape(-1, 2)


def corrected(scene: Scene, keys: Int[np.ndarray, " k"], by: Correction) -> Scene:
    """The scene whose key frames have the corrected cameras, scales and focal length.

    A frame between two key frames moves with both, by how near it is; one beyond them with the
    last.
    """
    scales = smooth_scales(by, np.diff(keys))
    T, log_scale = scene.T_world_camera.copy(), np.zeros(len(scene))
    for k, (first, end) in enumerate(zip([0, *keys], [*keys, len(scene) - 1])):
        rows = np.arange(first, end + 1)
        before, after = max(k - 1, 0), min(k, len(keys) - 1)
        share = (rows - first) / max(end - first, 1)
        with_before, with_after = (
            moved(scene.T_world_camera[rows], _move(scene, int(keys[n]), by, n, scales))
            for n in (before, after)
        )
        T[rows] = blended(with_before, with_after, share)
        log_scale[rows] = (1 - share) * scales[before] + share * scales[after]
    K = scene.K.copy()
    K[:, [0, 1], [0, 1]] *= np.exp(by.log_focal)
    depth = scene.depth * np.exp(log_scale)[:, None, None].astype(np.float32)
    return replace(scene, T_world_camera=T, K=K, depth=depth)


def smooth_scales(by: Correction, apart: Int[np.ndarray, " m"]) -> Float[np.ndarray, " k"]:
    """Most probable log scales of key frames, if scale drifts slowly from frame to frame.

    A random walk with steps of SCALE_STEP, seen with the errors of the correction: noise of single
    scales would make depth flicker. `apart`: frames between successive key frames.
    """
    from scipy.linalg import solveh_banded

    seen = 1 / np.maximum(by.scale_sigma, MIN_SCALE_SIGMA) ** 2
    if not seen.any():
        return np.zeros(len(seen))
    stiff = 1 / (SCALE_STEP**2 * apart)
    diagonal = seen.copy()
    diagonal[:-1] += stiff
    diagonal[1:] += stiff
    upper = np.concatenate([[0.0], -stiff])
    return np.asarray(solveh_banded(np.stack([upper, diagonal]), seen * by.log_scale))


def geometry_of(scene: Scene, keys: Int[np.ndarray, " k"]) -> Geometry:
    """Some frames of a scene as a geometry; unknown depth is the median."""
    depth, confidence = scene.depth[keys], scene.confidence[keys]
    known = depth > 0
    typical = np.median(depth[known]) if known.any() else np.float32(1)
    sigma = scene.sigma_log_depth
    return Geometry(
        T_world_camera=scene.T_world_camera[keys].astype(np.float64),
        K=scene.K[keys].astype(np.float64),
        depth=np.where(known, depth, typical),
        sigma_log_depth=np.zeros_like(depth) if sigma is None else sigma[keys],
        valid=confidence > 0,
        confidence=confidence,
        frame_quality=np.ones(len(keys)),
        determined=np.ones(len(keys), bool),
    )


def _overlap(scene: Scene, i: int, others: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Share of the static pixels of frame i that each of the others sees."""
    known = (scene.depth[i] > 0) & (scene.confidence[i] > 0) & ~scene.dynamic[i]
    P = pixel_maps(scene.K, scene.T_world_camera, i, others, "cpu").float()
    depth = torch.from_numpy(scene.depth[i])
    return overlap_and_parallax(P, depth, torch.from_numpy(known))[0].double().numpy()


def _left_out(pairs: Int[np.ndarray, "q 2"]) -> Bool[np.ndarray, " q"]:
    """Every LEFT_OUT-th of the pairs that are not next to each other."""
    out = np.zeros(len(pairs), bool)
    out[np.flatnonzero(pairs[:, 1] - pairs[:, 0] > 1)[LEFT_OUT // 2 :: LEFT_OUT]] = True
    return out


def _move(
    scene: Scene, frame: int, by: Correction, k: int, scales: Float[np.ndarray, " k"]
) -> Similarity:
    """The similarity of the world that takes key frame k to its corrected camera and scale."""
    before, after = (
        torch.from_numpy(T) for T in (scene.T_world_camera[frame], by.T_world_camera[k])
    )
    scale = torch.tensor(np.exp(scales[k]), dtype=torch.float64)
    R = after[:3, :3] @ before[:3, :3].T.double()
    return Similarity(scale, R, after[:3, 3] - scale * (R @ before[:3, 3].double()))
