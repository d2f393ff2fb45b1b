"""The calibrated adjustment where a focal length with a standard error is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, UInt8

from dyn3r.bundle_adjustment.adjust import calibrated_bundle_adjust
from dyn3r.types import FlowFields, Geometry, Priors, Progress, no_progress


def adjust_with_stated_focal(
    initial: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"],
    priors: Priors,
    progress: Progress = no_progress,
    device: str = "cpu",
) -> Geometry:
    """The calibrated adjustment, and what becomes of a focal length with a standard error.

    It is a prior of the adjustment. Where the result agrees with it, and it is more certain than
    what flow says, it is kept. Arguments and result are those of `calibrated_bundle_adjust`.
    """
    adjust = partial(
        calibrated_bundle_adjust, images=images, flow=flow, dynamic=dynamic, progress=progress,
        device=device,
    )  # fmt: skip
    sigma = priors.focal_sigma
    if sigma == 0 or priors.K is None:
        return adjust(initial, priors=priors)
    start = replace(initial, focal_sigma=sigma)
    refined = adjust(start, priors=replace(priors, fix_K=False))
    change = float(np.nanmedian(np.log(refined.K[:, 0, 0] / priors.K[:, 0, 0])))
    from_flow = refined.focal_sigma or 0.0
    if abs(change) > 3 * float(np.hypot(sigma, from_flow)):
        note = f"flow contradicts the stated focal length ({change:+.0%}) and decided"
        return replace(refined, diagnostics=refined.diagnostics.added(note))
    return adjust(initial, priors=priors) if sigma < from_flow else refined
