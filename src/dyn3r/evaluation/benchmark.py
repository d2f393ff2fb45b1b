"""Evaluation of sequences of a data set by a protocol: reconstruct, compare, one result each."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.evaluation.benchmark_frames import numbering_gaps, prepare_clip, truth_gaps, truth_of
from dyn3r.evaluation.depth_metrics import DepthErrors, depth_errors, relative_error, resize_depth
from dyn3r.evaluation.evaluate import Evaluation, compare, without_nan
from dyn3r.evaluation.mask_metrics import region_similarity
from dyn3r.evaluation.protocols import Protocol
from dyn3r.evaluation.trajectory import TrajectoryErrors, aligned_path
from dyn3r.evaluation.truth import Truth
from dyn3r.scene.verdict import Verdict
from dyn3r.types import Clip, RunContext, package_version

if TYPE_CHECKING:
    from dyn3r.network.model import Model
    from dyn3r.options import Options
    from dyn3r.scene import Scene

THRESHOLDS = np.round(np.linspace(0.05, 0.95, 19), 2)
"""Thresholds of the precision-recall curve of masks."""


@dataclass(frozen=True)
class Result:
    """What a run on one sequence gave; `to_json` is the content of its file."""

    protocol: str
    sequence: str
    frames: int
    status: Literal["ok", "failed"] = "ok"
    error: str = ""
    """One line, of a failed run."""
    seconds: float = 0.0
    """Of the reconstruction, the loading of the model apart."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Name -> value as `protocols.METRICS` defines it; None: no truth, or not defined."""
    baseline: dict[str, float | None] = field(default_factory=dict)
    """The same of constant depth, a static camera and no motion."""
    per_frame: dict[str, list[float | None]] = field(default_factory=dict)
    """Name -> one value a frame: J, distance of camera centres, abs rel."""
    curves: dict[str, Any] = field(default_factory=dict)
    """Paths after alignment; precision and recall of masks by threshold."""
    pixels: int = 0
    """Valid pixels of the depth comparison."""
    missing: list[str] = field(default_factory=list)
    """Frames that are not there, and truth that only some frames have; one phrase each."""
    about: dict[str, Any] = field(default_factory=dict)
    """Options, version, model, machine, unit and notes of the sequence, and the verdict."""

    def to_json(self) -> dict[str, Any]:
        """Value for `json.dumps`; numbers that are not finite become None."""
        values: dict[str, Any] = without_nan(dict(vars(self)))
        return values

    @staticmethod
    def from_json(values: Any) -> Result:
        """The result of which `to_json` made `values`. Raises ValueError for anything else."""
        try:
            result = Result(**values)
            numbers = [*result.metrics.values(), *result.baseline.values()]
            numbers += [v for series in result.per_frame.values() for v in series]
            texts = [result.protocol, result.sequence, result.error, *result.missing]
            mappings = isinstance(result.curves, dict) and isinstance(result.about, dict)
            if mappings and result.about.get("verdict") is not None:
                Verdict.from_json(result.about["verdict"])
        except (TypeError, AttributeError, InputError) as error:
            raise ValueError(str(error)) from error
        fits = mappings and result.status in ("ok", "failed") and isinstance(result.frames, int)
        fits &= isinstance(result.pixels, int) and isinstance(result.seconds, (int, float))
        fits &= all(v is None or isinstance(v, (int, float)) for v in numbers)
        if not fits or not all(isinstance(text, str) for text in texts):
            raise ValueError("values of other types than those of a result")
        return result


def run_sequence(
    sequence: Sequence,
    protocol: Protocol,
    model: Model,
    options: Options,
    size: int | None = None,
    context: RunContext | None = None,
    keep: Callable[[Scene, Clip, Truth], None] | None = None,
) -> Result:
    """Reconstruct a sequence and compare it with its truth, which is read before.

    `keep` is given the scene, its clip and the truth before they are dropped. Raises the errors of
    `dyn3r.errors` for frames or truth that cannot be read, and for runs that fail.
    """
    from dyn3r.pipeline import reconstruct

    clip = prepare_clip(
        sequence, size or model.image_size, fit=model.fit(size), stretch=protocol.stretch
    )
    truth = truth_of(sequence, clip.mapping, protocol)
    started = time.monotonic()
    scene = reconstruct(clip, model, options, context=context or RunContext())
    seconds = time.monotonic() - started
    if keep is not None:
        keep(scene, clip, truth)
    about = {
        "model": model.about, "size": size or model.image_size, "plan": scene.metadata.get("plan"),
        "unit": sequence.unit, "mask_kind": sequence.mask_kind, "notes": list(sequence.notes),
        "dyn3r_version": package_version(), "machine": machine(),
        "verdict": None if scene.verdict is None else scene.verdict.to_json(),
    }  # fmt: skip
    return measure(scene, truth, sequence, protocol, seconds=seconds, about=about)


def measure(
    scene: Scene,
    truth: Truth,
    sequence: Sequence,
    protocol: Protocol,
    *,
    seconds: float = 0.0,
    about: dict[str, Any] | None = None,
) -> Result:
    """Compare a scene with the truth of its sequence (`truth_of`) as the protocol says.

    Raises:
        InputError: no pixel has both a true depth and an estimated one; damaged depth.
    """
    evaluation = compare(scene, truth)
    metrics, baseline = (_metrics(evaluation, which) for which in ("scene", "baseline"))
    if truth.dynamic is not None:
        static = ~truth.dynamic
        metrics["false moving"] = float(scene.dynamic[static].mean()) if static.any() else None
        baseline["false moving"] = 0.0
    pixels = 0
    if truth.depth is not None:
        depth = np.asarray(scene.depth)
        errors, constant = _depth([depth, np.ones_like(depth)], sequence, truth, protocol)
        metrics |= {"abs rel": errors.abs_rel, "d<1.25": errors.delta1}
        baseline |= {"abs rel": constant.abs_rel, "d<1.25": constant.delta1}
        pixels = errors.valid_pixels
    path = None
    if truth.T_world_camera is not None:
        path = aligned_path(scene.T_world_camera, truth.T_world_camera)
    return Result(
        protocol=protocol.name, sequence=sequence.name, frames=len(scene), seconds=seconds,
        metrics=metrics, baseline=baseline, per_frame=_per_frame(scene, truth, path),
        curves=_curves(scene, truth, path), pixels=pixels, about=about or {},
        missing=[*numbering_gaps(sequence.frame_names), *truth_gaps(sequence, truth)],
    )  # fmt: skip


def _metrics(evaluation: Evaluation, which: str) -> dict[str, float | None]:
    measures = getattr(evaluation, which)
    out: dict[str, float | None] = {}
    if measures.masks is not None:
        out |= {"JM": measures.masks.j_mean, "JR": measures.masks.j_recall,
                "precision": measures.masks.precision, "recall": measures.masks.recall}  # fmt: skip
    if (path := measures.trajectory) is not None:
        out |= trajectory_metrics(path)
    if "intrinsics" not in evaluation.left_out:
        out["focal"] = measures.focal_error
    return out


def trajectory_metrics(errors: TrajectoryErrors) -> dict[str, float | None]:
    """Metrics of a path by the names of `protocols.METRICS`."""
    return {"ATE": errors.ate, "RPEt": errors.rpe_translation, "RPEr": errors.rpe_rotation_deg,
            "ATE/path": errors.ate_share}  # fmt: skip


def _depth(
    predictions: list[np.ndarray], sequence: Sequence, truth: Truth, protocol: Protocol
) -> list[DepthErrors]:
    """Errors of each; where frames are stretched, at the size of the truth (DATASETS.md, 1.3)."""
    true = truth.depth
    assert true is not None
    if protocol.stretch:
        assert sequence.depth is not None
        true = np.stack([sequence.depth(i) for i in range(len(sequence))])
    size_hw = (true.shape[1], true.shape[2])
    return [
        depth_errors(
            resize_depth(p.astype(np.float32), size_hw) if protocol.stretch else p,
            true,
            alignment=protocol.depth_alignment,
            max_depth=protocol.max_depth,
            clip=protocol.clip,
        )
        for p in predictions
    ]


def _per_frame(
    scene: Scene, truth: Truth, path: Float[np.ndarray, "n 3"] | None
) -> dict[str, list[float | None]]:
    """Errors of every frame, for plots; `path`: camera centres after alignment."""
    out: dict[str, Float[np.ndarray, " n"]] = {}
    if truth.dynamic is not None:
        out["J"] = region_similarity(np.asarray(scene.dynamic), truth.dynamic)
    if truth.depth is not None:
        error = relative_error(np.asarray(scene.depth), truth.depth)
        count, total = np.isfinite(error).sum((1, 2)), np.nansum(error, axis=(1, 2))
        out["abs rel"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    if path is not None and truth.T_world_camera is not None:
        out["distance"] = np.linalg.norm(path - truth.T_world_camera[:, :3, 3], axis=1)
    return {name: [float(v) for v in values] for name, values in out.items()}


def _curves(scene: Scene, truth: Truth, path: Float[np.ndarray, "n 3"] | None) -> dict[str, Any]:
    """Aligned and true camera centres; precision and recall of the motion map by threshold."""
    out: dict[str, Any] = {}
    if path is not None and truth.T_world_camera is not None:
        out["path"] = np.round(path, 5).tolist()
        out["true path"] = np.round(truth.T_world_camera[:, :3, 3], 5).tolist()
    if truth.dynamic is not None and scene.dynamic_map is not None:
        import cv2

        h, w = truth.dynamic.shape[1:]
        soft = np.stack([cv2.resize(m, (w, h)) for m in scene.dynamic_map.astype(np.float32)])
        hits = [int((truth.dynamic & (soft > t)).sum()) for t in THRESHOLDS]
        found = [int((soft > t).sum()) for t in THRESHOLDS]
        out["masks"] = {"hits": hits, "found": found, "true": int(truth.dynamic.sum())}
    return out


def machine() -> dict[str, str | int]:
    """What it ran on, without the machine's name."""
    import os

    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(), "gpu": gpu, "torch": torch.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def model_hash(model: Model) -> str:
    """SHA-256 of a model's weights: names and values in order."""
    import torch

    digest = hashlib.sha256()
    for name, value in model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
