"""Evaluation of a scene against ground truth: depth, cameras and motion masks.

What is compared depends on which truth there is (`dyn3r.evaluation.truth`): masks alone, cameras
alone, or all of it. What cannot be said is None, and named in `Evaluation.left_out`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.evaluation.depth_detail import contour_f1, flicker
from dyn3r.evaluation.depth_metrics import DepthErrors, align_depth, depth_errors
from dyn3r.evaluation.mask_metrics import MaskErrors, mask_errors
from dyn3r.evaluation.trajectory import TrajectoryErrors, path_length, trajectory_errors
from dyn3r.evaluation.truth import Truth, read_truth
from dyn3r.io.text import counted
from dyn3r.types import FrameMapping


@runtime_checkable
class SceneLike(Protocol):
    """Part of `dyn3r.Scene` that `evaluate` reads."""

    @property
    def depth(self) -> Float[np.ndarray, "n h w"]:
        """z along the optical axis; 0 where unknown."""

    @property
    def T_world_camera(self) -> Float[np.ndarray, "n 4 4"]:
        """Camera-to-world transforms."""

    @property
    def K(self) -> Float[np.ndarray, "n 3 3"]:
        """Intrinsics of the prepared frames in pixels."""

    @property
    def dynamic(self) -> Bool[np.ndarray, "n h w"]:
        """True on dynamic pixels."""

    @property
    def mapping(self) -> FrameMapping:
        """Map between prepared and source pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name per frame."""


@dataclass(frozen=True)
class Measures:
    """Metrics of one result; None where there is no truth to compare with."""

    trajectory: TrajectoryErrors | None
    """Camera trajectory, over the frames whose true pose is known."""
    travel_over_depth: float
    """Length of the estimated trajectory over the median estimated depth; independent of scale."""
    depth: DepthErrors | None
    """Depth, aligned by one median scale for the sequence."""
    depth_scale_shift: DepthErrors | None
    """Depth, aligned by one scale and shift (least squares) for the sequence."""
    abs_rel_static: float | None
    """abs rel of the static pixels, at the scale of `depth`; NaN without any."""
    abs_rel_moving: float | None
    """abs rel of the dynamic pixels, at the scale of `depth`; NaN without any."""
    contour_f1: float | None
    """Agreement of occluding contours, 0..1, at the resolution of the frames."""
    flicker: float | None
    """Median change of a static point's log depth error from one frame to the next."""
    masks: MaskErrors | None
    """Motion masks."""
    focal_error: float | None
    """Mean of |focal / true focal - 1| over the frames; None for the baseline."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a scene and of a baseline."""

    scene: Measures
    """The scene."""
    baseline: Measures
    """Constant depth, a static camera, no dynamic pixels."""
    true_travel_over_depth: float | None
    """Length of the true trajectory over the median true depth; None unless both are known."""
    num_frames: int
    """Number of frames compared."""
    left_out: tuple[str, ...]
    """What could not be compared, as there is no truth: of depth, cameras, intrinsics, masks."""

    def table(self) -> str:
        """Text table of all metrics that there is truth for."""
        return _table(self)

    def to_json(self) -> dict[str, Any]:
        """Value for `json.dumps`; undefined metrics are None."""
        values: dict[str, Any] = without_nan(asdict(self))
        return values


def evaluate(scene: SceneLike, truth_folder: str | Path) -> Evaluation:
    """Metrics of a scene against the ground truth of its clip (SPEC 11), as far as there is any.

    The ground truth is resized (nearest neighbour) and cropped to the scene's frames. A scene may
    contain a subset of the clip's frames, matched by name or number.

    Raises:
        InputError: no ground truth, or one that does not fit; frames that cannot be matched.
    """
    return compare(scene, read_truth(truth_folder, scene.mapping, scene.names))


def compare(scene: SceneLike, truth: Truth) -> Evaluation:
    """Metrics of a scene against truth at the resolution of its frames.

    Raises:
        InputError: no pixel has both a true depth and an estimated one.
    """
    focal_error = None
    if truth.K is not None:
        focal_error = float(np.abs(_focal(np.asarray(scene.K)) / _focal(truth.K) - 1).mean())
    depth, T = np.asarray(scene.depth), np.asarray(scene.T_world_camera)
    measured = _measure(depth, T, np.asarray(scene.dynamic), truth, focal_error)
    static_camera = np.tile(np.eye(4), (len(depth), 1, 1))
    constant_depth, no_motion = np.ones_like(depth), np.zeros(depth.shape, bool)
    baseline = _measure(constant_depth, static_camera, no_motion, truth, None)
    travel = None
    if truth.depth is not None and truth.T_world_camera is not None:
        known = np.isfinite(truth.T_world_camera).all(axis=(1, 2))
        centres = truth.T_world_camera[known, :3, 3]
        travel = path_length(centres) / _median_known(truth.depth)
    named = {
        "depth": truth.depth, "cameras": truth.T_world_camera,
        "intrinsics": truth.K, "masks": truth.dynamic,
    }  # fmt: skip
    left_out = tuple(name for name, array in named.items() if array is None)
    return Evaluation(measured, baseline, travel, len(depth), left_out)


def _measure(
    depth: np.ndarray,
    T_world_camera: np.ndarray,
    dynamic: np.ndarray,
    truth: Truth,
    focal_error: float | None,
) -> Measures:
    """Metrics of depth, cameras and masks; `focal_error` is passed through."""
    trajectory = masks = None
    if truth.T_world_camera is not None:
        trajectory = _trajectory(T_world_camera, truth.T_world_camera)
    if truth.dynamic is not None:
        masks = mask_errors(dynamic, truth.dynamic)
    errors = scale_shift = static = moving = contours = change = None
    if truth.depth is not None:
        contours = contour_f1(depth, truth.depth)
        if truth.K is not None and truth.T_world_camera is not None:
            change = flicker(depth, truth.depth, truth.K, truth.T_world_camera, truth.dynamic)
        known = (depth > 0) & np.isfinite(depth) & (truth.depth > 0)
        median = align_depth(depth[known], truth.depth[known], "median")
        errors = depth_errors(depth, truth.depth, alignment=median)
        scale_shift = depth_errors(depth, truth.depth, alignment="scale_shift")
        if truth.dynamic is not None:
            static, moving = (
                depth_errors(depth, truth.depth, alignment=median, region=region).abs_rel
                if (region & known).any()
                else float("nan")
                for region in (~truth.dynamic, truth.dynamic)
            )
    return Measures(
        trajectory=trajectory,
        travel_over_depth=path_length(T_world_camera[:, :3, 3]) / _median_known(depth),
        depth=errors,
        depth_scale_shift=scale_shift,
        abs_rel_static=static,
        abs_rel_moving=moving,
        contour_f1=contours,
        flicker=change,
        masks=masks,
        focal_error=focal_error,
    )


def _trajectory(estimate: np.ndarray, truth: np.ndarray) -> TrajectoryErrors | None:
    """Errors over the frames whose true pose is known; None without any."""
    known = np.isfinite(truth).all(axis=(1, 2))
    return trajectory_errors(estimate[known], truth[known]) if known.any() else None


def _focal(K: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Geometric mean of fx and fy."""
    focal: np.ndarray = np.sqrt(K[:, 0, 0] * K[:, 1, 1])
    return focal


def _median_known(depth: np.ndarray) -> float:
    return float(np.median(depth[(depth > 0) & np.isfinite(depth)]))


def _table(evaluation: Evaluation) -> str:
    """One line a metric; lines without truth are left out, by name in the last line."""
    scene, baseline = evaluation.scene, evaluation.baseline

    def row(label: str, *values: float | None, unit: str = "") -> str:
        cells = [_cell(value, unit) for value in values]
        return f"{label:<44}" + "".join(f"{cell:>12}" for cell in cells)

    def rows(group: str, *entries: tuple[str, str, str]) -> list[str]:
        pair = [getattr(m, group) for m in (scene, baseline)]
        if pair[0] is None:
            return []
        return [row(label, *(getattr(m, name) for m in pair), unit=unit)
                for label, name, unit in entries]  # fmt: skip

    title = f"{counted(evaluation.num_frames, 'frame')} against ground truth"
    lines = [f"{title:<44}{'this scene':>12}{'baseline':>12}"]
    lines += rows("depth", ("depth: abs rel, median scale", "abs_rel", ""))
    if scene.abs_rel_static is not None:
        lines += [
            row("    static pixels", scene.abs_rel_static, baseline.abs_rel_static),
            row("    dynamic pixels", scene.abs_rel_moving, baseline.abs_rel_moving),
        ]
    lines += rows("depth", ("depth: share within 25 %", "delta1", "%"))
    lines += rows(
        "depth_scale_shift",
        ("depth: abs rel, scale and shift", "abs_rel", ""),
        ("depth: share within 25 %, scale and shift", "delta1", "%"),
    )
    lines += rows("depth", ("depth: pixels with a prediction", "coverage", "%"))
    if scene.contour_f1 is not None:
        lines.append(row("depth: F1 of contours", scene.contour_f1, baseline.contour_f1))
    if scene.flicker is not None:
        lines.append(row("depth: flicker of static points", scene.flicker, baseline.flicker))
    lines += rows(
        "trajectory",
        ("trajectory: ATE (units of ground truth)", "ate", ""),
        ("trajectory: ATE / length", "ate_share", "%"),
        ("trajectory: RPE translation, per frame", "rpe_translation", ""),
        ("trajectory: RPE rotation, degrees", "rpe_rotation_deg", ""),
        ("trajectory: orientation error, degrees", "rotation_deg", ""),
    )
    true_travel = evaluation.true_travel_over_depth
    known = "" if true_travel is None else f" (true {true_travel:.3f})"
    label = f"trajectory: length / depth{known}"
    lines.append(row(label, scene.travel_over_depth, baseline.travel_over_depth))
    if scene.focal_error is not None:
        lines.append(row("focal length error", scene.focal_error, None, unit="%"))
    lines += rows(
        "masks",
        ("motion masks: J (intersection over union)", "j_mean", ""),
        ("motion masks: frames with J > 0.5", "j_recall", "%"),
        ("motion masks: precision", "precision", "%"),
        ("motion masks: recall", "recall", "%"),
    )
    if evaluation.left_out:
        lines.append(f"no truth for: {', '.join(evaluation.left_out)}")
    return "\n".join(lines)


def _cell(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4f}"


def without_nan(value: Any) -> Any:
    """`value` with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
