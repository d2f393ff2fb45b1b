"""What one browser sees: scenes, controls, timeline, and a clock of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from dyn3r.scene import Scene
from dyn3r.viewer.address import Address, read_address, write_address
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.browser_camera import BrowserCamera
from dyn3r.viewer.clock import Clock
from dyn3r.viewer.controls import Actions, Controls
from dyn3r.viewer.downloads import page_file, screenshot_file, turntable_file
from dyn3r.viewer.filmstrip import FilmstripPanel
from dyn3r.viewer.page_script import NARROW_PX, set_title, start_page_script
from dyn3r.viewer.picking import Picker
from dyn3r.viewer.playback import SIDE_BY_SIDE, Playback, PreparedScenes
from dyn3r.viewer.scene_nodes import SceneNodes
from dyn3r.viewer.timeline import Timeline
from dyn3r.viewer.viser_internals import keep_colors
from dyn3r.viewer.worker import Worker

_SETTLE_S = 0.15  # time without a change of the controls before the points are selected again
_RESEND_S = 0.5  # after a pause: a slow browser has drawn what was under way


@dataclass(frozen=True)
class Start:
    """State of a session at first."""

    appearance: Appearance = field(default_factory=Appearance)
    """Appearance of the points."""
    visibility: Visibility = field(default_factory=Visibility)
    """Visibility of the elements."""
    frame: int | None = None
    """Frame; None: the middle of the clip."""
    fit: bool = True
    """Move the browser's camera to the first view, or to that of the address; else leave it."""


class Session:
    """Scenes and controls for one browser; `stop` removes its threads, not its nodes.

    `target` is viser's `ClientHandle`, or a `ViserServer` for all browsers together (then the
    cameras of browsers are left alone).
    """

    def __init__(self, target: Any, scenes: PreparedScenes, start: Start) -> None:
        """Add scenes and controls to the page of `target`, and start the clock."""
        self.target, self.client = target, target if hasattr(target, "camera") else None
        self._prepared = scenes
        self._appearance, self._visibility = start.appearance, start.visibility
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self.playback = Playback(target, scenes, self._appearance, self._visibility)
        self.clock = Clock(self.playback.num_frames, self.playback.fps)
        self.clock.seek(self.clock.num_frames // 2 if start.frame is None else start.frame)
        self.controls = Controls(
            target.gui, self._actions(), self.clock.num_frames, self.playback,
            self._appearance, self._visibility,
        )  # fmt: skip
        self.timeline = Timeline(target.gui, self._actions(), self.playback.leading)
        self.picker = Picker(target, self.playback, self.controls.show_pick)
        self._changed_at_s: float | None = None
        self._resend_at_s: float | None = None
        self._filmstrip = FilmstripPanel(target.gui)
        self.camera = BrowserCamera(self.client, self.playback)
        self._worker = Worker(self._show_failure)
        self._wake = threading.Event()
        self._clock_thread = threading.Thread(
            target=self._run_clock, name="dyn3r-viewer-clock", daemon=True
        )
        self._show_time()
        if self._visibility.trail_length:
            initial = self._visibility
            self._worker.submit(lambda: self._apply_visibility(initial))
        if self.client is not None:
            start_page_script(target)
            set_title(target, scenes.title)
            keep_colors(target)
            self._connect_camera(self.client, fit=start.fit)
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

    def stop(self) -> None:
        """End the threads of the session."""
        self._stopped.set()
        self._wake.set()
        self._worker.stop()
        self._clock_thread.join(timeout=5)

    def remove(self) -> None:
        """End the session and remove what it shows from the page."""
        self.stop()
        self._filmstrip.close()
        self.picker.remove()
        self.timeline.remove()
        self.controls.remove()
        self.playback.remove()

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
            self._settle()

    def seek(self, frame: int) -> None:
        """Pause and show this frame."""
        with self._lock:
            self.clock.playing = False
            self.clock.seek(frame)
            self._show_time()
            self._settle()

    def step(self, by: int) -> None:
        """Pause and move by `by` frames, modulo the length of the clip."""
        with self._lock:
            self.clock.step(by)
            self._show_time()
            self._settle()

    def choose_scene(self, name: str) -> None:
        """Show one of several scenes alone, or all of them (`side by side`)."""
        with self._lock, self.target.atomic():
            names = self._prepared.names
            self.playback.choose(None if name == SIDE_BY_SIDE else names.index(name))
            frame, self.clock.num_frames = self.clock.frame, self.playback.num_frames
            self.clock.fps = self.playback.fps
            self.controls.menu.value = name
            self.timeline.set_scene(self.playback.leading, self.clock.num_frames)
            self.clock.seek(frame)
            self._reopen_filmstrip()
            self._show_time()
        self.camera.scene_changed()

    def set_appearance(self, appearance: Appearance) -> None:
        """Change points or colours. Returns when the changes are queued for sending."""
        self.controls.set_appearance(appearance)
        self._apply_appearance(appearance)

    def set_masks(self, scene: Scene) -> None:
        """Take the masks of another version of the only scene, whose geometry is the same."""
        with self._lock:
            self.scene_nodes.set_masks(scene)
            self._prepared.set_masks(scene, self.scene_nodes.points)
            self._filmstrip.update(self.scene_nodes.scene, self.clock.frame)

    def set_visibility(self, visibility: Visibility) -> None:
        """Show and hide elements. Trails are computed when they are first shown."""
        self.controls.set_visibility(visibility)
        self._apply_visibility(visibility)

    def set_point_size(self, factor: float) -> None:
        """Scale the points; at 1 neighbouring points touch."""
        self.controls.size.value = min(max(factor, self.controls.size.min), self.controls.size.max)
        for nodes in self.playback.scene_nodes:
            nodes.set_point_size(factor)

    def reset_view(self) -> None:
        """Move the browser's camera to the first view."""
        self.camera.reset()

    def look_through_camera(self) -> None:
        """Move the browser's camera to the viewpoint of the current frame's camera."""
        self.camera.look_through(self.clock.frame)

    def follow_camera(self, *, enabled: bool) -> None:
        """Keep the browser at the current frame's camera; disabled: restore its camera."""
        with self._lock:
            self.controls.follow.value = enabled
            self.camera.set_following(enabled=enabled)
            self.camera.update(self.clock.frame)

    def show_filmstrip(self, *, visible: bool) -> None:
        """Show or hide the panel with image, depth and mask of the current frame."""
        with self._lock:
            self.controls.filmstrip.value = visible
            self._reopen_filmstrip()

    def page_file(self) -> tuple[str, bytes]:
        """Name and content of the page as one file: colours, point size, legend, view as here."""
        size, view = float(self.controls.size.value), self.camera.state
        return page_file(self._prepared, self._appearance, self._visibility, size, view)

    # --- implementation -------------------------------------------------------------------------

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
            resize_frustums=self._resize_frustums,
            show_filmstrip=lambda visible: self.show_filmstrip(visible=visible),
            reset_view=self.reset_view,
            look_through_camera=self.look_through_camera,
            follow_camera=lambda enabled: self.follow_camera(enabled=enabled),
            measure=lambda enabled: self.picker.set_enabled(enabled=enabled),
            save=lambda kind, client: self._worker.submit(lambda: self._save(kind, client)),
        )

    def _connect_camera(self, client: Any, *, fit: bool) -> None:
        """Fit the first view to the window, or take the view of the address."""
        if fit:
            self.camera.reset()
            address = read_address(client)
            if address.frame is not None:
                self.seek(address.frame)
            if address.view is not None:
                self.camera.set_view(*address.view)
            if self.camera.size_px[0] <= NARROW_PX:
                self.play()  # the timeline lies in the sheet, which is collapsed
        self.timeline.fit(self.camera.size_px)
        client.camera.on_update(lambda _: self._camera_moved())

    def _camera_moved(self) -> None:
        if self._stopped.is_set():
            return
        self.camera.moved(self.clock.frame)
        self.timeline.fit(self.camera.size_px)
        self._settle()

    def _settle(self) -> None:
        """Send the frame again, and write the address, once nothing has changed for a while."""
        self._resend_at_s = time.monotonic() + _RESEND_S
        self._wake.set()

    def _settled(self) -> None:
        with self._lock:
            if self.clock.playing:
                return
            frame = self.clock.frame
            self.timeline.send_again(frame)
        if self.client is not None:
            camera = self.client.camera
            write_address(self.client, Address(frame, (camera.position, camera.look_at)))

    def _appearance_changed(self) -> None:
        self._changed_at_s = time.monotonic()
        self._wake.set()

    def _visibility_changed(self) -> None:
        self._worker.submit(lambda: self._apply_visibility(self.controls.visibility))

    def _resize_frustums(self, size: float, thickness: float) -> None:
        for nodes in self.playback.scene_nodes:
            nodes.set_frustums(size, thickness)

    def _apply_appearance(self, appearance: Appearance) -> None:
        self._appearance = appearance
        for nodes in self.playback.scene_nodes:
            nodes.set_appearance(appearance)
        self.controls.show_legend(appearance, self.playback.leading)

    def _apply_visibility(self, visibility: Visibility) -> None:
        self._visibility = visibility
        if visibility.trail_length and not all(n.trails for n in self.playback.scene_nodes):
            self.controls.show_state("computing trails ...")
        self.playback.set_visibility(visibility, self.controls.show_progress)
        self.controls.show_state("")

    def _set_clock(self, **fields: Any) -> None:
        with self._lock:
            for name, value in fields.items():
                setattr(self.clock, name, value)
        self._wake.set()

    def _show_time(self) -> None:
        """Bring the page to the clock's frame."""
        frame = self.clock.frame
        with self.target.atomic():
            self.playback.show_frame(frame)
            self.timeline.show_time(
                frame, *self.playback.caption(frame), playing=self.clock.playing
            )
            self._filmstrip.update(self.scene_nodes.scene, frame)
            self.camera.update(frame)
        self._wake.set()

    def _reopen_filmstrip(self) -> None:
        """Open the panel for the current scene, or close it, as the control says."""
        self._filmstrip.close()
        if self.controls.filmstrip.value:
            self._filmstrip.open(self.scene_nodes.scene, self.clock.frame)

    def _save(self, kind: str, client: Any) -> None:
        """Make a file and offer it to the browser that asked for it."""
        self.controls.show_state(f"writing the {kind} ...")
        if kind == "screenshot":
            name, content = screenshot_file(client)
        elif kind == "turntable":
            name, content = turntable_file(
                self.playback, client, self._appearance, self.controls.show_progress
            )
        else:
            name, content = self.page_file()
        client.send_file_download(name, content, save_immediately=True)
        self.controls.show_state(f"{name}: {len(content) / 1e6:.1f} MB")

    def _show_failure(self, error: Exception) -> None:
        self.controls.show_state(f"failed: {error}")

    def _run_clock(self) -> None:
        """Clock thread: advance while playing; apply what has settled."""
        last_s, was_playing = time.monotonic(), False
        while not self._stopped.is_set():
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
            if self._resend_at_s is not None and now_s >= self._resend_at_s:
                self._resend_at_s = None
                self._worker.submit(self._settled)

    def _wait_s(self, last_s: float) -> float | None:
        """Seconds to sleep; None: until something wakes the clock thread."""
        if self.clock.playing:
            due = self.clock.seconds_to_next - (time.monotonic() - last_s)
            return min(max(due, 1 / 120), 0.1)
        waiting = self._changed_at_s is not None or self._resend_at_s is not None
        return _SETTLE_S / 3 if waiting else None

    def _advance(self, seconds: float) -> None:
        before = self.clock.frame
        self.clock.advance(seconds)
        if self.clock.frame != before or not self.clock.playing:
            self._show_time()
            self._wake.clear()
