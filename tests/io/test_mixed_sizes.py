"""Folders of images of different sizes: the size of the frames, and the way back to each image."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.camera_files import known_field_of_view, read_camera_file, without_distortion
from dyn3r.io.clip import clip_from_images, read_clip
from dyn3r.io.images import frame_mapping
from dyn3r.io.mask_files import read_masks
from dyn3r.io.mixed_sizes import kept_share, mixed_mapping, upright_size
from dyn3r.scene import Scene
from dyn3r.types import Clip, Lens
from tests.factories import tiny_scene
from tests.shots import shot

LANDSCAPE, PORTRAIT, WIDE, SQUARE = (240, 320), (320, 240), (180, 320), (300, 300)
SIZES = (LANDSCAPE, PORTRAIT, LANDSCAPE, WIDE, SQUARE, PORTRAIT, LANDSCAPE)


def position_image(hw: tuple[int, int]) -> np.ndarray:
    """Red and green grow with the column and the row, by a quarter per pixel."""
    row, column = np.indices(hw)
    values = np.stack([column / 2, row / 2, np.full(hw, 99)], axis=-1)
    return np.round(values).astype(np.uint8)


def write_photos(folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> Path:
    """One image of each size. Portraits are stored lying, with an EXIF rotation, as phones do."""
    folder.mkdir(exist_ok=True)
    for k, hw in enumerate(sizes):
        image, exif = Image.fromarray(position_image(hw)), Image.Exif()
        if hw[0] > hw[1]:
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        image.save(folder / f"photo_{k}.png", exif=exif)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def clip(photos: Path) -> Clip:
    return read_clip(photos, size=160)


def scene_of(clip: Clip) -> Scene:
    return tiny_scene(
        len(clip), *clip.size_hw, images=clip.images, mapping=clip.mapping, names=clip.names,
        times_s=clip.times_s,
    )  # fmt: skip


def test_every_pixel_leads_back_to_its_place_in_its_own_image(clip: Clip) -> None:
    assert clip.size_hw == (112, 160)
    v, u = np.mgrid[8:104:8, 8:152:8]
    for t, hw in enumerate(SIZES):
        mapping = clip.mapping.of_frame(t)
        assert mapping.source_hw == hw
        uv = mapping.to_source(np.stack([u, v], -1).astype(float))
        assert (uv > -0.5).all()
        assert (uv < np.array(hw[::-1]) - 0.5).all()
        np.testing.assert_allclose(clip.images[t, v, u, :2], uv / 2, atol=1.1)
        np.testing.assert_allclose(mapping.from_source(uv), np.stack([u, v], -1), atol=1e-9)


def test_images_of_the_chosen_shape_become_the_frames_that_they_are_alone(photos: Path) -> None:
    clip = read_clip(photos, size=160)
    alone = read_clip(photos / "photo_0.png", size=160)
    np.testing.assert_array_equal(clip.images[0], alone.images[0])
    assert clip.mapping.of_frame(0) == alone.mapping


def test_the_note_says_what_was_done(clip: Clip) -> None:
    (note,) = [note for note in clip.report.notes if note.text.startswith("7 of 4 sizes")]
    assert "3 of 320x240, 2 of 240x320" in note.text
    assert "cropped about their centres to 160x112" in note.text
    assert not note.warning
    (turned,) = [note for note in clip.report.notes if note.topic == "rotation"]
    assert "2 of 7 images are turned" in turned.text


def test_a_warning_where_most_of_an_image_is_lost(tmp_path: Path) -> None:
    clip = read_clip(write_photos(tmp_path / "a", (WIDE, WIDE, (320, 180))), size=160)
    (note,) = [note for note in clip.report.notes if "sizes" in note.text]
    assert note.warning
    assert "photo_2.png" in note.text


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(60, 900), st.integers(60, 900)), min_size=2, max_size=6),
    square_ok=st.booleans(),
)
def test_no_other_of_the_sizes_keeps_more(sizes: list[tuple[int, int]], *, square_ok: bool) -> None:
    sizes = [hw for hw in sizes if max(hw) <= 6 * min(hw)] or [(240, 320)]
    names = [str(k) for k in range(len(sizes))]
    crop = {"size": 224, "square_ok": square_ok}
    mapping = mixed_mapping(sizes, names, **crop)
    h, w = mapping.size_hw
    for own in mapping.frame_mappings:
        assert own.size_hw == (h, w)
        left, top = own.crop_xy
        assert 0 <= left <= own.resized_hw[1] - w
        assert 0 <= top <= own.resized_hw[0] - h
        assert w == own.resized_hw[1] or h == own.resized_hw[0] or own.size_hw == alone(own, crop)
    kept = np.mean([kept_share(own) for own in mapping.frame_mappings])
    for hw in sizes:
        other = frame_mapping(hw, **crop).size_hw
        shares = []
        for source_h, source_w in sizes:  # of a crop that covers, without rounding
            ratio = other[0] / other[1] * source_w / source_h
            shares.append(min(ratio, 1 / ratio))
        assert kept >= np.mean(shares) - 0.06  # sides are multiples of 16


def alone(mapping, crop) -> tuple[int, int]:
    return frame_mapping(mapping.source_hw, **crop).size_hw


def test_square_crops_of_every_image(photos: Path) -> None:
    clip = read_clip(photos, size=64, square_crop=True)
    assert clip.size_hw == (64, 64)
    assert all(min(clip.mapping.of_frame(t).resized_hw) == 64 for t in range(len(clip)))


def test_focal_lengths_are_those_of_each_file(tmp_path: Path) -> None:
    write_photos(tmp_path, (LANDSCAPE, PORTRAIT))
    for k, mm in enumerate((26, 52)):
        file = tmp_path / f"photo_{k}.png"
        image = Image.open(file)
        exif = image.getexif()
        exif[0x8769] = {0xA405: mm}
        image.save(file, exif=exif)
    clip = read_clip(tmp_path, size=160)
    K = np.zeros((2, 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = clip.focal_px
    at_source = clip.mapping.K_to_source(K)[:, 0, 0]
    np.testing.assert_allclose(at_source, np.array([26, 52]) * 400 / 43.27, rtol=0.01)
    assert any("26 to 52 mm" in note.text for note in clip.report.notes)
    assert clip.part(slice(1, 2)).focal_px == clip.focal_px[1:]
    Image.fromarray(position_image(PORTRAIT)).save(file)  # one that states none
    assert read_clip(tmp_path, size=160).focal_px is None


def test_parts_keep_the_mappings_of_their_frames(clip: Clip) -> None:
    part = clip.part(np.array([1, 3]))
    assert part.mapping.of_frame(1) == clip.mapping.of_frame(3)
    K = np.tile(np.array([[100, 0, 80], [0, 100, 56], [0, 0, 1.0]]), (2, 1, 1))
    there = part.mapping.K_to_source(K)
    np.testing.assert_allclose(there[1], clip.mapping.of_frame(3).K_to_source(K[1]))
    np.testing.assert_allclose(part.mapping.K_from_source(there), K)


def test_images_in_memory() -> None:
    images = [position_image(hw) for hw in (LANDSCAPE, PORTRAIT)]
    clip = clip_from_images(images, size=160)
    assert [m.source_hw for m in clip.mapping.frame_mappings] == [LANDSCAPE, PORTRAIT]
    assert any("2 of 2 sizes" in note.text for note in clip.report.notes)
    with pytest.raises(InputError, match="convert them to one size"):
        clip_from_images(iter(images), size=160)  # read one at a time
    assert not clip_from_images([images[0]] * 2, size=160).mapping.is_mixed


def test_scenes_keep_the_mappings(clip: Clip, tmp_path: Path) -> None:
    scene = scene_of(clip)
    saved = Scene.load(scene.save(tmp_path / "a.dyn3r"))
    assert saved.mapping == scene.mapping
    assert [scene.depth_source(t).shape for t in range(len(scene))] == list(SIZES)
    with pytest.raises(InputError, match="which frame"):
        scene.at_source(scene.depth[0])
    with pytest.raises(InputError, match="7 mappings"):
        replace(scene, mapping=scene.mapping.part([0, 1]))


@pytest.mark.parametrize(
    "frames", [[], "two", [{}] * 7, [None] * 7, [{"source_hw": [1, 70000]}] * 7, [1] * 7]
)
def test_damaged_mappings_are_refused(clip: Clip, tmp_path: Path, frames: object) -> None:
    path = scene_of(clip).save(tmp_path / "a.dyn3r")
    damaged = tmp_path / "b.dyn3r"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "scene.json":
                header = json.loads(content)
                assert header["version"] == 3
                assert len(header["mapping"]["frames"]) == 7
                header["mapping"]["frames"] = frames
                content = json.dumps(header).encode()
            new.writestr(name, content)
    with pytest.raises(InputError, match=r"damaged|header"):
        Scene.load(damaged)


def test_known_masks_have_the_size_of_their_images(clip: Clip, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for k, (h, w) in enumerate(SIZES):
        mask = np.zeros((h, w), np.uint8)
        mask[: h // 2, : w // 2] = 255
        Image.fromarray(mask).save(masks / f"photo_{k}.png")
    found = read_masks(masks, clip)
    assert found.shape == (7, 112, 160)
    for t in range(7):
        u, v = clip.mapping.of_frame(t).from_source(np.array([SIZES[t][1] / 2, SIZES[t][0] / 2]))
        assert found[t, int(v) - 2, int(u) - 2]
        assert not found[t, int(v) + 2, int(u) - 2]
        assert not found[t, int(v) - 2, int(u) + 2]
    np.savez(tmp_path / "masks.npz", mask=np.zeros((7, *LANDSCAPE), bool))
    with pytest.raises(InputError, match=r"sizes differ.*160x112"):
        read_masks(tmp_path / "masks.npz", clip)


def test_what_holds_for_one_size_alone_is_refused(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different sizes"):
        known_field_of_view(60, clip)
    np.savez(tmp_path / "K.npz", K=np.diag([200.0, 200.0, 1.0]))
    with pytest.raises(InputError, match="different sizes"):
        read_camera_file(tmp_path / "K.npz", clip)


def test_lens_distortion_is_removed_from_each_image(clip: Clip) -> None:
    lenses = [
        Lens("perspective", (float(w), float(w)), (w / 2, h / 2), radial=(-0.1,)) for h, w in SIZES
    ]
    straight = without_distortion(clip, *lenses)
    assert straight.mapping.is_undistorted
    assert [straight.mapping.of_frame(t).lens.centre_xy for t in (0, 1)] == [(160, 120), (120, 160)]
    assert not np.array_equal(straight.images, clip.images)
    assert without_distortion(straight, *lenses) is straight


def test_turned_images_of_every_format_have_their_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for suffix in ("jpg", "png", "tif", "webp"):
        file = tmp_path / f"a.{suffix}"
        Image.fromarray(shot(1)[0]).save(file, exif=exif)
        clip = read_clip(file, size=64)
        assert upright_size(file) == clip.mapping.source_hw
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert upright_size(tmp_path / "b.jpg") is None
