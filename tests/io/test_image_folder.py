"""Folders as people have them: depth maps beside colour, 12 bits in 16, HEIC, the wrong level."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.io.clip import read_clip
from dyn3r.io.frame_stream import stream_frames
from dyn3r.types import Clip
from tests.shots import shot

SIZE = {"size": 192, "square_ok": True}


def save(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def texts(clip: Clip) -> list[str]:
    return [note.text for note in clip.report.notes]


def test_depth_maps_beside_the_frames_are_left_out(tmp_path: Path) -> None:
    for t, frame in enumerate(shot(3)):
        save(tmp_path, f"frame-{t:06d}.color.png", frame)
        save(tmp_path, f"frame-{t:06d}.depth.png", np.full((144, 192), 1500, np.uint16))
    clip = read_clip(tmp_path, **SIZE)
    assert clip.names == tuple(f"frame-{t:06d}.color.png" for t in range(3))
    assert "3 of the folder's files are depth maps" in texts(clip)[1]
    assert [frame.name for frame in stream_frames(tmp_path)] == list(clip.names)


def test_a_word_of_maps_in_every_name_leaves_nothing_out(tmp_path: Path) -> None:
    for t, frame in enumerate(shot(3)):
        save(tmp_path, f"depth_of_field_{t}.png", frame)
    assert len(read_clip(tmp_path, **SIZE)) == 3


def test_unnamed_depth_maps_among_colour_images_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "1.png", shot(1)[0])
    save(tmp_path, "2.png", np.full((144, 192), 1500, np.uint16))
    with pytest.raises(InputError, match=r"mixes 16-bit grey images \(2\.png\)"):
        read_clip(tmp_path, **SIZE)


def test_the_root_of_a_sequence_names_its_folders(tmp_path: Path) -> None:
    for folder in ("rgb", "depth"):
        for t in range(2):
            save(tmp_path / folder, f"{t}.png", shot(1)[0])
    (tmp_path / "groundtruth.txt").write_text("# poses")
    with pytest.raises(InputError, match=r"depth/ \(2 images\), rgb/ \(2 images\)"):
        read_clip(tmp_path)


def test_raw_photographs_are_named_with_a_warning(tmp_path: Path) -> None:
    save(tmp_path, "1.png", shot(1)[0])
    (tmp_path / "2.CR2").write_bytes(b"raw")
    note = read_clip(tmp_path, **SIZE).report.notes[1]
    assert note.warning
    assert "1 .cr2; 2.CR2" in note.text


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize(("bits", "expected"), [(8, 8), (10, 10), (12, 12), (14, 14), (16, None)])
def test_few_bits_in_16_bit_files_are_not_dark(
    tmp_path: Path, bits: int, expected: int | None, colour: bool
) -> None:
    frames = shot(2)
    frames[0] //= 8  # a dark frame does not decide
    for t, frame in enumerate(frames):
        values = (frame.astype(np.float64) * ((2**bits - 1) / 255)).round().astype(np.uint16)
        save(tmp_path, f"{t}.png", values if colour else values[..., 1])
    clip = read_clip(tmp_path, **SIZE)
    truth = frames if colour else frames[..., [1, 1, 1]]
    assert np.abs(clip.images.astype(int) - truth).max() <= 1
    notes = [text for text in texts(clip) if "16-bit" in text]
    assert notes == (
        [f"16-bit files with values of {bits} bits: {2**bits - 1} is white"] if expected else []
    )
    streamed = next(iter(stream_frames(tmp_path))).image
    np.testing.assert_array_equal(np.asarray(streamed), clip.images[0])


def test_images_stored_twice_are_read_once(tmp_path: Path) -> None:
    for t, frame in enumerate(shot(4)):
        for suffix in ("jpg", "PNG", "heic"):
            (tmp_path / f"IMG_{t}.{suffix}").write_bytes(b"broken")
        Image.fromarray(frame).save(tmp_path / f"IMG_{t}.PNG")
    (tmp_path / "IMG_3.PNG").unlink()
    Image.fromarray(shot(4)[3]).save(tmp_path / "IMG_3.jpg", quality=95)
    for t in range(3):
        (tmp_path / f"IMG_{t}.heic").unlink()
    (tmp_path / "IMG_3.heic").unlink()
    (tmp_path / "IMG_0.jpg").unlink()  # as many of both
    clip = read_clip(tmp_path, **SIZE)
    assert clip.names == ("IMG_0.PNG", "IMG_1.PNG", "IMG_2.PNG", "IMG_3.jpg")
    assert "2 of the folder's files are images again, under another suffix" in texts(clip)[1]


def test_missing_numbers_are_said(tmp_path: Path) -> None:
    numbers = [0, 2, 4, 6, 8, 20, 22, 24]
    for number, frame in zip(numbers, shot(8)):
        save(tmp_path, f"frame_{number:04d}.png", frame)
    note = read_clip(tmp_path, **SIZE).report.notes[1]
    assert (note.topic, note.warning) == ("times", True)
    assert "missing after frame_0008.png (frame_0020.png is next)" in note.text


@pytest.mark.parametrize("names", [range(0, 40, 5), [3, 7, 8, 15, 29, 31, 32, 50], ["a", "b"]])
def test_equal_steps_and_times_are_no_missing_numbers(tmp_path: Path, names) -> None:
    for name, frame in zip(names, shot(8)):
        save(tmp_path, f"{name}.png", frame)
    assert len(texts(read_clip(tmp_path, **SIZE))) == 1


def test_a_folder_with_a_video_names_it(tmp_path: Path) -> None:
    (tmp_path / "clip.MOV").write_bytes(b"x")
    with pytest.raises(InputError, match=r"but a video: give clip\.MOV"):
        read_clip(tmp_path)


@pytest.mark.parametrize("suffix", ["webp", "tif", "png"])
def test_animations_are_said_to_be_read_in_part(tmp_path: Path, suffix: str) -> None:
    first, *others = map(Image.fromarray, shot(3))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others)
    note = read_clip(tmp_path / f"a.{suffix}", **SIZE).report.notes[1]
    assert note.warning
    assert "holds 3 pictures, of which the first is read" in note.text


def test_heic_is_named_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    save(tmp_path, "1.png", shot(1)[0])
    (tmp_path / "2.HEIC").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"reading 2\.HEIC .*dyn3r\[heic\]"):
        read_clip(tmp_path, **SIZE)


def test_heic_is_read(tmp_path: Path) -> None:
    heif: Callable = pytest.importorskip("pillow_heif").register_heif_opener
    heif()
    frames = shot(2)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{t}.heic", quality=95)
    clip = read_clip(tmp_path, **SIZE)
    assert clip.names == ("0.heic", "1.heic")
    grey = clip.images.mean(axis=3) - frames.mean(axis=3)  # its colours have half the resolution
    assert np.abs(grey).mean() < 6
