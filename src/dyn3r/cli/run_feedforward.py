"""`dyn3r run --mode feedforward`: results are written, and shown, as the frames come."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dyn3r.cli.console import progress_bars
from dyn3r.cli.run import Run, report, write_results
from dyn3r.errors import InputError

if TYPE_CHECKING:
    from dyn3r.io.frame_stream import FrameStream
    from dyn3r.network.model import Model
    from dyn3r.streaming import FeedForwardOptions, FrameResult
    from dyn3r.types import Progress
    from dyn3r.viewer import LiveViewer

USELESS = (
    "motion_model", "refine", "graph", "window", "overlap", "continue_from", "solver", "memory_gb",
    "explain", "flow_term", "cameras", "cameras_are", "fov", "pixels", "bundle", "mover_depth",
    "stereo",
)  # fmt: skip
"""Options of `dyn3r run` that belong to what this mode leaves out."""


def run_feedforward(run: Run) -> None:
    """Carry out a `dyn3r run --mode feedforward`.

    Every frame becomes OUT/frames/000000.npz and so on as soon as it is known; the scene and its
    pictures follow at the end. Ctrl-C ends the run early and keeps what came so far.

    Raises:
        InputError, OutputError, CheckpointError, GeometryError: as `dyn3r run`.
    """
    from dyn3r.io.atomic import check_output_folder
    from dyn3r.io.frame_stream import stream_frames
    from dyn3r.streaming import feedforward_metadata, feedforward_scene

    started = time.monotonic()
    options = _options(run)
    check_output_folder(run.output, overwrite=run.overwrite)
    stream = stream_frames(run.source, fps=run.fps, num_frames=run.num_frames, start=run.start)
    live = _live_viewer(run) if run.live else None
    try:
        with progress_bars(run.quiet) as progress:
            model, _ = run.models(progress)
            results = _follow(run, stream, model, options, live, progress)
            metadata = feedforward_metadata(model, stream.source, options, results)
            scene = feedforward_scene(results, fps=stream.fps, metadata=metadata)
            files = write_results(
                scene, run.output, overwrite=True, pictures=run.pictures,
                masks_of=run.source if run.save_masks else None, progress=progress,
            )  # fmt: skip
        if not run.quiet:
            report(scene, [run.output / "frames", *files], run.output, time.monotonic() - started)
        if live is not None:
            live.finish()
            if not run.quiet:
                print(f"the live page stays at {live.url} until Ctrl-C")
            live.wait()
    finally:
        if live is not None:
            live.stop()


def _options(run: Run) -> FeedForwardOptions:
    from dyn3r.streaming import FeedForwardOptions

    defaults = {field.name: field.default for field in fields(Run)}
    for name in USELESS:
        if getattr(run, name) != defaults[name]:
            raise InputError(f"--{name.replace('_', '-')} is of no use with --mode feedforward")
    if run.motion not in ("auto", "flow", "none"):
        raise InputError(
            f"--motion {run.motion} can't be had with --mode feedforward: choose auto, flow or none"
        )
    return FeedForwardOptions(motion=run.motion, flow=run.flow, size=run.size)  # type: ignore[arg-type]


def _live_viewer(run: Run) -> LiveViewer:
    from dyn3r.viewer import LiveViewer

    live = LiveViewer(port=run.port)
    if not run.quiet:
        print(f"watch it at {live.url}", flush=True)
    return live


def _follow(
    run: Run,
    stream: FrameStream,
    model: Model,
    options: FeedForwardOptions,
    live: LiveViewer | None,
    progress: Progress,
) -> list[FrameResult]:
    """Write and show every frame as it comes, until the stream or the user ends it."""
    from dyn3r.io.clip import MAX_FRAMES
    from dyn3r.streaming import feedforward

    results: list[FrameResult] = []
    try:
        for result in feedforward(stream, model, options):
            if not results:
                (run.output / "frames").mkdir(parents=True, exist_ok=True)
            write_frame(result, run.output / "frames")
            if live is not None:
                _show(live, result)
            results.append(result)
            total = max(stream.expected or 0, len(results))
            progress("frames", len(results), total)
            if len(results) == MAX_FRAMES:
                break
    except KeyboardInterrupt:
        if not results:
            raise
        if not run.quiet:
            print(f"stopped after {len(results)} frames; they are kept")
    _remove_leftovers(run.output / "frames", len(results))
    return results


def _remove_leftovers(folder: Path, count: int) -> None:
    """Frames that a longer run wrote here before (--overwrite): they are not of this one."""
    for file in folder.glob("[0-9]" * 6 + ".npz"):
        if int(file.stem) >= count:
            file.unlink()


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


def write_frame(result: FrameResult, folder: Path) -> Path:
    """Write one frame as 000012.npz, whole or not at all; one of an earlier run is replaced.

    Holds depth and confidence (h,w) in half precision, dynamic (h,w), image (h,w,3), K (3,3),
    T_world_camera (4,4), time_s, quality and the frame's name.
    """
    from dyn3r.io.atomic import atomic_file

    path = folder / f"{result.index:06d}.npz"
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
