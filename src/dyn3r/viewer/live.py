"""Live page: a run in progress, to which frames are added as they are computed."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dyn3r.errors import InputError
from dyn3r.io.text import counted
from dyn3r.scene.background import grow, on_grid
from dyn3r.viewer.frustums import CAMERA_COLOR, IMAGE_SCALE
from dyn3r.viewer.layout import FOV_RAD
from dyn3r.viewer.live_frame import LiveFrame, grid_step
from dyn3r.viewer.packing import PackedCloud, add_cloud, point_size, quat_wxyz
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.voxels import VoxelTable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LiveOptions:
    """Limits of the live page.

    Raises:
        InputError: a value out of its range.
    """

    points_per_frame: int = 30_000
    """Largest number of background points, and of dynamic points, per frame."""
    keep_frames: int = 300
    """Number of frames on the page; older ones are removed."""
    drop: float = 0.0
    """Share (0..1) of each frame's pixels to leave out, the least confident ones."""
    mask_margin: int = 2
    """Pixels around dynamic ones that are left out of the background."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.points_per_frame < 1 or self.keep_frames < 1:
            raise InputError("points_per_frame and keep_frames must be 1 or more")
        if not 0 <= self.drop < 1 or self.mask_margin < 0:
            raise InputError("drop must lie in 0..1 and mask_margin must not be negative")


@dataclass(frozen=True)
class _FrameNodes:
    """viser nodes of one frame."""

    time_s: float
    background: Any
    moving: Any
    camera: Any
    centre: Float[np.ndarray, " 3"]
    clouds: tuple[PackedCloud, PackedCloud]
    """Clouds of `background` and of `moving`."""
    slots: Int[np.ndarray, " k"]
    """Slots of the voxel table that the frame occupies; freed when it is removed."""


class LiveViewer(WebPage):
    """A page that shows a run in progress. Call `add_frame` for each new frame.

        live = LiveViewer(port=8080)
        for ...:
            live.add_frame(time_s, image, depth, K, T_world_camera, dynamic, confidence)
        live.finish()
        live.wait()          # or live.stop()

    Only what is new is sent: background points in voxels that were empty, the dynamic points of
    the frame, its camera with a thumbnail. No call waits for a browser. Browsers may connect at
    any time and receive all frames that are kept. Calls may come from any thread, one at a time.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8080, options: LiveOptions | None = None
    ) -> None:
        """Open the page; `url` is its address. `host` and `port` are those of `view`.

        Raises:
            InputError: no port or host to listen on.
        """
        super().__init__(host, port)
        self.options = options or LiveOptions()
        self._lock = threading.RLock()
        self._frames: deque[_FrameNodes] = deque()
        self._count = 0
        self._current = -1
        self._unit = 0.0
        self._point_factor = 1.0
        self._voxels: VoxelTable | None = None
        self._add_controls()

    @property
    def num_frames(self) -> int:
        """Number of frames added so far, including those removed since."""
        return self._count

    def add_frame(
        self,
        time_s: float,
        image: Float[Tensor, "3 h w"],
        depth: Float[Tensor, "h w"],
        K: Float[Tensor, "3 3"],
        T_world_camera: Float[Tensor, "4 4"],
        dynamic: Bool[Tensor, "h w"] | None = None,
        confidence: Float[Tensor, "h w"] | None = None,
    ) -> None:
        """Add a frame. Tensors on any device and NumPy arrays are accepted.

        Args:
            time_s: seconds since the start of the source.
            image: RGB, 0..1.
            depth: z along the optical axis in scene units; 0, negative or not finite: unknown.
            K: intrinsics in pixels, integer pixel centres.
            T_world_camera: map from camera to world; the world is the same for all frames.
            dynamic: True on dynamic pixels; None: the frame is static.
            confidence: larger is more confident; the least confident pixels are left out. 0:
                rejected.

        Raises:
            InputError: shapes that do not fit together, or a camera that is not finite.
        """
        frame = LiveFrame.from_arrays(image, depth, K, T_world_camera, dynamic, confidence)
        with self._lock:
            if self.stopped:
                return
            if self._voxels is None:
                self._initialise(frame)
            with self.server.atomic():
                self._frames.append(self._add_nodes(float(time_s), frame))
                self._count += 1
                if len(self._frames) > self.options.keep_frames:
                    self._remove_nodes(self._frames.popleft())
                self._update_path()
                self._slider.max = max(1, self._count - 1)
                if self._follow.value or self._current < self._first_index:
                    self._show_frame(self._count - 1)
                self._update_status()

    def finish(self, text: str = "finished") -> None:
        """Show on the page that the run has ended. The page stays until `stop`."""
        with self._lock:
            self._status.value = f"{text}: {counted(self._count, 'frame')}"

    # --- the page -------------------------------------------------------------------------------

    @property
    def _first_index(self) -> int:
        """Index of the oldest frame on the page."""
        return self._count - len(self._frames)

    def _add_controls(self) -> None:
        gui = self.server.gui
        self._status = gui.add_text("state", "waiting for the first frame", disabled=True)
        self._slider = gui.add_slider("frame", min=0, max=1, step=1, initial_value=0)
        self._follow = gui.add_checkbox("newest frame", initial_value=True)
        for name in ("background", "moving", "cameras"):
            box = gui.add_checkbox(name, initial_value=True)
            root = self.server.scene.add_frame(f"/{name}", show_axes=False)
            box.on_update(lambda _, root=root, box=box: setattr(root, "visible", bool(box.value)))
        size = gui.add_slider("point size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
        size.on_update(lambda _: self._set_point_size(float(size.value)))
        self._slider.on_update(self._slider_moved)

    def _initialise(self, frame: LiveFrame) -> None:
        """Set unit of length, voxel size and first view from the first frame."""
        known = frame.depth[frame.depth > 0]
        self._unit = float(np.median(known)) if len(known) else 1.0
        step = grid_step(frame.depth.shape, self.options.points_per_frame)
        self._voxels = VoxelTable(step * self._unit / float(frame.K[0, 0]))
        T, camera = frame.T_world_camera, self.server.initial_camera
        up = -T[:3, 1]
        self.server.scene.set_up_direction(tuple(float(x) for x in up))
        camera.position = T[:3, 3] + self._unit * (0.3 * up - 0.4 * T[:3, 2])
        camera.look_at = T[:3, 3] + self._unit * T[:3, 2]
        camera.fov, camera.near, camera.far = FOV_RAD, 0.01 * self._unit, 1000 * self._unit
        path = np.tile(T[:3, 3].astype(np.float32), (1, 2, 1))
        self._path = self.server.scene.add_line_segments(
            "/cameras/path", path, CAMERA_COLOR, thickness=3, thickness_units="screen"
        )

    def _add_nodes(self, time_s: float, frame: LiveFrame) -> _FrameNodes:
        assert self._voxels is not None
        t, options = self._count, self.options
        chosen = frame.select(options.drop)
        dynamic = chosen & frame.dynamic
        static = chosen & ~grow(frame.dynamic, options.mask_margin)
        step = grid_step(static.shape, options.points_per_frame)
        points, colors = frame.points(on_grid(static, step, step // 2, step // 2))
        new, slots = self._voxels.insert(points)
        background = frame.pack(points[new], colors[new], self._unit, step)
        share = max(dynamic.mean(), 1e-9)
        step = grid_step(dynamic.shape, round(options.points_per_frame / share))
        chosen = on_grid(dynamic, step, step // 2, step // 2)
        moving = frame.pack(*frame.points(chosen), self._unit, step)
        return _FrameNodes(
            time_s,
            self._add_cloud(f"/background/{t}", background, visible=True),
            self._add_cloud(f"/moving/{t}", moving, visible=False),
            self._add_camera(t, frame),
            frame.T_world_camera[:3, 3],
            (background, moving),
            slots,
        )

    def _add_camera(self, t: int, frame: LiveFrame) -> Any:
        T, (height, width) = frame.T_world_camera, frame.depth.shape
        return self.server.scene.add_camera_frustum(
            f"/cameras/{t}",
            fov=float(2 * np.arctan(height / 2 / frame.K[1, 1])),
            aspect=width / height,
            scale=IMAGE_SCALE * self._unit,
            thickness=2.0,
            thickness_units="screen",
            color=CAMERA_COLOR,
            image=frame.thumbnail(),
            jpeg_quality=75,
            wxyz=quat_wxyz(T[:3, :3]),
            position=T[:3, 3],
            visible=False,
        )

    def _add_cloud(self, name: str, cloud: PackedCloud, *, visible: bool) -> Any:
        return add_cloud(self.server.scene, name, cloud, factor=self._point_factor, visible=visible)

    def _remove_nodes(self, frame: _FrameNodes) -> None:
        assert self._voxels is not None
        self._voxels.remove(frame.slots)
        for node in (frame.background, frame.moving, frame.camera):
            node.remove()

    def _show_frame(self, t: int) -> None:
        for index in {self._current, t}:
            if index >= self._first_index:
                frame = self._frames[index - self._first_index]
                frame.moving.visible = frame.camera.visible = index == t
        self._current = t
        self._slider.value = t

    def _update_path(self) -> None:
        centres = np.stack([frame.centre for frame in self._frames]).astype(np.float32)
        if len(centres) > 1:
            self._path.points = np.stack([centres[:-1], centres[1:]], axis=1)

    def _update_status(self) -> None:
        frame = self._frames[self._current - self._first_index]
        self._status.value = f"frame {self._current} of {self._count}, {frame.time_s:.2f} s"

    def _set_point_size(self, factor: float) -> None:
        with self._lock, self.server.atomic():
            self._point_factor = factor
            for frame in self._frames:
                for node, cloud in zip((frame.background, frame.moving), frame.clouds):
                    node.point_size = point_size(cloud, factor)

    def _slider_moved(self, event: Any) -> None:
        if event.client is None or self._count == 0:  # an assignment in code
            return
        with self._lock, self.server.atomic():
            self._follow.value = False
            self._show_frame(max(int(self._slider.value), self._first_index))
            self._update_status()
