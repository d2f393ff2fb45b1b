"""The viewer: a web page with scenes, controls, a playback clock and a worker for longer jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.browser_cameras import BrowserCameras
from dyn3r.viewer.clock import Clock
from dyn3r.viewer.controls import Actions, Controls
from dyn3r.viewer.downloads import page_file, screenshot_file, turntable_file
from dyn3r.viewer.filmstrip import FilmstripPanel
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.playback import SIDE_BY_SIDE, Playback
from dyn3r.viewer.scene_nodes import SceneNodes
from dyn3r.viewer.worker import Worker

_SETTLE_S = 0.3  # time without a change of the controls before the points are selected again


class Viewer(WebPage):
    """A running viewer. `stop` ends it; `wait` blocks until Ctrl-C."""

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], host: str, port: int,
        appearance: Appearance | None = None, visibility: Visibility | None = None,
    ) -> None:  # fmt: skip
        """Open the page. The arguments are those of `dyn3r.viewer.view`.

        Raises:
            InputError: no port or host to listen on.
        """
        super().__init__(host, port)
        self._appearance = appearance or Appearance()
        self._visibility = visibility or Visibility()
        self._scenes, self._names = list(scenes), list(names)
        self._lock = threading.RLock()
        self.playback = Playback(
            self.server, self._scenes, self._names, self._appearance, self._visibility
        )
        self.clock = Clock(self.playback.num_frames, self.playback.fps)
        self.controls = Controls(
            self.server.gui, self._actions(), self.clock.num_frames, self.playback.choices,
            self._appearance, self._visibility,
        )  # fmt: skip
        self._changed_at_s: float | None = None
        self._filmstrip = FilmstripPanel(self.server.gui)
        self._cameras = BrowserCameras(self.server, self.playback)
        self._worker = Worker(self._show_failure)
        self._wake = threading.Event()
        self._clock_thread = threading.Thread(
            target=self._run_clock, name="dyn3r-viewer-clock", daemon=True
        )
        self._show_time()
        if self._visibility.trail_length:
            initial = self._visibility
            self._worker.submit(lambda: self._apply_visibility(initial))
        self._clock_thread.start()
        self._worker.start()

    @property
    def scene_nodes(self) -> SceneNodes:
        """Nodes of the scene that is shown; of several side by side, of the first."""
        return self.playback.leading

    @property
    def appearance(self) -> Appearance:
        """Appearance of the points on the page."""
        return self._appearance

    @property
    def visibility(self) -> Visibility:
        """Visibility of the elements on the page."""
        return self._visibility

    # --- what the controls do -------------------------------------------------------------------

    def play(self) -> None:
        """Start playback."""
        with self._lock:
            self.clock.play()
            self._show_time()

    def pause(self) -> None:
        """Pause playback."""
        with self._lock:
            self.clock.playing = False
            self._show_time()

    def seek(self, frame: int) -> None:
        """Show this frame."""
        with self._lock:
            self.clock.seek(frame)
            self._show_time()

    def step(self, by: int) -> None:
        """Pause and move by `by` frames, modulo the length of the clip."""
        with self._lock:
            self.clock.step(by)
            self._show_time()

    def choose_scene(self, name: str) -> None:
        """Show one of several scenes alone, or all of them (`side by side`)."""
        with self._lock, self.server.atomic():
            self.playback.choose(None if name == SIDE_BY_SIDE else self._names.index(name))
            frame, self.clock.num_frames = self.clock.frame, self.playback.num_frames
            self.clock.fps = self.playback.fps
            self.controls.menu.value = name
            self.controls.set_num_frames(self.clock.num_frames)
            self.clock.seek(frame)
            self._reopen_filmstrip()
            self._show_time()
        self._cameras.scene_changed()

    def set_appearance(self, appearance: Appearance) -> None:
        """Change points or colours. Returns when the changes are queued for sending."""
        self.controls.set_appearance(appearance)
        self._apply_appearance(appearance)

    def set_visibility(self, visibility: Visibility) -> None:
        """Show and hide elements. Trails are computed when they are first shown."""
        self.controls.set_visibility(visibility)
        self._apply_visibility(visibility)

    def set_point_size(self, factor: float) -> None:
        """Scale the points; 1 closes the gaps between neighbours at the median depth."""
        self.controls.size.value = min(max(factor, self.controls.size.min), self.controls.size.max)
        for nodes in self.playback.scene_nodes:
            nodes.set_point_size(factor)

    def reset_view(self, client: Any) -> None:
        """Move a browser's camera to the first view. `client` is viser's `ClientHandle`."""
        self._cameras.reset(client)

    def look_through_camera(self, client: Any) -> None:
        """Move a browser's camera to the viewpoint of the current frame's camera."""
        self._cameras.look_through(client, self.clock.frame)

    def follow_camera(self, *, enabled: bool) -> None:
        """Keep all browsers at the current frame's camera; disabled: restore their cameras."""
        with self._lock:
            self.controls.follow.value = enabled
            self._cameras.set_following(enabled=enabled)
            self._cameras.update(self.clock.frame)

    def show_filmstrip(self, *, visible: bool) -> None:
        """Show or hide the panel with image, depth and mask of the current frame."""
        with self._lock:
            self.controls.filmstrip.value = visible
            self._reopen_filmstrip()

    # --- implementation -------------------------------------------------------------------------

    def _end_work(self) -> None:
        self._wake.set()
        self._worker.stop()
        self._clock_thread.join(timeout=5)

    def _actions(self) -> Actions:
        return Actions(
            play_or_pause=lambda: self.pause() if self.clock.playing else self.play(),
            seek=self.seek,
            step=self.step,
            set_speed=lambda speed: self._set_clock(speed=speed),
            set_loop=lambda loop: self._set_clock(loop=loop),
            choose_scene=self.choose_scene,
            appearance_changed=self._appearance_changed,
            visibility_changed=self._visibility_changed,
            resize_points=self.set_point_size,
            show_filmstrip=lambda visible: self.show_filmstrip(visible=visible),
            reset_view=self.reset_view,
            look_through_camera=self.look_through_camera,
            follow_camera=lambda enabled: self.follow_camera(enabled=enabled),
            save=lambda kind, client: self._worker.submit(lambda: self._save(kind, client)),
        )

    def _appearance_changed(self) -> None:
        self._changed_at_s = time.monotonic()
        self._wake.set()

    def _visibility_changed(self) -> None:
        self._worker.submit(lambda: self._apply_visibility(self.controls.visibility))

    def _apply_appearance(self, appearance: Appearance) -> None:
        self._appearance = appearance
        for nodes in self.playback.scene_nodes:
            nodes.set_appearance(appearance)

    def _apply_visibility(self, visibility: Visibility) -> None:
        self._visibility = visibility
        self.playback.set_visibility(visibility)

    def _set_clock(self, **fields: Any) -> None:
        with self._lock:
            for name, value in fields.items():
                setattr(self.clock, name, value)
        self._wake.set()

    def _show_time(self) -> None:
        """Bring the page to the clock's frame."""
        frame = self.clock.frame
        with self.server.atomic():
            self.playback.show_frame(frame)
            self.controls.show_time(frame, self.playback.caption(frame), playing=self.clock.playing)
            self._filmstrip.update(self.scene_nodes.scene, frame)
            self._cameras.update(frame)
        self._wake.set()

    def _reopen_filmstrip(self) -> None:
        """Open the panel for the current scene, or close it, as the control says."""
        self._filmstrip.close()
        if self.controls.filmstrip.value:
            self._filmstrip.open(self.scene_nodes.scene, self.clock.frame)

    def _save(self, kind: str, client: Any) -> None:
        """Make a file and offer it to the browser that asked for it."""
        state = self.controls.saving
        state.visible, state.value = True, f"writing the {kind} ..."

        def progress(stage: str, done: int, total: int) -> None:
            state.value = f"{stage}: {done}/{total}"

        if kind == "screenshot":
            name, content = screenshot_file(client)
        elif kind == "turntable":
            name, content = turntable_file(self.playback, client, self._appearance, progress)
        else:
            name, content = page_file(self._scenes, self._names, self._appearance, self._visibility)
        client.send_file_download(name, content)
        state.value = f"{name}: {len(content) / 1e6:.1f} MB"

    def _show_failure(self, error: Exception) -> None:
        self.controls.saving.visible = True
        self.controls.saving.value = f"failed: {error}"

    def _run_clock(self) -> None:
        """Clock thread: advance while playing; apply a changed appearance once it has settled."""
        last_s, was_playing = time.monotonic(), False
        while not self.stopped:
            self._wake.wait(self._wait_s(last_s))
            self._wake.clear()
            now_s = time.monotonic()
            with self._lock:
                if self.clock.playing and was_playing:
                    self._advance(now_s - last_s)
                last_s, was_playing = now_s, self.clock.playing
            if self._changed_at_s is not None and now_s - self._changed_at_s >= _SETTLE_S:
                self._changed_at_s = None
                self._worker.submit(lambda: self._apply_appearance(self.controls.appearance))

    def _wait_s(self, last_s: float) -> float | None:
        """Seconds to sleep; None: until something wakes the clock thread."""
        if self.clock.playing:
            due = self.clock.seconds_to_next - (time.monotonic() - last_s)
            return min(max(due, 1 / 120), 0.1)
        return None if self._changed_at_s is None else _SETTLE_S / 3

    def _advance(self, seconds: float) -> None:
        before = self.clock.frame
        self.clock.advance(seconds)
        if self.clock.frame != before or not self.clock.playing:
            self._show_time()
            self._wake.clear()
