"""Videos: which frames are kept, rotation, variable rates, damage, and files that are none.

In the test videos frame k is a flat grey of level 8 * k + 8, so that it tells its number.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import dyn3r.io.video
from dyn3r.errors import InputError
from dyn3r.io.clip import read_clip


def write_video(
    path: Path,
    count: int = 12,
    *,
    hw: tuple[int, int] = (64, 96),
    fps: int = 12,
    pts: Sequence[int] | None = None,
    pictures: np.ndarray | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `count` frames; `pts` are times in units of 1 / fps for a variable frame rate."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = hw
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.gop_size = 4
        stream.codec_context.time_base = Fraction(1, fps)
        for k in range(count):
            grey = np.full((*hw, 3), min(8 * k + 8, 255), np.uint8)
            picture = grey if pictures is None else pictures[k]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k if pts is None else pts[k]
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers_of(images: np.ndarray) -> list[int]:
    """Which frames of `write_video` these are."""
    return [round((float(image.mean()) - 8) / 8) for image in images]


def ask_for_quarter_turn(path: Path) -> None:
    """Set the mp4's display matrix to a quarter turn clockwise, as a phone held upright does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    one = 1 << 16
    height = struct.unpack(">I", content[at + 40 : at + 44])[0]
    content[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, height, 0, 1 << 30)
    path.write_bytes(content)


def test_all_frames_of_a_video(tmp_path: Path) -> None:
    calls = []
    clip = read_clip(
        write_video(tmp_path / "a.mp4"), size=96, progress=lambda *call: calls.append(call)
    )
    assert clip.images.shape == (12, 64, 96, 3)
    assert numbers_of(clip.images) == list(range(12))
    np.testing.assert_allclose(clip.times_s, np.arange(12) / 12, atol=1e-3)
    assert clip.names[-1] == "frame_000011"
    assert clip.fps == 12
    assert calls[-1] == ("reading frames", 12, 12)
    assert all(0 <= done <= total for _, done, total in calls)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize(
    ("fps", "step"), [(12.0, 1), (6.0, 2), (5.0, 2), (4.0, 3), (1.5, 8), (30.0, 1), (0.1, 120)]
)
def test_every_so_many_frames(fps: float, step: int, suffix: str, tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / f"a{suffix}", 24), size=96, fps=fps)
    assert numbers_of(clip.images) == list(range(0, 24, step))
    assert clip.fps == pytest.approx(12 / step)


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = dyn3r.io.video._decoded_frames

    def counted(*arguments):
        for frame in decode(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(dyn3r.io.video, "_decoded_frames", counted)
    path = write_video(tmp_path / "a.mp4", 30)
    clip = read_clip(path, size=96, fps=6.0, num_frames=3)
    assert numbers_of(clip.images) == [0, 2, 4]
    assert len(decoded) == 5
    decoded.clear()
    read_clip(path, size=96, start=2.0, num_frames=1)
    assert len(decoded) <= 4  # from the key frame before; they are 4 frames apart


@pytest.mark.parametrize("start", [0.5, 1.0, 1.9])
def test_start(start: float, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24)
    first = round(start * 12)
    clip = read_clip(path, size=96, start=start, fps=6.0)
    assert numbers_of(clip.images) == list(range(first, 24, 2))
    assert clip.names[0] == f"frame_{first:06d}"
    assert clip.times_s[0] == pytest.approx(first / 12, abs=1e-3)
    with pytest.raises(InputError, match="ends before 9 s"):
        read_clip(path, size=96, start=9.0)


def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    pts = [*range(24), *range(24, 72, 4)]  # a second at 24, then two seconds at 6 per second
    path = write_video(tmp_path / "a.mkv", len(pts), fps=24, pts=pts)
    assert len(read_clip(path, size=96)) == len(pts)
    clip = read_clip(path, size=96, fps=6.0)
    gaps = np.diff(clip.times_s)
    assert gaps.min() > 0.1
    assert gaps.max() < 0.25


def test_rotated_video(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48] = (255, 255, 255)  # the left half; shown a quarter clockwise it is on top
    path = write_video(tmp_path / "a.mp4", 3, pictures=np.stack([picture] * 3))
    ask_for_quarter_turn(path)
    clip = read_clip(path, size=96)
    assert clip.images.shape == (3, 96, 64, 3)
    assert clip.mapping.source_hw == (96, 64)
    assert clip.images[:, :40].min() > 200
    assert clip.images[:, 56:].max() < 50
    assert any("turned by 90 degrees clockwise" in note.text for note in clip.report.notes)


def test_a_truncated_video_gives_what_is_left_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 64, 96, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", 24, pictures=noise, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        clip = read_clip(path, size=96)
    assert 6 <= len(clip) <= 15
    assert "ends early" in caplog.text
    assert any(note.warning and "ends early" in note.text for note in clip.report.notes)


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 50)
    cut = write_video(tmp_path / "cut.mp4")  # its table of contents is at the end
    cut.write_bytes(cut.read_bytes()[:-200])
    empty = tmp_path / "empty.mp4"
    empty.touch()
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{write_video(tmp_path / 'b.mp4').name}\n")
    notes = tmp_path / "notes.txt"
    notes.write_text("some words\n" * 50)
    for file in (text, cut, empty, playlist, notes):
        with pytest.raises(InputError) as caught:
            read_clip(file, size=96)
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_frames_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        """Frames 3 and 4 as the decoder flags them."""

        def __init__(self, frame: av.VideoFrame) -> None:
            self.frame, self.is_corrupt = frame, frame.time in (3.0, 4.0)

        def __getattr__(self, name: str):
            return getattr(self.frame, name)

    decode = dyn3r.io.video._decoded_frames
    monkeypatch.setattr(
        dyn3r.io.video, "_decoded_frames", lambda *arguments: map(Damaged, decode(*arguments))
    )
    path = write_video(tmp_path / "a.mp4", fps=1)
    assert numbers_of(read_clip(path, size=96).images) == [0, 1, 2, *range(5, 12)]
    assert "2 damaged frames left out" in caplog.text
