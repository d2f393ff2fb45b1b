"""rerun recording (.rrd): points, cameras, images, depth and motion over time (extra [rerun]).

Entities under `world` have the scene's own axes; a transform on `world` makes it upright (y up).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dyn3r.errors import MissingExtraError
from dyn3r.export.camera_conventions import K_at_pixel_corners, y_up
from dyn3r.export.clouds import collect_clouds
from dyn3r.export.depth_maps import depth_to_16_bit
from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene
from dyn3r.types import Progress

DEFAULT_POINTS = 500_000


def write_rerun(scene: Scene, path: Path, options: ExportOptions, progress: Progress) -> None:
    """Write one .rrd file.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun", "the rerun export") from error
    clouds = collect_clouds(scene, options, default_points=DEFAULT_POINTS)
    size = 0.75 * scene.median_depth / float(np.median(scene.K[:, 0, 0]))
    recording = rr.RecordingStream("dyn3r")
    stream = rr.binary_stream(recording)
    recording.log("/", rr.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    T = y_up(scene)
    recording.log("world", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]), static=True)
    labels = rr.AnnotationContext([(0, "static", (0, 0, 0, 0)), (1, "moving", (255, 48, 48))])
    recording.log("world/camera/motion", labels, static=True)
    centres = scene.T_world_camera[:, :3, 3]
    recording.log("world/path", rr.LineStrips3D([centres], colors=[(255, 140, 0)]), static=True)
    recording.log("world/static", _points(rr, clouds.static, size), static=True)
    for t in range(len(scene)):
        progress("recording", t, len(scene))
        recording.set_time("frame", sequence=t)
        recording.set_time("time", duration=float(scene.times_s[t]))
        recording.log("world/moving", _points(rr, clouds.moving[t], size))
        _log_camera(rr, recording, scene, t)
    # rerun's own writer waits for ever where the disk is full
    path.write_bytes(stream.read() or b"")
    progress("recording", len(scene), len(scene))
    recording.disconnect()


def _points(rr: Any, cloud: PointCloud, radius: float) -> Any:
    return rr.Points3D(cloud.points_world, colors=cloud.colors, radii=radius)


def _log_camera(rr: Any, recording: Any, scene: Scene, t: int) -> None:
    T, (height, width) = scene.T_world_camera[t], scene.size_hw
    recording.log("world/camera", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
    lens = rr.Pinhole(
        image_from_camera=K_at_pixel_corners(scene.K[t : t + 1])[0],
        resolution=[width, height],
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=0.1 * scene.median_depth,
    )
    recording.log("world/camera", lens)
    recording.log("world/camera/rgb", rr.Image(scene.images[t]).compress(jpeg_quality=90))
    step = max(float(scene.depth[t].max()), 1e-12) / 65535
    values = depth_to_16_bit(scene.depth[t], step)
    recording.log("world/camera/depth", rr.DepthImage(values, meter=1 / step))
    motion = scene.dynamic[t].astype(np.uint8)
    recording.log("world/camera/motion", rr.SegmentationImage(motion))
