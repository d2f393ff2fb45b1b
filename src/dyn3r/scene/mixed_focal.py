"""Focal lengths of images of different sizes, before bundle adjustment.

Bundle adjustment scales all focal lengths by one factor: their ratios must be right to well below
one percent, for a wrong ratio looks like motion along the optical axis. A network's focal lengths
are not that good. Images of one camera that were turned or resized have the same ratio of focal
length to diagonal. Where the estimates allow that, it is taken; else every size has a focal length
of its own, which bundle adjustment keeps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dyn3r.types import Clip, Geometry, Priors

ONE_CAMERA = 0.1
"""Images are taken to be of one camera where the logarithms of focal length over diagonal, each the
median of a size, differ by at most this. Source: errors of the network on crops of one clip are
about 0.03, and cameras and zooms rarely differ by less than 0.1."""
HELD_SIGMA = 1e-4
"""Standard error of a log focal length that is kept."""


def with_common_focal(geometry: Geometry, clip: Clip, priors: Priors) -> tuple[Geometry, bool]:
    """The geometry with focal lengths in the right ratios and a note; whether these are to be kept.

    It stays as it is where images have one size, or K is known. `focal_sigma` is `HELD_SIGMA` where
    they are to be kept.
    """
    if not clip.mapping.is_mixed or priors.K is not None:
        return geometry, False
    sizes = np.array([mapping.source_hw for mapping in clip.mapping.frame_mappings])
    in_source = clip.mapping.K_to_source(geometry.K)[:, [0, 1], [0, 1]]
    found = np.log(in_source).mean(axis=1) - np.log(np.hypot(*sizes.T))
    _, group = np.unique(sizes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    middles = np.array([np.median(found[group == g]) for g in range(group.max() + 1)])
    is_one = bool(np.ptp(middles) <= ONE_CAMERA)
    wanted = np.full(len(found), np.median(found)) if is_one else middles[group]
    K = np.array(geometry.K)
    K[:, [0, 1], [0, 1]] *= np.exp(wanted - found)[:, None]
    if is_one:
        note = "the images are taken to be of one camera, turned or resized"
        return replace(geometry, K=K, diagnostics=geometry.diagnostics.added(note)), False
    note = (
        "the images are of several cameras, zooms or crops: each size has a focal length of its "
        "own, which flow does not correct; files that state it, or known cameras, give better ones"
    )
    diagnostics = geometry.diagnostics.added(note)
    return replace(geometry, K=K, focal_sigma=HELD_SIGMA, diagnostics=diagnostics), True
