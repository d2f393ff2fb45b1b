"""Evaluation of sequences of a data set by a protocol: reconstruct, compare, one result each."""

from __future__ import annotations

import hashlib
import importlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from dyn3r.datasets.sequence import Reader, Sequence
from dyn3r.errors import InputError
from dyn3r.evaluation.depth_metrics import DepthErrors, depth_errors, relative_error, resize_depth
from dyn3r.evaluation.evaluate import Evaluation, compare, without_nan
from dyn3r.evaluation.mask_metrics import region_similarity
from dyn3r.evaluation.protocols import Protocol
from dyn3r.evaluation.trajectory import TrajectoryErrors, aligned_path
from dyn3r.evaluation.truth import Truth
from dyn3r.io.images import frame_mapping, prepare_image, resize_nearest
from dyn3r.types import Clip, FrameMapping, RunContext, package_version

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
    about: dict[str, Any] = field(default_factory=dict)
    """Options, version, model, machine, unit and notes of the sequence."""

    def to_json(self) -> dict[str, Any]:
        """Value for `json.dumps`; numbers that are not finite become None."""
        values: dict[str, Any] = without_nan(dict(vars(self)))
        return values


def read_sequences(protocol: Protocol, root: Path, names: tuple[str, ...] = ()) -> list[Sequence]:
    """The sequences of a data set that a protocol takes, with the frames that it takes.

    `names` chooses some of them; otherwise those of the protocol that are under `root`.

    Raises:
        InputError: another data set or layout, unknown names, nothing left.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the root of the data set with --root")
    reader: Reader = importlib.import_module(f"dyn3r.datasets.{protocol.dataset}").sequences
    found = {s.name: s for s in reader(root)}
    if unknown := sorted(set(names) - set(found)):
        raise InputError(f"{root} has no sequence {unknown[0]!r:.60}: it has {', '.join(found)}")
    wanted = names or protocol.sequences or tuple(found)
    chosen = [found[n] for n in wanted if n in found and n not in protocol.exclude]
    if not chosen:
        raise InputError(f"{root} has none of the sequences of {protocol.name}")
    return [_frames(sequence, protocol) for sequence in chosen]


def _frames(sequence: Sequence, protocol: Protocol) -> Sequence:
    """The frames that a protocol takes; those of a prepared sequence were picked before."""
    if sequence.prepared_for is None:
        return sequence.take(start=protocol.start, stride=protocol.stride, limit=protocol.limit)
    if sequence.prepared_for != protocol.name:
        raise InputError(
            f"{sequence.name}: its frames were prepared for {sequence.prepared_for}: use that "
            f"protocol, or the data set as it unpacks for {protocol.name}"
        )
    return sequence.take(limit=protocol.limit)


def is_complete(protocol: Protocol, sequences: list[str]) -> bool:
    """Whether these are the sequences of the published table, all of them and no others."""
    if protocol.sequences is not None:
        return set(protocol.sequences) == set(sequences)
    return protocol.count is None or protocol.count == len(set(sequences))


def run_sequence(
    sequence: Sequence,
    protocol: Protocol,
    model: Model,
    options: Options,
    size: int | None = None,
    context: RunContext | None = None,
    keep: Callable[[Scene, Clip], None] | None = None,
) -> Result:
    """Reconstruct a sequence and compare it with its truth.

    `keep` is given the scene and its clip before they are dropped. Raises the errors of
    `dyn3r.errors` for frames or truth that cannot be read, and for runs that fail.
    """
    from dyn3r.pipeline import reconstruct

    check_truth(sequence, protocol)
    clip = prepare_clip(sequence, size or model.image_size, stretch=protocol.stretch)
    started = time.monotonic()
    scene = reconstruct(clip, model, options, context=context or RunContext())
    seconds = time.monotonic() - started
    if keep is not None:
        keep(scene, clip)
    about = {
        "model": model.about, "size": size or model.image_size, "plan": scene.metadata.get("plan"),
        "unit": sequence.unit, "mask_kind": sequence.mask_kind, "notes": list(sequence.notes),
        "dyn3r_version": package_version(), "machine": machine(),
    }  # fmt: skip
    return measure(scene, sequence, protocol, seconds=seconds, about=about)


def check_truth(sequence: Sequence, protocol: Protocol) -> None:
    """Raise InputError if a sequence has no truth for any task of the protocol."""
    truths = {"masks": sequence.mask, "depth": sequence.depth, "cameras": sequence.T_world_camera}
    if "cameras" in protocol.tasks and sequence.K is not None:
        return
    if all(truths[task] is None for task in protocol.tasks):
        raise _no_truth(sequence, protocol)


def _no_truth(sequence: Sequence, protocol: Protocol) -> InputError:
    tasks = ", ".join(protocol.tasks)
    return InputError(f"{sequence.name} has no truth for {tasks}, which {protocol.name} compares")


def prepare_clip(sequence: Sequence, size: int, *, stretch: bool = False) -> Clip:
    """The frames of a sequence as the network reads them (SPEC 2).

    `stretch`: resized to multiples of 16 without a crop (DATASETS.md, 1.2, no_crop).
    Raises InputError for frames of different sizes.
    """
    first = sequence.image(0)
    hw = (first.shape[0], first.shape[1])
    mapping = frame_mapping(hw, size=size)
    if stretch:
        mapping = FrameMapping(hw, mapping.size_hw, (0, 0), mapping.size_hw)
    frames = np.empty((len(sequence), *mapping.size_hw, 3), np.uint8)
    for i in range(len(sequence)):
        image = first if i == 0 else sequence.image(i)
        if image.shape != first.shape:
            raise InputError(
                f"{sequence.name}: frame {sequence.frame_names[i]} has another size than the first"
            )
        frames[i] = prepare_image(Image.fromarray(image), mapping)
    times = np.arange(len(sequence)) / sequence.fps
    times = times if sequence.times_s is None else sequence.times_s - sequence.times_s[0]
    return Clip(frames, mapping, sequence.frame_names, times, sequence.name, sequence.fps)


def truth_of(sequence: Sequence, mapping: FrameMapping, protocol: Protocol) -> Truth:
    """The truth that a protocol compares, at the resolution of prepared frames.

    True depth at or beyond the protocol's `max_depth` is left out (0). Cameras of which no frame
    is known are no truth.
    """
    depth = dynamic = T = K = None
    if "depth" in protocol.tasks and sequence.depth is not None:
        depth = resampled(sequence.depth, len(sequence), mapping)
        depth = np.where(depth < protocol.max_depth, depth, np.float32(0))
    if "masks" in protocol.tasks and sequence.mask is not None:
        dynamic = resampled(sequence.mask, len(sequence), mapping)
    if "cameras" in protocol.tasks:
        T = sequence.T_world_camera
        if T is not None and not np.isfinite(T).all(axis=(1, 2)).any():
            T = None
        K = None if sequence.K is None else mapping.K_from_source(sequence.K)
    return Truth(depth=depth, dynamic=dynamic, T_world_camera=T, K=K)


def resampled(read: Callable[[int], np.ndarray], n: int, mapping: FrameMapping) -> np.ndarray:
    """Maps of any size, resized and cropped like the frames."""
    out = None
    for i in range(n):
        values = read(i)
        own = FrameMapping(
            (values.shape[0], values.shape[1]), mapping.resized_hw, mapping.crop_xy, mapping.size_hw
        )
        if out is None:
            out = np.empty((n, *mapping.size_hw), values.dtype)
        out[i] = resize_nearest(values, own)
    assert out is not None
    return out


def measure(
    scene: Scene,
    sequence: Sequence,
    protocol: Protocol,
    *,
    seconds: float = 0.0,
    about: dict[str, Any] | None = None,
) -> Result:
    """Compare a scene with the truth of its sequence as the protocol says.

    Raises:
        InputError: no truth for any task of the protocol.
    """
    truth = truth_of(sequence, scene.mapping, protocol)
    if all(array is None for array in vars(truth).values()):
        raise _no_truth(sequence, protocol)
    evaluation = compare(scene, truth)
    metrics, baseline = (_metrics(evaluation, which) for which in ("scene", "baseline"))
    if truth.dynamic is not None:
        static = ~truth.dynamic
        metrics["false moving"] = float(scene.dynamic[static].mean()) if static.any() else None
        baseline["false moving"] = 0.0
    pixels = 0
    if truth.depth is not None:
        errors = _depth(scene.depth, sequence, truth, protocol)
        constant = _depth(np.ones_like(scene.depth), sequence, truth, protocol)
        metrics |= {"abs rel": errors.abs_rel, "d<1.25": errors.delta1}
        baseline |= {"abs rel": constant.abs_rel, "d<1.25": constant.delta1}
        pixels = errors.valid_pixels
    return Result(
        protocol=protocol.name, sequence=sequence.name, frames=len(scene), seconds=seconds,
        metrics=metrics, baseline=baseline, per_frame=_per_frame(scene, truth),
        curves=_curves(scene, truth), pixels=pixels, about=about or {},
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


def _depth(depth: np.ndarray, sequence: Sequence, truth: Truth, protocol: Protocol) -> DepthErrors:
    """Depth errors; where frames are stretched, at the size of the truth (DATASETS.md, 1.3)."""
    assert truth.depth is not None
    if not protocol.stretch:
        return depth_errors(
            depth, truth.depth, alignment=protocol.depth_alignment, clip=protocol.clip
        )
    assert sequence.depth is not None
    true = np.stack([sequence.depth(i) for i in range(len(sequence))])
    resized = resize_depth(np.asarray(depth, np.float32), (true.shape[1], true.shape[2]))
    return depth_errors(
        resized,
        true,
        alignment=protocol.depth_alignment,
        max_depth=protocol.max_depth,
        clip=protocol.clip,
    )


def _per_frame(scene: Scene, truth: Truth) -> dict[str, list[float | None]]:
    """Errors of every frame, for plots."""
    out: dict[str, Float[np.ndarray, " n"]] = {}
    if truth.dynamic is not None:
        out["J"] = region_similarity(np.asarray(scene.dynamic), truth.dynamic)
    if truth.depth is not None:
        error = relative_error(np.asarray(scene.depth), truth.depth)
        count, total = np.isfinite(error).sum((1, 2)), np.nansum(error, axis=(1, 2))
        out["abs rel"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    if truth.T_world_camera is not None:
        path = aligned_path(scene.T_world_camera, truth.T_world_camera)
        out["distance"] = np.linalg.norm(path - truth.T_world_camera[:, :3, 3], axis=1)
    return {name: [float(v) for v in values] for name, values in out.items()}


def _curves(scene: Scene, truth: Truth) -> dict[str, Any]:
    """Aligned and true camera centres; precision and recall of the motion map by threshold."""
    out: dict[str, Any] = {}
    if truth.T_world_camera is not None:
        path = aligned_path(scene.T_world_camera, truth.T_world_camera)
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
