"""Reading clips: golden frames, the way back to the source, videos, folders and bad input."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dyn3r.assets.demo import DEMO_FPS, demo_clip_folder
from dyn3r.errors import InputError
from dyn3r.io.clip import clip_from_images, prepare_images, read_clip, read_masks
from dyn3r.io.images import (
    Fit,
    FrameStack,
    Window,
    check_size,
    frame_mapping,
    resize_nearest,
    to_rgb,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "misc_frames.npz")
PREPARED = [key.split("__")[1:3] for key in GOLDEN.files if key.endswith("__seed")]


def save_pictures(folder: Path, names: list[str], hw: tuple[int, int] = (48, 64)) -> Path:
    """Picture k is a flat grey of level 8 * k + 8."""
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(np.full((*hw, 3), 8 * k + 8, np.uint8)).save(folder / name)
    return folder


def numbers_of(images: np.ndarray) -> list[int]:
    """Which pictures of `save_pictures` these are."""
    return [round((float(image.mean()) - 8) / 8) for image in images]


# --- resize and crop -----------------------------------------------------------------------------


@pytest.mark.parametrize(("wh", "size"), PREPARED)
def test_golden_frames(wh: str, size: str) -> None:
    key = f"prep__{wh}__{size}"
    width, height = map(int, wh.split("x"))
    source = Image.fromarray(GOLDEN[f"{key}__seed"]).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    frames, mapping = prepare_images([source], size=int(size), square_crop=size == "224")
    assert frames.shape[1:] == tuple(GOLDEN[f"{key}__shape"])
    assert mapping.size_hw == frames.shape[1:3]
    np.testing.assert_array_equal(frames[0, ::16, ::16], GOLDEN[f"{key}__sub"])


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(16, 3000),
    width=st.integers(16, 3000),
    size=st.integers(4, 40).map(lambda k: 16 * k),
    square_ok=st.booleans(),
    square_crop=st.booleans(),
)
def test_the_crop_is_centred_inside_and_a_multiple_of_16(
    height: int, width: int, size: int, square_ok: bool, square_crop: bool
) -> None:
    try:
        mapping = frame_mapping(
            (height, width), size=size, square_ok=square_ok, square_crop=square_crop
        )
    except InputError:
        assert max(height, width) / min(height, width) > size / 18
        return
    (left, top), (h, w) = mapping.crop_xy, mapping.size_hw
    resized_h, resized_w = mapping.resized_hw
    assert h % 16 == 0
    assert w % 16 == 0
    assert min(h, w, left + 1, top + 1) > 0
    assert abs(left - (resized_w - left - w)) <= 1
    assert abs(top - (resized_h - top - h)) <= 1
    assert (h, w) == (size, size) if square_crop else max(resized_h, resized_w) == size


def test_square_pictures() -> None:
    square = (100, 100)
    assert frame_mapping(square, size=512).size_hw == (384, 512)
    assert frame_mapping(square, size=512, square_ok=True).size_hw == (512, 512)
    assert frame_mapping(square, size=160).size_hw == (112, 160)  # 120 is no multiple of 16
    assert frame_mapping((240, 320), size=224).size_hw == (160, 224)
    assert frame_mapping((240, 320), size=224, square_crop=True).size_hw == (224, 224)


def test_frames_that_cover_have_the_nearest_short_side() -> None:
    sizes = {
        hw: frame_mapping(hw, size=224, fit="cover").size_hw
        for hw in ((720, 1280), (1280, 720), (240, 320), (360, 540), (100, 100), (376, 1241))
    }
    assert sizes == {
        (720, 1280): (128, 224), (1280, 720): (224, 128),  # 126 rows
        (240, 320): (160, 224),  # 168: the smaller of two as near
        (360, 540): (144, 224),  # 149
        (100, 100): (224, 224), (376, 1241): (64, 224),
    }  # fmt: skip
    mapping = frame_mapping((1080, 1920), size=224, fit="cover")
    assert (mapping.resized_hw, mapping.crop_xy) == ((128, 228), (2, 0))


@pytest.mark.parametrize("fit", ["cover", "area"])
@pytest.mark.parametrize("hw", [(480, 854), (853, 480), (97, 150), (375, 1242), (99, 100)])
def test_frames_that_cover_lie_within_the_picture(hw: tuple[int, int], fit: Fit) -> None:
    for size in range(64, 512, 16):
        mapping = frame_mapping(hw, size=size, fit=fit)
        for length, first, kept in zip(mapping.resized_hw, mapping.crop_xy[::-1], mapping.size_hw):
            assert first >= 0
            assert first + kept <= length
            assert kept % 16 == 0
        lost = 1 - np.prod(mapping.size_hw) / np.prod(mapping.resized_hw)
        assert lost <= 8.5 / min(mapping.size_hw)
        scale_x, scale_y = mapping.scale_xy
        assert abs(np.log(scale_x / scale_y)) < 1 / min(mapping.resized_hw)


def test_wide_and_square_pictures_get_as_many_pixels_as_others() -> None:
    sizes = {
        hw: frame_mapping(hw, size=224, fit="area").size_hw
        for hw in ((720, 1280), (240, 320), (800, 1912), (1912, 800), (376, 1241), (100, 100))
    }
    assert sizes == {
        (720, 1280): (128, 224), (240, 320): (160, 224), (800, 1912): (112, 256),
        (1912, 800): (256, 112), (376, 1241): (96, 304), (100, 100): (192, 192),
    }  # fmt: skip
    pixels = [h * w for h, w in sizes.values()]
    assert min(pixels) >= 224 * 126
    assert max(pixels) <= 224 * 168
    # bars are not counted: the picture within them is wide
    picture = Window(0, 140, 1920, 940)
    mapping = frame_mapping((1080, 1920), size=224, fit="area", picture=picture)
    assert mapping.size_hw == (112, 256)
    left, top = mapping.crop_xy
    scale_y = mapping.scale_xy[1]
    assert top >= 140 * scale_y - 1
    assert top + 112 <= 940 * scale_y + 1
    assert left >= 0
    assert left + 256 <= mapping.resized_hw[1]


@pytest.mark.parametrize("hw", [(480, 854), (854, 480), (100, 150)])
def test_pixels_land_where_the_mapping_says(hw: tuple[int, int]) -> None:
    """A picture whose red and green are its own x and y coordinates."""
    height, width = hw
    v, u = np.indices(hw)
    ramp = np.stack([u * 255 / (width - 1), v * 255 / (height - 1), 0 * u], axis=-1)
    frames, mapping = prepare_images([np.round(ramp).astype(np.uint8)], size=256)
    inside = frames[0, 8:-8, 8:-8].astype(float)  # away from the resize kernel's borders
    rows, columns = np.indices(inside.shape[:2]) + 8
    uv = np.stack([columns, rows], axis=-1).astype(float)
    source_uv = mapping.to_source(uv)
    np.testing.assert_allclose(inside[..., 0], source_uv[..., 0] * 255 / (width - 1), atol=1.01)
    np.testing.assert_allclose(inside[..., 1], source_uv[..., 1] * 255 / (height - 1), atol=1.01)
    np.testing.assert_allclose(mapping.from_source(source_uv), uv, atol=1e-9)


def test_intrinsics_follow_the_mapping() -> None:
    mapping = frame_mapping((480, 854), size=320)
    K = np.array([[300.0, 0, 160], [0, 310, 88], [0, 0, 1]])
    point = np.array([0.3, -0.2, 1.5])
    uv, source_uvw = (K @ point)[:2] / point[2], mapping.K_to_source(K) @ point
    np.testing.assert_allclose(source_uvw[:2] / source_uvw[2], mapping.to_source(uv))
    np.testing.assert_allclose(mapping.K_from_source(mapping.K_to_source(K)), K)


@pytest.mark.parametrize("hw", [(480, 854), (75, 50), (64, 64)])
def test_nearest_resize_agrees_with_pillow(hw: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(hw) > 0.5
    mapping = frame_mapping(hw, size=96)
    left, top = mapping.crop_xy
    (h, w), (resized_h, resized_w) = mapping.size_hw, mapping.resized_hw
    pillow = Image.fromarray(mask).resize((resized_w, resized_h), Image.Resampling.NEAREST)
    expected = np.asarray(pillow)[top : top + h, left : left + w]
    np.testing.assert_array_equal(resize_nearest(mask[None], mapping)[0], expected)


@pytest.mark.parametrize("size", [0, -16, 48, 100, 5000, 512.0, True])
def test_bad_sizes(size: object) -> None:
    with pytest.raises(InputError, match="multiple of 16"):
        inspect.unwrap(check_size)(size)


@pytest.mark.parametrize(("hw", "word"), [((4, 1000), "small"), ((20, 2000), "elongated")])
def test_empty_crops(hw: tuple[int, int], word: str, tmp_path: Path) -> None:
    file = save_pictures(tmp_path, ["thin.png"], hw) / "thin.png"
    with pytest.raises(InputError, match=rf"thin.png.*{word}"):
        read_clip(file, size=512)


# --- kinds of pictures ---------------------------------------------------------------------------


def test_exif_rotation(tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 64))
    picture.paste((255, 0, 0), (0, 0, 48, 64))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise: left becomes top
    picture.save(tmp_path / "a.png", exif=exif)
    clip = read_clip(tmp_path / "a.png", size=96)
    assert clip.mapping.source_hw == (96, 64)
    assert clip.images[0, :40, :, 0].min() > 200
    assert clip.images[0, 56:, :, 0].max() < 50


def test_grey_alpha_palette_and_deep_pictures() -> None:
    rgba = Image.new("RGBA", (64, 48), (10, 20, 30, 0))
    assert np.unique(np.asarray(to_rgb(rgba))).tolist() == [255]  # transparent shows as white
    rgba.putalpha(255)
    assert to_rgb(rgba).getpixel((0, 0)) == (10, 20, 30)
    palette = Image.new("P", (64, 48), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert to_rgb(palette).getpixel((0, 0)) == (200, 100, 50)
    deep = Image.fromarray(np.full((48, 64), 32896, np.uint16))
    assert to_rgb(deep).getpixel((5, 5)) == (128, 128, 128)
    real = Image.fromarray(np.full((48, 64), 0.5, np.float32))
    assert to_rgb(real).getpixel((5, 5)) == (128, 128, 128)
    assert to_rgb(Image.new("L", (64, 48), 77)).getpixel((0, 0)) == (77, 77, 77)


def test_images_in_memory() -> None:
    images = np.random.default_rng(1).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
    clip = clip_from_images(images, size=64, fps=10.0)
    np.testing.assert_array_equal(clip.images, images)
    np.testing.assert_allclose(clip.times_s, [0, 0.1, 0.2])
    assert clip.names == ("frame_000000", "frame_000001", "frame_000002")
    one_by_one = clip_from_images((Image.fromarray(i) for i in images), size=64)
    np.testing.assert_array_equal(one_by_one.images, images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one"),
        (np.zeros((2, 48, 64, 3), np.float32), "uint8"),
        (np.zeros((2, 48, 64, 2), np.uint8), "shape"),
        (iter([np.zeros((48, 64), np.uint8), np.zeros((64, 48), np.uint8)]), "image 1 is 48x64"),
    ],
)
def test_bad_images_in_memory(images: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clip_from_images(images, size=64)


# --- folders -------------------------------------------------------------------------------------


def test_natural_order_and_what_is_ignored(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["frame_1.png", "frame_2.png", "frame_10.PNG", "frame_11.jpg"])
    save_pictures(tmp_path, [".hidden.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    clip = read_clip(tmp_path, size=64, fps=12.0)
    assert clip.names == ("frame_1.png", "frame_2.png", "frame_10.PNG", "frame_11.jpg")
    assert numbers_of(clip.images) == [0, 1, 2, 3]
    np.testing.assert_allclose(clip.times_s, np.arange(4) / 12)
    text = "left out: 1 of the folder's files are no images (1 .txt; notes.txt)"
    assert [note.text for note in clip.report.notes][1] == text


def test_first_frames_and_start_of_a_folder(tmp_path: Path) -> None:
    save_pictures(tmp_path, [f"{k}.png" for k in range(12)])
    assert numbers_of(read_clip(tmp_path, size=64, num_frames=3).images) == [0, 1, 2]
    late = read_clip(tmp_path, size=64, fps=2.0, start=1.5, num_frames=2)
    assert numbers_of(late.images) == [3, 4]
    np.testing.assert_allclose(late.times_s, [1.5, 2.0])
    with pytest.raises(InputError, match="none is left"):
        read_clip(tmp_path, size=64, fps=2.0, start=6.0)


@pytest.mark.parametrize("expected", [0, 3, 40, 100])
def test_frames_stack_whatever_their_number_was_said_to_be(expected: int) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 4, 6, 3), dtype=np.uint8)
    stack = FrameStack((4, 6), expected)
    for frame in frames:
        stack.append(frame)
    assert len(stack) == 40
    np.testing.assert_array_equal(stack.stacked(), frames)


def test_one_picture_is_a_clip(tmp_path: Path) -> None:
    clip = read_clip(save_pictures(tmp_path, ["only.png"]) / "only.png", size=64)
    assert len(clip) == 1
    assert clip.names == ("only.png",)


def test_a_damaged_picture_among_good_ones_is_named(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.png", "c.png"])
    content = (tmp_path / "b.png").read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2]):
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"b\.png cannot be read"):
            read_clip(tmp_path, size=64)


def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(tmp_path, ["big.png"], (200, 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too many pixels"):
        read_clip(tmp_path, size=64)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_clip(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is empty"):
        read_clip(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="no images in it"):
        read_clip(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": -1.0},
        {"fps": float("nan")},
        {"fps": 1e9},
        {"num_frames": 0},
        {"num_frames": -3},
        {"num_frames": 10**9},
        {"start": -1.0},
        {"start": float("inf")},
    ],
)
def test_absurd_options(options: dict, tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png"])
    with pytest.raises(InputError, match="must be"):
        read_clip(tmp_path, size=64, **options)


# --- masks ---------------------------------------------------------------------------------------


def save_masks(folder: Path, stems: list[str], hw: tuple[int, int] = (96, 128)) -> Path:
    """Mask k has its column block k set, so that it tells its number."""
    folder.mkdir(exist_ok=True)
    for k, stem in enumerate(stems):
        mask = np.zeros(hw, np.uint8)
        mask[:, 8 * k : 8 * k + 8] = 255
        Image.fromarray(mask).save(folder / f"{stem}.png")
    return folder


def mask_numbers(masks: np.ndarray) -> list[int]:
    return [int(np.flatnonzero(mask.any(axis=0))[0] // (mask.shape[1] / 16)) for mask in masks]


def video_like_clip(indices: list[int]):
    images = np.zeros((len(indices), 96, 128, 3), np.uint8)
    return clip_from_images(images, size=64, names=[f"frame_{k:06d}" for k in indices])


def test_masks_match_by_name_order_or_number(tmp_path: Path) -> None:
    clip = video_like_clip([2, 4, 6])
    by_name = save_masks(tmp_path / "name", [f"frame_{k:06d}" for k in range(8)])
    by_order = save_masks(tmp_path / "order", ["a1", "a2", "a10"])
    by_number = save_masks(tmp_path / "number", [f"{k:05d}" for k in range(8)])
    assert mask_numbers(read_masks(by_name, clip)) == [2, 4, 6]
    assert mask_numbers(read_masks(by_order, clip)) == [0, 1, 2]
    masks = read_masks(by_number, clip)
    assert mask_numbers(masks) == [2, 4, 6]
    assert masks.shape == (3, 48, 64)
    assert masks.dtype == bool


def test_label_pictures_and_arrays(tmp_path: Path) -> None:
    clip = video_like_clip([0])
    label = np.zeros((96, 128), np.uint8)
    label[48:] = 3
    palette = Image.fromarray(label)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 0])  # label 3 is drawn black
    palette.save(tmp_path / "00000.png")
    masks = read_masks(tmp_path, clip)
    np.testing.assert_array_equal(masks[0], np.arange(48)[:, None] >= np.full(64, 24))
    np.savez(tmp_path / "m.npz", mask=label[None])
    np.testing.assert_array_equal(read_masks(tmp_path / "m.npz", clip), masks)
    np.savez(tmp_path / "small.npz", masks=masks)  # already at the size of the frames
    np.testing.assert_array_equal(read_masks(tmp_path / "small.npz", clip), masks)


def test_bad_masks(tmp_path: Path) -> None:
    clip = video_like_clip([2, 4, 60])
    with pytest.raises(
        InputError, match="nothing for 1 of the clip's 3 frames: the first is frame_000060"
    ):
        read_masks(save_masks(tmp_path / "a", [f"{k:05d}" for k in range(8)]), clip)
    with pytest.raises(InputError, match="50x40 pixels fits neither"):
        read_masks(save_masks(tmp_path / "b", ["0", "1", "2"], (40, 50)), clip)
    with pytest.raises(InputError, match="neither a folder"):
        read_masks(tmp_path / "nothing", clip)
    with pytest.raises(InputError, match="no mask images"):
        read_masks(tmp_path, clip)
    np.savez(tmp_path / "objects.npz", mask=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="must hold numbers"):
        read_masks(tmp_path / "objects.npz", clip)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="no zip archive"):
        read_masks(tmp_path / "text.npz", clip)


def test_the_bundled_demo_clip_reads() -> None:
    clip = read_clip(demo_clip_folder() / "frames", fps=DEMO_FPS, size=224)
    assert clip.images.shape == (24, 160, 224, 3)
    assert clip.times_s[-1] == pytest.approx(23 / 12)
    total = sum(f.stat().st_size for f in demo_clip_folder().rglob("*") if f.is_file())
    assert total < 2.5e6
