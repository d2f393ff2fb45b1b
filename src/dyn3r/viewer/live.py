"""Watching a run while it goes on: frames are added as they are found."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError
from dyn3r.scene.background import grow, on_grid
from dyn3r.viewer.live_frame import LiveFrame, grid_step
from dyn3r.viewer.packing import Packed, add_cloud, quat_wxyz
from dyn3r.viewer.page import FOV_RAD, Page
from dyn3r.viewer.voxels import VoxelTable

if TYPE_CHECKING:
    from torch import Tensor

_ORANGE = (255, 140, 0)


@dataclass(frozen=True)
class LiveOptions:
    """How much of a run the live page keeps and shows."""

    points_per_frame: int = 30_000
    """At most this many background and as many moving points of each frame."""
    keep_frames: int = 300
    """Older frames leave the page, so that it can run for ever."""
    drop: float = 0.2
    """Share of each frame's pixels that is left out, the least confident ones."""
    mask_margin: int = 2
    """Pixels around moving ones that count as moving."""

    def __post_init__(self) -> None:
        if self.points_per_frame < 1 or self.keep_frames < 1:
            raise InputError("the live page needs at least one point and one frame to keep")
        if not 0 <= self.drop < 1 or self.mask_margin < 0:
            raise InputError("drop lies in 0..1 and mask_margin is not negative")


@dataclass(frozen=True)
class _Frame:
    time_s: float
    background: Any
    moving: Any
    camera: Any
    centre: Float[np.ndarray, " 3"]
    cells: np.ndarray
    """The voxels its background filled; they are freed when it leaves."""


class LiveViewer(Page):
    """A page that shows a run while it goes on. Call `add_frame` for each new frame.

        live = LiveViewer(port=8080)
        for ...:
            live.add_frame(time_s, image, depth, K, T_world_camera, dynamic, confidence)
        live.finish()
        live.wait()          # or live.stop()

    Only what is new is sent: a frame's background points where no point was before, its moving
    points, its camera with a small picture. Nothing waits for a browser; there may be none, one or
    several, and who comes later gets all frames that are kept. Calls may come from any thread, one
    at a time.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8080, options: LiveOptions | None = None
    ) -> None:
        """Open the page; `url` says where. See `dyn3r.viewer.view` for host and port.

        Raises:
            InputError: nothing can listen there.
        """
        super().__init__(host, port)
        self.options = options or LiveOptions()
        self._lock = threading.RLock()
        self._frames: deque[_Frame] = deque()
        self._count = 0
        self._shown = -1
        self._unit = 0.0
        self._size = 1.0
        self._table: VoxelTable | None = None
        self._make_controls()

    @property
    def num_frames(self) -> int:
        """Frames added so far, those that left the page included."""
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
        """Show one more frame. Tensors of any device, or NumPy arrays.

        Args:
            time_s: seconds since the start of the source.
            image: RGB, 0..1.
            depth: z along the optical axis in scene units; 0, negative or not finite: unknown.
            K: pixels, integer pixel centres.
            T_world_camera: maps camera to world; the world is the same for all frames.
            dynamic: True on pixels of what moves; None: nothing does.
            confidence: larger is surer; the least sure pixels are left out. 0: rejected.

        Raises:
            InputError: shapes that do not fit together, or a camera that is not finite.
        """
        seen = LiveFrame.of(image, depth, K, T_world_camera, dynamic, confidence)
        with self._lock:
            if self.stopped:
                return
            if self._table is None:
                self._begin(seen)
            with self.server.atomic():
                self._frames.append(self._make_nodes(float(time_s), seen))
                self._count += 1
                if len(self._frames) > self.options.keep_frames:
                    self._forget(self._frames.popleft())
                self._show_path()
                self._slider.max = max(1, self._count - 1)
                if self._follow.value or self._shown < self._count - len(self._frames):
                    self._show(self._count - 1)
                self._caption()

    def finish(self, text: str = "finished") -> None:
        """Say on the page that no more frames come. The page stays until `stop`."""
        with self._lock:
            self._status.value = f"{text}: {self._count} frames"

    # --- the page -------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        gui = self.server.gui
        self._status = gui.add_text("state", "waiting for the first frame", disabled=True)
        self._slider = gui.add_slider("frame", min=0, max=1, step=1, initial_value=0)
        self._follow = gui.add_checkbox("newest frame", True)
        self._boxes = {
            name: gui.add_checkbox(name, True) for name in ("background", "moving", "cameras")
        }
        size = gui.add_slider("point size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
        self._slider.on_update(self._slider_moved)
        size.on_update(lambda _: self._resize(float(size.value)))
        for name, box in self._boxes.items():
            root = self.server.scene.add_frame(f"/{name}", show_axes=False)
            box.on_update(lambda _, root=root, box=box: setattr(root, "visible", bool(box.value)))

    def _begin(self, seen: LiveFrame) -> None:
        """The first frame decides on the unit of length, the first view and the size of voxels."""
        known = seen.depth[seen.depth > 0]
        self._unit = float(np.median(known)) if len(known) else 1.0
        step = grid_step(seen.depth.shape, self.options.points_per_frame)
        self._pixel = self._unit / float(seen.K[0, 0])
        self._table = VoxelTable(step * self._pixel)
        T, camera = seen.T_world_camera, self.server.initial_camera
        up = -T[:3, 1]
        self.server.scene.set_up_direction(tuple(float(x) for x in up))
        camera.position = T[:3, 3] + self._unit * (0.3 * up - 0.4 * T[:3, 2])
        camera.look_at = T[:3, 3] + self._unit * T[:3, 2]
        camera.fov, camera.near, camera.far = FOV_RAD, 0.01 * self._unit, 1000 * self._unit
        path = np.tile(T[:3, 3].astype(np.float32), (1, 2, 1))
        self._path = self.server.scene.add_line_segments(
            "/cameras/path", path, _ORANGE, thickness=3, thickness_units="screen"
        )

    def _make_nodes(self, time_s: float, seen: LiveFrame) -> _Frame:
        assert self._table is not None
        t, api, options = self._count, self.server.scene, self.options
        chosen = seen.reliable(options.drop)
        moves = chosen & seen.dynamic
        still = chosen & ~grow(seen.dynamic, options.mask_margin)
        step = grid_step(still.shape, options.points_per_frame)
        points, colors = seen.points(on_grid(still, step, step // 2, step // 2))
        new, cells = self._table.fill(points)
        background = seen.pack(points[new], colors[new], self._unit)
        share = max(moves.mean(), 1e-9)
        step = grid_step(moves.shape, round(options.points_per_frame / share))
        moving = on_grid(moves, step, step // 2, step // 2)
        moving_cloud = seen.pack(*seen.points(moving), self._unit)
        T = seen.T_world_camera
        camera = api.add_camera_frustum(
            f"/cameras/{t}",
            fov=float(2 * np.arctan(seen.depth.shape[0] / 2 / seen.K[1, 1])),
            aspect=seen.depth.shape[1] / seen.depth.shape[0],
            scale=0.07 * self._unit,
            thickness=2.0,
            thickness_units="screen",
            color=_ORANGE,
            image=seen.thumbnail(),
            jpeg_quality=75,
            wxyz=quat_wxyz(T[:3, :3]),
            position=T[:3, 3],
            visible=False,
        )
        return _Frame(
            time_s,
            self._cloud(f"/background/{t}", background, visible=True),
            self._cloud(f"/moving/{t}", moving_cloud, visible=False),
            camera,
            T[:3, 3],
            cells,
        )

    def _cloud(self, name: str, cloud: Packed, *, visible: bool) -> Any:
        size = self._size * 2.0 * self._pixel
        return add_cloud(self.server.scene, name, cloud, point_size=size, visible=visible)

    def _forget(self, frame: _Frame) -> None:
        assert self._table is not None
        self._table.free(frame.cells)
        for node in (frame.background, frame.moving, frame.camera):
            node.remove()

    def _show(self, t: int) -> None:
        first = self._count - len(self._frames)
        for index in {self._shown, t}:
            if index >= first:
                frame = self._frames[index - first]
                frame.moving.visible = frame.camera.visible = index == t
        self._shown = t
        self._slider.value = t

    def _show_path(self) -> None:
        centres = np.stack([frame.centre for frame in self._frames]).astype(np.float32)
        if len(centres) > 1:
            self._path.points = np.stack([centres[:-1], centres[1:]], axis=1)

    def _caption(self) -> None:
        first = self._count - len(self._frames)
        shown = self._frames[self._shown - first]
        self._status.value = f"frame {self._shown} of {self._count}, {shown.time_s:.2f} s"

    def _resize(self, factor: float) -> None:
        with self._lock, self.server.atomic():
            self._size = factor
            for frame in self._frames:
                for node in (frame.background, frame.moving):
                    node.point_size = factor * 2.0 * self._pixel / self._unit

    def _slider_moved(self, event: Any) -> None:
        if event.client is None or self._count == 0:  # our own assignment
            return
        with self._lock, self.server.atomic():
            self._follow.value = False
            self._show(max(int(self._slider.value), self._count - len(self._frames)))
            self._caption()
