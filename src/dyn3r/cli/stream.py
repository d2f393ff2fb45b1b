"""`dyn3r stream`: frame by frame; results are written, and shown, as the frames come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from dyn3r.cli.console import Flag, limit_threads, progress_bars
from dyn3r.cli.results import (
    Written,
    check_source,
    is_result,
    load_models,
    report,
    result_files,
    write_results,
)
from dyn3r.cli.terminal import say
from dyn3r.io.text import counted
from dyn3r.types import Progress

if TYPE_CHECKING:
    from dyn3r.io.frame_stream import FrameStream
    from dyn3r.network.model import Model
    from dyn3r.scene import Scene
    from dyn3r.streaming import FrameResult, StreamOptions
    from dyn3r.viewer import LiveViewer


@dataclass(frozen=True)
class Stream:
    """Depth and camera of every frame as it comes (MonST3R's feed-forward mode).

    Examples:

        dyn3r stream cat.mp4 -o cat
        dyn3r stream cat.mp4 -o cat --live
        dyn3r stream frames/ -o cat --model monst3r-512-dpt --motion none

    Every frame is paired with the first one; nothing is optimised. Fast, for short camera paths.
    Writes OUT/frames/000000.npz and so on at once, the scene and its pictures at the end. Ctrl-C
    ends the run early and keeps the frames so far. With --overwrite an earlier result is replaced
    at the end, as a whole.
    """

    source: tyro.conf.Positional[Path]
    """A video file, a folder of images (natural order) or one image."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results; must be new or empty unless --overwrite."""
    model: str = "compact"
    """As in `dyn3r run`."""
    motion: Literal["auto", "flow", "none"] = "auto"
    """Moving objects from optical flow to earlier frames, or none. auto: as the checkpoint
    recommends."""
    flow: Literal["dis", "raft", "raft-small"] = "dis"
    """The optical flow estimator."""
    fps: float = 0.0
    """Keep every round(video_fps/fps)-th frame of a video; 0: all."""
    num_frames: int | None = None
    """Keep at most this many frames."""
    start: float = 0.0
    """Seconds of the video to skip."""
    size: int | None = None
    """Long side of the frames in pixels, a multiple of 16; default: as the model was trained,
    and larger for pictures wider than 16:9 where that is small."""
    keep_borders: Flag = False
    """Keep black bars around the picture. They are looked for in the first eight frames."""
    split_cuts: bool = True
    """By default a new reference is taken where another shot begins. With --no-split-cuts the first
    one is kept."""
    live: Flag = False
    """Open a page in which the frames appear as they come."""
    port: int = 8080
    """Port of the --live page; if it is taken, one of the next twenty."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the transformer."""
    threads: int = 0
    """Cores that may be used; 0: all."""
    save_masks: Flag = False
    """Also write the masks as PNG at source resolution into OUT/masks."""
    no_pictures: Flag = False
    """Do not write overview.mp4, contact_sheet.png and camera_path.png."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        live = None
        limit_threads(self.threads)
        options = self._options()
        try:
            stream = self._open()
            live = self._live_viewer() if self.live else None
            self._run(stream, options, live)
        finally:
            if live is not None:
                live.stop()

    def _options(self) -> StreamOptions:
        from dyn3r.streaming import StreamOptions

        return StreamOptions(
            motion=self.motion, flow=self.flow, size=self.size,
            crop_borders=not self.keep_borders, split_cuts=self.split_cuts,
        )  # fmt: skip

    def _open(self) -> FrameStream:
        from dyn3r.io.atomic import check_output_folder
        from dyn3r.io.frame_stream import stream_frames

        check_source(self.source, self.output)
        check_output_folder(self.output, overwrite=self.overwrite)
        return stream_frames(
            self.source, fps=self.fps, num_frames=self.num_frames, start=self.start
        )

    def _run(self, stream: FrameStream, options: StreamOptions, live: LiveViewer | None) -> None:
        started = time.monotonic()
        with progress_bars(quiet=self.quiet) as progress:
            model, _ = load_models((self.model, None), self.device, self.precision, progress)
            context = _Context(stream, model, options, live, progress)
            scene, written = self._results(context)
        files = result_files(written, self.output)
        if not self.quiet:
            files = [self.output / "frames", *files]
            report(scene, files, self.output, time.monotonic() - started)
        if live is not None:
            live.finish()
            if not self.quiet:
                say(f"the live page stays at {live.url} until Ctrl-C")
            live.wait()

    def _results(self, context: _Context) -> tuple[Scene, Written]:
        """Write frames and scene. An earlier result is replaced at the end, as a whole."""
        from dyn3r.io.atomic import atomic_folder
        from dyn3r.io.staging import staging_folder

        if self.output.is_dir() and any(self.output.iterdir()):
            with atomic_folder(self.output, overwrite=True, is_stale=is_result) as folder:
                results = self._follow(context, folder / "frames")
                return self._scene(context, results, folder)
        frames = self.output / "frames"
        with staging_folder(frames, "stream", self.output):  # keeps other processes out
            results = self._follow(context, frames)
            with atomic_folder(self.output, overwrite=True) as folder:
                return self._scene(context, results, folder)

    def _scene(
        self, context: _Context, results: list[FrameResult], folder: Path
    ) -> tuple[Scene, Written]:
        from dyn3r.streaming import scene_from_frames, stream_metadata

        stream = context.stream
        metadata = stream_metadata(context.model, stream.source, context.options, results)
        scene = scene_from_frames(results, fps=stream.fps, metadata=metadata)
        written = write_results(
            scene, folder, pictures=not self.no_pictures,
            masks_of=self.source if self.save_masks else None, progress=context.progress,
        )  # fmt: skip
        return scene, written

    def _live_viewer(self) -> LiveViewer:
        from dyn3r.viewer import LiveViewer

        live = LiveViewer(port=self.port)
        if not self.quiet:
            say(f"watch it at {live.url}")
        return live

    def _follow(self, context: _Context, folder: Path) -> list[FrameResult]:
        """Write and show every frame as it comes, until the stream or the user ends it.

        Where it fails, the frames are removed.
        """
        results: list[FrameResult] = []
        try:
            self._write_frames(context, folder, results)
        except KeyboardInterrupt:
            if not results:
                raise
            if not self.quiet:
                say(f"stopped after {counted(len(results), 'frame')}; what was found is kept")
        except BaseException:
            for result in results:
                frame_path(result, folder).unlink(missing_ok=True)
            raise
        return results

    def _write_frames(self, context: _Context, folder: Path, results: list[FrameResult]) -> None:
        from dyn3r.io.clip import MAX_FRAMES
        from dyn3r.streaming import stream_scene

        for result in stream_scene(context.stream, context.model, context.options):
            folder.mkdir(parents=True, exist_ok=True)
            write_frame(result, folder)
            results.append(result)
            if context.live is not None:
                _show(context.live, result)
            expected = max(context.stream.expected or 0, len(results))
            context.progress("frames", len(results), expected)
            if len(results) == MAX_FRAMES:
                break


@dataclass(frozen=True)
class _Context:
    """What a run works with."""

    stream: FrameStream
    model: Model
    options: StreamOptions
    live: LiveViewer | None
    progress: Progress


def _show(live: Any, result: FrameResult) -> None:
    live.add_frame(
        result.time_s,
        result.image.transpose(2, 0, 1).astype(np.float32) / 255,
        result.depth,
        result.K,
        result.T_world_camera,
        dynamic=result.dynamic,
        confidence=result.confidence,
    )


def frame_path(result: FrameResult, folder: Path) -> Path:
    """Path of the file of a frame, e.g. 000012.npz."""
    return folder / f"{result.index:06d}.npz"


def write_frame(result: FrameResult, folder: Path) -> Path:
    """Write one frame as 000012.npz, whole or not at all; one of an earlier run is replaced.

    Holds depth and confidence (h,w) in half precision, dynamic (h,w), image (h,w,3), K (3,3),
    T_world_camera (4,4), time_s, quality and the frame's name.
    """
    from dyn3r.io.atomic import atomic_file

    path = frame_path(result, folder)
    largest = float(np.finfo(np.float16).max)
    with atomic_file(path, overwrite=True) as part, open(part, "wb") as file:
        np.savez_compressed(
            file,
            depth=result.depth.clip(max=largest).astype(np.float16),
            confidence=result.confidence.clip(max=largest).astype(np.float16),
            dynamic=result.dynamic,
            image=result.image,
            K=result.K,
            T_world_camera=result.T_world_camera,
            time_s=result.time_s,
            quality=result.quality,
            name=result.name,
        )
    return path
