"""The viewer's page: controls, the clock's thread, the server's life."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dyn3r.errors import InputError
from dyn3r.scene import Scene
from dyn3r.viewer.plan import Clock, plan_clouds, plan_playback
from dyn3r.viewer.stage import Stage

logger = logging.getLogger(__name__)

_DROP = 20  # per cent of the pixels left out at first
_FOV_RAD = 0.96  # 55 degrees: nearer to a video camera than the 75 that browsers start with
_QUIET_S = 0.3  # a slider has to rest this long before the clouds are made again


class Viewer:
    """A running viewer. Stop it with `stop`, or let `wait` block until Ctrl-C.

    `server` is the viser server, for those who want to add to the page.
    """

    def __init__(self, scenes: Sequence[Scene], names: Sequence[str], host: str, port: int) -> None:
        import viser

        self._scenes, self._names = list(scenes), list(names)
        self.host = host
        with _quiet():
            self.server: Any = viser.ViserServer(
                host, free_port(host, port), label="dyn3r", verbose=False
            )
        self.port = int(self.server.get_port())
        self._lock = threading.RLock()
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._stale_since: float | None = None
        self.server.gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,  # it would publish the page through somebody's server
            control_width="medium",
        )
        self.stages = []
        for index, scene in enumerate(self._scenes):
            stage = Stage(
                self.server,
                f"/scene_{index}",
                plan_playback(scene),
                plan_clouds(scene, drop=_DROP / 100),
            )
            stage.root.visible = index == 0
            self.stages.append(stage)
        self._current = 0
        self.clock = Clock(self.stage.plan.num_frames, self.stage.plan.fps)
        self._make_controls()
        self._set_world()
        self._thread = threading.Thread(target=self._run, name="dyn3r-viewer", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to point a browser on this machine."""
        host = "localhost" if self.host in ("", "0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def get_host(self) -> str:
        """The host that is listened on."""
        return self.host

    def get_port(self) -> int:
        """The port that is listened on; not always the one that was asked for."""
        return self.port

    @property
    def stage(self) -> Stage:
        """The scene that is shown."""
        return self.stages[self._current]

    def wait(self) -> None:
        """Block until `stop` is called or Ctrl-C is pressed (then stop)."""
        try:
            while not self._stopped.wait(0.5):
                pass
        except KeyboardInterrupt:
            self.stop()

    def stop(self) -> None:
        """Close the page and free the port."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=5)
        with _quiet():
            self.server.stop()

    # --- what the controls do -------------------------------------------------------------------

    def play(self, playing: bool = True) -> None:
        """Let the clip run or pause."""
        with self._lock:
            if playing:
                self.clock.play()
            else:
                self.clock.playing = False
            self._show()

    def seek(self, frame: int) -> None:
        """Show this frame."""
        with self._lock:
            self.clock.seek(frame)
            self._show()

    def step(self, by: int) -> None:
        """Pause and go by so many frames, around the ends."""
        with self._lock:
            self.clock.step(by)
            self._show()

    def choose_scene(self, index: int) -> None:
        """Show another of the scenes, at the same frame as far as it has it."""
        with self._lock:
            self.stage.root.visible = False
            self._current = index
            self._menu.value = self._names[index]
            self.stage.root.visible = True
            plan, frame = self.stage.plan, self.clock.frame
            self.clock.num_frames, self.clock.fps = plan.num_frames, plan.fps
            self.clock.seek(frame)
            # The slider refuses a maximum below its value, and a value above its maximum.
            self._slider.value = 0
            self._slider.max = max(1, plan.num_frames - 1)
            self._set_world()
            self._show_parts()
            self.stage.set_point_size(self._size.value)
            self._show()
            for client in self.server.get_clients().values():
                self.first_view(client)
            self._clouds_changed()

    def first_view(self, client: Any) -> None:
        """Bring a browser's camera back to where it began."""
        plan = self.stage.plan
        view = plan.first_view
        self._parts["cameras"].value = self._parts["picture"].value = True
        with client.atomic():
            client.camera.fov = _FOV_RAD
            client.camera.up_direction = plan.upright.up_world
            client.camera.position = view.position
            client.camera.look_at = view.look_at

    def look_through(self, client: Any) -> None:
        """Put a browser's camera where the present frame's camera was."""
        plan, t = self.stage.plan, self.clock.frame
        T = plan.T_world_camera[t]
        # The camera's own picture would cover the points behind it.
        self._parts["cameras"].value = self._parts["picture"].value = False
        with client.atomic():
            client.camera.position = T[:3, 3]
            client.camera.look_at = T[:3, 3] + plan.unit * T[:3, 2]
            client.camera.fov = float(plan.fov_y_rad[t])

    # --- how it is done -------------------------------------------------------------------------

    def _set_world(self) -> None:
        plan, camera = self.stage.plan, self.server.initial_camera
        self.server.scene.set_up_direction(tuple(float(x) for x in plan.upright.up_world))
        camera.position, camera.look_at = plan.first_view.position, plan.first_view.look_at
        camera.fov = _FOV_RAD
        camera.near, camera.far = 0.01 * plan.unit, 1000 * plan.unit

    def _make_controls(self) -> None:
        gui = self.server.gui
        self._menu = gui.add_dropdown("scene", self._names, initial_value=self._names[0])
        self._menu.visible = len(self._scenes) > 1
        self._menu.on_update(self._scene_chosen)
        with gui.add_folder("time"):
            last = max(1, self.clock.num_frames - 1)
            self._slider = gui.add_slider("frame", min=0, max=last, step=1, initial_value=0)
            self._caption = gui.add_text("shown", self.stage.plan.captions[0], disabled=True)
            self._button = gui.add_button("play")
            steps = gui.add_button_group("step", ("previous", "next"))
            speed = gui.add_slider("speed", min=0.1, max=4.0, step=0.1, initial_value=1.0)
            loop = gui.add_checkbox("loop", True)
        self._slider.on_update(self._slider_moved)
        self._button.on_click(lambda _: self.play(not self.clock.playing))
        steps.on_click(lambda _: self.step(1 if steps.value == "next" else -1))
        speed.on_update(lambda _: setattr(self.clock, "speed", float(speed.value)))
        loop.on_update(lambda _: setattr(self.clock, "loop", bool(loop.value)))
        with gui.add_folder("show"):
            labels = ("background", "moving", "cameras", "picture", "axes")
            self._parts = {x: gui.add_checkbox(x, x != "axes") for x in labels}
            self._size = gui.add_slider("point size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
            self._drop = gui.add_slider(
                "drop unsure %",
                min=0,
                max=90,
                step=5,
                initial_value=_DROP,
                hint="leave out this share of the pixels, the least confident ones",
            )
            self._edges = gui.add_checkbox(
                "hide edges", True, hint="leave out points that hang between near and far"
            )
        for box in self._parts.values():
            box.on_update(lambda _: self._show_parts())
        self._size.on_update(lambda _: self.stage.set_point_size(self._size.value))
        self._drop.on_update(lambda _: self._clouds_changed())
        self._edges.on_update(lambda _: self._clouds_changed())
        gui.add_button("first view").on_click(lambda event: self.first_view(event.client))
        gui.add_button("look through the camera").on_click(
            lambda event: self.look_through(event.client)
        )

    def _scene_chosen(self, event: Any) -> None:
        if event.client is not None:
            self.choose_scene(self._names.index(self._menu.value))

    def _slider_moved(self, event: Any) -> None:
        # Our own assignments come back as events without a client.
        if event.client is not None:
            self.seek(int(self._slider.value))

    def _show(self) -> None:
        """Bring the page to the clock's frame."""
        frame = self.clock.frame
        with self.server.atomic():
            self.stage.show_frame(frame)
            self._slider.value = frame
            self._caption.value = self.stage.plan.captions[frame]
            self._button.label = "pause" if self.clock.playing else "play"
        self._wake.set()

    def _show_parts(self) -> None:
        on = {name: bool(box.value) for name, box in self._parts.items()}
        self.stage.axes.visible = on.pop("axes")
        self.stage.show_parts(**on)

    def _clouds_changed(self) -> None:
        self._stale_since = time.monotonic()
        self._wake.set()

    def _run(self) -> None:
        """The clock's thread: advance while playing, make clouds anew when a slider has rested."""
        last, was_playing = time.monotonic(), False
        while not self._stopped.is_set():
            timeout = None
            if self.clock.playing:
                timeout = min(max(self.clock.frame_seconds, 1 / 60), 0.2)
            elif self._stale_since is not None:
                timeout = _QUIET_S
            self._wake.wait(timeout)
            self._wake.clear()
            now = time.monotonic()
            with self._lock:
                if self.clock.playing and was_playing:
                    shown = self.clock.frame
                    self.clock.advance(now - last)
                    if self.clock.frame != shown or not self.clock.playing:
                        self._show()
                        self._wake.clear()
                last, was_playing = now, self.clock.playing
            if self._stale_since is not None and now - self._stale_since >= _QUIET_S:
                self._stale_since = None
                index = self._current
                clouds = plan_clouds(
                    self._scenes[index],
                    drop=self._drop.value / 100,
                    hide_edges=self._edges.value,
                )
                self.stages[index].replace_clouds(clouds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what viser prints on starting and stopping to the log."""
    with io.StringIO() as printed:
        with contextlib.redirect_stdout(printed):
            yield
        logger.debug("viser says: %s", printed.getvalue())


def free_port(host: str, port: int, tries: int = 20) -> int:
    """The first port from `port` on that can be listened on; a later one is logged.

    Asked here, because viser itself would try a thousand ports and then hang on a bad host.

    Raises:
        InputError: nothing can listen on `host`, or all of the ports are taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"a port is a number from 0 to 65535, not {port}")
    for candidate in range(port, min(port + tries, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                found = int(probe.getsockname()[1])
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            reason = error.strerror or error
            raise InputError(f"cannot listen on host {host!r}: {reason}") from error
        if found != port and port != 0:
            logger.warning("port %d is taken: using %d", port, found)
        return found
    raise InputError(f"ports {port} to {port + tries - 1} are taken: give another one")
