"""Puts a plan on a viser page. Every node is made once; playing only switches visibility."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.scene import PointCloud
from dyn3r.viewer.plan import Clouds, PlaybackPlan, camera_path_segments, camera_segments

_ORANGE, _GREY = (255, 140, 0), (120, 120, 120)


class Stage:
    """The nodes of one scene below one root node."""

    def __init__(self, server: Any, root: str, plan: PlaybackPlan, clouds: Clouds) -> None:
        self._scene, self._root, self.plan = server.scene, root, plan
        self._atomic = server.atomic
        self._frame = 0
        with self._atomic():
            self.root = self._scene.add_frame(root, show_axes=False)
            self.axes = self._scene.add_frame(
                f"{root}/axes",
                axes_length=0.1 * plan.unit,
                axes_radius=0.0015 * plan.unit,
                visible=False,
            )
            self.background = self._cloud(f"{root}/background", clouds.background)
            self._make_cameras()
            self._movers = self._scene.add_frame(f"{root}/moving", show_axes=False)
            self._pictures = self._scene.add_frame(f"{root}/pictures", show_axes=False)
            self.moving = [
                self._cloud(f"{root}/moving/{t}", cloud, visible=t == 0)
                for t, cloud in enumerate(clouds.moving)
            ]
            self.frusta = [self._frustum(t) for t in range(plan.num_frames)]

    @property
    def frame(self) -> int:
        """The frame that is shown."""
        return self._frame

    def show_frame(self, t: int) -> None:
        """Show the moving points and the picture of frame t instead of the present one's."""
        if t == self._frame:
            return
        with self._atomic():
            for nodes in (self.moving, self.frusta):
                nodes[t].visible = True
                nodes[self._frame].visible = False
        self._frame = t

    def show_parts(self, *, background: bool, moving: bool, cameras: bool, picture: bool) -> None:
        """Switch whole groups on and off."""
        with self._atomic():
            self.background.visible = background
            self._movers.visible = moving
            self.path.visible = cameras
            self.cameras.visible = cameras
            self._pictures.visible = picture

    def set_point_size(self, factor: float) -> None:
        """Point size as a multiple of the one that closes the gaps."""
        with self._atomic():
            for cloud in (self.background, *self.moving):
                cloud.point_size = factor * self.plan.point_size

    def replace_clouds(self, clouds: Clouds) -> None:
        """Show other points in the same nodes."""
        with self._atomic():
            handles = (self.background, *self.moving)
            for handle, cloud in zip(handles, (clouds.background, *clouds.moving)):
                handle.points, handle.colors = _never_empty(cloud)

    def _cloud(self, name: str, cloud: PointCloud, visible: bool = True) -> Any:
        points, colors = _never_empty(cloud)
        return self._scene.add_point_cloud(
            name,
            points,
            colors,
            point_size=self.plan.point_size,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
            visible=visible,
        )

    def _frustum(self, t: int) -> Any:
        plan = self.plan
        return self._scene.add_camera_frustum(
            f"{self._root}/pictures/{t}",
            fov=float(plan.fov_y_rad[t]),
            aspect=plan.aspect,
            scale=0.07 * plan.unit,
            thickness=2.0,
            thickness_units="screen",
            color=_ORANGE,
            image=plan.thumbnails[t],
            wxyz=quat_wxyz(plan.T_world_camera[t, :3, :3]),
            position=plan.T_world_camera[t, :3, 3],
            visible=t == 0,
        )

    def _make_cameras(self) -> None:
        plan = self.plan
        every = max(1, -(-plan.num_frames // 40))
        self.cameras = self._lines(f"{self._root}/cameras", camera_segments(plan, every), _GREY, 1)
        # A path of one camera has no segment; a segment of no length keeps the node alive.
        path = camera_path_segments(plan)
        if len(path) == 0:
            path = np.repeat(plan.T_world_camera[:1, None, :3, 3], 2, axis=1)
        self.path = self._lines(f"{self._root}/path", path, _ORANGE, 3)

    def _lines(self, name: str, segments: np.ndarray, colour: tuple, pixels: float) -> Any:
        return self._scene.add_line_segments(
            name,
            segments.astype(np.float32),
            colour,
            thickness=pixels,
            thickness_units="screen",
        )


def quat_wxyz(R: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 4"]:
    """Unit quaternion of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(R).as_quat(), 1)


def _never_empty(cloud: PointCloud) -> tuple[np.ndarray, np.ndarray]:
    # Browsers get no empty buffers: a cloud without points is one point out of sight.
    if len(cloud.points_world):
        return cloud.points_world, cloud.colors
    return np.full((1, 3), 1e6, np.float32), np.zeros((1, 3), np.uint8)
