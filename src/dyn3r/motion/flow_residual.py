"""What moves, from optical flow: measured flow against that of a still scene (SPEC section 7).

The published way (MonST3R) takes depth and camera of every pair as predicted. The robust way fits
the still scene's flow to the measured flow and judges in units of the flow's noise (static_flow).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.errors import InputError
from dyn3r.geometry.cameras import focal_from_points, intrinsics
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.geometry.registration import solve_camera
from dyn3r.motion.flow_options import FlowMotionOptions
from dyn3r.motion.mask_network import load_mask_network, mask_probability
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.rigid_flow import fit_static_flow, length_of, nearest_static_flow
from dyn3r.motion.stillness import covers_too_much
from dyn3r.network.patches import patch_means
from dyn3r.types import FlowFields, Motion, PairPredictions, Progress, no_progress

_log = logging.getLogger(__name__)
_PATCH = 16
MIN_VISIBLE = 0.2
"""Pairs that see less than this share of each other say nothing."""

COLOUR_NOISE = 4.0
"""Difference of colours (0..255) that noise and interpolation alone make."""


@dataclass(frozen=True)
class FlowEvidence:
    """Per pixel, how much the flow contradicts a still scene."""

    raw: Float[np.ndarray, "n h w"]
    """0..1; mean over the frame's pairs."""
    refined: Float[np.ndarray, "n h w"]
    """The same after smoothing, or what the mask network makes of it; the mask is where it exceeds
    `FlowMotionOptions.limit`."""
    typical_px: Float[np.ndarray, " n"]
    """99th percentile over each frame of the mean distance to the still scene's flow, in pixels,
    where the flow can be believed; NaN for frames without pairs."""
    parts: Float[np.ndarray, "n 7 h w"] | None = None
    """What a mask network reads (`dyn3r.motion.mask_network`), means over the frame's pairs: the
    evidence, that of the distance alone, that of the colours alone, the evidence's standard
    deviation, the share of the pairs that see the pixel, and the velocity (u, v) against the still
    scene in percent of the width per frame. None for the published method."""


def flow_residual_motion(
    predictions: PairPredictions | None,
    clip_images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    inverse_depth: Float[np.ndarray, "..."] | None = None,
    options: FlowMotionOptions | None = None,
    progress: Progress = no_progress,
) -> Motion:
    """Masks of the things that move, from measured flow.

    Args:
        predictions: pointmaps of pairs; None is allowed for `robust` with geometry `flat`.
        clip_images: the frames.
        flow: measured between frames, both directions of each pair (`dyn3r.flow.measure_flow`).
        inverse_depth: (n,h,w) for `robust`, known inverse depth with a median of about 1, to be
            used instead of the predictions.
        options: see `FlowMotionOptions`.
        progress: told after every pair.

    Returns:
        Motion; the maps are means over 16x16 patches, there are no clusters and no attention maps.

    Raises InputError for flow, frames and predictions that do not fit together. Source: MonST3R;
    SPEC 7.
    """
    options = options or FlowMotionOptions()
    evidence = flow_evidence(
        predictions, clip_images, flow,
        inverse_depth=inverse_depth, options=options, progress=progress,
    )  # fmt: skip
    return motion_from_evidence(evidence, flow, options=options)


def motion_from_evidence(
    evidence: FlowEvidence, flow: FlowFields, *, options: FlowMotionOptions | None = None
) -> Motion:
    """The masks of `flow_residual_motion` from the evidence that it gathers."""
    options = options or FlowMotionOptions()
    masks = evidence.refined > options.limit
    why = _why_still(masks, evidence, flow, options)
    if why is not None:
        masks = np.zeros_like(masks)
    reason = why or (
        f"the flow of {masks.mean():.1%} of the clip's pixels contradicts a still scene "
        f"({'probability' if options.drawn else 'evidence'} above {options.limit:g})"
    )
    _log.info("motion: %s", reason)
    return Motion(
        masks=masks,
        dynamic_map=patch_means(evidence.raw),
        refined_map=patch_means(evidence.refined),
        clusters=np.zeros(patch_means(evidence.raw).shape, np.int64),
        threshold=math.inf if why is not None else options.limit,
        attention_maps={},
        has_motion=why is None,
        reason=reason,
    )


def flow_evidence(
    predictions: PairPredictions | None,
    clip_images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    inverse_depth: Float[np.ndarray, "..."] | None = None,
    options: FlowMotionOptions | None = None,
    progress: Progress = no_progress,
) -> FlowEvidence:
    """The evidence at full resolution; arguments and errors as for `flow_residual_motion`."""
    options = options or FlowMotionOptions()
    _check(predictions, inverse_depth, clip_images, flow, options)
    if options.method == "published":
        assert predictions is not None
        raw, typical_px = _published(predictions, clip_images, flow, options, progress)
        parts = None
    else:
        shape = clip_images.shape[:3]
        if options.geometry == "flat":
            inverse_depth = np.ones(shape)
        elif inverse_depth is None:
            assert predictions is not None
            inverse_depth = mean_inverse_depth(predictions, shape[0], (shape[1], shape[2]))
        gathered = _robust(inverse_depth, clip_images, flow, options, progress)
        (raw, typical_px), parts = gathered.means(), gathered.parts()
    if options.drawn and parts is not None:
        refined = mask_probability(load_mask_network(), clip_images, parts)
        refined[~np.isfinite(typical_px)] = 0.0  # frames without evidence: nobody can tell
        return FlowEvidence(raw, refined, typical_px, parts)
    radius = round(options.smoothing * max(clip_images.shape[1:3]))
    refined = _smooth(raw, clip_images, radius) if radius else raw
    return FlowEvidence(raw, refined, typical_px, parts)


def mean_inverse_depth(
    predictions: PairPredictions, num_frames: int, size_hw: tuple[int, int]
) -> Float[np.ndarray, "n h w"]:
    """Inverse depth of every frame, median 1: mean of log depth over its pairs (i, .).

    Weighted by log confidence; each pair's scale is taken out first. 1 for frames without pairs.
    """
    total = np.zeros((num_frames, *size_hw))
    weights = np.zeros((num_frames, *size_hw))
    for chunk in predictions.chunks():
        for row, i in enumerate(chunk.edges[:, 0].tolist()):
            depth = np.nan_to_num(chunk.points1[row, ..., 2].numpy(), nan=1e-6).clip(1e-6)
            weight = np.nan_to_num(np.log(chunk.conf1[row].numpy().clip(1.0))) + 1e-3
            total[i] += weight * np.log(depth / np.median(depth))
            weights[i] += weight
    return np.exp(-total / np.maximum(weights, 1e-9)).clip(0.02, 5.0)


Shape = tuple[int, int, int]
Evidence = tuple[Float[np.ndarray, "n h w"], Float[np.ndarray, " n"]]


def _robust(
    inverse_depth: Float[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    options: FlowMotionOptions,
    progress: Progress,
) -> _Gathered:
    """Over the pairs that see a pixel: e = s^2 / (s^2 + k^2), s = distance / standard error.

    With `photometric`, of the geometric mean of e and what the colours say.
    """
    gathered = _Gathered(images.shape[:3])
    reverse = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    at_once = 16
    for start in range(0, len(flow.edges), at_once):
        rows = slice(start, start + at_once)
        first = flow.edges[rows, 0]
        fields = np.asarray(flow.flow[rows], dtype=np.float32)
        visible = _visible(flow, rows)
        fits = fit_static_flow(fields, visible, inverse_depth[first], options.noise_px)
        for k, (i, j) in enumerate(flow.edges[rows]):
            progress("comparing flow", start + k + 1, len(flow.edges))
            seen = visible[k]
            if seen.mean() < MIN_VISIBLE or not np.isfinite(fits[k]).all():
                continue
            still = nearest_static_flow(
                fits[k], fields[k], inverse_depth[i], slack=options.depth_slack
            )
            distance = length_of(still - fields[k])
            back = reverse.get((int(j), int(i)))
            miss = 0.0 if back is None else _round_trip(fields[k], flow.flow[back])
            length = length_of(fields[k])
            noise = np.sqrt(options.noise_px**2 + (options.noise_share * length) ** 2 + miss**2)
            # where the whole pair fits badly (wild depth, failing flow) only what stands out counts
            noise = np.maximum(noise, 1.48 * np.median(distance[seen]))
            squared = (distance / (options.noise_factor * noise)) ** 2
            evidence = squared / (squared + 1)
            by_distance, contradicted = evidence, np.ones_like(evidence)
            if options.photometric:
                contradicted = _colours_contradict(images[i], images[j], still, fields[k])
                evidence = np.sqrt(evidence * contradicted)
            gathered.add(int(i), evidence, distance, seen)
            velocity = (fields[k] - still) * (100 / fields.shape[2] / float(j - i))
            gathered.add_parts(int(i), by_distance, contradicted, evidence, velocity, seen)
    return gathered


def _published(
    predictions: PairPredictions,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    options: FlowMotionOptions,
    progress: Progress,
) -> Evidence:
    """Mean over a frame's pairs of |induced - measured flow|, min-max normalised per map."""
    shape = images.shape[:3]
    size_hw = (shape[1], shape[2])
    index = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    gathered = _Gathered(shape)
    everywhere = np.ones(size_hw, bool)
    done = 0
    for chunk in predictions.chunks():
        focal = focal_from_points(chunk.points1)
        for k, (i, j) in enumerate(chunk.edges.tolist()):
            done += 1
            progress("comparing flow", done, len(predictions))
            row = index.get((i, j))
            if row is None or not bool(torch.isfinite(focal[k])):
                continue
            K = intrinsics(focal[k], size_hw)
            camera = _second_camera(chunk.points2[k].numpy(), K.double().numpy())
            if camera is None:
                continue
            T2 = torch.from_numpy(camera).float()
            still = induced_flow(chunk.points1[k, ..., 2], K, torch.eye(4), K, T2)
            measured = np.asarray(flow.flow[row], dtype=np.float32)
            distance = np.linalg.norm(still.numpy() - measured, axis=-1)
            low, high = distance.min(), distance.max()
            gathered.add(i, (distance - low) / (high - low + 1e-6), distance, everywhere)
    return gathered.means()


def _second_camera(points2: np.ndarray, K: np.ndarray) -> Float[np.ndarray, "4 4"] | None:
    """Camera j in camera i: PnP on the points of frame j, which are given in camera i (SPEC 6)."""
    h, w = points2.shape[:2]
    stride = max(1, round((h * w / 2000) ** 0.5))
    v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride]
    uv = np.stack([u, v], -1).reshape(-1, 2).astype(np.float64)
    found = solve_camera(points2[v, u].reshape(-1, 3).astype(np.float64), uv, K)
    return None if found is None else found[0]


class _Gathered:
    """Running means over the pairs of each frame."""

    def __init__(self, shape: Shape) -> None:
        self.evidence = np.zeros(shape)
        self.distance = np.zeros(shape)
        self.count = np.zeros(shape)
        self.pairs = np.zeros(shape[0])
        self.more = np.zeros((shape[0], 5, *shape[1:]), np.float32)

    def add_parts(
        self,
        i: int,
        by_distance: np.ndarray,
        contradicted: np.ndarray,
        evidence: np.ndarray,
        velocity: np.ndarray,
        seen: np.ndarray,
    ) -> None:
        """What `parts` holds beside the evidence."""
        self.pairs[i] += 1
        speed = np.moveaxis(velocity, -1, 0).clip(-20, 20)
        parts = np.stack([by_distance, contradicted, evidence**2, *speed])
        self.more[i] += np.where(seen, parts, 0.0)

    def parts(self) -> Float[np.ndarray, "n 7 h w"]:
        """See `FlowEvidence.parts`."""
        count = np.maximum(self.count, 1).astype(np.float32)
        mean = (self.evidence / count).astype(np.float32)
        distance, colours, squared, u, v = np.moveaxis(self.more, 1, 0) / count
        spread = np.sqrt((squared - mean**2).clip(0))
        share = self.count / np.maximum(self.pairs, 1)[:, None, None]
        return np.stack([mean, distance, colours, spread, share, u, v], 1).astype(np.float32)

    def add(self, i: int, evidence: np.ndarray, distance: np.ndarray, seen: np.ndarray) -> None:
        self.evidence[i] += np.where(seen, evidence, 0.0)
        self.distance[i] += np.where(seen, distance, 0.0)
        self.count[i] += seen

    def means(self) -> Evidence:
        count = np.maximum(self.count, 1)
        far = np.where(self.count > 0, self.distance / count, np.nan)
        typical = [np.nanpercentile(f, 99) if np.isfinite(f).any() else np.nan for f in far]
        return (self.evidence / count).astype(np.float32), np.array(typical, dtype=np.float32)


def _visible(flow: FlowFields, rows: slice) -> Bool[np.ndarray, "k h w"]:
    if flow.visible is not None:
        return np.asarray(flow.visible[rows], dtype=bool)
    return np.ones(flow.flow[rows].shape[:3], bool)


def _colours_contradict(
    source: np.ndarray, target: np.ndarray, still: np.ndarray, measured: np.ndarray
) -> Float[np.ndarray, "h w"]:
    """0..1: does the still scene's flow explain the colours worse than the measured flow?

    a^2 / (a^2 + 2 (b^2 + noise^2)), a and b the mean differences in a 5x5 window after warping the
    target by either flow: 1/3 where both do equally badly, near 0 where both do well.
    """
    a, b = (_colour_difference(source, target, field) for field in (still, measured))
    return a**2 / (a**2 + 2 * (b**2 + COLOUR_NOISE**2))


def _colour_difference(
    source: np.ndarray, target: np.ndarray, field: np.ndarray
) -> Float[np.ndarray, "h w"]:
    import cv2

    warped = _sample(target, field).astype(np.float32)
    difference = np.abs(warped - source.astype(np.float32)) @ EACH_COLOUR
    return cv2.boxFilter(difference, -1, (5, 5), borderType=cv2.BORDER_REFLECT)


EACH_COLOUR = np.full(3, 1 / 3, np.float32)
"""A mean over red, green and blue, as a product: much faster along so short an axis."""


def _sample(values: np.ndarray, field: np.ndarray) -> np.ndarray:
    """`values` where the flow goes, bilinear; beyond the border the nearest value."""
    import cv2

    h, w = field.shape[:2]
    v, u = np.mgrid[:h, :w].astype(np.float32)
    at_u, at_v = (u + field[..., 0]).astype(np.float32), (v + field[..., 1]).astype(np.float32)
    return cv2.remap(values, at_u, at_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _round_trip(forward: np.ndarray, backward: np.ndarray) -> Float[np.ndarray, "h w"]:
    """How far from its start a pixel ends that goes there and back, in pixels, at most 100."""
    back = _sample(np.asarray(backward, dtype=np.float32), forward)
    return np.minimum(length_of(forward + back), 100.0)


def _smooth(maps: np.ndarray, images: np.ndarray, radius: int) -> Float[np.ndarray, "n h w"]:
    """Guided filter (He et al. 2010): box means that stop at edges of the picture's brightness."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        size = (2 * radius + 1, 2 * radius + 1)
        return cv2.boxFilter(values, -1, size, borderType=cv2.BORDER_REFLECT)

    out = np.empty(maps.shape, np.float32)
    for t, (image, values) in enumerate(zip(images, maps.astype(np.float32))):
        grey = image.astype(np.float32).mean(-1) / 255
        grey_mean, value_mean = mean(grey), mean(values)
        slope = mean(grey * values) - grey_mean * value_mean
        slope /= mean(grey * grey) - grey_mean**2 + 0.01
        out[t] = mean(slope) * grey + mean(value_mean - slope * grey_mean)
    return out.clip(0, 1)


def _why_still(
    masks: np.ndarray, evidence: FlowEvidence, flow: FlowFields, options: FlowMotionOptions
) -> str | None:
    """Why the clip counts as still, or None if something moves."""
    if not len(flow.edges) or not np.isfinite(evidence.typical_px).any():
        return "motion can't be told: no two frames could be compared"
    if options.still_test:
        largest = float(np.nanmax(evidence.typical_px))
        if largest <= 2 * options.noise_px:
            return (
                f"the flow agrees with a still scene: 99 % of the pixels to within {largest:.2f} "
                "px, which is noise"
            )
        why = covers_too_much(masks, MotionOptions(max_share=options.max_share))
        if why is not None:
            return why
    if not masks.any():
        return "no pixel's flow contradicts a still scene enough"
    return None


def _check(
    predictions: PairPredictions | None,
    inverse_depth: np.ndarray | None,
    images: np.ndarray,
    flow: FlowFields,
    options: FlowMotionOptions,
) -> None:
    n, h, w = images.shape[:3]
    if h % _PATCH or w % _PATCH:
        raise InputError(f"frames of {w}x{h} pixels: sides must be multiples of {_PATCH}")
    if flow.flow.shape[1:3] != (h, w) or (
        flow.edges.size and (flow.edges.min() < 0 or flow.edges.max() >= n)
    ):
        raise InputError(f"the flow was not measured between these {n} frames of {w}x{h} pixels")
    if options.method == "robust" and options.geometry == "flat":
        return
    if options.method == "robust" and inverse_depth is not None:
        if inverse_depth.shape != (n, h, w):
            raise InputError(
                f"the inverse depth has the shape {inverse_depth.shape}, the frames {(n, h, w)}"
            )
        return
    if predictions is None or predictions.points1 is None:
        raise InputError(
            "motion from flow needs pointmaps, or the robust method with flat geometry"
        )
    if predictions.size_hw != (h, w) or predictions.num_frames != n:
        raise InputError(
            f"the predictions are of {predictions.num_frames} frames of "
            f"{predictions.size_hw[1]}x{predictions.size_hw[0]}, the clip has {n} of {w}x{h}"
        )
