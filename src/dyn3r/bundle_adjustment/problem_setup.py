"""Problem and initial estimate of bundle adjustment from an aligned geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dyn3r.bundle_adjustment.camera_prior import CameraPrior
from dyn3r.bundle_adjustment.depth_prior import KNOWN_DEPTH_SIGMA, independent_prior
from dyn3r.bundle_adjustment.measurements import dilate_masks, flow_measurements, regular_grid
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import (
    BundleProblem,
    Estimate,
    Measurements,
    in_batches,
    to_device,
)
from dyn3r.io.workers import ordered_map
from dyn3r.types import FlowFields, Geometry, Priors

CAMERA_SAMPLES = 350
"""Samples per frame that cameras are estimated from. More: slower and steadier. Source: run time;
chosen on the synthetic world."""


@dataclass(frozen=True)
class AdjustmentInputs:
    """Arguments of `bundle_adjust`."""

    geometry: Geometry
    images: UInt8[np.ndarray, "n h w 3"]
    flow: FlowFields
    dynamic: Bool[np.ndarray, "n h w"] | None
    priors: Priors
    options: BundleAdjustmentOptions
    device: str = "cpu"
    """PyTorch device of the computation."""

    @property
    def grid(self) -> Int[np.ndarray, "k 2"]:
        """Pixels of the samples that cameras are estimated from."""
        return regular_grid(self.geometry.depth.shape[1:], CAMERA_SAMPLES)


def build_problem(inputs: AdjustmentInputs) -> tuple[BundleProblem, Estimate]:
    """The problem on a grid of samples, and the aligned geometry as initial estimate.

    Flow, images and masks are sampled on the CPU, where they are; the samples go to the device.
    """
    geometry, priors, options = inputs.geometry, inputs.priors, inputs.options
    uv = inputs.grid
    dynamic = inputs.dynamic
    if dynamic is not None:
        dynamic = dilate_masks(dynamic, options.mask_margin)
    K = torch.from_numpy(geometry.K.astype(np.float64))
    fixed = np.zeros(len(K), bool)
    if priors.T_world_camera is not None and priors.fix_T:
        fixed = np.isfinite(priors.T_world_camera).all((1, 2))
    if not fixed.any():
        fixed[0] = True  # the first camera defines the world
    initial = estimate_of(geometry, uv)

    def measured(i: int) -> Measurements | None:
        return flow_measurements(
            inputs.flow, inputs.images[i], i, uv, dynamic, options.noise_inflation
        )

    problem = BundleProblem(
        uv=torch.from_numpy(uv.astype(np.float64)),
        measurements=in_batches(list(ordered_map(measured, range(len(K)))), inputs.device),
        center=K[:, :2, 2].clone(),
        focal=K[:, [0, 1], [0, 1]].clone(),
        prior=independent_prior(
            initial.log_depth, depth_sigmas(priors, uv, initial.log_depth, options.depth_sigma)
        ),
        focal_sigma=0.0 if priors.fixes_focal else options.focal_sigma,
        fixed=torch.from_numpy(fixed),
        camera_prior=stated_camera_prior(geometry, initial),
    )
    return to_device(problem, inputs.device), to_device(initial, inputs.device)


def stated_camera_prior(geometry: Geometry, initial: Estimate) -> CameraPrior | None:
    """Prior of the initial cameras, where the geometry states their standard errors."""
    if geometry.camera_sigma is None:
        return None
    return CameraPrior(initial.R, initial.t, *geometry.camera_sigma)


def estimate_of(geometry: Geometry, uv: Int[np.ndarray, "k 2"]) -> Estimate:
    """Cameras and depth of a geometry as an estimate, relative to its own focal lengths."""
    T = torch.linalg.inv(torch.from_numpy(geometry.T_world_camera.astype(np.float64)))
    return Estimate(T[:, :3, :3], T[:, :3, 3], log_depth_at(geometry, uv), T.new_zeros(()))


def log_depth_at(geometry: Geometry, uv: Int[np.ndarray, "k 2"]) -> Float[Tensor, "n k"]:
    """Log depth of a geometry at pixels."""
    depth = np.maximum(geometry.depth[:, uv[:, 1], uv[:, 0]], 1e-6)
    return torch.from_numpy(np.log(depth.astype(np.float64)))


def depth_sigmas(
    priors: Priors, uv: Int[np.ndarray, "k 2"], log_depth: Float[Tensor, "n k"], sigma: float
) -> Float[Tensor, "n k"]:
    """Standard errors of log depth: KNOWN_DEPTH_SIGMA where priors fix it, else `sigma`."""
    out = torch.full_like(log_depth, sigma)
    if priors.depth is not None:
        known = priors.fixes_depth(priors.depth.shape)[:, uv[:, 1], uv[:, 0]]
        out[torch.from_numpy(known)] = KNOWN_DEPTH_SIGMA
    return out
