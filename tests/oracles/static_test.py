"""The test for static points with arrays, frame by frame."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.flow.fields import neighbouring_rows
from dyn3r.flow.noise import (
    LEAST_TEXTURE,
    MEDIAN_NORMAL_ERROR,
    PATCH_RADIUS_PX,
    flow_variance_px2,
)
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.motion.static_components import (
    BRIGHTNESS_SIGMA,
    DEPTH_SIGMA,
    LARGEST_DEPTH_ERROR,
    MIN_SAMPLES,
    MIN_SCALE,
    STEP,
    STRIDE,
    WITHIN,
    StaticTest,
)
from dyn3r.types import FlowFields, Geometry


def static_test(
    masks: Bool[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    geometry: Geometry,
    flow: FlowFields,
) -> StaticTest:
    """Test the flow of masked pixels to the neighbouring frames for a static point of one depth."""
    tested = masks[:, ::STRIDE, ::STRIDE]
    test = StaticTest(np.zeros(tested.shape, np.int64), np.zeros(tested.shape, np.int64))
    near = neighbouring_rows(flow.edges)  # the flow of others is less certain
    for i in np.flatnonzero(masks.any((1, 2))):
        rows = near[flow.edges[near, 0] == i]
        if len(rows):
            error, visible = _whitened_errors(rows, images[i], geometry, flow)
            static = _within(error, visible & ~tested[i]) & visible
            test.static[i], test.all[i] = (static & tested[i]).sum(0), (visible & tested[i]).sum(0)
    return test


def _whitened_errors(
    rows: np.ndarray, image: UInt8[np.ndarray, "h w 3"], geometry: Geometry, flow: FlowFields
) -> tuple[Float[np.ndarray, "m th tw"], Bool[np.ndarray, "m th tw"]]:
    """Errors of the flow of one frame's pairs at the best depth of each pixel; where it is seen.

    In standard errors. The depth is that of least squared error, with the geometry's as a prior.
    """
    here = (slice(None), slice(None, None, STRIDE), slice(None, None, STRIDE))
    measured = np.asarray(flow.flow[rows], np.float32)[here]
    visible = np.ones(measured.shape[:3], bool)
    if flow.visible is not None:
        visible = np.asarray(flow.visible[rows])[here]
    induced, deeper = (_induced(rows, geometry, flow, scale) for scale in (1, np.exp(STEP)))
    covariance = _texture(image)[::STRIDE, ::STRIDE]
    variance = flow_variance_px2(measured[..., 0], measured[..., 1])
    covariance = covariance + variance[..., None, None] * np.eye(2)
    information = np.linalg.inv(covariance)
    error, slope = induced - measured, (deeper - induced) / STEP

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("...i,...ij,...j->...", a, information, b)

    gradient = (visible * product(error, slope)).sum(0)
    curvature = (visible * product(slope, slope)).sum(0) + DEPTH_SIGMA**-2
    change = np.clip(-gradient / curvature, -LARGEST_DEPTH_ERROR, LARGEST_DEPTH_ERROR)
    left = error + change[..., None] * slope
    return np.sqrt(product(left, left)), visible


def _texture(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 2 2"]:
    """Inverse structure tensor of the patch around every pixel, by OpenCV."""
    values, side = image.astype(np.float32), (2 * PATCH_RADIUS_PX + 1,) * 2
    du, dv = cv2.Scharr(values, -1, 1, 0) / 32, cv2.Scharr(values, -1, 0, 1) / 32
    products = [(du * du, du * dv), (du * dv, dv * dv)]
    tensor = np.array(
        [
            [cv2.boxFilter(x.mean(-1).astype(np.float64), -1, side, normalize=False) for x in row]
            for row in products
        ]
    )
    information = np.moveaxis(tensor, (0, 1), (-2, -1)) / BRIGHTNESS_SIGMA**2
    return np.asarray(np.linalg.inv(information + LEAST_TEXTURE * np.eye(2)))


def _induced(
    rows: np.ndarray, geometry: Geometry, flow: FlowFields, scale: float
) -> Float[np.ndarray, "m th tw 2"]:
    """Flow of a static scene at `scale` times the depth, of pairs of one frame (STRIDE)."""
    i, j = (torch.from_numpy(np.array(flow.edges[rows, k], np.int64)) for k in (0, 1))
    K, T = (torch.from_numpy(np.asarray(x)).double() for x in (geometry.K, geometry.T_world_camera))
    depth = torch.from_numpy(geometry.depth[flow.edges[rows[:1], 0]]).double() * scale
    every = depth.expand(len(rows), *depth.shape[1:])
    return np.asarray(induced_flow(every, K[i], T[i], K[j], T[j], stride=STRIDE).numpy())


def _within(
    error: Float[np.ndarray, "m th tw"], background: Bool[np.ndarray, "m th tw"]
) -> Bool[np.ndarray, "m th tw"]:
    """Whether errors are small for the noise of their pair, estimated from the background."""
    scale = np.ones(len(error))
    for k, (e, where) in enumerate(zip(error, background)):
        if where.sum() >= MIN_SAMPLES:
            scale[k] = max(float(np.median(e[where])) / MEDIAN_NORMAL_ERROR, MIN_SCALE)
    return error < WITHIN * scale[:, None, None]
