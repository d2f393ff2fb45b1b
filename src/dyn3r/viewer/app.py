"""The viewer: a page with a show, its controls, a clock, and a worker for what takes longer."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dyn3r.errors import Dyn3rError
from dyn3r.scene import Scene
from dyn3r.scene.pictures import find_limits
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.clock import Clock
from dyn3r.viewer.controls import Actions, Controls
from dyn3r.viewer.downloads import page_file, screenshot_file, turntable_file
from dyn3r.viewer.filmstrip import strip_picture, strip_width
from dyn3r.viewer.frustums import BrowserCameras
from dyn3r.viewer.page import Page
from dyn3r.viewer.playback import EVERYTHING, Show
from dyn3r.viewer.scene_nodes import Stage

logger = logging.getLogger(__name__)

_QUIET_S = 0.3  # a slider has to rest this long before the points are made again


class Viewer(Page):
    """A running viewer. Stop it with `stop`, or let `wait` block until Ctrl-C."""

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], host: str, port: int,
        look: Look | None = None, parts: Parts | None = None,
    ) -> None:  # fmt: skip
        super().__init__(host, port)
        look, parts = look or Look(), parts or Parts()
        self._scenes, self._names = list(scenes), list(names)
        self._lock = threading.RLock()
        self.show = Show(self.server, self._scenes, self._names, look, parts)
        self.clock = Clock(self.show.num_frames, self.show.fps)
        self.controls = Controls(
            self.server.gui, self._actions(), self.clock.num_frames, self.show.choices, look, parts
        )
        self._look, self._parts = look, parts
        self._stale_since: float | None = None
        self._strip: Any = None
        self._strip_panel: Any = None
        self._cameras = BrowserCameras(self.server, self.show)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_time, name="dyn3r-viewer-clock", daemon=True),
            threading.Thread(target=self._work, name="dyn3r-viewer-work", daemon=True),
        ]
        self._show_time()
        if parts.trail:
            self._jobs.put(lambda: self._take_parts(parts))
        for thread in self._threads:
            thread.start()

    @property
    def stage(self) -> Stage:
        """The scene that is shown; of several side by side the first."""
        return self.show.leading

    @property
    def look(self) -> Look:
        """Which points are on the page, in which colours."""
        return self._look

    @property
    def parts(self) -> Parts:
        """Which parts are visible."""
        return self._parts

    # --- what the controls do -------------------------------------------------------------------

    def play(self, playing: bool = True) -> None:
        """Let the clip run or pause."""
        with self._lock:
            if playing:
                self.clock.play()
            else:
                self.clock.playing = False
            self._show_time()

    def seek(self, frame: int) -> None:
        """Show this frame."""
        with self._lock:
            self.clock.seek(frame)
            self._show_time()

    def step(self, by: int) -> None:
        """Pause and go by so many frames, around the ends."""
        with self._lock:
            self.clock.step(by)
            self._show_time()

    def choose_scene(self, name: str) -> None:
        """Show one of several scenes alone, or all of them (`side by side`)."""
        with self._lock, self.server.atomic():
            self.show.choose(None if name == EVERYTHING else self._names.index(name))
            frame, self.clock.num_frames = self.clock.frame, self.show.num_frames
            self.clock.fps = self.show.fps
            self.controls.menu.value = name
            self.controls.set_num_frames(self.clock.num_frames)
            self.clock.seek(frame)
            self._show_strip()
            self._show_time()
        self._cameras.scene_changed()

    def set_look(self, look: Look) -> None:
        """Other points or colours; returns when they are on their way."""
        self.controls.show_look(look)
        self._take_look(look)

    def set_parts(self, parts: Parts) -> None:
        """Switch parts on and off."""
        self.controls.show_parts(parts)
        self._take_parts(parts)

    def set_point_size(self, factor: float) -> None:
        """Point size as a multiple of the one that closes the gaps."""
        self.controls.size.value = min(max(factor, self.controls.size.min), self.controls.size.max)
        for stage in self.show.stages:
            stage.set_point_size(factor)

    def first_view(self, client: Any) -> None:
        """Bring a browser's camera back to where it began."""
        self._cameras.first_view(client)

    def look_through(self, client: Any) -> None:
        """Put a browser's camera where the present frame's camera was."""
        self._cameras.look_through(client, self.clock.frame)

    def follow(self, following: bool) -> None:
        """Look through the camera while time passes; off brings every browser back."""
        with self._lock:
            self.controls.follow.value = following
            self._cameras.follow(following)
            self._cameras.go_on(self.clock.frame)

    def show_strip(self, shown: bool) -> None:
        """The panel with frame, depth and mask of the time shown."""
        with self._lock:
            self.controls.strip.value = shown
            self._show_strip()

    # --- how it is done -------------------------------------------------------------------------

    def _end_work(self) -> None:
        self._jobs.put(None)
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _actions(self) -> Actions:
        return Actions(
            play_or_pause=lambda: self.play(not self.clock.playing),
            seek=self.seek,
            step=self.step,
            set_speed=lambda speed: self._set_clock(speed=speed),
            set_loop=lambda loop: self._set_clock(loop=loop),
            choose_scene=self.choose_scene,
            look_changed=self._look_changed,
            parts_changed=lambda: self._jobs.put(lambda: self._take_parts(self.controls.parts)),
            resize_points=self.set_point_size,
            show_strip=self.show_strip,
            first_view=self.first_view,
            look_through=self.look_through,
            follow=self.follow,
            save=lambda kind, client: self._jobs.put(lambda: self._save(kind, client)),
        )

    def _take_look(self, look: Look) -> None:
        self._look = look
        for stage in self.show.stages:
            stage.set_look(look)

    def _take_parts(self, parts: Parts) -> None:
        self._parts = parts
        self.show.show_parts(parts)

    def _set_clock(self, **fields: Any) -> None:
        with self._lock:
            for name, value in fields.items():
                setattr(self.clock, name, value)
        self._wake.set()

    def _show_time(self) -> None:
        """Bring the page to the clock's frame."""
        frame = self.clock.frame
        with self.server.atomic():
            self.show.show_frame(frame)
            self.controls.show_time(frame, self.show.caption(frame), self.clock.playing)
            if self._strip is not None:
                self._strip.image = self._strip_picture()
            self._cameras.go_on(frame)
        self._wake.set()

    def _show_strip(self) -> None:
        """Make the strip's panel anew, as it is as wide as its pictures are, or take it away."""
        if self._strip is not None:
            self._strip_panel.remove()
            self._strip = None
        if not self.controls.strip.value:
            return
        self._limits = find_limits(self.stage.scene)
        self._strip_panel = self.server.gui.add_panel()
        with self._strip_panel.add_tab("frame, depth, mask"):
            self._strip = self.server.gui.add_image(self._strip_picture(), jpeg_quality=85)
        self._strip_panel.float(x=16, y=16)
        self._strip_panel.set_width(min(560, strip_width(self.stage.scene) + 32))

    def _strip_picture(self) -> np.ndarray:
        scene = self.stage.scene
        return strip_picture(scene, min(self.clock.frame, len(scene) - 1), self._limits)

    def _look_changed(self) -> None:
        self._stale_since = time.monotonic()
        self._wake.set()

    def _save(self, kind: str, client: Any) -> None:
        """Make a file and offer it to the browser that asked."""
        state = self.controls.saving
        state.visible, state.value = True, f"making the {kind} ..."

        def progress(stage: str, done: int, total: int) -> None:
            state.value = f"{stage}: {done}/{total}"

        if kind == "screenshot":
            name, content = screenshot_file(client)
        elif kind == "turntable":
            name, content = turntable_file(self.show, client, self._look, progress)
        else:
            name, content = page_file(self._scenes, self._names, self._look, self._parts)
        client.send_file_download(name, content)
        state.value = f"{name}: {len(content) / 1e6:.1f} MB"

    def _work(self) -> None:
        """The worker's thread: one job after the other, so that time goes on meanwhile."""
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except (Dyn3rError, OSError, RuntimeError, TimeoutError, ValueError) as problem:
                if self.stopped:
                    return
                # One job that failed (a browser that left, a full disk) must not end the page.
                logger.exception("the viewer could not do what was asked for")
                self.controls.saving.visible = True
                self.controls.saving.value = f"failed: {problem}"

    def _keep_time(self) -> None:
        """The clock's thread: advance while playing, ask for points when a slider has rested."""
        last, was_playing = time.monotonic(), False
        while not self.stopped:
            timeout = None
            if self._stale_since is not None:
                timeout = _QUIET_S / 3
            if self.clock.playing:
                due = self.clock.seconds_to_next - (time.monotonic() - last)
                timeout = min(max(due, 1 / 120), 0.1)
            self._wake.wait(timeout)
            self._wake.clear()
            now = time.monotonic()
            with self._lock:
                if self.clock.playing and was_playing:
                    shown = self.clock.frame
                    self.clock.advance(now - last)
                    if self.clock.frame != shown or not self.clock.playing:
                        self._show_time()
                        self._wake.clear()
                last, was_playing = now, self.clock.playing
            if self._stale_since is not None and now - self._stale_since >= _QUIET_S:
                self._stale_since = None
                self._jobs.put(lambda: self._take_look(self.controls.look))
