"""Evaluation of a scene against ground truth: depth, cameras and motion masks.

The ground truth is a folder like that of the bundled demo clip (docs/metrics.md): `depth.npz` (key
`depth`, (k,H,W), 0 = unknown), `dynamic.npz` (key `mask`, (k,H,W)), `camera.npz` (keys `cam2world`
(k,4,4) and `K` (3,3) or (k,3,3)), and optionally `frames/` with images whose names match the
scene's.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError
from dyn3r.evaluation.depth_metrics import DepthErrors, align_depth, depth_errors
from dyn3r.evaluation.mask_metrics import MaskErrors, mask_errors
from dyn3r.evaluation.trajectory import TrajectoryErrors, path_length, trajectory_errors
from dyn3r.io.images import IMAGE_SUFFIXES, natural_key, resize_nearest, visible_files
from dyn3r.io.mask_files import match_frames
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
class Truth:
    """Ground truth, resampled to the frames of a scene."""

    depth: Float[np.ndarray, "n h w"]
    """z along the optical axis; 0 where unknown."""
    dynamic: Bool[np.ndarray, "n h w"]
    """True on dynamic pixels."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera-to-world transforms."""
    K: Float[np.ndarray, "n 3 3"]
    """Intrinsics of the prepared frames in pixels."""


@dataclass(frozen=True)
class Measures:
    """Metrics of one result."""

    trajectory: TrajectoryErrors
    """Camera trajectory."""
    travel_over_depth: float
    """Length of the estimated trajectory over the median estimated depth; independent of scale."""
    depth: DepthErrors
    """Depth, aligned by one median scale for the sequence."""
    depth_scale_shift: DepthErrors
    """Depth, aligned by one scale and shift (least squares) for the sequence."""
    abs_rel_static: float
    """abs rel of the static pixels, at the scale of `depth`; NaN without any."""
    abs_rel_moving: float
    """abs rel of the dynamic pixels, at the scale of `depth`; NaN without any."""
    masks: MaskErrors
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
    true_travel_over_depth: float
    """Length of the true trajectory over the median true depth."""
    num_frames: int
    """Number of frames compared."""

    def table(self) -> str:
        """Text table of all metrics."""
        return _table(self)

    def to_json(self) -> dict[str, Any]:
        """Value for `json.dumps`; undefined metrics are None."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values


def evaluate(scene: SceneLike, truth_folder: str | Path) -> Evaluation:
    """Metrics of a scene against the ground truth of its clip (SPEC 11).

    The ground truth is resized (nearest neighbour) and cropped to the scene's frames. A scene may
    contain a subset of the clip's frames, matched by name or number.

    Raises:
        InputError: ground truth that is missing or does not fit, frames that cannot be matched.
    """
    truth = read_truth(truth_folder, scene.mapping, scene.names)
    focal = _focal(np.asarray(scene.K))
    measured = _measure(
        np.asarray(scene.depth),
        np.asarray(scene.T_world_camera),
        np.asarray(scene.dynamic),
        truth,
        float(np.abs(focal / _focal(truth.K) - 1).mean()),
    )
    static_camera = np.tile(np.eye(4), (len(truth.depth), 1, 1))
    constant_depth = np.ones_like(truth.depth)
    no_motion = np.zeros_like(truth.dynamic)
    baseline = _measure(constant_depth, static_camera, no_motion, truth, None)
    travel = path_length(truth.T_world_camera[:, :3, 3]) / _median_known(truth.depth)
    return Evaluation(measured, baseline, travel, len(truth.depth))


def read_truth(folder: str | Path, mapping: FrameMapping, names: tuple[str, ...]) -> Truth:
    """Ground truth of the frames `names`, at the resolution of the prepared frames.

    Raises:
        InputError: missing or damaged files, arrays that do not fit together or do not fit the
            source of the frames, frames that cannot be matched.
    """
    root = Path(folder)
    depth = _read_array(root / "depth.npz", "depth")
    dynamic = _read_array(root / "dynamic.npz", "mask")
    poses = _read_array(root / "camera.npz", "cam2world")
    K = _read_array(root / "camera.npz", "K")
    total = len(depth)
    if depth.ndim != 3 or dynamic.shape != depth.shape or poses.shape != (total, 4, 4):
        raise InputError(
            f"the ground truth in {root} does not fit together: depth {depth.shape}, "
            f"mask {dynamic.shape}, cam2world {poses.shape}"
        )
    if K.shape not in ((3, 3), (total, 3, 3)):
        raise InputError(
            f"K in {root / 'camera.npz'} must be (3,3) or ({total},3,3), not {K.shape}"
        )
    if depth.shape[1:] != mapping.source_hw:
        (h, w), (source_h, source_w) = depth.shape[1:], mapping.source_hw
        raise InputError(
            f"the ground truth in {root} is {w}x{h}, but the scene was made from "
            f"{source_w}x{source_h} images: are both of the same clip?"
        )
    index = match_frames(_frame_stems(root, total), names, root)
    true_K = mapping.K_from_source(np.broadcast_to(K.astype(np.float64), (total, 3, 3)))
    known = np.nan_to_num(depth[index].astype(np.float32), posinf=0.0, neginf=0.0)
    return Truth(
        depth=resize_nearest(known, mapping),
        dynamic=resize_nearest(dynamic[index] > 0, mapping),
        T_world_camera=poses[index].astype(np.float64),
        K=true_K[index],
    )


def _measure(
    depth: np.ndarray,
    T_world_camera: np.ndarray,
    dynamic: np.ndarray,
    truth: Truth,
    focal_error: float | None,
) -> Measures:
    """Metrics of depth, cameras and masks; `focal_error` is passed through."""
    known = (depth > 0) & np.isfinite(depth) & (truth.depth > 0)
    median = align_depth(depth[known], truth.depth[known], "median")

    def abs_rel(region: np.ndarray) -> float:
        if not (region & known).any():
            return float("nan")
        return depth_errors(depth, truth.depth, alignment=median, region=region).abs_rel

    return Measures(
        trajectory=trajectory_errors(T_world_camera, truth.T_world_camera),
        travel_over_depth=path_length(T_world_camera[:, :3, 3]) / _median_known(depth),
        depth=depth_errors(depth, truth.depth, alignment=median),
        depth_scale_shift=depth_errors(depth, truth.depth, alignment="scale_shift"),
        abs_rel_static=abs_rel(~truth.dynamic),
        abs_rel_moving=abs_rel(truth.dynamic),
        masks=mask_errors(dynamic, truth.dynamic),
        focal_error=focal_error,
    )


def _focal(K: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Geometric mean of fx and fy."""
    focal: np.ndarray = np.sqrt(K[:, 0, 0] * K[:, 1, 1])
    return focal


def _median_known(depth: np.ndarray) -> float:
    return float(np.median(depth[(depth > 0) & np.isfinite(depth)]))


def _frame_stems(root: Path, total: int) -> list[str]:
    """Names of the frames of the ground truth: those of the images in `frames/` if present."""
    folder = root / "frames"
    if folder.is_dir():
        files = [f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES]
        if len(files) == total:
            return [f.stem for f in sorted(files, key=natural_key)]
    return [f"frame_{index:06d}" for index in range(total)]


def _read_array(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"the ground truth in {path.parent} lacks {path.name}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if key not in arrays.files:
                raise InputError(f"{path} has no array '{key}'")
            array: np.ndarray = arrays[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if array.dtype.kind not in "buif":
        raise InputError(f"'{key}' in {path} must hold numbers, not {array.dtype}")
    return array


def _table(evaluation: Evaluation) -> str:
    scene, baseline = evaluation.scene, evaluation.baseline
    true_travel = evaluation.true_travel_over_depth

    def row(label: str, *values: float | None, unit: str = "") -> str:
        cells = [_cell(value, unit) for value in values]
        return f"{label:<44}" + "".join(f"{cell:>12}" for cell in cells)

    def pair(label: str, group: str, name: str, unit: str = "") -> str:
        values = (getattr(getattr(m, group), name) for m in (scene, baseline))
        return row(label, *values, unit=unit)

    title = f"{evaluation.num_frames} frames against ground truth"
    lines = [
        f"{title:<44}{'this scene':>12}{'baseline':>12}",
        pair("depth: abs rel, median scale", "depth", "abs_rel"),
        row("    static pixels", scene.abs_rel_static, baseline.abs_rel_static),
        row("    dynamic pixels", scene.abs_rel_moving, baseline.abs_rel_moving),
        pair("depth: share within 25 %", "depth", "delta1", "%"),
        pair("depth: abs rel, scale and shift", "depth_scale_shift", "abs_rel"),
        pair("depth: share within 25 %, scale and shift", "depth_scale_shift", "delta1", "%"),
        pair("depth: pixels with a prediction", "depth", "coverage", "%"),
        pair("trajectory: ATE (units of ground truth)", "trajectory", "ate"),
        pair("trajectory: ATE / length", "trajectory", "ate_share", "%"),
        pair("trajectory: RPE translation, per frame", "trajectory", "rpe_translation"),
        pair("trajectory: RPE rotation, degrees", "trajectory", "rpe_rotation_deg"),
        pair("trajectory: orientation error, degrees", "trajectory", "rotation_deg"),
        row(
            f"trajectory: length / depth (true {true_travel:.3f})",
            scene.travel_over_depth,
            baseline.travel_over_depth,
        ),
        row("focal length error", scene.focal_error, baseline.focal_error, unit="%"),
        pair("motion masks: J (intersection over union)", "masks", "j_mean"),
        pair("motion masks: frames with J > 0.5", "masks", "j_recall", "%"),
        pair("motion masks: precision", "masks", "precision", "%"),
        pair("motion masks: recall", "masks", "recall", "%"),
    ]
    return "\n".join(lines)


def _cell(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
