"""What files say: rotation, shape of the pixels, projection, focal length, damage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dyn3r.io.clip import read_clip
from dyn3r.io.inspection.file_facts import (
    EXIF,
    FOCAL_35MM,
    ORIENTATION,
    PHOTO_SIGMA,
    QUICKTIME_35MM,
    VIDEO_SIGMA,
)
from tests.shots import shot


def notes(path: Path) -> list[tuple[str, bool]]:
    report = read_clip(path, size=96, square_ok=True).report
    return [(note.topic, note.warning) for note in report.notes]


def photo(path: Path, frame: np.ndarray, **tags: int) -> Path:
    exif = Image.Exif()
    if "orientation" in tags:
        exif[ORIENTATION] = tags["orientation"]
    if "focal" in tags:
        exif.get_ifd(EXIF)[FOCAL_35MM] = tags["focal"]
    Image.fromarray(frame).save(path, exif=exif, quality=95)
    return path


def video(path: Path, aspect: Fraction = Fraction(1), **metadata: str) -> Path:
    options = {"movflags": "use_metadata_tags"}
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for frame in shot(4):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_a_plain_photograph_and_a_plain_video_say_nothing(tmp_path: Path) -> None:
    assert notes(photo(tmp_path / "a.jpg", shot(1)[0])) == [("frames", False)]
    assert notes(video(tmp_path / "a.mp4")) == [("frames", False)]


@pytest.mark.parametrize(("orientation", "degrees"), [(3, 180), (6, 90), (8, 270)])
def test_rotation_is_said(tmp_path: Path, orientation: int, degrees: int) -> None:
    file = photo(tmp_path / "a.jpg", shot(1)[0], orientation=orientation)
    note = read_clip(file, size=96).report.notes[1]
    assert note.topic == "rotation"
    assert f"turned by {degrees} degrees clockwise" in note.text


def test_pixels_that_are_not_square_are_said(tmp_path: Path) -> None:
    Image.fromarray(shot(1)[0]).save(tmp_path / "a.png", dpi=(72, 96))
    assert notes(tmp_path / "a.png")[1] == ("pixels", True)
    file = video(tmp_path / "a.mp4", Fraction(16, 11))
    text = read_clip(file, size=96).report.notes[1].text
    assert "1.455 times as wide as high" in text


def test_panoramas_are_recognised(tmp_path: Path) -> None:
    about = PngInfo()
    about.add_itxt("XML:com.adobe.xmp", 'GPano:ProjectionType="equirectangular"')
    Image.fromarray(shot(1)[0]).save(tmp_path / "a.png", pnginfo=about)
    assert ("lens", True) in notes(tmp_path / "a.png")
    file = video(tmp_path / "a.mp4", comment="<GSpherical:Spherical>true</GSpherical:Spherical>")
    assert ("lens", True) in notes(file)


def test_the_focal_length_of_a_photograph(tmp_path: Path) -> None:
    clip = read_clip(photo(tmp_path / "a.jpg", shot(1)[0], focal=26), size=96)
    # 43.27 mm is the diagonal, here of 96x72 pixels
    assert clip.focal_px == pytest.approx(26 / 43.27 * 120)
    assert clip.focal_sigma == PHOTO_SIGMA
    assert "26 mm" in clip.report.notes[1].text


def test_the_focal_length_of_a_video(tmp_path: Path) -> None:
    clip = read_clip(video(tmp_path / "a.mov", **{QUICKTIME_35MM: "24"}), size=96)
    assert clip.focal_px == pytest.approx(24 / 43.27 * 120)
    assert clip.focal_sigma == VIDEO_SIGMA


@pytest.mark.parametrize("focal", [0, 1, 60000])
def test_absurd_focal_lengths_say_nothing(tmp_path: Path, focal: int) -> None:
    clip = read_clip(photo(tmp_path / "a.jpg", shot(1)[0], focal=focal), size=96)
    assert clip.focal_px is None
