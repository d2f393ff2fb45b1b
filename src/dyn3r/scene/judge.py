"""Judgement of a result by measured flow: cameras, focal length, depth and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from dyn3r.bundle_adjustment import is_rotation_only
from dyn3r.bundle_adjustment.measurements import MIN_VISIBLE_SHARE
from dyn3r.motion.static_components import StaticTest, static_test
from dyn3r.scene.flow_agreement import FlowAgreement, flow_agreement
from dyn3r.scene.verdict import Grade, PartVerdict, Verdict
from dyn3r.types import FlowFields, Geometry, Priors

EXPLAINED, HARDLY_EXPLAINED = 0.5, 0.25
"""Shares of the background: most of it, and hardly any."""
GOOD_FOCAL, POOR_FOCAL = 0.05, 0.15
"""Relative errors of the focal length: hardly visible, clearly visible."""
GOOD_DEPTH, POOR_DEPTH = 0.2, 0.4
"""Standard errors of log depth. Constant depth has about 0.2 to 0.4 (docs/experiments.md)."""
SOME_STATIC, MOST_STATIC = 0.25, 0.5
"""Shares of the pixels called moving."""
NEGLIGIBLE = 0.01
"""Share of all pixels that may be called moving wrongly without being worth a word."""


def judge(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    masks: Bool[np.ndarray, "n h w"],
    flow: FlowFields | None,
    priors: Priors,
    names: Sequence[str],
    device: str = "cpu",
) -> Verdict | None:
    """Judge a final geometry and its masks by measured flow; None without flow.

    `names`: of the frames, for the reasons. `device`: where flow is compared.

    Cameras are judged by the share of the background whose flow they and the depth explain, the
    focal length by its standard error, depth by its `sigma_log_depth`, masks by how much of what
    they call moving a static scene explains (`dyn3r.motion.static_components`). Cameras, focal
    length and masks that were given are judged in the same way: flow may contradict them. What
    follows from a poor part is at most doubtful.
    """
    if flow is None or not len(flow.edges):
        return None
    agreement = flow_agreement(geometry, masks, flow, device)
    if not len(agreement.edges):
        return None
    cameras = judge_cameras(agreement, names)
    focal = judge_focal_length(geometry, priors)
    if not _keeps_focal(geometry, priors):
        focal = _limited(focal, cameras, "if the cameras were right")
    depth = _limited(judge_depth(geometry, masks), cameras, "if the cameras were right")
    found = judge_masks(static_test(masks, images, geometry, flow, device), masks)
    parts = {
        "cameras": cameras,
        "focal length": focal,
        "depth": _limited(depth, focal, "if the focal length were right"),
        "masks": _limited(found, cameras, "if the cameras were right"),
    }
    return Verdict({name: part for name, part in parts.items() if part is not None})


def judge_cameras(agreement: FlowAgreement, names: Sequence[str]) -> PartVerdict:
    """Judge cameras by the worst pair of successive frames and by the median of all pairs."""
    first, last = agreement.edges.min(1), agreement.edges.max(1)
    visible = agreement.visible >= MIN_VISIBLE_SHARE
    usable = visible & np.isfinite(agreement.static)
    worst, where = math.inf, 0
    for t in range(len(names) - 1):
        around = (first <= t) & (last > t)
        across = usable & around
        if not across.any():
            both = f"{names[t]} and {names[t + 1]}"
            if (visible & around).any():
                return PartVerdict("poor", f"all that {both} both show is called moving")
            return PartVerdict("poor", f"{both} hardly show the same place: nothing joins them")
        successive = across & (first == t) & (last == t + 1)
        share = float(agreement.static[successive if successive.any() else across].min())
        if share < worst:
            worst, where = share, t
    typical = float(np.median(agreement.static[usable]))
    grade = _grade(doubtful=worst < EXPLAINED or typical < EXPLAINED, poor=worst < HARDLY_EXPLAINED)
    return PartVerdict(
        grade,
        f"they explain the flow of {typical:.0%} of the background, and of {worst:.0%} between "
        f"{names[where]} and {names[where + 1]}, where they explain least",
    )


def judge_focal_length(geometry: Geometry, priors: Priors) -> PartVerdict | None:
    """Judge the focal length by its standard error; None if there is none."""
    if _keeps_focal(geometry, priors):
        error = priors.focal_sigma
        reason = f"stated by the file, and taken to be right to {error:.0%}" if error else "given"
        return PartVerdict(_grade(doubtful=error > GOOD_FOCAL, poor=error > POOR_FOCAL), reason)
    if geometry.focal_sigma is None:
        return None
    error = geometry.focal_sigma
    if error > POOR_FOCAL:
        about = f"known to about {error:.0%}" if error < 1 else "not known to a factor of 2"
        return PartVerdict("poor", f"{about}: the clip hardly says anything about it")
    return PartVerdict("good" if error <= GOOD_FOCAL else "doubtful", f"known to about {error:.0%}")


def _keeps_focal(geometry: Geometry, priors: Priors) -> bool:
    """Whether the focal length is the known one; flow may contradict what a file states."""
    return priors.fixes_focal and not geometry.focal_sigma


def judge_depth(geometry: Geometry, masks: Bool[np.ndarray, "n h w"]) -> PartVerdict | None:
    """Judge depth by the median of its standard error over the background; None without any."""
    sigma = geometry.sigma_log_depth[geometry.valid & ~masks]
    if not len(sigma):
        return None
    typical = float(np.median(sigma))
    if is_rotation_only(geometry):
        reason = (
            "the camera stands still or only rotates, so depth is the network's and nothing "
            "confirms it"
        )
        return PartVerdict(_grade(doubtful=True, poor=typical > POOR_DEPTH), reason)
    reason = f"typically known to {typical:.0%}, relative to the rest of the scene"
    return PartVerdict(_grade(doubtful=typical > GOOD_DEPTH, poor=typical > POOR_DEPTH), reason)


def judge_masks(test: StaticTest, masks: Bool[np.ndarray, "n h w"]) -> PartVerdict:
    """Judge masks by what they call moving although a static scene explains its flow."""
    if not masks.any():
        return PartVerdict("good", "nothing is called moving")
    called = f"{masks.mean():.0%} of the pixels are called moving"
    if not test.all.any():
        return PartVerdict("doubtful", f"{called}, and no flow to judge them by is visible")
    wrong = float(test.static.sum() / test.all.sum())
    reason = f"{called}; a static scene explains the flow of {wrong:.0%} of them"
    small = wrong * masks.mean() < NEGLIGIBLE
    return PartVerdict(
        _grade(doubtful=wrong > SOME_STATIC and not small, poor=wrong > MOST_STATIC and not small),
        reason,
    )


def _grade(*, doubtful: bool, poor: bool) -> Grade:
    return "poor" if poor else "doubtful" if doubtful else "good"


def _limited(
    part: PartVerdict | None, source: PartVerdict | None, condition: str
) -> PartVerdict | None:
    """Return `part`, at most doubtful if the part that it follows from is poor."""
    if part is None or part.grade != "good" or source is None or source.grade != "poor":
        return part
    return PartVerdict("doubtful", f"{part.reason}, {condition}")
