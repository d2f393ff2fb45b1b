"""Masks as people bring them: alpha, soft edges, labels, both polarities; what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.io.mask_files import known_masks, read_masks
from dyn3r.scene import Scene
from dyn3r.types import Clip, FrameMapping, Lens
from dyn3r.types.input_report import InputNote
from tests.factories import tiny_scene

HW = (32, 48)


@pytest.fixture
def scene() -> Scene:
    return tiny_scene(mapping=FrameMapping(HW, HW, (0, 0), HW))


@pytest.fixture
def clip(scene: Scene) -> Clip:
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "clip.mp4", 10.0)


def write(folder: Path, scene: Scene, draw) -> Path:
    folder.mkdir()
    for name, mask in zip(scene.names, scene.dynamic):
        draw(mask).save(folder / f"{name}.png")
    return folder


def line(clip: Clip) -> InputNote:
    (note,) = [note for note in clip.report.notes if note.topic == "masks"]
    return note


def rgba(color: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.concatenate([color, alpha[..., None]], axis=-1).astype(np.uint8))


def grey(mask: np.ndarray, inside: int = 255, outside: int = 0) -> Image.Image:
    return Image.fromarray(np.where(mask, inside, outside).astype(np.uint8))


def cut_out(mask: np.ndarray) -> Image.Image:
    picture = np.random.default_rng(0).integers(0, 255, (*mask.shape, 3))
    return rgba(picture, 255 * mask)


def black_with_alpha(mask: np.ndarray) -> Image.Image:
    return rgba(np.zeros((*mask.shape, 3)), 255 * mask)


def white_with_alpha(mask: np.ndarray) -> Image.Image:
    return rgba(np.full((*mask.shape, 3), 255), 255 * mask)


def opaque(mask: np.ndarray) -> Image.Image:
    return rgba(np.repeat(255 * mask[..., None], 3, axis=-1), np.full(mask.shape, 255))


def red(mask: np.ndarray) -> Image.Image:
    return Image.fromarray((mask[..., None] * np.array([128, 0, 0])).astype(np.uint8))


def two_labels(mask: np.ndarray) -> Image.Image:
    """Label 1 (128, 0, 0) on the left, label 8 (64, 0, 0) on the right: DAVIS's palette as RGB."""
    image = np.asarray(red(mask)).copy()
    image[:, 24:, 0] //= 2
    return Image.fromarray(image)


DRAWINGS = {
    "grey": grey,
    "ones": lambda mask: grey(mask, 1),
    "labels": lambda mask: grey(mask, 7),
    "bits": lambda mask: grey(mask).convert("1"),
    "soft": lambda mask: grey(mask, 130, 125),
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 40_000),
    "cut out": cut_out,
    "black with alpha": black_with_alpha,
    "white with alpha": white_with_alpha,
    "opaque": opaque,
    "red": red,
    "two labels": two_labels,
}


@pytest.mark.parametrize("drawing", list(DRAWINGS))
def test_every_encoding_gives_the_same_masks(scene, clip, tmp_path, drawing):
    folder = write(tmp_path / "m", scene, DRAWINGS[drawing])
    known = known_masks(folder, clip)
    np.testing.assert_array_equal(known.masks, scene.dynamic)
    note = line(known.clip)
    share = 100 * scene.dynamic.mean()
    assert note.text == (
        f"4 of 4 frames, by name; white pixels are moving; {share:.1f} % of the pixels move"
    )
    assert not note.warning


@pytest.mark.parametrize("values", [(0.9, 0.2), (130, 120), (200.0, 90.0), (1, 0), (True, False)])
def test_arrays_are_cut_at_one_half(scene, clip, tmp_path, values):
    inside, outside = values
    np.savez(tmp_path / "m.npz", mask=np.where(scene.dynamic, inside, outside))
    np.testing.assert_array_equal(read_masks(tmp_path / "m.npz", clip), scene.dynamic)


def test_a_frame_without_objects_has_an_alpha_too(scene, clip, tmp_path):
    dynamic = scene.dynamic.copy()
    dynamic[2] = False
    folder = write(tmp_path / "m", replace(scene, dynamic=dynamic), white_with_alpha)
    np.testing.assert_array_equal(read_masks(folder, clip), dynamic)


def test_the_other_polarity_is_found(scene, clip, tmp_path):
    folder = write(tmp_path / "m", scene, lambda mask: grey(~mask))
    known = known_masks(folder, clip)
    np.testing.assert_array_equal(known.masks, scene.dynamic)
    note = line(known.clip)
    assert note.warning
    white = 100 * (1 - scene.dynamic.mean())
    assert f"white pixels are static, as they are on {white:.0f} % of the pixels" in note.text
    assert "--known.masks-mean moving if that is wrong" in note.text
    np.testing.assert_array_equal(read_masks(folder, clip, mean="moving"), ~scene.dynamic)
    np.testing.assert_array_equal(read_masks(folder, clip, mean="static"), scene.dynamic)
    assert not line(known_masks(folder, clip, mean="static").clip).warning
    asked = line(known_masks(folder, clip, mean="moving").clip)  # most pixels move: not likely
    assert asked.warning
    assert "white pixels are moving, as asked" in asked.text


@pytest.mark.parametrize(
    ("kind", "resolution"),
    [("colmap", "prepared"), ("colmap", "source"), ("nerfstudio", "prepared")],
)
def test_masks_of_our_exports_come_back(scene, clip, tmp_path, kind, resolution):
    scene.export(kind, tmp_path / "out", resolution=resolution)
    for share in (1, 12):  # also where most pixels move
        dynamic = scene.dynamic if share == 1 else np.ones_like(scene.dynamic)
        if share == 12:
            dynamic[:, 12:20, 12:20] = False
        changed = replace(scene, dynamic=dynamic)
        changed.export(kind, tmp_path / "out", resolution=resolution, overwrite=True)
        known = known_masks(tmp_path / "out" / "masks", clip)
        np.testing.assert_array_equal(known.masks, dynamic)
        assert line(known.clip).warning == (share == 12)


def test_nothing_and_nearly_everything_gets_a_warning(scene, clip, tmp_path):
    empty = write(tmp_path / "a", replace(scene, dynamic=scene.dynamic & False), grey)
    known = known_masks(empty, clip)
    assert not known.masks.any()
    assert line(known.clip).warning
    assert "0.0 % of the pixels move" in line(known.clip).text
    middle = np.zeros_like(scene.dynamic)
    middle[:, 2:-2, 2:-2] = True  # 80 %, and none at the border
    large = write(tmp_path / "b", replace(scene, dynamic=middle), grey)
    known = known_masks(large, clip)
    np.testing.assert_array_equal(known.masks, middle)
    assert line(known.clip).warning
    assert "--known.masks-mean static if that is wrong" in line(known.clip).text


def test_masks_one_frame_off_are_said(scene, clip, tmp_path):
    folder = write(tmp_path / "m", scene, grey)
    for t in reversed(range(4)):
        (folder / f"frame_{t:06d}.png").rename(folder / f"{t + 1:05d}.png")
    known = known_masks(folder, clip)
    np.testing.assert_array_equal(known.masks, scene.dynamic)
    assert line(known.clip).warning
    assert "by number, counted from 1 in the file" in line(known.clip).text


def test_masks_of_the_source_are_undistorted(scene, clip, tmp_path):
    folder = write(tmp_path / "m", scene, grey)
    lens = Lens("perspective", (80, 80), (47.5, 31.5), (-0.3,))
    mapping = FrameMapping((64, 96), HW, (0, 0), HW, lens)
    bent = replace(clip, mapping=mapping)
    np.testing.assert_array_equal(read_masks(folder, bent), scene.dynamic)  # of the frames
    for file in folder.iterdir():
        Image.open(file).resize((96, 64), Image.Resampling.NEAREST).save(file)
    masks = read_masks(folder, bent)
    assert (masks != scene.dynamic).any()
    assert 0.5 < masks.sum() / scene.dynamic.sum() < 2
