"""Which frames `dyn3r run` reads, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.alignment.clip_windows import WindowOptions, plan_windows
from dyn3r.cli.frames import DEFAULT_FRAMES, FrameOptions, duration, plan_frames
from dyn3r.cli.run_windows import in_words
from dyn3r.errors import InputError
from dyn3r.io.clip import read_clip
from tests.videos import write_video

ALL = FrameOptions(0.0, None, 0.0, None, None, all_frames=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of one size: ten seconds."""
    out = tmp_path_factory.mktemp("frames")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    for t in range(240):
        image.save(out / f"{t:03d}.png")
    return out


def read(folder: Path, **options) -> list[int]:
    plan = plan_frames(folder, FrameOptions(**{**ALL.__dict__, **options}))
    return [int(name[:3]) for name in read_clip(folder, **plan.arguments, size=64).names]


def test_a_number_alone_is_spread_over_the_source(folder: Path) -> None:
    assert read(folder, num_frames=4) == [0, 60, 120, 180]
    assert read(folder, num_frames=7) == [0, 34, 68, 102, 137, 171, 205]
    assert read(folder, num_frames=2, start=5.0) == [120, 180]
    assert read(folder, num_frames=2, start=5.0, end=6.0) == [120, 132]
    assert read(folder, num_frames=3, every=5) == [0, 5, 10]


def test_a_long_source_is_thinned_out_unless_all_frames_are_asked_for(folder: Path) -> None:
    assert read(folder) == list(range(0, 240, 3))
    assert read(folder, end=2.0) == list(range(48))
    assert read(folder, all_frames=True) == list(range(240))
    assert read(folder, every=100) == [0, 100, 200]


def test_a_video_is_read_like_a_folder(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4")
    total = len(read_clip(video, size=64))
    plan = plan_frames(video, FrameOptions(**{**ALL.__dict__, "num_frames": 3}))
    names = [int(name[-6:]) for name in read_clip(video, **plan.arguments, size=64).names]
    assert len(names) == 3
    assert abs(names[1] - total / 3) <= 1
    assert abs(names[2] - 2 * total / 3) <= 1
    times = read_clip(video, size=64).times_s
    ended = read_clip(video, size=64, start=float(times[1]), end=float(times[3]))
    assert ended.times_s == pytest.approx(times[1:3])


def test_the_line_says_what_is_used(folder: Path) -> None:
    def line(kept: int, seconds: float | None = None, **options) -> str:
        plan = plan_frames(folder, FrameOptions(**{**ALL.__dict__, **options}))
        return plan.line(Path("cat.mp4"), kept, seconds)

    assert line(80, 240) == "cat.mp4 has 240 frames (10 s): using 80, one every 3; about 4 min"
    assert line(240, all_frames=True) == "cat.mp4 has 240 frames: using all"
    assert line(200, num_frames=200) == "cat.mp4 has 240 frames (10 s): using 200, evenly spread"
    assert line(24, 9, every=1, num_frames=24) == (
        "cat.mp4 has 240 frames (10 s): using 24; about 10 s"
    )


def test_the_line_names_the_step_and_not_what_is_missing(folder: Path) -> None:
    """Of 22 frames, those of the longest shot are used; of 24, those that can be read."""
    plan = plan_frames(folder, FrameOptions(**{**ALL.__dict__, "end": 1.0}))
    assert plan.line(Path("cut.mp4"), 12, None) == "cut.mp4 has 24 frames (1 s): using 12"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 5.0, "every": 2}, "--fps and --every"),
        ({"all_frames": True, "every": 2}, "--every and --all-frames"),
        ({"all_frames": True, "num_frames": 2}, "--all-frames"),
        ({"every": 0}, "--every"),
        ({"num_frames": 0}, "number of frames"),
    ],
)
def test_contradictions_are_refused(folder: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_frames(folder, FrameOptions(**{**ALL.__dict__, **options}))


def test_the_end_must_be_after_the_start(folder: Path) -> None:
    with pytest.raises(InputError, match="later than the start"):
        read_clip(folder, start=3.0, end=2.0)
    with pytest.raises(InputError, match="none is left"):
        read_clip(folder, start=11.0)


def test_durations_in_words() -> None:
    assert [duration(s) for s in (1, 42, 100, 3600, 9000)] == [
        "5 s", "40 s", "2 min", "60 min", "2.5 h",
    ]  # fmt: skip
    assert DEFAULT_FRAMES >= 24


def test_the_line_says_how_a_long_clip_is_divided(folder: Path) -> None:
    chosen = plan_frames(folder, FrameOptions(**{**ALL.__dict__, "all_frames": True}))
    plan = plan_windows(1000, (112, 224), WindowOptions())
    assert plan is not None
    said = in_words(plan, 4.0)
    assert said == f", in {len(plan)} windows of {plan.longest} (about {plan.memory_gb:.1f} GB)"
    line = chosen.line(folder, 240, 600.0, said)
    assert line.endswith(f"using all{said}; about 10 min")
    assert in_words(None, 4.0) == ""
    assert in_words(plan, 1.0).endswith("GB, above --windows.memory-gb 1)")
