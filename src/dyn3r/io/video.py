"""Frames of video files, by PyAV: sampled, rotated, one at a time (SPEC 2).

Reading starts at the key frame before `start_s`, stops after the last frame that is kept, and holds
one source frame at a time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.images import first_line
from dyn3r.io.regular_files import check_regular
from dyn3r.io.text import counted
from dyn3r.types.input_report import InputNote

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

# Containers and bare streams of video, by FFmpeg's names. Playlists, and formats that open other
# files or render text, are not among them: FFmpeg refuses these before they can open anything.
_FORMATS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "flv", "asf",
    "ogg", "mxf", "nut", "dv", "ivf", "rm", "swf", "wtv", "ty", "gif", "apng", "mjpeg", "h261",
    "h263", "h264", "hevc", "vvc", "av1", "obu", "vc1", "yuv4mpegpipe", "avif",
    "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe",
)  # fmt: skip
_MAX_PIXELS = 16384 * 8192


@dataclass(frozen=True)
class VideoSample:
    """One frame that is kept."""

    index: int
    """Index in the video, from 0 (after a seek: by its time and the frame rate)."""
    time_s: float
    """Seconds since the start of the video."""
    image: Image.Image
    """Upright RGB image at source resolution."""
    is_time_moved: bool = False
    """True if the time stamp in the file is not later than that of the frame before."""
    turned: int = 0
    """Degrees clockwise by which it was turned for that."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are kept."""

    rate: float
    """Frames per second of the video."""
    step: float
    """Every step-th frame is kept; 2.5: every second or third."""
    start_s: float
    """Seconds to skip at the beginning."""
    limit: int | None
    """Largest number of frames to keep."""
    expected: int | None
    """Estimated number of frames kept; None if the file does not say."""
    end_s: float = math.inf
    """Seconds from the beginning at which reading ends."""


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """Open a video file for `sampled_frames`.

    Raises:
        InputError: no regular file, not a video of a known format, without frames, or too large.
    """
    import av

    check_regular(path)
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}
    try:
        container = av.open(str(path.absolute()), options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a video ({_reason(error)}): is it one, and complete?"
        ) from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path} has no video in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{path} has video of a kind that cannot be decoded here")
        if stream.codec_context.width * stream.codec_context.height > _MAX_PIXELS:
            raise InputError(f"{path} has too many pixels a frame to be read safely")
        stream.thread_type = "AUTO"
        yield container


def plan_sampling(
    container: InputContainer,
    *,
    fps: float = 0.0,
    start_s: float = 0.0,
    limit: int | None = None,
    end_s: float = math.inf,
    every: float = 1.0,
) -> Sampling:
    """Every round(video_fps / fps)-th frame if fps > 0, else every `every`-th (SPEC 2)."""
    stream = container.streams.video[0]
    guess = stream.average_rate or stream.guessed_rate or stream.base_rate
    rate = float(guess) if guess else 0.0
    if not (math.isfinite(rate) and rate > 0):
        rate = 25.0  # FFmpeg's own assumption where a file says nothing
    step = max(1, round(rate / fps)) if fps > 0 else every
    total = stream.frames or round(_duration_s(container, stream) * rate) or None
    expected = None
    if total is not None:
        total = min(total, math.ceil(min(end_s, total / rate) * rate))
        expected = math.ceil(max(0, total - round(start_s * rate)) / step)
    if limit is not None and expected is not None:
        expected = min(expected, limit)
    return Sampling(rate, step, start_s, limit, expected, end_s)


def nothing_decoded(source: Path, sampling: Sampling) -> InputError:
    """The error for a video of which no frame could be read."""
    after = sampling.start_s
    if after > 0 and sampling.expected == 0:
        return InputError(f"{source} ends before {after:g} s: start earlier")
    where = f" after {after:g} s" if after else ""
    return InputError(f"no frame of {source} could be decoded{where}: is it complete?")


def sampled_frames(container: InputContainer, sampling: Sampling) -> Iterator[VideoSample]:
    """Yield the frames that `sampling` keeps, in order.

    A frame is kept when its time is at least step / rate seconds (less half a frame) after the
    last one kept: with a constant rate that is every step-th frame, with a variable one the frames
    are spread evenly over time. A step that is no whole number counts from the first frame.
    Damage is skipped over with a warning in the log. Times increase: see `time_after`.
    """
    rate, name = sampling.rate, Path(container.name).name
    kept = corrupt = 0
    due_s, first_s = sampling.start_s or -math.inf, 0.0
    for timed in _timed_frames(container, sampling):
        if timed.time_s >= sampling.end_s:
            break
        if timed.time_s < due_s - 0.5 / rate:
            continue
        if timed.frame.is_corrupt:
            corrupt += 1
            continue
        yield VideoSample(
            timed.index, timed.time_s, _upright(timed.frame),
            is_time_moved=timed.is_moved, turned=-_quarter_turns(timed.frame) % 360,
        )  # fmt: skip
        first_s, kept = first_s if kept else timed.time_s, kept + 1
        due_s = _next_due(sampling, timed.time_s, first_s, kept)
        if kept == sampling.limit:
            return
    if corrupt:
        logger.warning("%s: %s left out", name, counted(corrupt, "damaged frame"))
    if sampling.expected is not None and kept + corrupt < 0.9 * sampling.expected - 1:
        logger.warning(
            "%s ends early: %d frames were read where about %d were expected",
            name,
            kept,
            sampling.expected,
        )


def _next_due(sampling: Sampling, last_s: float, first_s: float, kept: int) -> float:
    """Time from which the next frame is kept."""
    if sampling.step <= 1:
        return -math.inf
    if float(sampling.step).is_integer():
        return last_s + sampling.step / sampling.rate
    return first_s + kept * sampling.step / sampling.rate


@dataclass(frozen=True)
class _TimedFrame:
    """A decoded frame."""

    index: int
    time_s: float
    frame: VideoFrame
    is_moved: bool


def _timed_frames(container: InputContainer, sampling: Sampling) -> Iterator[_TimedFrame]:
    """The frames of a video, from `start_s` or a little before."""
    stream, rate = container.streams.video[0], sampling.rate
    begin_s = float((stream.start_time or 0) * (stream.time_base or 0))
    if sampling.start_s > 0:
        _seek(container, stream, begin_s + sampling.start_s)
    index: int | None = None
    last_s = -math.inf
    for frame in _decoded_frames(container, stream):
        if index is None:
            first_s = begin_s if frame.time is None else frame.time
            index = round((first_s - begin_s) * rate) if sampling.start_s > 0 else 0
        else:
            index += 1
        stamp_s = index / rate if frame.time is None else frame.time - begin_s
        last_s = time_after(last_s, stamp_s, rate)
        yield _TimedFrame(index, last_s, frame, is_moved=last_s != stamp_s)


def time_after(last_s: float, time_s: float, rate: float) -> float:
    """The time of a frame; half a frame after the last one if it is not later than that.

    Damaged and edited videos have frames of equal or decreasing time stamps.
    """
    return time_s if time_s > last_s else last_s + 0.5 / rate


def time_notes(moved: int) -> tuple[InputNote, ...]:
    """The note on frames whose time was moved, if there are some."""
    if not moved:
        return ()
    text = f"{moved} time stamps do not increase: these frames are half a frame later"
    return (InputNote("times", text, warning=True),)


def increasing(times_s: Float[np.ndarray, " n"], rate: float) -> Float[np.ndarray, " n"]:
    """Times that increase, by `time_after`; `rate` 0: unknown."""
    out = [float(time_s) for time_s in times_s[:1]]
    for time_s in times_s[1:].tolist():
        out.append(time_after(out[-1], time_s, rate or 25.0))
    return np.array(out)


def _decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode on, past damaged packets; a damaged end is the end."""
    import av

    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            break
        except av.error.EOFError:
            break
        except av.error.InvalidDataError:
            damaged += 1
            if damaged > 1000:
                break
            continue
        except (av.error.FFmpegError, OSError) as error:
            logger.warning("reading stopped: %s", _reason(error))
            break
        yield from frames
    if damaged:
        lost = counted(damaged, "damaged packet")
        logger.warning("%s: %s left out", Path(container.name).name, lost)


def _seek(container: InputContainer, stream: VideoStream, time_s: float) -> None:
    import av

    if not stream.time_base:
        return
    try:
        container.seek(int(time_s / stream.time_base), stream=stream, backward=True)
    except (av.error.FFmpegError, OSError):
        logger.info("this video has no index: reading from its beginning")


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


def _upright(frame: VideoFrame) -> Image.Image:
    """RGB with the rotation that the file asks players to apply (counter-clockwise degrees)."""
    image = frame.to_image()  # type: ignore[no-untyped-call]
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    angle = _quarter_turns(frame)
    return image.transpose(turns[angle]) if angle else image


def _quarter_turns(frame: VideoFrame) -> int:
    """The rotation that the file asks for, in degrees counter-clockwise."""
    return round(getattr(frame, "rotation", 0) / 90) * 90 % 360


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or first_line(error)
