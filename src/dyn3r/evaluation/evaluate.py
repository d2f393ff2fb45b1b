"""A scene against the truth: depth, cameras and motion masks in one table.

The truth is a folder as the bundled demo clip has it (docs/metrics.md): `depth.npz` (key `depth`,
(k,H,W), 0 = unknown), `dynamic.npz` (key `mask`, (k,H,W)), `camera.npz` (keys `cam2world` (k,4,4)
and `K` (3,3) or (k,3,3)), and perhaps `frames/` with the pictures, whose names match the scene's.
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
    """What `evaluate` reads of a scene; `dyn3r.Scene` has it."""

    @property
    def depth(self) -> Float[np.ndarray, "n h w"]: ...
    @property
    def T_world_camera(self) -> Float[np.ndarray, "n 4 4"]: ...
    @property
    def K(self) -> Float[np.ndarray, "n 3 3"]: ...
    @property
    def dynamic(self) -> Bool[np.ndarray, "n h w"]: ...
    @property
    def mapping(self) -> FrameMapping: ...
    @property
    def names(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Truth:
    """Ground truth brought onto the frames of a scene."""

    depth: Float[np.ndarray, "n h w"]
    """z depth; 0 where unknown."""
    dynamic: Bool[np.ndarray, "n h w"]
    """True on things that move."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera to world."""
    K: Float[np.ndarray, "n 3 3"]
    """Intrinsics of the prepared frames in pixels."""


@dataclass(frozen=True)
class Measures:
    """Everything that is measured of one result."""

    trajectory: TrajectoryErrors
    travel_over_depth: float
    """Length of the estimated camera path over the median estimated depth: free of scale."""
    depth: DepthErrors
    """After one median scale for the sequence."""
    depth_scale_shift: DepthErrors
    """After one scale and shift (least squares) for the sequence."""
    abs_rel_static: float
    """abs rel of the static pixels, with the scale of `depth`; NaN if there are none."""
    abs_rel_moving: float
    """abs rel of the moving pixels, with the scale of `depth`; NaN if there are none."""
    masks: MaskErrors
    focal_error: float | None
    """Mean of |focal / true focal - 1| over the frames; None for the baseline."""


@dataclass(frozen=True)
class Evaluation:
    """A scene's measures beside those of the trivial answer."""

    scene: Measures
    baseline: Measures
    """A flat wall filmed by a camera that stands still, with nothing moving."""
    true_travel_over_depth: float
    """Length of the true camera path over the median true depth."""
    num_frames: int

    def table(self) -> str:
        """A table of text lines for people."""
        return _table(self)

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`; what cannot be measured is None."""
        return _without_nan(asdict(self))


def evaluate(scene: SceneLike, truth_folder: str | Path) -> Evaluation:
    """Measure a scene against the truth of its clip (SPEC 11).

    The truth is resized (nearest) and cropped onto the scene's frames; a scene may hold a part of
    the clip's frames, matched by name or number.

    Raises:
        InputError: missing or unfit truth files, or frames that cannot be matched.
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
    still = np.tile(np.eye(4), (len(truth.depth), 1, 1))
    wall = np.ones_like(truth.depth)
    baseline = _measure(wall, still, np.zeros_like(truth.dynamic), truth, None)
    travel = path_length(truth.T_world_camera[:, :3, 3]) / _median_known(truth.depth)
    return Evaluation(measured, baseline, travel, len(truth.depth))


def read_truth(folder: str | Path, mapping: FrameMapping, names: tuple[str, ...]) -> Truth:
    """Read a truth folder for the frames `names`, on the pixels of the prepared frames.

    Raises:
        InputError: missing or damaged files, arrays that don't fit together or don't fit the
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
            f"the truth in {root} does not fit together: depth {depth.shape}, "
            f"mask {dynamic.shape}, cam2world {poses.shape}"
        )
    if K.shape not in ((3, 3), (total, 3, 3)):
        raise InputError(
            f"K in {root / 'camera.npz'} must be (3,3) or ({total},3,3), not {K.shape}"
        )
    if depth.shape[1:] != mapping.source_hw:
        raise InputError(
            f"the truth in {root} is {depth.shape[2]}x{depth.shape[1]} but the scene was made from "
            f"{mapping.source_hw[1]}x{mapping.source_hw[0]} pictures: is it of the same clip?"
        )
    picks = match_frames(_frame_stems(root, total), names, root)
    true_K = mapping.K_from_source(np.broadcast_to(K.astype(np.float64), (total, 3, 3)))
    known = np.nan_to_num(depth[picks].astype(np.float32), posinf=0.0, neginf=0.0)
    return Truth(
        depth=resize_nearest(known, mapping),
        dynamic=resize_nearest(dynamic[picks] > 0, mapping),
        T_world_camera=poses[picks].astype(np.float64),
        K=true_K[picks],
    )


def _measure(
    depth: np.ndarray,
    T_world_camera: np.ndarray,
    dynamic: np.ndarray,
    truth: Truth,
    focal_error: float | None,
) -> Measures:
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
    return np.sqrt(K[:, 0, 0] * K[:, 1, 1])


def _median_known(depth: np.ndarray) -> float:
    return float(np.median(depth[(depth > 0) & np.isfinite(depth)]))


def _frame_stems(root: Path, total: int) -> list[str]:
    """Names of the truth's frames: of the pictures in `frames/` if they are there."""
    folder = root / "frames"
    if folder.is_dir():
        files = [f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES]
        if len(files) == total:
            return [f.stem for f in sorted(files, key=natural_key)]
    return [f"frame_{index:06d}" for index in range(total)]


def _read_array(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"the truth folder lacks {path.name}: {path.parent} needs it")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if key not in arrays.files:
                raise InputError(f"{path} has no array '{key}'")
            array = arrays[key]
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

    title = f"{evaluation.num_frames} frames against the truth"
    lines = [
        f"{title:<44}{'this scene':>12}{'trivial':>12}",
        pair("depth: abs rel, median scale", "depth", "abs_rel"),
        row("    static pixels", scene.abs_rel_static, baseline.abs_rel_static),
        row("    moving pixels", scene.abs_rel_moving, baseline.abs_rel_moving),
        pair("depth: share within 25 %", "depth", "delta1", "%"),
        pair("depth: abs rel, scale and shift", "depth_scale_shift", "abs_rel"),
        pair("depth: share within 25 %, scale and shift", "depth_scale_shift", "delta1", "%"),
        pair("depth: pixels with a prediction", "depth", "coverage", "%"),
        pair("camera path: ATE (units of the truth)", "trajectory", "ate"),
        pair("camera path: ATE / path length", "trajectory", "ate_share", "%"),
        pair("camera path: RPE translation, per frame", "trajectory", "rpe_translation"),
        pair("camera path: RPE rotation, degrees", "trajectory", "rpe_rotation_deg"),
        pair("camera orientation error, degrees", "trajectory", "rotation_deg"),
        row(
            f"camera travel / median depth (true {true_travel:.3f})",
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
