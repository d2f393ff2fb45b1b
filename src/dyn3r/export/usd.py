"""USD: an animated point cloud and camera (extra [usd]).

y up, right-handed; the camera looks along -z with y up; colours in linear light; one time code per
frame at the scene's frame rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dyn3r.errors import MissingExtraError
from dyn3r.export.camera_conventions import (
    OPENGL_FROM_OPENCV,
    K_at_pixel_corners,
    transform_points,
    y_up,
)
from dyn3r.export.clouds import collect_clouds, linear_colors
from dyn3r.export.options import ExportOptions
from dyn3r.scene import PointCloud, Scene
from dyn3r.types import Progress

DEFAULT_POINTS = 500_000
DEFAULT_FPS = 10.0
_FOCAL_LENGTH = 35.0  # tenths of a unit; only its ratio to the aperture matters


def write_usd(
    scene: Scene,
    path: Path,
    options: ExportOptions,
    _progress: Progress,
) -> None:
    """Write one .usdc (binary), .usda (text) or .usd file.

    Raises:
        MissingExtraError: usd-core is not installed.
    """
    try:
        from pxr import Sdf, Usd, UsdGeom
    except ImportError as error:
        raise MissingExtraError("usd-core", "usd", "the USD export") from error
    fps = scene.fps or DEFAULT_FPS
    T = y_up(scene)
    clouds = collect_clouds(scene, options, default_points=DEFAULT_POINTS)
    layer = Sdf.Layer.CreateAnonymous(path.suffix)
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    codes = [round(float(s - scene.times_s[0]) * fps, 6) for s in scene.times_s]
    if (np.diff(codes) <= 0).any():
        codes = [float(t) for t in range(len(scene))]
    stage.SetStartTimeCode(codes[0])
    stage.SetEndTimeCode(codes[-1])
    root = UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    root.GetPrim().SetCustomDataByKey("dyn3r:unit", "arbitrary unless stated otherwise")
    width = 1.5 * scene.median_depth / float(np.median(scene.K[:, 0, 0]))
    if len(clouds.static.points_world):
        _set_points(_points(stage, "/scene/static", width), clouds.static, T)
    if any(len(cloud.points_world) for cloud in clouds.moving):
        moving = _points(stage, "/scene/moving", width)
        for code, cloud in zip(codes, clouds.moving):
            _set_points(moving, cloud, T, code)
    _camera(stage, scene, T, codes)
    _write_layer(layer, path)


def _write_layer(layer: Any, path: Path) -> None:
    """Write the file. Raises OSError where USD can't."""
    from pxr import Tf

    try:
        written = layer.Export(str(path))
    except Tf.ErrorException:
        written = False
    if not written:
        raise OSError("USD can't write it; is the disk full?")


def _points(stage: Any, prim_path: str, width: float) -> Any:
    """A USD prim for points of this width."""
    from pxr import UsdGeom, Vt

    points = UsdGeom.Points.Define(stage, prim_path)
    points.CreateWidthsAttr(Vt.FloatArray([width]))
    points.SetWidthsInterpolation(UsdGeom.Tokens.constant)
    points.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
    return points


def _set_points(points: Any, cloud: PointCloud, T: np.ndarray, code: float | None = None) -> None:
    """Set the points of a prim, for one time code or (None) for all times."""
    from pxr import Usd, Vt

    time = Usd.TimeCode.Default() if code is None else Usd.TimeCode(code)
    xyz = transform_points(T, cloud.points_world)
    colors = linear_colors(cloud.colors).astype(np.float32)
    points.GetPointsAttr().Set(Vt.Vec3fArray.FromNumpy(xyz), time)
    points.GetDisplayColorAttr().Set(Vt.Vec3fArray.FromNumpy(colors), time)
    extent = np.stack([xyz.min(axis=0), xyz.max(axis=0)]) if len(xyz) else np.zeros((2, 3))
    points.CreateExtentAttr().Set(Vt.Vec3fArray.FromNumpy(extent.astype(np.float32)), time)


def _camera(stage: Any, scene: Scene, T: np.ndarray, codes: list[float]) -> None:
    """Add the camera with its pose and intrinsics at every time code."""
    from pxr import Gf, Usd, UsdGeom

    camera = UsdGeom.Camera.Define(stage, "/scene/camera")
    transform = camera.AddTransformOp()
    height, width = scene.size_hw
    near, far = 0.001 * scene.median_depth, 1000 * scene.median_depth
    camera.CreateClippingRangeAttr(Gf.Vec2f(near, far))
    camera.CreateFocalLengthAttr(_FOCAL_LENGTH)
    for t, code in enumerate(codes):
        time, K = Usd.TimeCode(code), K_at_pixel_corners(scene.K[t : t + 1])[0]
        per_x, per_y = _FOCAL_LENGTH / K[0, 0], _FOCAL_LENGTH / K[1, 1]
        camera.GetHorizontalApertureAttr().Set(float(width * per_x), time)
        camera.GetVerticalApertureAttr().Set(float(height * per_y), time)
        camera.GetHorizontalApertureOffsetAttr().Set(float((width / 2 - K[0, 2]) * per_x), time)
        camera.GetVerticalApertureOffsetAttr().Set(float((K[1, 2] - height / 2) * per_y), time)
        # USD's matrices are for row vectors, so ours are transposed.
        matrix = (T @ scene.T_world_camera[t] @ OPENGL_FROM_OPENCV).T
        transform.Set(Gf.Matrix4d(matrix.tolist()), time)
