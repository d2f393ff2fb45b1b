"""Motion from optical flow: pixels whose flow a static scene cannot show (SPEC 7).

The published method (MonST3R) takes depth and camera of every pair as predicted
(`published_residual`); the robust method fits static-scene flow to the measured flow
(`rigid_residual`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.devices import float64_device, on_device
from dyn3r.motion.guided_filter import guided_filter_grey
from dyn3r.motion.mask_network import load_mask_network, mask_probability
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.probability import probability_of
from dyn3r.motion.published_residual import published_residual
from dyn3r.motion.rigid_residual import NOISE_PX, mean_inverse_depth, rigid_residual
from dyn3r.motion.stillness import covers_too_much
from dyn3r.network.patches import patch_means
from dyn3r.types import FlowFields, Motion, PairPredictions, Progress, no_progress

_log = logging.getLogger(__name__)
_PATCH = 16


@dataclass(frozen=True)
class FlowEvidence:
    """How much the flow of each pixel contradicts a static scene."""

    raw: Float[np.ndarray, "n h w"]
    """0..1; mean over the frame's pairs."""
    refined: Float[np.ndarray, "n h w"]
    """`raw` after smoothing, or the probability that the mask network predicts from it; 0..1. A
    pixel is dynamic where this exceeds `FlowCueOptions.limit`."""
    typical_px: Float[np.ndarray, " n"]
    """99th percentile over each frame of the mean distance from static-scene flow, in pixels, where
    the flow is visible; NaN for frames without pairs."""
    parts: Float[np.ndarray, "n 7 h w"] | None = None
    """Input of the mask network, means over the frame's pairs: evidence, evidence of the distance,
    evidence of the colours, standard deviation of the evidence, share of the pairs in which the
    pixel is visible, and velocity (u, v) relative to the static scene in percent of the width per
    frame. None for the published method, and in `Motion`, where nothing reads it."""


def flow_residual_motion(
    predictions: PairPredictions | None,
    clip_images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    inverse_depth: Float[np.ndarray, "..."] | None = None,
    options: FlowCueOptions | None = None,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Motion:
    """Masks of moving objects from measured flow.

    Args:
        predictions: pointmaps of pairs; may be None for `robust` with `inverse_depth`.
        clip_images: the frames.
        flow: measured between frames, both directions of each pair (`dyn3r.flow.measure_flow`).
        inverse_depth: (n,h,w) for `robust`, with a median of about 1; replaces the predictions.
        options: see `FlowCueOptions`.
        device: PyTorch device of the residuals and the mask network.
        progress: called after every pair.

    Returns:
        Motion with `FlowEvidence`; the dynamic map is the mean of its `refined` over 16x16 patches.

    Raises InputError for flow, frames and predictions that do not fit together. Source: MonST3R;
    SPEC 7.
    """
    options = options or FlowCueOptions()
    evidence = flow_evidence(
        predictions, clip_images, flow,
        inverse_depth=inverse_depth, options=options, device=device, progress=progress,
    )  # fmt: skip
    return motion_from_evidence(evidence, flow, options=options)


def motion_from_evidence(
    evidence: FlowEvidence, flow: FlowFields, *, options: FlowCueOptions | None = None
) -> Motion:
    """Motion from evidence that `flow_evidence` computed from `flow`."""
    options = options or FlowCueOptions()
    masks = evidence.refined > options.limit
    why = _why_still(masks, evidence, flow, options)
    if why is not None:
        masks = np.zeros_like(masks)
    reason = why or (
        f"the flow of {masks.mean():.1%} of the clip's pixels contradicts a static scene "
        f"({'probability' if options.uses_mask_network else 'evidence'} above {options.limit:g})"
    )
    _log.info("motion: %s", reason)
    return Motion(
        masks=masks,
        dynamic_map=patch_means(evidence.refined),
        reason=reason,
        evidence=replace(evidence, parts=None),
        probability=probability_of(evidence.refined, options.limit),
    )


def flow_evidence(
    predictions: PairPredictions | None,
    clip_images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    inverse_depth: Float[np.ndarray, "..."] | None = None,
    options: FlowCueOptions | None = None,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> FlowEvidence:
    """Evidence per pixel; arguments and errors as for `flow_residual_motion`."""
    options = options or FlowCueOptions()
    _check(predictions, inverse_depth, clip_images, flow, options)
    n, h, w = clip_images.shape[:3]
    parts = None
    if options.method == "published":
        assert predictions is not None
        means = published_residual(predictions, flow, (n, h, w), progress).finish()
    else:
        there = float64_device(device)
        inverse: Float[np.ndarray, "n h w"] | Float[Tensor, "n h w"] | None = inverse_depth
        if inverse is None:
            assert predictions is not None
            inverse = mean_inverse_depth(predictions, n, (h, w), there)
        means = rigid_residual(inverse, clip_images, flow, options, progress, there).finish()
        parts = means.parts
    raw, typical_px = means.evidence.cpu().numpy(), means.typical_px.cpu().numpy()
    if options.uses_mask_network and parts is not None:
        refined = mask_probability(load_mask_network(), clip_images, parts, device=device)
        refined[~np.isfinite(typical_px)] = 0.0  # frames without evidence
        return FlowEvidence(raw, refined, typical_px, parts.cpu().numpy())
    radius_px = min(round(options.smoothing * max(h, w)), h, w)
    refined = raw
    if radius_px:
        pictures = on_device(clip_images, means.evidence.device)
        refined = _smoothed(means.evidence, pictures, radius_px).cpu().numpy()
    return FlowEvidence(raw, refined, typical_px, None if parts is None else parts.cpu().numpy())


def _smoothed(
    evidence: Float[Tensor, "n h w"], images: UInt8[Tensor, "n h w 3"], radius_px: int
) -> Float[Tensor, "n h w"]:
    """Evidence smoothed frame by frame up to the edges of the image, 0..1."""
    frames = [guided_filter_grey(e, i, radius_px) for e, i in zip(evidence, images)]
    return torch.stack(frames).clamp(0, 1)


def _why_still(
    masks: Bool[np.ndarray, "n h w"],
    evidence: FlowEvidence,
    flow: FlowFields,
    options: FlowCueOptions,
) -> str | None:
    """Reason to classify the clip as still, or None if there is motion."""
    if not len(flow.edges) or not np.isfinite(evidence.typical_px).any():
        return "motion cannot be estimated: no two frames could be compared"
    if options.still_test:
        largest = float(np.nanmax(evidence.typical_px))
        if largest <= 2 * NOISE_PX:
            return (
                f"the flow agrees with a static scene: 99 % of the pixels to within {largest:.2f} "
                "px, which is noise"
            )
        why = covers_too_much(masks)
        if why is not None:
            return why
    if not masks.any():
        return "no pixel's flow contradicts a static scene enough"
    return None


def _check(
    predictions: PairPredictions | None,
    inverse_depth: np.ndarray | None,
    images: np.ndarray,
    flow: FlowFields,
    options: FlowCueOptions,
) -> None:
    """Raise InputError for flow, frames and predictions that do not fit together."""
    n, h, w = images.shape[:3]
    if h % _PATCH or w % _PATCH:
        raise InputError(f"frames of {w}x{h} pixels: sides must be multiples of {_PATCH}")
    if flow.flow.shape[1:3] != (h, w) or (
        flow.edges.size and (flow.edges.min() < 0 or flow.edges.max() >= n)
    ):
        raise InputError(f"the flow was not measured between these {n} frames of {w}x{h} pixels")
    if options.method == "robust" and inverse_depth is not None:
        if inverse_depth.shape != (n, h, w):
            raise InputError(
                f"the inverse depth has the shape {inverse_depth.shape}, the frames {(n, h, w)}"
            )
        return
    if predictions is None or predictions.points1 is None:
        raise InputError(
            "motion from flow needs pointmaps, or inverse depth with the robust method"
        )
    if predictions.size_hw != (h, w) or predictions.num_frames != n:
        raise InputError(
            f"the predictions are of {predictions.num_frames} frames of "
            f"{predictions.size_hw[1]}x{predictions.size_hw[0]}, the clip has {n} of {w}x{h}"
        )
