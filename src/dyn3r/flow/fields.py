"""Flow fields of all pairs of a clip, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from dyn3r.errors import InputError
from dyn3r.flow.estimator import FlowEstimator
from dyn3r.geometry.induced_flow import forward_backward_visible
from dyn3r.io.memory_map import allocate, release_pages
from dyn3r.types import FlowFields, Progress, no_progress


def measure_flow(
    images: UInt8[np.ndarray, "n h w 3"],
    edges: np.ndarray,  # (m, 2): `undirected_pairs`
    estimator: FlowEstimator,
    *,
    tolerance_px: float = 3.0,
    memory_gb: float = 2.0,
    spill_folder: str | None = None,
    progress: Progress = no_progress,
) -> FlowFields:
    """Flow and visibility of every pair of `edges`, in both directions.

    Edges (i, j) and (j, i) are one pair; pairs of a frame with itself are left out. The edges of
    the result are sorted, with (i, j) and (j, i) next to each other. Flow is stored in half
    precision (relative error 1/2048: 0.03 px for 60 px). `visible` is False where the flow ends
    outside the image or does not return to within `tolerance_px` (SPEC 6). Beyond `memory_gb`
    (about 5 bytes per pixel and direction) the arrays are temporary files in `spill_folder` (None:
    the default of the system), which are deleted with the arrays.

    Raises InputError for edges of unknown frames, for frames that are not RGB of uint8, and if a
    file does not fit on the disk.
    """
    pairs = undirected_pairs(edges, len(images))
    h, w = images.shape[1:3]
    shape = (2 * len(pairs), h, w)
    folder = spill_folder if 5 * math.prod(shape) > 1e9 * memory_gb else ""
    flow = allocate((*shape, 2), np.dtype(np.float16), folder, "flow")
    visible = allocate(shape, np.dtype(bool), folder, "the visibility of flow")
    for k, (forward, backward) in enumerate(_both_directions(images, pairs, estimator)):
        flow[2 * k], flow[2 * k + 1] = forward, backward
        to_target, to_source = torch.from_numpy(forward), torch.from_numpy(backward)
        visible[2 * k] = forward_backward_visible(to_target, to_source, tolerance_px).numpy()
        visible[2 * k + 1] = forward_backward_visible(to_source, to_target, tolerance_px).numpy()
        release_pages(flow)
        release_pages(visible)
        progress("measuring flow", k + 1, len(pairs))
    directed = np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2)
    return FlowFields(directed, flow, visible)


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
) -> Iterator[tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]]:
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
            np.ascontiguousarray(forward, dtype=np.float32),
            np.ascontiguousarray(backward, dtype=np.float32),
        )
