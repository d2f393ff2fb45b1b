"""Depth and masks at both resolutions; source images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.export.options import ExportOptions
from dyn3r.export.source_images import read_source_images
from dyn3r.export.upsampling import upsample_guided
from dyn3r.scene import Scene
from dyn3r.scene.drawing import write_video
from dyn3r.types import FrameMapping
from tests.export.known_world import (
    MAPPING,
    SOURCE_HW,
    known_scene,
    moves,
    paint,
    source_xy,
    wall,
    write_source,
)
from tests.factories import tiny_scene


def about(folder):
    return json.loads((folder / "depth.json").read_text())


def test_depth_png_keeps_depth_to_the_step_and_unknown_as_0(tmp_path):
    scene = tiny_scene()
    scene.export("depth", tmp_path / "d")
    scale = about(tmp_path / "d")["scale"]
    for t in range(len(scene)):
        values = np.asarray(Image.open(tmp_path / "d" / f"frame_{t:06d}.png"))
        assert values.dtype == np.uint16
        np.testing.assert_array_equal(values == 0, scene.depth[t] == 0)
        np.testing.assert_allclose(values * scale, scene.depth[t], atol=scale)
    assert scale < 1e-3


def test_depth_png_clips_outliers_with_a_warning(tmp_path, caplog):
    depth = tiny_scene().depth.copy()
    depth[0, 5, 5] = 1e6
    tiny_scene(depth=depth).export("depth", tmp_path / "d")
    assert about(tmp_path / "d")["pixels_clipped"] == 1
    assert "1 pixels" in caplog.text
    values = np.asarray(Image.open(tmp_path / "d" / "frame_000000.png"))
    assert values[5, 5] == 65535
    near = values[20, 20] * about(tmp_path / "d")["scale"]
    assert near == pytest.approx(depth[0, 20, 20], rel=1e-2)


def test_depth_npy_is_exact(tmp_path):
    scene = tiny_scene()
    scene.export("depth-npy", tmp_path / "d")
    for t in range(len(scene)):
        loaded = np.load(tmp_path / "d" / f"frame_{t:06d}.npy", allow_pickle=False)
        np.testing.assert_array_equal(loaded, scene.depth[t])
    np.testing.assert_allclose(about(tmp_path / "d")["K"], scene.K)


def test_depth_exr_is_exact_for_another_reader(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR", reason="needs OpenEXR to read the file")
    scene = tiny_scene()
    scene.export("depth-exr", tmp_path / "d")
    with OpenEXR.File(str(tmp_path / "d" / "frame_000001.exr")) as file:
        np.testing.assert_array_equal(file.channels()["Y"].pixels, scene.depth[1])


def test_depth_exr_is_exact_for_ffmpeg(tmp_path):
    import av

    scene = tiny_scene()
    scene.export("depth-exr", tmp_path / "d")
    decoder = av.CodecContext.create("exr", "r")
    (frame,) = decoder.decode(av.Packet((tmp_path / "d" / "frame_000001.exr").read_bytes()))
    np.testing.assert_array_equal(frame.to_ndarray(), scene.depth[1])


def test_masks_are_white_on_dynamic_pixels(tmp_path):
    scene = tiny_scene()
    scene.export("masks", tmp_path / "m")
    for t in range(len(scene)):
        mask = np.asarray(Image.open(tmp_path / "m" / f"frame_{t:06d}.png"))
        np.testing.assert_array_equal(mask, scene.dynamic[t] * 255)


def test_masks_export_is_what_read_masks_reads(tmp_path):
    from dyn3r.io.mask_files import read_masks
    from dyn3r.types import Clip

    scene = tiny_scene()
    clip = Clip(scene.images, scene.mapping, scene.names, scene.times_s, "memory", 10.0)
    scene.export("masks", tmp_path / "m")
    np.testing.assert_array_equal(read_masks(tmp_path / "m", clip), scene.dynamic)


def test_source_resolution_without_images_is_nearest_neighbour(tmp_path):
    scene = known_scene()
    scene.export("depth-npy", tmp_path / "d", resolution="source")
    loaded = np.load(tmp_path / "d" / "shot_1.npy")
    assert loaded.shape == SOURCE_HW
    np.testing.assert_array_equal(loaded, scene.depth_source(1))
    assert about(tmp_path / "d")["resolution"] == "nearest neighbour"
    np.testing.assert_allclose(about(tmp_path / "d")["K"], scene.K_source())


def test_guided_depth_is_better_than_nearest_and_adds_no_surface():
    scene, x_y = known_scene(), source_xy()
    for t in range(len(scene)):
        truth, moving = wall(t, *x_y)[1], moves(t, *x_y)
        truth[moving] = 2.0
        up = upsample_guided(
            scene.depth[t], scene.dynamic[t], scene.images[t], paint(t, *x_y), MAPPING
        )
        nearest = scene.depth_source(t)
        np.testing.assert_array_equal(up.depth > 0, nearest > 0)
        known = nearest > 0
        error = np.abs(up.depth / truth - 1)[known]
        error_nearest = np.abs(nearest / truth - 1)[known]
        assert error.mean() < 0.4 * error_nearest.mean()
        # Edges: fewer pixels on the wrong surface, none between the surfaces (2 and about 4).
        wrong = (error > 0.1).sum()
        assert wrong < 0.3 * (error_nearest > 0.1).sum()
        between = (up.depth > 2.1) & (up.depth < 0.95 * truth[known & ~moving].min())
        assert not between.any()
        overlap = (up.dynamic & moving & known).sum() / ((up.dynamic | moving) & known).sum()
        assert overlap > 0.98


def slow_slope(inverse, i, j, axis):
    """The smaller of the two differences, 0 if they differ in sign or a neighbour is unknown."""
    di, dj = (1, 0) if axis == 0 else (0, 1)
    steps = []
    for sign in (-1, 1):
        a, b = i + sign * di, j + sign * dj
        if 0 <= a < inverse.shape[0] and 0 <= b < inverse.shape[1]:
            step = sign * (inverse[a, b] - inverse[i, j])
            steps.append(step if inverse[a, b] > 0 and inverse[i, j] > 0 else 0.0)
    steps = steps * 2 if len(steps) == 1 else steps
    return min(steps, key=abs) if steps[0] * steps[1] > 0 else 0.0


def slow_guided(depth, dynamic, guide, source, mapping, row, column):
    """(depth, share of dynamic weight) of one source pixel before the median."""
    h, w = depth.shape
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0.0)
    u, v = mapping.from_source(np.array([column, row], float))
    found = []
    for i in range(round(v) - 2, round(v) + 3):
        for j in range(round(u) - 2, round(u) + 3):
            if 0 <= i < h and 0 <= j < w:
                off = guide[i, j].astype(float) - source[row, column]
                weight = np.exp(-((i - v) ** 2 + (j - u) ** 2) / 2)
                weight *= np.exp(-(off @ off) / 2 / 12**2) + 1e-4
                change = slow_slope(inverse, i, j, 0) * (v - i)
                change += slow_slope(inverse, i, j, 1) * (u - j)
                limit = 0.2 * inverse[i, j]
                value = inverse[i, j] + min(max(change, -limit), limit)
                found.append((weight, value, dynamic[i, j]))
    moving = sum(f[0] for f in found if f[2]) / sum(f[0] for f in found)
    found = [f for f in found if f[1] > 0]
    for _ in range(3):
        near, far = max(f[1] for f in found), min(f[1] for f in found)
        if near > 1.05 * far:
            sides = [[], []]
            for f in found:
                sides[int(f[1] > (near + far) / 2)].append(f)
            found = max(sides, key=lambda side: sum(f[0] for f in side))
    return sum(f[0] for f in found) / sum(f[0] * f[1] for f in found), moving


def test_guided_equals_a_slow_version_on_single_pixels():
    rng = np.random.default_rng(3)
    depth = np.where(rng.random((8, 12)) < 0.5, 2.0, 3.0) + 0.2 * rng.random((8, 12))
    depth[2:4, 5] = 0
    guide = rng.integers(0, 60, (8, 12, 3), dtype=np.uint8)
    source = rng.integers(0, 60, (40, 50, 3), dtype=np.uint8)
    mapping = FrameMapping((40, 50), (12, 16), (2, 2), (8, 12))
    up = upsample_guided(depth.astype(np.float32), depth > 2.6, guide, source, mapping)
    for row, column in ((10, 10), (20, 25), (23, 40), (15, 33), (18, 22)):
        around = [
            slow_guided(depth, depth > 2.6, guide, source, mapping, row + i, column + j)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
        u, v = mapping.from_source(np.array([column, row], float))
        known = depth[round(v), round(u)] > 0
        expected = np.median([value for value, _ in around]) if known else 0.0
        assert up.depth[row, column] == pytest.approx(expected, rel=1e-5)
        assert up.dynamic[row, column] == (np.median([share > 0.5 for _, share in around]) > 0)


def test_guided_depth_of_a_plane_is_exact_for_any_texture():
    x, y = source_xy()
    source = np.random.default_rng(0).integers(0, 255, (*SOURCE_HW, 3), dtype=np.uint8)
    scene = known_scene(n=1)
    h, w = scene.size_hw
    rows, columns = np.indices((h, w)) + 0.5
    scale_x, scale_y = MAPPING.scale_xy
    plane = wall(0, (columns + MAPPING.crop_xy[0]) / scale_x, (rows + MAPPING.crop_xy[1]) / scale_y)
    up = upsample_guided(
        plane[1].astype(np.float32), scene.dynamic[0], scene.images[0], source, MAPPING
    )
    known = up.depth > 0
    np.testing.assert_allclose(up.depth[known], wall(0, x, y)[1][known], rtol=2e-3)
    inner = known[3:-3, 3:-3] & known[6:, 6:] & known[:-6, :-6]
    truth = wall(0, x, y)[1][3:-3, 3:-3]
    np.testing.assert_allclose(up.depth[3:-3, 3:-3][inner], truth[inner], rtol=1e-4)


def test_guided_is_the_same_in_bands(monkeypatch):
    from dyn3r.export import upsampling

    scene = known_scene()
    arguments = (scene.depth[0], scene.dynamic[0], scene.images[0], paint(0, *source_xy()), MAPPING)
    whole = upsample_guided(*arguments)
    monkeypatch.setattr(upsampling, "_BAND_ROWS", 7)
    bands = upsample_guided(*arguments)
    np.testing.assert_array_equal(whole.depth, bands.depth)
    np.testing.assert_array_equal(whole.dynamic, bands.dynamic)


def test_guided_keeps_unknown_depth_unknown():
    scene = known_scene()
    depth = scene.depth.copy()
    depth[:, 10:20, 30:50] = 0
    scene = Scene(**{**vars(scene), "depth": depth})
    up = upsample_guided(
        depth[0], scene.dynamic[0], scene.images[0], paint(0, *source_xy()), MAPPING
    )
    np.testing.assert_array_equal(up.depth > 0, scene.depth_source(0) > 0)
    nothing = upsample_guided(
        np.zeros_like(depth[0]), scene.dynamic[0], scene.images[0], paint(0, *source_xy()), MAPPING
    )
    assert not nothing.depth.any()


# --- source images ----------------------------------------------------------------------------


def test_a_video_gives_the_frames_that_the_clip_kept(tmp_path):
    from dyn3r.io.clip import read_clip

    images = [np.full((48, 64, 3), 10 * k + 5, np.uint8) for k in range(20)]
    write_video(iter(images), tmp_path / "v.mp4", fps=10.0)
    clip = read_clip(tmp_path / "v.mp4", fps=5.0, size=64, start=0.4, num_frames=5)
    n, h, w = clip.images.shape[:3]
    scene = tiny_scene(
        n=n, h=h, w=w, images=clip.images, mapping=clip.mapping, names=clip.names,
        times_s=clip.times_s,
    )  # fmt: skip
    found = list(read_source_images(scene, tmp_path / "v.mp4"))
    assert len(found) == 5
    for image, frame in zip(found, clip.images):
        assert abs(int(image[20, 20, 0]) - int(frame[20, 20, 0])) <= 1
    late = Scene(**{**vars(scene), "times_s": scene.times_s + 1.0})
    with pytest.raises(InputError, match="no frame at"):
        list(read_source_images(late, tmp_path / "v.mp4"))


def test_source_images_that_do_not_fit_are_refused(tmp_path):
    scene = known_scene()
    folder = write_source(tmp_path / "source")
    Image.new("RGB", (100, 60)).save(folder / "shot 2.png")
    with pytest.raises(InputError, match="100x60"):
        scene.export("masks", tmp_path / "out", source=folder)
    assert not (tmp_path / "out").exists()
    for wrong, message in ((tmp_path / "none", "does not exist"), (tmp_path, "no images")):
        with pytest.raises(InputError, match=message):
            list(read_source_images(scene, wrong))
    with pytest.raises(InputError, match="one image"):
        list(read_source_images(scene, folder / "shot 1.png"))


def test_options_out_of_range_are_refused():
    for wrong in ({"resolution": "big"}, {"which": "none"}, {"drop": 1.5}, {"max_points": 0}):
        with pytest.raises(InputError):
            ExportOptions(**wrong)
