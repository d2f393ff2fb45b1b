"""Cameras of pycolmap with its default settings, as a baseline (Schönberger and Frahm 2016).

SIFT at full resolution, exhaustive matching, one camera, the largest model of incremental mapping.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import GeometryError, InputError, MissingExtraError
from dyn3r.evaluation.benchmark import Result, machine, trajectory_metrics
from dyn3r.evaluation.benchmark_frames import numbering_gaps, truth_gaps
from dyn3r.evaluation.protocols import Protocol
from dyn3r.evaluation.trajectory import aligned_path, trajectory_errors
from dyn3r.evaluation.truth import Truth
from dyn3r.types import package_version

LEAST_FRAMES = 3
"""Frames below which a similarity transform fits any path."""


def run_colmap(sequence: Sequence, protocol: Protocol) -> Result:
    """The camera metrics of pycolmap over the frames that it registers.

    The metric `registered` is their share of the frames with a true pose; the others count in no
    error.

    Raises:
        InputError: the protocol compares no cameras, or the sequence has no true path.
        GeometryError: fewer than 3 frames are registered.
        MissingExtraError: pycolmap is not installed.
    """
    if "cameras" not in protocol.tasks or sequence.T_world_camera is None:
        raise InputError(f"{sequence.name}: pycolmap finds cameras, and there is no true path")
    started = time.monotonic()
    T, focal = colmap_cameras(sequence)
    seconds = time.monotonic() - started
    true = sequence.T_world_camera
    posed = np.isfinite(true).all(axis=(1, 2))
    known = posed & np.isfinite(T).all(axis=(1, 2))
    if known.sum() < LEAST_FRAMES:
        raise GeometryError(f"pycolmap registers {known.sum()} of {len(sequence)} frames")
    errors = trajectory_errors(T[known], true[known])
    static = trajectory_errors(np.tile(np.eye(4), (int(posed.sum()), 1, 1)), true[posed])
    metrics = {**trajectory_metrics(errors), "registered": float(known.sum() / posed.sum())}
    if sequence.K is not None:
        true_focal = np.sqrt(sequence.K[:, 0, 0] * sequence.K[:, 1, 1])
        metrics["focal"] = float(np.abs(focal / true_focal - 1).mean())
    path = np.full((len(T), 3), np.nan)
    path[known] = aligned_path(T[known], true[known])
    distance = np.linalg.norm(path - true[:, :3, 3], axis=1)
    return Result(
        protocol=protocol.name, sequence=sequence.name, frames=len(sequence), seconds=seconds,
        metrics=metrics, baseline=trajectory_metrics(static),
        per_frame={"distance": distance.tolist()},
        curves={"path": path.tolist(), "true path": true[:, :3, 3].tolist()},
        missing=[
            *numbering_gaps(sequence.frame_names),
            *truth_gaps(sequence, Truth(T_world_camera=true)),
        ],
        about={"unit": sequence.unit, "dyn3r_version": package_version(), "machine": machine()},
    )  # fmt: skip


def colmap_cameras(sequence: Sequence) -> tuple[Float[np.ndarray, "n 4 4"], float]:
    """Camera-to-world transforms, NaN where a frame is not registered, and the focal length in
    pixels of the images (NaN without a model)."""
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("pycolmap", "colmap", "the baseline colmap") from None
    names = [f"{i:06d}.png" for i in range(len(sequence))]
    with tempfile.TemporaryDirectory() as folder:
        work, images = Path(folder), Path(folder) / "images"
        images.mkdir()
        for i, name in enumerate(names):
            Image.fromarray(sequence.image(i)).save(images / name, compress_level=1)
        database = work / "database.db"
        pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE)
        pycolmap.match_exhaustive(database)
        models: dict[int, Any] = pycolmap.incremental_mapping(database, images, work)
    T = np.full((len(names), 4, 4), np.nan)
    model = max(models.values(), key=lambda found: found.num_reg_images(), default=None)
    if model is None:
        return T, float("nan")
    for image in model.images.values():
        if image.has_pose:
            T[names.index(image.name)] = np.eye(4)
            T[names.index(image.name), :3] = image.cam_from_world().inverse().matrix()
    return T, float(np.mean([camera.mean_focal_length() for camera in model.cameras.values()]))
