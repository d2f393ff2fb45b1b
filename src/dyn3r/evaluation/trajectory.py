"""Metrics of camera trajectories: ATE and RPE (SPEC 11; Umeyama 1991, Sturm 2012).

A trajectory is an array (n, 4, 4) of camera-to-world transforms. The world frame and the scale of
an estimate are arbitrary, so positions are compared after the best similarity transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError


class Sim3(NamedTuple):
    """Similarity transform x -> scale * R @ x + t."""

    scale: float
    R: Float[np.ndarray, "3 3"]
    t: Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class TrajectoryErrors:
    """Metrics of a camera trajectory. Lengths are in the unit of the ground truth."""

    ate: float
    """Absolute trajectory error: rms distance of the camera centres after Sim(3) alignment.
    NaN if the true camera does not translate: a scale of 0 would then align any trajectory."""
    ate_share: float
    """`ate` divided by the length of the true trajectory; NaN as `ate`."""
    rpe_translation: float
    """Relative pose error between consecutive frames: rms translation, at the scale of the
    alignment. NaN as `ate`, and for one frame."""
    rpe_rotation_deg: float
    """Relative pose error between consecutive frames: rms rotation in degrees; NaN for one
    frame."""
    rotation_deg: float
    """Mean rotation error in degrees after alignment by the best common rotation."""
    scale: float
    """Units of the ground truth per unit of the estimate, from the alignment of the centres."""
    path_length: float
    """Length of the true trajectory."""


def umeyama(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Sim3:
    """Similarity transform from `source` to `target` of least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (1991), equations 40-42. If all source points coincide, the rotation is the identity and the
    scale 1.
    """
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    from_source, from_target = source - mean_source, target - mean_target
    variance = (from_source**2).sum(axis=1).mean()
    if variance <= 1e-18 * max(1.0, (source**2).sum(axis=1).mean()):
        return Sim3(1.0, np.eye(3), mean_target - mean_source)
    covariance = from_target.T @ from_source / len(source)
    R, singular, signs = _nearest_rotation(covariance)
    scale = float(singular @ signs / variance)
    return Sim3(scale, R, mean_target - scale * R @ mean_source)


def trajectory_errors(
    T_world_camera: Float[np.ndarray, "n 4 4"], true_T_world_camera: Float[np.ndarray, "m 4 4"]
) -> TrajectoryErrors:
    """ATE, RPE (delta 1 frame, all pairs) and rotation error of a trajectory (SPEC 11).

    Raises:
        InputError: trajectories of different lengths, or of another shape than (n, 4, 4).
    """
    estimate = np.asarray(T_world_camera, dtype=np.float64)
    truth = np.asarray(true_T_world_camera, dtype=np.float64)
    if estimate.shape != truth.shape or estimate.shape[1:] != (4, 4) or len(truth) == 0:
        raise InputError(
            f"camera trajectories must both be (n, 4, 4), not {estimate.shape} and {truth.shape}"
        )
    centres, true_centres = estimate[:, :3, 3], truth[:, :3, 3]
    alignment = umeyama(centres, true_centres)
    length = path_length(true_centres)
    moves = length > 1e-9 * max(1.0, float(np.abs(true_centres).max()))
    ate = rpe_translation = float("nan")
    steps = _relative_errors(_aligned(estimate, alignment), truth)
    if moves:
        aligned = alignment.scale * centres @ alignment.R.T + alignment.t
        ate = _rms(np.linalg.norm(aligned - true_centres, axis=1))
        rpe_translation = _rms(np.linalg.norm(steps[:, :3, 3], axis=1))
    return TrajectoryErrors(
        ate=ate,
        ate_share=ate / length if moves else float("nan"),
        rpe_translation=rpe_translation,
        rpe_rotation_deg=_rms(rotation_angle_deg(steps[:, :3, :3])),
        rotation_deg=_orientation_error_deg(estimate[:, :3, :3], truth[:, :3, :3]),
        scale=alignment.scale,
        path_length=length,
    )


def aligned_path(
    T_world_camera: Float[np.ndarray, "n 4 4"], true_T_world_camera: Float[np.ndarray, "n 4 4"]
) -> Float[np.ndarray, "n 3"]:
    """Camera centres after the best similarity transform to the true ones that are known."""
    centres, truth = T_world_camera[:, :3, 3], true_T_world_camera[:, :3, 3]
    known = np.isfinite(truth).all(axis=1)
    fit = umeyama(centres[known].astype(np.float64), truth[known].astype(np.float64))
    path: np.ndarray = fit.scale * centres @ fit.R.T + fit.t
    return path


def path_length(centres: Float[np.ndarray, "n 3"]) -> float:
    """Sum of the distances between consecutive camera centres."""
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())


def rotation_angle_deg(rotations: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch"]:
    """Angle of rotation matrices in degrees, 0..180; accurate for small angles too."""
    skew = np.stack(
        [
            rotations[..., 2, 1] - rotations[..., 1, 2],
            rotations[..., 0, 2] - rotations[..., 2, 0],
            rotations[..., 1, 0] - rotations[..., 0, 1],
        ],
        axis=-1,
    )
    trace = np.trace(rotations, axis1=-2, axis2=-1)
    angle: np.ndarray = np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1), trace - 1))
    return angle


def _aligned(
    T_world_camera: Float[np.ndarray, "n 4 4"], alignment: Sim3
) -> Float[np.ndarray, "n 4 4"]:
    """The trajectory after a similarity transform of the world."""
    out = T_world_camera.copy()
    out[:, :3, :3] = alignment.R @ T_world_camera[:, :3, :3]
    out[:, :3, 3] = alignment.scale * T_world_camera[:, :3, 3] @ alignment.R.T + alignment.t
    return out


def _relative_errors(
    estimate: Float[np.ndarray, "n 4 4"], truth: Float[np.ndarray, "n 4 4"]
) -> Float[np.ndarray, "m 4 4"]:
    """(true step)^-1 (estimated step) between consecutive frames."""
    step = np.linalg.inv(estimate[:-1]) @ estimate[1:]
    true_step = np.linalg.inv(truth[:-1]) @ truth[1:]
    errors: np.ndarray = np.linalg.inv(true_step) @ step
    return errors


def _orientation_error_deg(
    rotations: Float[np.ndarray, "n 3 3"], truth: Float[np.ndarray, "n 3 3"]
) -> float:
    """Mean angle after the common world rotation of least chordal distance."""
    common, _, _ = _nearest_rotation((truth @ rotations.transpose(0, 2, 1)).sum(axis=0))
    errors = truth.transpose(0, 2, 1) @ common @ rotations
    return float(rotation_angle_deg(errors).mean())


def _nearest_rotation(
    matrix: Float[np.ndarray, "3 3"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation R that maximises trace(R^T matrix), the singular values, and their signs."""
    left, singular, right = np.linalg.svd(matrix)
    signs = np.ones(3)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        signs[2] = -1
    return left * signs @ right, singular, signs


def _rms(values: Float[np.ndarray, " k"]) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")
