"""Exports of scenes whose source images differ in size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.evaluation.truth import read_truth
from dyn3r.export.source_images import read_source_images
from dyn3r.io.mixed_sizes import upright_size
from dyn3r.scene import Scene
from dyn3r.scene.known_cameras import read_cameras
from dyn3r.scene.summary import summarise
from dyn3r.types import Clip
from tests.export.known_world import MAPPING, SOURCE_HW, known_scene, write_source

LARGE_HW = (2 * SOURCE_HW[0], 2 * SOURCE_HW[1])


def mixed_scene() -> Scene:
    """The known scene; odd frames are of source images of twice the size."""
    large = replace(MAPPING, source_hw=LARGE_HW)
    mappings = tuple(large if t % 2 else MAPPING for t in range(4))
    return replace(known_scene(), mapping=replace(MAPPING, frame_mappings=mappings))


def write_mixed_source(folder: Path) -> Path:
    write_source(folder)
    for t in (1, 3):
        file = folder / f"shot {t}.png"
        image = Image.open(file)
        image.resize((LARGE_HW[1], LARGE_HW[0]), Image.Resampling.BICUBIC).save(file)
    return folder


def sizes_of(folder: Path) -> list[tuple[int, int] | None]:
    return [upright_size(file) for file in sorted(folder.iterdir())]


def cameras_txt(folder: Path) -> np.ndarray:
    lines = (folder / "sparse" / "0" / "cameras.txt").read_text().splitlines()
    return np.array([line.split()[2:] for line in lines if line[0] != "#"], float)


def observations(folder: Path) -> list[np.ndarray]:
    """(k, 3) of x, y and the point, per image."""
    lines = (folder / "sparse" / "0" / "images.txt").read_text().splitlines()
    rows = [line for line in lines if not line.startswith("#")][1::2]
    return [np.array(row.split(), float).reshape(-1, 3) for row in rows]


def test_colmap_has_a_camera_for_every_size(tmp_path: Path) -> None:
    source = write_mixed_source(tmp_path / "source")
    mixed_scene().export("colmap-text", tmp_path / "mixed", source=source)
    known_scene().export("colmap-text", tmp_path / "plain", resolution="source")
    factor = np.array([1, 2, 1, 2])
    plain = cameras_txt(tmp_path / "plain")
    assert plain.shape == (1, 6)  # width, height, fx, fy, cx, cy with integers at corners
    np.testing.assert_allclose(cameras_txt(tmp_path / "mixed"), plain * factor[:, None])
    pairs = zip(observations(tmp_path / "mixed"), observations(tmp_path / "plain"), strict=True)
    for k, (mixed, one) in zip(factor, pairs, strict=True):
        assert len(mixed) > 50
        np.testing.assert_allclose(mixed, one * [k, k, 1], rtol=1e-6)
    expected = [SOURCE_HW, LARGE_HW, SOURCE_HW, LARGE_HW]
    assert sizes_of(tmp_path / "mixed" / "images") == expected
    assert sizes_of(tmp_path / "mixed" / "masks") == expected


def test_a_colmap_model_without_images_says_that_sizes_differ(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed_scene().export("colmap", tmp_path / "out")
    assert "images of different sizes" in caplog.text


def test_nerfstudio_states_every_size_and_is_read_back(tmp_path: Path) -> None:
    source, scene = write_mixed_source(tmp_path / "source"), mixed_scene()
    scene.export("nerfstudio", tmp_path / "out", source=source)
    content = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert "w" not in content
    sizes = [(frame["h"], frame["w"]) for frame in content["frames"]]
    assert sizes == [SOURCE_HW, LARGE_HW, SOURCE_HW, LARGE_HW]
    assert content["frames"][1]["fl_x"] == pytest.approx(2 * content["frames"][0]["fl_x"])
    clip = Clip(scene.images, scene.mapping, scene.names, scene.times_s, "folder", 8.0)
    np.testing.assert_allclose(read_cameras(tmp_path / "out", clip).K, scene.K, rtol=1e-9)
    saved = scene.save(tmp_path / "scene.dyn3r")
    np.testing.assert_allclose(read_cameras(saved, clip).K, scene.K, rtol=1e-9)


def test_depth_and_masks_have_the_size_of_their_images(tmp_path: Path) -> None:
    source, scene = write_mixed_source(tmp_path / "source"), mixed_scene()
    expected = [SOURCE_HW, LARGE_HW, SOURCE_HW, LARGE_HW]
    for guided in (source, None):
        folder = tmp_path / f"out{guided is None}"
        scene.export("depth-npy", folder / "depth", source=guided, resolution="source")
        scene.export("masks", folder / "masks", source=guided, resolution="source")
        maps = [np.load(file) for file in sorted((folder / "depth").glob("*.npy"))]
        assert [depth.shape for depth in maps] == expected
        assert sizes_of(folder / "masks") == expected
        both = (maps[0] > 0) & (maps[1][::2, ::2] > 0)
        assert both.mean() > 0.5
        K = np.array(json.loads((folder / "depth" / "depth.json").read_text())["K"])
        assert K[1, 0, 0] == pytest.approx(2 * K[0, 0, 0])


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    source = write_mixed_source(tmp_path / "source")
    with pytest.raises(InputError, match=r"shot 1\.jpg has 400x240 pixels, not 200x120"):
        list(read_source_images(known_scene(), source))
    assert len(list(read_source_images(mixed_scene(), source))) == 4


def test_truth_has_the_size_of_the_frames(tmp_path: Path) -> None:
    scene = mixed_scene()
    np.savez(tmp_path / "depth.npz", depth=scene.depth)
    K = scene.K_source()
    np.savez(tmp_path / "camera.npz", cam2world=scene.T_world_camera, K=K)
    names = tuple(f"frame_{t:06d}" for t in range(4))
    truth = read_truth(tmp_path, scene.mapping, names)
    np.testing.assert_array_equal(truth.depth, scene.depth)
    np.testing.assert_allclose(truth.K, scene.K)
    np.savez(tmp_path / "depth.npz", depth=np.ones((4, *SOURCE_HW)))
    with pytest.raises(InputError, match="96x48"):
        read_truth(tmp_path, scene.mapping, names)


def test_the_summary_names_the_number_of_sizes() -> None:
    assert "source 2 sizes" in summarise(mixed_scene())[0]
    assert "source 200x120" in summarise(known_scene())[0]
