"""Motion masks from the global attention of a many-view network (VGGT4D, arXiv 2511.19971)."""

from __future__ import annotations

import logging
import math

import numpy as np
from jaxtyping import Float

from dyn3r.motion.attention import per_frame
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.masks import still_motion
from dyn3r.motion.multi_otsu import last_otsu_threshold, upsample
from dyn3r.motion.options import AttentionCueOptions
from dyn3r.motion.probability import probability_of
from dyn3r.motion.segments import cluster_means, cluster_tokens
from dyn3r.motion.stillness import covers_too_much
from dyn3r.network.many_view.gram_statistics import GramMaps
from dyn3r.network.patches import patch_means
from dyn3r.types import Motion

_log = logging.getLogger(__name__)

INVERTED = ("mean QQ, middle", "spread QQ, deep", "mean KK, shallow")
"""Statistics that are small on moving objects. Source: as published."""


def gram_motion(
    maps: GramMaps, size_hw: tuple[int, int], options: AttentionCueOptions | None = None
) -> Motion:
    """Masks of moving objects from the statistics of all frames.

    The dynamic map is the product of the five statistics, each min-max normalised per frame, with
    1 - x for those in `INVERTED`. As in Easi3R (SPEC 4) each token takes the mean of its cluster of
    similar tokens over the clip, and a multi-Otsu threshold over all frames gives the masks.
    `options.still_test`: a mask over most of the clip is taken for the background.
    """
    options = options or AttentionCueOptions()
    normalised = {name: per_frame(values) for name, values in maps.statistics.items()}
    n, rows, cols = next(iter(normalised.values())).shape
    if n < 2:
        return still_motion((n, *size_hw), "motion cannot be estimated from a single frame")
    raw = dynamic_map(normalised)
    clusters = cluster_tokens(maps.tokens, (rows, cols))
    refined = cluster_means(raw, clusters)
    pixels = upsample(refined, size_hw)
    threshold = last_otsu_threshold(pixels)
    masks = pixels > threshold
    why_still = None if masks.any() else "the motion map is the same everywhere"
    if options.still_test:
        why_still = why_still or covers_too_much(masks)
    reason = why_still or (
        f"{masks.mean():.1%} of the clip's pixels exceed the automatic threshold {threshold:.3f}"
    )
    if why_still is not None:
        masks, threshold = np.zeros_like(masks), math.inf
    _log.info("motion: %s", reason)
    return Motion(
        masks=masks,
        dynamic_map=patch_means(pixels),
        reason=reason,
        evidence=AttentionEvidence(raw, clusters, threshold, normalised),
        probability=probability_of(pixels, threshold),
    )


def dynamic_map(
    normalised: dict[str, Float[np.ndarray, "n gh gw"]],
) -> Float[np.ndarray, "n gh gw"]:
    """Product of the statistics, 0..1 per frame."""
    factors = [1 - x if name in INVERTED else x for name, x in normalised.items()]
    return per_frame(np.prod(factors, axis=0))
