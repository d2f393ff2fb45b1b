"""Work of one user: the clip, the run, the scene. It outlives a reload of the page."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool

from dyn3r.cli.app.jobs import Job, JobQueue
from dyn3r.cli.app.mask_editing import ObjectTracker
from dyn3r.cli.app.models import ModelShelf
from dyn3r.cli.app.requests import SECONDS_PER_FRAME, Request, reconstruct_request
from dyn3r.cli.app.uploads import CAMERA_FILES, Source, unpack_cameras
from dyn3r.cli.watch import RunWatcher
from dyn3r.errors import InputError
from dyn3r.network.model import Model
from dyn3r.scene import Scene
from dyn3r.scene.sensitivity import with_edited_masks
from dyn3r.types import Progress
from dyn3r.viewer.tiles import Tiles

logger = logging.getLogger(__name__)

_MAX_UNDO = 20


class Reconstructor:
    """The models and the queue of the server, and how fast its runs are."""

    def __init__(self, models: Model | ModelShelf, tracker: ObjectTracker | None = None) -> None:
        """Start the queue; `tracker` follows objects when masks are edited."""
        self.tracker = tracker
        self.models = models if isinstance(models, ModelShelf) else ModelShelf(models)
        self.queue = JobQueue()
        self.seconds_per_frame = SECONDS_PER_FRAME

    def task(
        self, request: Request, watcher: RunWatcher, show: Callable[[Scene], None]
    ) -> Callable[[Progress], None]:
        """Task of a job; `watcher` gets what is found, `show` gets the final scene."""

        def run(progress: Progress) -> None:
            start = time.monotonic()
            model = self.models.get(request.model, progress)
            expected_s = request.expected_s(self.seconds_per_frame)
            scene = reconstruct_request(request, model, progress, watcher, expected_s)
            per_frame = request.expected_s(1.0)
            self.seconds_per_frame = (time.monotonic() - start) / max(per_frame, 1e-6)
            show(scene)

        return run


class Page(Protocol):
    """A page that shows the work."""

    def source_changed(self) -> None:
        """Another clip was chosen."""

    def job_changed(self, job: Job) -> None:
        """The job has news."""

    def tiles_changed(self) -> None:
        """Depth or masks of some frames were found."""

    def scene_changed(self, *, is_new: bool) -> None:
        """Another scene, or (`is_new` False) a better scene of the same clip."""

    def masks_changed(self) -> None:
        """Other masks of the same scene."""


class Work:
    """What one user has: a private folder, a clip, a job, a scene with its masks."""

    def __init__(self, reconstructor: Reconstructor, parent: Path) -> None:
        """Make the private folder below `parent`."""
        self.reconstructor = reconstructor
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        self.source: Source | None = None
        self.cameras: Path | None = None
        """File of known cameras of the clip."""
        self.request: Request | None = None
        self.job: Job | None = None
        self.scene: Scene | None = None
        self.is_final = False
        self.found: Scene | None = None
        """The scene before its masks were edited."""
        self.tiles: Tiles | None = None
        """What the job has found about the frames."""
        self.pages: set[Page] = set()
        self.left_at_s = time.monotonic()
        """Time at which the last page was closed."""
        self._is_new = True
        self._undo: list[Scene] = []
        self._lock = threading.RLock()

    @property
    def is_running(self) -> bool:
        """Whether a job waits or runs."""
        return self.job is not None and not self.job.is_over

    def new_folder(self) -> Path:
        """Empty folder for the next clip; the clip before is removed."""
        self.cancel()
        shutil.rmtree(self.folder / "clip", ignore_errors=True)
        (self.folder / "clip").mkdir()
        return self.folder / "clip"

    def set_source(self, source: Source) -> None:
        """Choose the clip."""
        with self._lock:
            self.cancel()
            self.source, self.request, self.tiles = source, None, None
            self.cameras = None
        self._tell(lambda page: page.source_changed())

    def set_cameras(self, name: str, content: bytes) -> None:
        """Keep known cameras for the next run: a file, or a zip archive of a folder.

        Raises InputError for another kind.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in CAMERA_FILES:
            raise InputError(f"known cameras come as {', '.join(CAMERA_FILES)}")
        if suffix == ".zip":
            self.cameras = unpack_cameras(self.folder / "cameras", content)
            return
        path = self.folder / f"cameras{suffix}"
        path.write_bytes(content)
        self.cameras = path

    def start(self, request: Request) -> None:
        """Reconstruct, or wait in line for it."""
        with self._lock:
            if self.is_running:
                return
            self.request = request
            self._is_new = request.masks is None
            watcher = RunWatcher(
                lambda scene: self._show(job, scene, is_final=False),
                lambda tiles: self._show_tiles(job, tiles),
            )
            task = self.reconstructor.task(
                request, watcher, lambda scene: self._show(job, scene, is_final=True)
            )
            job = self.job = Job(task, self._job_changed)
        self.reconstructor.queue.submit(job)

    def run_again(self, masks: Bool[np.ndarray, "n h w"]) -> None:
        """Reconstruct the same clip with these masks."""
        if self.request is not None:
            self.start(replace(self.request, masks=masks))

    def cancel(self) -> None:
        """End the job. A scene that is there stays."""
        if self.job is not None:
            self.job.cancel()

    def set_masks(
        self, before: Bool[np.ndarray, "n h w"], after: Bool[np.ndarray, "n h w"]
    ) -> None:
        """Change the masks of the scene where `after` differs from `before`, the shown masks."""
        with self._lock:
            if self.scene is None:
                return
            self._undo = [*self._undo[1 - _MAX_UNDO :], self.scene]
            self.scene = with_edited_masks(self.scene, before, after)
        self._tell(lambda page: page.masks_changed())

    def undo_masks(self) -> None:
        """Take the last change of the masks back."""
        with self._lock:
            if self.scene is None or not self._undo:
                return
            self.scene = self._undo.pop()
        self._tell(lambda page: page.masks_changed())

    def remove(self) -> None:
        """End the job and remove the private folder."""
        self.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _show(self, job: Job, scene: Scene, *, is_final: bool) -> None:
        """Take over a scene of the job."""
        with self._lock:
            if job is not self.job or job.is_over or not (is_final or self._is_new):
                return
            # a rough scene has another scale than the final one
            is_new = self._is_new
            self.scene, self.is_final, self.found = scene, is_final, scene
            self._undo.clear()
            if is_final:
                self.tiles = Tiles(scene.images, scene.depth, scene.dynamic)
        self._tell(lambda page: page.tiles_changed())
        self._tell(lambda page: page.scene_changed(is_new=is_new))

    def _show_tiles(self, job: Job, tiles: Tiles) -> None:
        """Take over tiles of the job."""
        if job is self.job and not job.is_over:
            self.tiles = tiles
            self._tell(lambda page: page.tiles_changed())

    def _job_changed(self, job: Any) -> None:
        self._tell(lambda page: page.job_changed(job))

    def _tell(self, news: Callable[[Page], None]) -> None:
        for page in list(self.pages):
            try:
                news(page)
            except Exception:  # a browser that leaves must not end the job
                logger.warning("a page of the app could not be updated", exc_info=True)
