"""colmap4d: a COLMAP model with dynamic points, and the times of its images and points.

Source: specification 1.0 of the package colmap4d (Apache-2.0): files beside those of the model with
int64 nanoseconds. `times.bin` has the time of each image, `points_t.bin` that of each dynamic
point; points without a time are static.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int

from dyn3r.export.colmap import write_model
from dyn3r.export.options import ExportOptions
from dyn3r.io.atomic import write_json
from dyn3r.scene import Scene
from dyn3r.types import Progress


def write_colmap4d(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write the files of `colmap`, and `sparse/0/{times.bin,points_t.bin,time_meta.json}`."""
    model = write_model(scene, folder, options, progress, moving=True)
    sparse = folder / "sparse" / "0"
    times = np.rint(1e9 * scene.times_s).astype(np.int64)
    image_ids = np.arange(1, len(scene) + 1)
    (sparse / "times.bin").write_bytes(_records("<u4", image_ids, times))
    moving = model.tracks.point >= model.num_static
    points, frames = model.tracks.point[moving], model.tracks.frame[moving]
    order = np.argsort(points)
    (sparse / "points_t.bin").write_bytes(_records("<u8", points[order] + 1, times[frames[order]]))
    about = {"colmap4d_spec": "1.0", "clock_domain": "relative", "producer": "dyn3r"}
    write_json(sparse / "time_meta.json", about)


def _records(id_type: str, ids: Int[np.ndarray, " k"], times_ns: Int[np.ndarray, " k"]) -> bytes:
    """A count and pairs of id and time, little-endian."""
    table = np.zeros(len(ids), np.dtype([("id", id_type), ("t_ns", "<i8")]))
    table["id"], table["t_ns"] = ids, times_ns
    return np.uint64(len(ids)).astype("<u8").tobytes() + table.tobytes()
