"""Rows of a file and frames of a clip: every way to match, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.io.matching import Match, Rows, match_rows

VIDEO = [f"frame_{k:06d}" for k in range(8)]
STRIDED = [f"frame_{k:06d}" for k in range(0, 24, 3)]
SOURCE = Path("cameras.json")


def match(row_names, names, **options) -> Match:
    return match_rows(Rows(len(row_names), row_names), names, None, SOURCE, **options)


def match_stamps(stamps, names, fps=10.0) -> Match:
    numbers = [int("".join(c for c in name if c.isdigit())[:12] or 0) for name in names]
    times_s = (np.array(numbers) - 0.0) / fps if names[0].startswith("frame") else None
    if times_s is None:
        times_s = np.arange(len(names)) / fps
    rows = Rows(len(stamps), stamps=np.asarray(stamps, dtype=np.float64))
    return match_rows(rows, names, times_s, SOURCE)


def numbered(form: str, numbers) -> list[str]:
    return [form.format(k) for k in numbers]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "images/", "C:\\data\\my clip\\images\\"])
@pytest.mark.parametrize("suffix", ["", ".jpg", ".jpg.png"])
def test_names_without_folders_and_suffixes(prefix, suffix):
    rows = [f"{prefix}a {k}.5{suffix}" for k in (2, 0, 1)]
    found = match(rows, ["a 0.5.png", "a 1.5.png", "a 3.5.png"])
    assert found.rows == [1, 2, None]
    assert str(found) == "2 of 3 frames, by name"


def test_names_as_our_exports_write_them():
    assert match(["shot_0.jpg", "shot_1.jpg"], ["shot 0.png", "shot 1.png"]).rows == [0, 1]


def test_an_equal_name_with_its_suffix_comes_first():
    assert match(["a.png", "a.jpg"], ["a.jpg"]).rows == [1]


def test_several_entries_for_one_frame_are_refused():
    with pytest.raises(InputError, match="several entries for the frame 0001"):
        match(["left/0001.png", "right/0001.png"], ["0001.jpg", "0002.jpg"])


# --- numbers -------------------------------------------------------------------------------------


def test_all_frames_of_a_video_by_number():
    found = match(numbered("{:05d}.png", range(24)), STRIDED)
    assert found.rows == list(range(0, 24, 3))
    assert found.how == "by number"


def test_names_that_count_from_1():  # ns-process-data, FFmpeg
    for form in ("frame_{:05d}.jpg", "{:04d}.png"):
        found = match(numbered(form, range(1, 9)), VIDEO)
        assert found.rows == list(range(8))
        assert found.how == "by number, counted from 1 in the file"
        assert found.is_doubtful
    with pytest.raises(InputError, match=r"in two ways: 7 of 8 frames, by name and 8 of 8 frames"):
        match(numbered("frame_{:06d}.png", range(1, 9)), VIDEO)  # as dyn3r counts from 0
    with pytest.raises(InputError, match=r"by number and 7 of 8 frames, by number, counted from 1"):
        match(numbered("frame_{:05d}.png", range(1, 8)), VIDEO)  # the first or last is missing
    with pytest.raises(InputError, match="in two ways"):
        match(numbered("frame_{:05d}.png", range(1, 25)), VIDEO)  # the clip may be its beginning
    assert match(numbered("frame_{:05d}.png", range(24)), VIDEO).rows == list(range(8))


def test_images_copied_under_numbers_from_1():
    files = numbered("IMG_{}.jpg", range(4711, 4719))
    assert match(numbered("frame_{:05d}.jpg", range(1, 9)), files).rows == list(range(8))
    without_5 = match(numbered("frame_{:05d}.jpg", [1, 2, 3, 4, 6, 7, 8]), files)
    assert without_5.rows == [0, 1, 2, 3, None, 4, 5, 6]
    assert "counted from 1" in without_5.how
    with pytest.raises(InputError, match="in two ways"):
        match(numbered("frame_{:05d}.jpg", range(1, 8)), files)
    with pytest.raises(InputError, match="in two ways: 7 of 8 frames, by name"):
        match(numbered("frame_{:05d}.jpg", range(1, 9)), numbered("frame_{:05d}.jpg", range(8)))


def test_files_that_count_from_1_and_rows_from_0():
    found = match([str(k) for k in range(8)], numbered("{:05d}.png", range(1, 9)))
    assert found.rows == list(range(8))


def test_a_frame_that_is_missing_in_the_file():
    assert match(["0001.png", "0003.png"], ["0001.jpg", "0002.jpg", "0003.jpg"]).rows == [
        0,
        None,
        1,
    ]
    assert match(numbered("frame_{:06d}.png", [0, 3, 9]), STRIDED).found == 3


def test_frames_taken_from_a_video_with_another_program():
    found = match(numbered("{:04d}.png", range(1, 9)), STRIDED)
    assert found.rows == list(range(8))


def test_every_frame_may_be_wanted():
    rows = numbered("{:05d}.png", range(1, 25))
    assert match(rows, VIDEO, every_frame=True).rows == list(range(8))  # 0 is not there
    with pytest.raises(InputError, match="nothing for 4 of the clip's 8 frames"):
        match(rows[:4], VIDEO, every_frame=True)


def test_nothing_fits():
    with pytest.raises(InputError, match=r"clip's first frame is a\.png, the file's is x\.png"):
        match(["x.png", "y.png", "z.png"], ["a.png", "b.png"])


# --- times ---------------------------------------------------------------------------------------


def test_numbers_of_frames_in_place_of_times():
    assert str(match_stamps(range(8), VIDEO)) == "8 of 8 frames, by number"
    assert match_stamps(range(8), STRIDED).rows == list(range(8))  # places in the clip
    assert match_stamps(range(24), STRIDED).rows == list(range(0, 24, 3))
    assert match_stamps([0, 1, 2, 4, 5, 6, 7], VIDEO).rows == [0, 1, 2, None, 3, 4, 5, 6]
    assert "counted from 1" in match_stamps(range(1, 9), VIDEO).how


def test_seconds_or_numbers():
    one_per_second = [f"frame_{k:06d}" for k in range(30)]
    assert match_stamps(range(3), one_per_second, fps=1.0).rows[:4] == [0, 1, 2, None]
    with pytest.raises(InputError, match="by time and 3 of 30 frames, by number"):
        match_stamps(range(3), one_per_second, fps=10.0)  # 0, 10, 20 or 0, 1, 2?


def test_times_in_another_unit():
    with pytest.raises(InputError, match="only 1 of the clip's 8 frames"):
        match_stamps(np.arange(8) * 100, VIDEO)  # milliseconds
    keyframes = match_stamps([0.0, 0.3], VIDEO)
    assert keyframes.found == 2


@pytest.mark.parametrize("unit", [1, 1e9])
def test_absolute_times_in_the_names(unit):
    start = 1305031102.1753
    stamps = start + np.arange(40) * 0.01 + 0.004
    times = start + np.arange(5) / 30
    names = [f"{t * unit:.6f}.png" if unit == 1 else f"{int(t * unit)}.png" for t in times]
    found = match_stamps(stamps * unit, [*names, f"{int((start + 9) * unit)}.png"])
    assert found.rows[:5] == [round((i / 30 - 0.004) * 100) for i in range(5)]
    assert found.rows[5] is None  # nothing within 0.02 s
    assert found.how == "by time stamp of the images"


def test_absolute_times_for_a_video():
    stamps = 1403636579.76 + np.arange(8) / 20
    found = match_stamps(stamps, VIDEO)
    assert found.rows == list(range(8))
    assert found.is_doubtful
    assert "by order" in found.how
    with pytest.raises(InputError, match="7 frames where the clip has 8"):
        match_stamps(stamps[:7], VIDEO)


def test_times_of_a_folder_are_nominal():
    files = numbered("{:04d}.png", range(8))
    assert match_stamps(np.arange(8) / 10, files).rows == list(range(8))
    with pytest.raises(InputError, match="by time and 8 of 8 frames, by order"):
        match_stamps(np.arange(8) / 12, files)  # taken 12 times a second, read as 10


def test_absolute_times_of_other_images():
    names = [f"{1305031102.5 + t:.4f}.png" for t in range(8)]
    with pytest.raises(InputError, match="can't be matched"):
        match_stamps(1403636579.5 + np.arange(8), names)


# --- rows without anything -----------------------------------------------------------------------


def test_lines():
    def lines(count, names):
        return match_rows(Rows(count), names, None, SOURCE)

    assert lines(8, STRIDED).rows == list(range(8))
    for count in (1, 7, 30):
        with pytest.raises(InputError, match=rf"\b{count} frames? where the clip has 8"):
            lines(count, VIDEO)


def test_cameras_of_other_images():
    with pytest.raises(InputError, match="can't be matched"):
        match(numbered("IMG_{}.jpg", range(100, 108)), numbered("IMG_{}.jpg", range(200, 208)))


def test_names_without_numbers():
    rows, frames = ["cat.png", "bee.png", "ant.png"], ["x.png", "y.png", "z.png"]
    assert match(rows, frames, every_frame=True).rows == [2, 1, 0]
    with pytest.raises(InputError, match="can't be matched"):  # cameras: a guess is not enough
        match(rows, frames)
    with pytest.raises(InputError, match="can't be matched"):
        match(["cat.png"] * 3, frames, every_frame=True)
    with pytest.raises(InputError, match="can't be matched"):
        match_stamps([1.3e9] * 8, VIDEO)
