"""What is found in the frames of a clip, with right values; nothing in clean ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dyn3r.io.clip import clip_from_images, read_clip
from dyn3r.io.inspection.borders import find_borders
from dyn3r.io.inspection.cuts import longest_shot
from dyn3r.io.inspection.overlays import find_overlays
from dyn3r.io.inspection.texture import found_again_share, has_texture, textured_share
from dyn3r.types import Clip
from tests.shots import black, shot


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Clip]:
    """`read(frames, **options)` writes frames as images and reads them as a clip."""

    def read(frames: np.ndarray, **options) -> Clip:
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / f"{t:03d}.png")
        return read_clip(tmp_path, **{"size": 192, "square_ok": True, **options})

    return read


def topics(clip: Clip) -> list[str]:
    return [note.topic for note in clip.report.notes]


@pytest.mark.parametrize("step", [1, 2, 9, 40])
def test_nothing_is_found_in_a_clean_shot(read, step: int) -> None:
    clip = read(shot(10, step=step))
    assert topics(clip) == ["frames"]
    assert clip.report.notes[0].text == "10 of 192x144 pixels"
    assert clip.unusable is None
    assert clip.overlay is None
    assert clip.cuts == ()
    assert clip.mapping.resized_hw == (144, 192)


# --- texture


@pytest.mark.parametrize("noise", [0, 1, 5])
def test_noise_is_no_texture(noise: float) -> None:
    assert textured_share(black(1, noise)[0, :, :, 0]) < 0.01


def faint(frames: int, noise: float) -> np.ndarray:
    """A wall of little contrast, with the noise of a camera."""
    grey = shot(frames)[..., :1].astype(float)
    noisy = 128 + 0.08 * (grey - 128) + np.random.default_rng(2).normal(0, noise, grey.shape)
    return np.repeat(noisy.round().astype(np.uint8), 3, axis=3)


def test_faint_texture_is_found_again_and_noise_is_not() -> None:
    wall, noisy = faint(2, 0.5)[..., 0], faint(2, 8.0)[..., 0]
    assert not has_texture(wall[0])
    assert found_again_share(*wall) > 0.5
    assert found_again_share(*black(2, 5)[..., 0]) < 0.02
    assert found_again_share(*noisy) < 0.1  # the wall is there, under strong noise
    assert found_again_share(wall[0], black(1, 3)[0, :, :, 0]) < 0.02


def test_frames_of_a_plain_wall_are_kept_as_long_as_they_are_found_again(read) -> None:
    clip = read(np.concatenate([faint(4, 0.5), black(2, 3)]))
    assert clip.unusable is not None
    assert np.flatnonzero(clip.unusable).tolist() == [4, 5]


def test_a_gradient_along_one_direction_is_no_texture() -> None:
    ramp = np.tile(np.linspace(0, 255, 192).astype(np.uint8), (144, 1))
    assert textured_share(ramp) == 0
    assert textured_share(shot(1)[0, :, :, 0]) > 0.95


def test_black_frames_are_unusable_wherever_they_are(read) -> None:
    wall = shot(8)
    frames = np.concatenate([black(2, 3), wall[:4], black(1, 0), wall[4:]])
    clip = read(frames)
    assert clip.unusable is not None
    assert np.flatnonzero(clip.unusable).tolist() == [0, 1, 6]
    assert "3 of 11 have no texture (000.png, 001.png, 006.png)" in clip.report.notes[1].text
    assert clip.cuts == ()


def test_a_clip_without_any_texture_stays_whole_with_a_warning(read) -> None:
    clip = read(black(3, 2))
    assert clip.unusable is None
    assert [note.warning for note in clip.report.notes] == [False, True]


def test_repeated_frames_are_said(read) -> None:
    frames = shot(10)
    frames[3:5] = frames[2]
    note = read(frames).report.notes[1]
    assert note.text == "2 are the frame before once more (003.png, 004.png)"
    assert note.warning


def test_frames_of_one_picture_are_said(read) -> None:
    note = read(shot(5, step=0)).report.notes[1]
    assert note.text == "all frames are the same picture"


# --- borders


@pytest.mark.parametrize(
    ("left", "top", "right", "bottom"),
    [(0, 30, 0, 30), (50, 0, 50, 0), (50, 30, 40, 20), (0, 0, 0, 24)],
)
@pytest.mark.parametrize("level", [0, 16])
def test_bars_are_cropped_and_the_mapping_leads_back(
    read, left: int, top: int, right: int, bottom: int, level: int
) -> None:
    picture = shot(6, hw=(160, 240))
    pad = [(0, 0), (top, bottom), (left, right), (0, 0)]
    clip = read(np.pad(picture, pad, constant_values=level), size=240)
    assert topics(clip) == ["frames", "borders"]
    h, w = clip.size_hw
    corners = clip.mapping.to_source(np.array([[-0.5, -0.5], [w - 0.5, h - 0.5]]))
    (x0, y0), (x1, y1) = corners + 0.5 - np.array([left, top])
    assert min(x0, y0) >= 0
    assert max(x1 - 240, y1 - 160) <= 0
    assert (x1 - x0) * (y1 - y0) > 0.85 * 240 * 160
    # what lies at a prepared pixel is what the mapping says
    column, row = np.rint(clip.mapping.to_source(np.array([w / 2, h / 2]))).astype(int)
    patch = picture[0, row - top - 3 : row - top + 4, column - left - 3 : column - left + 4]
    here = clip.images[0, h // 2 - 2 : h // 2 + 3, w // 2 - 2 : w // 2 + 3]
    assert abs(patch.mean() - here.mean()) < 15


def test_bars_of_one_colour_on_both_sides_are_cropped(read) -> None:
    frames = np.pad(shot(4), [(0, 0), (0, 0), (40, 40), (0, 0)], constant_values=200)
    assert topics(read(frames, size=272)) == ["frames", "borders"]


def test_bars_can_be_kept(read) -> None:
    frames = np.pad(shot(4), [(0, 0), (24, 24), (0, 0), (0, 0)])
    clip = read(frames, crop_borders=False)
    assert topics(clip) == ["frames"]
    assert clip.mapping.resized_hw == (192, 192)


def test_a_night_sky_and_a_white_sky_are_no_bars() -> None:
    frames = shot(6)
    roofs = 40 + (10 * np.sin(np.arange(192) / 9)).astype(int)
    for x, y in enumerate(roofs):
        frames[:, :y, x] = 3
    assert find_borders(frames) is None
    frames = shot(6)
    frames[:, :40] = 255
    assert find_borders(frames) is None


def test_a_moving_dark_object_at_the_edge_is_no_bar() -> None:
    frames = shot(6)
    for t in range(3):
        frames[t, :, :30] = 0
    assert find_borders(frames) is None


def test_one_image_keeps_its_borders(read) -> None:
    assert topics(read(np.pad(shot(1), [(0, 0), (0, 0), (48, 48), (0, 0)]))) == ["frames"]


# --- cuts


def test_a_cut_is_found_at_its_frame(read) -> None:
    clip = read(np.concatenate([shot(6, 0), shot(9, 1), shot(5, 2)]), fps=10)
    assert clip.cuts == (6, 15)
    assert clip.report.notes[1].text == "2, before 006.png (0.6 s), 015.png (1.5 s)"
    part = longest_shot(clip)
    assert part.names[0] == "006.png"
    assert len(part) == 9
    assert part.cuts == ()
    assert "--start 0 --end 0.502; --start 1.5 --end 1.902" in part.report.notes[2].text


def test_the_command_that_is_named_reads_the_other_shot(read, tmp_path: Path) -> None:
    read(np.concatenate([shot(6, 0), shot(9, 1)]))
    named = longest_shot(read_clip(tmp_path, size=192)).report.notes[-1].text.split()
    start = float(named[named.index("--start") + 1])
    end = float(named[named.index("--end") + 1])
    assert read_clip(tmp_path, size=192, start=start, end=end).names[-1] == "005.png"


def test_a_cut_behind_black_frames_is_found(read) -> None:
    clip = read(np.concatenate([shot(5, 0), black(2, 1), shot(5, 1)]))
    assert clip.cuts == (7,)


def test_a_flash_and_a_change_of_exposure_are_no_cuts(read) -> None:
    frames = shot(10)
    frames[4] = (frames[4] * 0.4 + 150).astype(np.uint8)
    frames[7:] = (frames[7:] * 0.6).astype(np.uint8)
    assert read(frames).cuts == ()


def test_a_single_frame_of_another_place_is_left_out(read) -> None:
    frames = shot(9)
    frames[4] = shot(1, 5)[0]
    clip = read(frames)
    assert clip.cuts == ()
    assert clip.unusable is not None
    assert np.flatnonzero(clip.unusable).tolist() == [4]
    assert clip.report.notes[1].warning


def test_overlays_are_not_looked_for_in_a_frame_of_another_place(read, monkeypatch) -> None:
    seen = []

    def spy(greys, neighbours):
        seen.append((greys, neighbours))
        return find_overlays(greys, neighbours)

    monkeypatch.setattr("dyn3r.io.inspection.inspector.find_overlays", spy)
    frames = shot(9)
    frames[4] = shot(1, 5)[0]
    read(frames)
    ((greys, neighbours),) = seen
    assert len(greys) == 8
    steps = [float(np.median(c.here[:, 0] - c.there[:, 0])) for c in neighbours]
    assert steps == pytest.approx([5, 5, 5, 10, 5, 5, 5], abs=0.1)  # the picture pans by 5 a frame


def test_frames_that_have_nothing_in_common_are_no_cuts_but_a_warning(read) -> None:
    clip = read(np.concatenate([shot(1, seed) for seed in range(6)]))
    assert clip.cuts == ()
    assert "too little in common" in clip.report.notes[1].text


def test_a_part_keeps_what_belongs_to_it() -> None:
    frames = np.concatenate([shot(4, 0), black(2, 1), shot(4, 1)])
    clip = clip_from_images(frames, size=192)
    part = clip.part(slice(3, 8))
    assert part.names == clip.names[3:8]
    assert part.cuts == (3,)
    assert part.unusable is not None
    assert part.unusable.tolist() == [False, True, True, False, False]
    assert clip.part(np.array([0, 1, 9])).cuts == (2,)


# --- overlays


def logo(frames: np.ndarray, opacity: float) -> tuple[np.ndarray, np.ndarray]:
    """The frames with letters on them, and the letters' pixels."""
    ink = np.zeros(frames.shape[1:3], np.uint8)
    cv2.putText(ink, "LIVE", (12, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    alpha = opacity * ink[None, :, :, None] / 255
    return (frames * (1 - alpha) + 255 * alpha).astype(np.uint8), ink > 0


@pytest.mark.parametrize("opacity", [1.0, 0.7])
def test_a_logo_is_found_where_it_is(read, opacity: float) -> None:
    frames, ink = logo(shot(20), opacity)
    clip = read(frames)
    assert topics(clip) == ["frames", "overlays"]
    assert clip.overlay is not None
    assert clip.overlay[ink].mean() > 0.95
    near = cv2.dilate(ink.astype(np.uint8), np.ones((31, 31))) > 0
    assert not clip.overlay[~near].any()


def test_a_logo_is_found_at_any_size_of_the_frames(read) -> None:
    frames, _ = logo(shot(20), 1.0)
    clip = read(frames, size=96)
    assert clip.overlay is not None
    assert 0.05 < clip.overlay.mean() < 0.3


def test_a_still_camera_has_no_overlays(read) -> None:
    assert read(logo(shot(20, step=0), 1.0)[0]).overlay is None


def test_a_line_along_the_motion_is_no_overlay(read) -> None:
    frames = shot(20)
    frames[:, 70:74] = 255
    assert read(frames).overlay is None


def test_few_frames_have_no_overlays(read) -> None:
    """An object that the camera follows may stay put for as long."""
    assert read(logo(shot(16), 1.0)[0]).overlay is None


# --- fields


def woven(frames: np.ndarray) -> np.ndarray:
    """Even rows of each frame, odd rows of the next one."""
    out = frames[:-1].copy()
    out[:, 1::2] = frames[1:, 1::2]
    return out


@pytest.mark.parametrize("height", [144, 145])
def test_interlaced_frames_are_read_from_one_field(read, height: int) -> None:
    frames = shot(7, hw=(height, 192))
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])
    clip = read(woven(smooth))
    assert topics(clip) == ["frames", "fields"]
    assert clip.mapping.source_hw == (height, 192)
    errors = np.abs(clip.images[:, :144].astype(int) - smooth[:-1, :144])
    assert errors.mean() < 2
    assert np.abs(woven(smooth)[:, :144].astype(int) - smooth[:-1, :144]).mean() > 5


def test_film_that_became_television_is_interlaced(read) -> None:
    frames = shot(11)
    frames[:10:5] = woven(frames)[::5]
    frames[1:10:5] = woven(frames)[1::5]
    assert "fields" in topics(read(frames[:10]))


def test_a_still_interlaced_clip_is_not_combed(read) -> None:
    assert "fields" not in topics(read(woven(shot(5, step=0))))


def test_bars_and_fields_together(read) -> None:
    frames = np.pad(woven(shot(7)), [(0, 0), (0, 0), (40, 40), (0, 0)])
    assert topics(read(frames, size=272)) == ["frames", "fields", "borders"]
