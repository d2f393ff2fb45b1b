"""What files say: rotation, shape of the pixels, projection, focal length, damage."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dyn3r.io.camera_files import known_field_of_view
from dyn3r.io.clip import read_clip
from dyn3r.io.inspection.file_facts import (
    EXIF,
    FOCAL_35MM,
    ORIENTATION,
    PHOTO_SIGMA,
    QUICKTIME_35MM,
    VIDEO_SIGMA,
    FileFacts,
)
from dyn3r.scene.known_cameras import known_cameras
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


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    wide = shot(3, hw=(144, 256))
    for t, frame in enumerate(wide):
        narrow = Image.fromarray(frame).resize((192, 144), Image.Resampling.LANCZOS)
        narrow.save(tmp_path / f"{t}.png", dpi=(72, 96))
    clip = read_clip(tmp_path, size=256)
    assert clip.mapping.source_hw == (144, 192)
    assert clip.size_hw == (144, 256)
    assert np.abs(clip.images.astype(float) - wide).mean() < 6
    note = clip.report.notes[1]
    assert (note.topic, note.warning) == ("pixels", False)
    assert "1.333 times as wide as high" in note.text
    # the ends of a row lead back to those of the file
    ends = clip.mapping.to_source(np.array([[-0.5, 0], [255.5, 0]]))[:, 0]
    np.testing.assert_allclose(ends, [-0.5, 191.5])
    K = known_field_of_view(60, clip).K
    assert K is not None
    np.testing.assert_allclose(K[0, 0, 0], 128 / np.tan(np.radians(30)))
    np.testing.assert_allclose(K[0, 0, 0], K[0, 1, 1])
    at_source = clip.mapping.K_to_source(K[0])
    np.testing.assert_allclose(at_source[1, 1] / at_source[0, 0], 4 / 3)


@pytest.mark.parametrize("display", [False, True])
def test_cameras_of_stored_and_of_square_pixels(tmp_path: Path, display: bool) -> None:
    for t, frame in enumerate(shot(2)):
        Image.fromarray(frame).save(tmp_path / f"{t}.png", dpi=(72, 96))
    width, fx = (256, 200.0) if display else (192, 150.0)
    frames = [{"file_path": f"{t}.png", "transform_matrix": np.eye(4).tolist()} for t in range(2)]
    about = {"w": width, "h": 144, "fl_x": fx, "fl_y": 200.0, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(about))
    clip = read_clip(tmp_path, size=256)
    K = known_cameras(tmp_path, clip).priors.K
    assert K is not None
    np.testing.assert_allclose(K[:, [0, 1], [0, 1]], 200)


def test_turned_videos_and_photographs_have_turned_pixels(tmp_path: Path) -> None:
    file = video(tmp_path / "a.mp4", Fraction(4, 3))
    assert read_clip(file, size=256).mapping.pixel_aspect == pytest.approx(4 / 3)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(shot(1)[0]).save(tmp_path / "a.png", dpi=(72, 96), exif=exif)
    mapping = read_clip(tmp_path / "a.png", size=256).mapping
    assert mapping.source_hw == (192, 144)
    assert mapping.pixel_aspect == pytest.approx(3 / 4)
    assert mapping.size_hw == (256, 144)
    facts = FileFacts([], pixel_aspect=4 / 3)
    assert facts.upright_aspect(90) == facts.upright_aspect(270) == pytest.approx(3 / 4)
    assert facts.upright_aspect(180) == pytest.approx(4 / 3)


def test_the_focal_length_of_pixels_that_are_not_square(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    exif.get_ifd(EXIF)[FOCAL_35MM] = 26
    Image.fromarray(shot(1)[0]).save(tmp_path / "a.png", dpi=(72, 96), exif=exif)
    clip = read_clip(tmp_path / "a.png", size=256)
    assert clip.focal_px == pytest.approx(26 / 43.27 * np.hypot(256, 144))


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
