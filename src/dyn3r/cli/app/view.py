"""The app in one browser: clip, options, run, masks, downloads; the scene beside them."""

from __future__ import annotations

import base64
import html
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dyn3r.assets.examples import example_clips
from dyn3r.cli.app.downloads import DOWNLOADS, make_download
from dyn3r.cli.app.drop import DROP
from dyn3r.cli.app.jobs import Job
from dyn3r.cli.app.mask_controls import MaskControls
from dyn3r.cli.app.option_controls import option_controls
from dyn3r.cli.app.requests import Request
from dyn3r.cli.app.uploads import (
    CAMERA_FILES,
    Limits,
    accept_upload,
    describe_source,
    holds_cameras,
    limit_uploads,
)
from dyn3r.cli.app.work import Work
from dyn3r.errors import Dyn3rError, InputError
from dyn3r.motion.options import CUES
from dyn3r.options import METHODS, Options
from dyn3r.scene import Scene
from dyn3r.scene.sensitivity import at_sensitivity
from dyn3r.viewer.page_script import set_title, start_page_script
from dyn3r.viewer.scene_pane import ScenePane
from dyn3r.viewer.session import Session
from dyn3r.viewer.timeline import strip_html
from dyn3r.viewer.viser_internals import run_script

logger = logging.getLogger(__name__)

_WIDTH_PX = 330
_STRIP_FRAMES = 6
_STRIP_SIZE = 128
_MAX_STRIP_SCAN = 2000  # frames of a video that are decoded for its strip
_SIZES = ("160", "224", "320", "512")
_TEXT = "font-size:13px;margin:4px 12px;overflow-wrap:anywhere"
_HINT = "The controls of the scene appear here."
_INTRO = "Drop a video here, or a folder or a zip of images; or try an example."


class AppView:
    """Controls of the app for one browser. It shows the work of its user."""

    def __init__(self, client: Any, work: Work, limits: Limits) -> None:
        """Add the controls to the page of `client`, viser's `ClientHandle`."""
        self.work = work
        self._pane = ScenePane(client)
        self._client, self._limits = client, limits
        self._lock = threading.RLock()
        self._closed = False
        self._panel = client.gui.add_panel()
        self._panel.dock_left()
        self._panel.set_width(_WIDTH_PX)
        with self._panel.add_tab("video"):
            self._add_clip()
            self._add_options()
            self._add_run()
            self.masks = MaskControls(client, self, work.reconstructor.tracker)
            self._add_downloads()
        self._hint = client.gui.add_html(f"<div style='{_TEXT}'>{_HINT}</div>")
        client.gui.main_panel.minimize()  # it holds the controls of the scene
        limit_uploads(client, limits, self.say)
        start_page_script(client, collapse_sheet=False)
        self._panel.expand()
        set_title(client, "app")
        run_script(client, DROP)
        self.source_changed()
        if work.job is not None:
            self.job_changed(work.job)
        if work.scene is not None:
            self.scene_changed(is_new=True, keep_address=True)

    @property
    def session(self) -> Session | None:
        """The session of the scene; None before there is one."""
        return self._pane.session

    def close(self) -> None:
        """End the session of the scene."""
        with self._lock:
            self._closed = True
            self._pane.close()

    # --- what the work tells --------------------------------------------------------------------

    def source_changed(self) -> None:
        """Show the clip and its plan."""
        source = self.work.source
        if source is None:
            return
        self.say("")
        self._clip.content = f"<div style='{_TEXT}'><b>{html.escape(source.name)}</b></div>"
        try:
            self._strip.content = strip_html(_thumbnails(self.work))
        except Dyn3rError as problem:
            self.say(str(problem))
        self.tiles_changed()
        self._show_cameras("" if self.work.cameras is None else "known")
        self._show_plan()

    def job_changed(self, job: Job) -> None:
        """Show how far the run is."""
        if self._closed or job is not self.work.job:
            return
        self._run.visible, self._cancel.visible = job.is_over, not job.is_over
        self._bar.visible = not job.is_over
        self._bar.value, self._bar.animated = 100 * job.share, not job.is_over
        texts = {
            "waiting": f"waiting in line: {job.ahead} before this one",
            "running": f"{job.stage} ({100 * job.share:.0f} %)" if job.stage else "starting",
            "finished": "finished",
            "cancelled": "cancelled" + ("; the scene so far stays" if self.work.scene else ""),
            "failed": f"failed: {job.error}",
        }
        self.say(texts[job.state], is_error=job.state == "failed")
        self._show_result()

    def tiles_changed(self) -> None:
        """Show what was found about some of the frames."""
        tiles = self.work.tiles
        if not self._closed:
            self._tiles.content = "" if tiles is None else tiles.html()

    def scene_changed(self, *, is_new: bool, keep_address: bool = False) -> None:
        """Show the scene; a new one from its first view, else the view stays."""
        with self._lock:
            scene = self.work.scene
            if self._closed or scene is None:
                return
            name = self.work.source.name if self.work.source else "scene"
            self._hint.visible = False
            self._pane.show(scene, name, keep_view=not is_new, keep_address=keep_address)
            self.masks.scene_changed()
        self._show_result()

    def masks_changed(self) -> None:
        """Show other masks of the scene."""
        scene = self.work.scene
        if not self._closed and scene is not None:
            self._pane.set_masks(scene)

    @property
    def shown_scene(self) -> Scene | None:
        """The scene with the masks that are shown, which follow the slider of the sensitivity."""
        scene, session = self.work.scene, self.session
        if scene is None or session is None:
            return scene
        return at_sensitivity(scene, session.appearance.mask_sensitivity)

    # --- controls -------------------------------------------------------------------------------

    def _add_clip(self) -> None:
        gui = self._client.gui
        self._clip = gui.add_html(f"<div style='{_TEXT}'>{_INTRO}</div>")
        self._strip = gui.add_html("")
        examples = gui.add_button_group("examples", tuple(example_clips()))
        examples.on_click(lambda _: self._choose_example(examples.value))
        upload = gui.add_upload_button("choose a video", mime_type="video/*,.zip,.mkv,.gif")
        upload.on_upload(lambda _: self._upload(upload.value.name, upload.value.content))

    def _add_options(self) -> None:
        gui, defaults = self._client.gui, Options()
        with gui.add_folder("options", expand_by_default=False):
            self._frames = gui.add_slider("frames", min=2, max=200, step=1, initial_value=48)
            self._size = gui.add_dropdown("size px", _SIZES, initial_value="224")
            names = self.work.reconstructor.models.names
            self._model = gui.add_dropdown("model", names, initial_value=names[0])
            self._model.visible = len(names) > 1
            self._method = gui.add_dropdown("method", ("auto", *METHODS), initial_value="auto")
            self._cue = gui.add_dropdown("motion from", ("auto", *CUES), initial_value="auto")
            self._fov = gui.add_number(
                "field of view", initial_value=0.0, min=0.0, max=170.0,
                hint="horizontal, in degrees, if you know it; 0: estimated",
            )  # fmt: skip
            cameras = gui.add_upload_button(
                "known cameras", mime_type=",".join(CAMERA_FILES),
                hint="transforms.json, a trajectory of TUM or KITTI, .npz, a dyn3r scene; "
                "a zip of a COLMAP model or of another folder of cameras",
            )  # fmt: skip
            cameras.on_upload(
                lambda _: self._upload_cameras(cameras.value.name, cameras.value.content)
            )
            self._cameras = gui.add_html("")
            self._advanced = {}
            for name in ("alignment", "refinement", "flow", "inference"):
                with gui.add_folder(name, expand_by_default=False):
                    self._advanced[name] = option_controls(
                        gui, getattr(defaults, name), self._show_plan
                    )
        for control in (self._frames, self._size, self._method, self._cue, self._fov):
            control.on_update(lambda _: self._show_plan())

    def _add_run(self) -> None:
        gui = self._client.gui
        self._plan = gui.add_html("")
        self._run = gui.add_button("reconstruct", color="green", disabled=True)
        self._cancel = gui.add_button("cancel", color="red", visible=False)
        self._bar = gui.add_progress_bar(0, visible=False)
        self._state = gui.add_html("")
        self._tiles = gui.add_html("")
        self._run.on_click(lambda _: self._start())
        self._cancel.on_click(lambda _: self.work.cancel())

    def _add_downloads(self) -> None:
        gui = self._client.gui
        self._download_folder = gui.add_folder("downloads", visible=False)
        with self._download_folder:
            kinds = tuple(DOWNLOADS)
            for first in range(0, len(kinds), 5):
                buttons = gui.add_button_group("" if first else "files", kinds[first : first + 5])
                buttons.on_click(lambda event: self._download(event.target.value))
            self._video_button = gui.add_button("show the video", hint="frames, depth, motion")
            self._video = gui.add_html("")
        self._video_button.on_click(lambda _: self._show_video())

    # --- what the controls do -------------------------------------------------------------------

    def _choose_example(self, name: str) -> None:
        self.attempt(lambda: self.work.set_source(describe_source(example_clips()[name], name)))

    def _upload(self, name: str, content: bytes) -> None:
        if holds_cameras(name, content):
            self._upload_cameras(name, content)
            return

        def accept() -> None:
            folder = self.work.new_folder()
            self.work.set_source(accept_upload(folder, name, content, self._limits))

        self.attempt(accept)

    def _upload_cameras(self, name: str, content: bytes) -> None:
        def accept() -> None:
            if self.work.source is None:
                raise InputError("choose the clip first, then its cameras")
            self.work.set_cameras(name, content)
            self._show_cameras(name)

        self.attempt(accept)

    def _show_cameras(self, name: str) -> None:
        text = f"cameras: {html.escape(name)}" if name else ""
        self._cameras.content = f"<div style='{_TEXT}'>{text}</div>" if text else ""

    def _request(self) -> Request | None:
        source = self.work.source
        if source is None:
            return None
        options = Options(
            method=self._method.value, **{name: read() for name, read in self._advanced.items()}
        )
        options = _with_cue(options, self._cue.value)
        fov = float(self._fov.value)
        if fov and not 5 <= fov <= 170:
            raise InputError("the field of view is 5 to 170 degrees, or 0: estimated")
        return Request(
            source, int(self._frames.value), int(self._size.value), fov or None,
            self.work.cameras, str(self._model.value), options,
        )  # fmt: skip

    def _show_plan(self) -> None:
        def show() -> None:
            request = self._request()
            if request is not None:
                text = request.plan(self.work.reconstructor.seconds_per_frame)
                self._plan.content = f"<div style='{_TEXT}'>{html.escape(text)}</div>"
                self._run.disabled = False

        self.attempt(show)

    def _start(self) -> None:
        def start() -> None:
            request = self._request()
            if request is not None:
                self.work.start(request)

        self.attempt(start)

    def _show_result(self) -> None:
        """Offer masks and files once there is a final scene."""
        work = self.work
        is_final = work.scene is not None and work.is_final and not work.is_running
        self.masks.folder.visible = self._download_folder.visible = is_final

    def _download(self, kind: str) -> None:
        def send() -> None:
            scene, source = self.shown_scene, self.work.source
            if scene is None:
                return
            self.say(f"writing {kind} ...")

            def progress(stage: str, done: int, total: int) -> None:
                self.say(f"{stage}: {done}/{total}")

            path = None if source is None else source.path
            if kind == "page" and self.session is not None:  # as it is on the screen
                name, content = self.session.page_file()
            else:
                name, content = make_download(kind, scene, path, progress)
            self._client.send_file_download(name, content, save_immediately=True)
            self.say(f"{name}: {len(content) / 1e6:.1f} MB")

        self.attempt(send)

    def _show_video(self) -> None:
        def show() -> None:
            scene = self.shown_scene
            if scene is None:
                return
            self.say("writing the video ...")
            _, content = make_download("overview", scene, None, lambda *_: None)
            data = base64.b64encode(content).decode()
            self._video.content = (
                "<video controls autoplay loop muted style='width:100%' "
                f"src='data:video/mp4;base64,{data}'></video>"
            )
            self.say("")

        self.attempt(show)

    def attempt(self, act: Callable[[], None]) -> None:
        """Do what a control asks for; a failure becomes one line on the page."""
        try:
            act()
        except Dyn3rError as problem:
            self.say(str(problem), is_error=True)
        except Exception:
            logger.exception("a control of the app failed")
            self.say("an internal error; the terminal of dyn3r says more", is_error=True)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a line below the progress bar."""
        color = "color:#ff8787" if is_error else "opacity:0.8"
        self._state.content = f"<div style='{_TEXT};{color}'>{html.escape(text)}</div>"


def _with_cue(options: Options, cue: Any) -> Options:
    return replace(options, motion=replace(options.motion, cue=cue))


def _thumbnails(work: Work) -> list[UInt8[np.ndarray, "h w 3"]]:
    """A few frames of the clip."""
    from dyn3r.io.clip import read_clip

    source = work.source
    assert source is not None
    scanned = min(source.num_frames, _MAX_STRIP_SCAN)
    step = max(1, scanned // _STRIP_FRAMES)
    if source.fps > 0:
        clip = read_clip(
            source.path, fps=source.fps / step, num_frames=_STRIP_FRAMES, size=_STRIP_SIZE
        )
        return list(clip.images)
    return list(read_clip(source.path, num_frames=scanned, size=_STRIP_SIZE).images[::step])
