"""Flow fields of all pairs of a clip, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.flow.estimator import FlowEstimator, MeasuredFlow, PairFlowEstimator
from dyn3r.geometry.induced_flow import forward_backward_visible
from dyn3r.io.memory_map import allocate, release_pages
from dyn3r.types import FlowFields, Progress, no_progress

NEIGHBOURS = 2
"""Frames up to this many apart are always compared. Source: the published pair graphs have 1 and 3,
but with fast motion, frames that are 3 apart hardly overlap (docs/experiments.md)."""


def measure_flow(
    images: UInt8[np.ndarray, "n h w 3"],
    edges: np.ndarray,  # (m, 2): `undirected_pairs`
    estimator: FlowEstimator,
    *,
    ignored: Bool[np.ndarray, "h w"] | None = None,
    tolerance_px: float = 3.0,
    memory_gb: float = 2.0,
    spill_folder: str | None = None,
    progress: Progress = no_progress,
) -> FlowFields:
    """Flow and visibility of every pair of `edges`, in both directions.

    Edges (i, j) and (j, i) are one pair; pairs of a frame with itself are left out. The edges of
    the result are sorted, with (i, j) and (j, i) next to each other. Flow is stored in half
    precision (relative error 1/2048: 0.03 px for 60 px). `visible` is False where the flow ends
    outside the image, does not return to within `tolerance_px` (SPEC 6), or is not seen there as
    the estimator says; and where it begins or ends on a pixel that is `ignored`. Beyond `memory_gb`
    (about 5 bytes per pixel and direction, 11 with `whitening`) the arrays are temporary files in
    `spill_folder` (None: the default of the system), which are deleted with the arrays.

    Raises InputError for edges of unknown frames, for frames that are not RGB of uint8, and if a
    file does not fit on the disk.
    """
    pairs = undirected_pairs(edges, len(images))
    h, w = images.shape[1:3]
    shape = (2 * len(pairs), h, w)
    calibrated = isinstance(estimator, PairFlowEstimator) and estimator.states_errors
    bytes_each = 11 if calibrated else 5
    folder = spill_folder if bytes_each * math.prod(shape) > 1e9 * memory_gb else ""
    flow = allocate((*shape, 2), np.dtype(np.float16), folder, "flow")
    visible = allocate(shape, np.dtype(bool), folder, "the visibility of flow")
    whitening = None
    if calibrated:
        whitening = allocate((*shape, 3), np.dtype(np.float16), folder, "the errors of flow")
    for k, both in enumerate(_both_directions(images, pairs, estimator)):
        for row, (here, back) in enumerate((both, both[::-1]), start=2 * k):
            flow[row] = here.flow
            visible[row] = _visible(here, back, tolerance_px)
            if ignored is not None:
                visible[row] &= ~_touches(ignored, here.flow)
            if whitening is not None:
                assert here.whitening is not None
                whitening[row] = here.whitening
        for array in (flow, visible, whitening):
            if array is not None:
                release_pages(array)
        progress("measuring flow", k + 1, len(pairs))
    directed = np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2)
    return FlowFields(directed, flow, visible, whitening)


def with_neighbours(edges: Int[np.ndarray, "m 2"], num_frames: int) -> Int[np.ndarray, "k 2"]:
    """Return the pairs of `edges` and all pairs of frames up to NEIGHBOURS apart."""
    near = [(i, i + gap) for gap in range(1, NEIGHBOURS + 1) for i in range(num_frames - gap)]
    return undirected_pairs(np.concatenate([edges, np.array(near, int).reshape(-1, 2)]), num_frames)


def neighbouring_rows(edges: Int[np.ndarray, "m 2"]) -> Int[np.ndarray, " k"]:
    """Return the rows of `edges` whose frames are different and up to NEIGHBOURS apart."""
    apart = np.abs(edges[:, 0] - edges[:, 1])
    return np.flatnonzero((apart > 0) & (apart <= NEIGHBOURS))


def rows_of_pairs(
    edges: Int[np.ndarray, "m 2"], pairs: Int[np.ndarray, "k 2"]
) -> Int[np.ndarray, " r"]:
    """Return the rows of `edges` whose frames are one of `pairs`, in either direction, or near.

    Near are frames up to NEIGHBOURS apart.
    """
    known = {(min(pair), max(pair)) for pair in np.asarray(pairs).tolist()}
    wanted = [(min(edge), max(edge)) in known for edge in np.asarray(edges).tolist()]
    return np.union1d(np.flatnonzero(wanted), neighbouring_rows(edges))


def sampled_on(
    device: torch.device | str, flow: FlowFields, rows: Int[np.ndarray, " k"], stride: int
) -> tuple[Float64[Tensor, "k 2 hs ws"], Bool[Tensor, "k hs ws"]]:
    """Flow (u, v) of some pairs and where it is visible, of every `stride`-th row and column.

    They go to the device as they are kept, in one piece each.
    """
    here = (slice(None), slice(None, None, stride), slice(None, None, stride))
    fields = torch.from_numpy(np.ascontiguousarray(flow.flow[rows][here])).to(device)
    fields = fields.permute(0, 3, 1, 2).double()
    if flow.visible is None:
        return fields, torch.ones_like(fields[:, 0], dtype=torch.bool)
    seen = np.ascontiguousarray(flow.visible[rows][here], dtype=bool)
    return fields, torch.from_numpy(seen).to(device)


def _visible(
    here: MeasuredFlow, back: MeasuredFlow, tolerance_px: float
) -> Bool[np.ndarray, "h w"]:
    """Whether flow ends inside the image, returns, and is stated to be seen if that is known."""
    fields = torch.from_numpy(here.flow), torch.from_numpy(back.flow)
    returns = forward_backward_visible(*fields, tolerance_px).numpy()
    return np.asarray(returns if here.visible is None else returns & here.visible)


def _touches(
    pixels: Bool[np.ndarray, "h w"], flow: Float[np.ndarray, "h w 2"]
) -> Bool[np.ndarray, "h w"]:
    """Whether flow begins or ends on one of the pixels."""
    h, w = pixels.shape
    x = np.rint(np.arange(w) + flow[..., 0]).clip(0, w - 1).astype(int)
    y = np.rint(np.arange(h)[:, None] + flow[..., 1]).clip(0, h - 1).astype(int)
    return pixels | pixels[y, x]


def undirected_pairs(edges: np.ndarray, num_frames: int) -> Int[np.ndarray, "k 2"]:
    """Every pair of `edges` (m, 2) once as (smaller, larger), sorted.

    Raises InputError for another shape or type, and for unknown frames.
    """
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise InputError(f"edges must be integers of shape (m, 2), not {tuple(edges.shape)}")
    if edges.size and (edges.min() < 0 or edges.max() >= num_frames):
        raise InputError(f"edges name frames {edges.min()}..{edges.max()}, there are {num_frames}")
    different = edges[edges[:, 0] != edges[:, 1]].astype(np.int64)
    return np.unique(np.sort(different, axis=1), axis=0).reshape(-1, 2)


def _both_directions(
    images: np.ndarray, pairs: np.ndarray, estimator: FlowEstimator
) -> Iterator[tuple[MeasuredFlow, MeasuredFlow]]:
    """Measure every pair both ways; raises InputError for flow that is no usable field."""
    if isinstance(estimator, PairFlowEstimator):
        yield from estimator.measure(images, pairs)
        return
    for i, j in pairs:
        forward = estimator.flow(images[i], images[j])
        backward = estimator.flow(images[j], images[i])
        for field in (forward, backward):
            if field.shape != (*images.shape[1:3], 2) or not np.isfinite(field).all():
                raise InputError(
                    f"the flow estimator '{estimator.name}' gave a field of shape "
                    f"{tuple(field.shape)} or values that are not finite for frames {i} and {j}"
                )
        yield (
            MeasuredFlow(np.ascontiguousarray(forward, dtype=np.float32)),
            MeasuredFlow(np.ascontiguousarray(backward, dtype=np.float32)),
        )
