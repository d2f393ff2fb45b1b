"""Source images of exports: found again by name or time, compared with the scene, times, names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.export.source_images import read_source_images
from dyn3r.io.clip import read_clip
from dyn3r.scene import Scene
from dyn3r.scene.known_cameras import read_cameras
from dyn3r.types import Clip
from tests.export.known_world import known_scene, source_xy, write_source
from tests.factories import tiny_scene
from tests.shots import shot


def clip_of(scene: Scene) -> Clip:
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "folder", 8.0)


@pytest.mark.parametrize("kind", ["colmap", "colmap-text", "nerfstudio"])
@pytest.mark.parametrize("with_source", [True, False])
def test_names_with_spaces_are_read_back(tmp_path, caplog, kind, with_source):
    if kind != "nerfstudio":
        pytest.importorskip("pycolmap")
    scene = known_scene()  # shot 0.jpg, ...
    source = write_source(tmp_path / "source") if with_source else None
    scene.export(kind, tmp_path / "out", source=source)
    T = read_cameras(tmp_path / "out", clip_of(scene)).T_world_camera
    assert T is not None
    expected = np.linalg.inv(scene.T_world_camera[0]) @ scene.T_world_camera
    np.testing.assert_allclose((np.linalg.inv(T[0]) @ T)[:, :3, :3], expected[:, :3, :3], atol=1e-6)
    if kind != "nerfstudio" and not with_source:
        import pycolmap

        model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
        names = [model.images[t + 1].name for t in range(4)]
        mark = " " if kind == "colmap" else "_"  # text files of COLMAP end a name at a space
        assert names == [f"shot{mark}{t}.jpg" for t in range(4)]
        assert ("shot 0.jpg is called shot_0.jpg" in caplog.text) == (kind == "colmap-text")
        assert (tmp_path / "out" / "masks" / f"{names[1]}.png").is_file()


def test_recompressed_images_are_accepted(tmp_path):
    source, scene = write_source(tmp_path / "source"), known_scene()
    for file in list(source.iterdir()):
        image = Image.open(file).point(lambda value: min(255, 0.9 * value + 15))
        image.save(file.with_suffix(".jpg"), quality=15)
        file.unlink()
    assert len(list(read_source_images(scene, source))) == 4


def test_other_images_of_the_same_names_are_refused(tmp_path):
    source, scene = write_source(tmp_path / "source"), known_scene()
    x, y = source_xy()
    other = np.stack([128 + 99 * np.sin(x / 9), 128 + 99 * np.cos(y / 7), y], axis=-1)
    Image.fromarray(other.astype(np.uint8)).save(source / "shot 2.png")
    with pytest.raises(InputError, match=r"shot 2\.jpg shows another picture"):
        list(read_source_images(scene, source))
    with pytest.raises(InputError, match="another picture"):
        scene.export("colmap", tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()


def test_noise_of_dark_frames_is_no_difference(tmp_path):
    rng = np.random.default_rng(0)
    scene = known_scene()
    dark = rng.integers(8, 24, scene.images.shape, dtype=np.uint8)
    (tmp_path / "source").mkdir()
    for t in range(4):
        image = rng.integers(8, 24, (120, 200, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "source" / f"shot {t}.png")
    assert len(list(read_source_images(replace(scene, images=dark), tmp_path / "source"))) == 4


def test_images_one_frame_off_are_refused(tmp_path):
    source = write_source(tmp_path / "source", n=5)
    for t in range(4):  # shot 1 is now called shot 0, ...
        (source / f"shot {t + 1}.png").replace(source / f"shot {t}.png")
    with pytest.raises(InputError, match=r"its shot 0\.jpg is the scene's shot 1\.jpg"):
        list(read_source_images(known_scene(), source))


def scene_of(clip: Clip) -> Scene:
    h, w = clip.size_hw
    return tiny_scene(
        n=len(clip), h=h, w=w, images=clip.images, mapping=clip.mapping, times_s=clip.times_s,
        names=clip.names,
    )  # fmt: skip


def test_one_field_of_interlaced_images_is_used_as_in_the_clip(tmp_path):
    frames, later = shot(6, step=12), shot(6, step=12)
    later = np.roll(later, -6, axis=2)  # half a frame later
    combed = frames.copy()
    combed[:, 1::2] = later[:, 1::2]
    for t, frame in enumerate(combed):
        Image.fromarray(frame).save(tmp_path / f"{t}.png")
    scene = scene_of(read_clip(tmp_path, size=192, square_ok=True))
    assert scene.mapping.one_field
    found = np.stack(list(read_source_images(scene, tmp_path)))
    np.testing.assert_array_equal(found[:, ::2], frames[:, ::2])
    assert np.abs(found.astype(float) - frames).mean() < 0.5 * np.abs(combed - 1.0 * frames).mean()
    saved = scene.save(tmp_path / "a.dyn3r")
    assert Scene.load(saved).mapping == scene.mapping


def test_images_of_12_bits_are_as_bright_as_in_the_clip(tmp_path):
    grey = shot(4)[..., 0].astype(np.uint16)
    for t, frame in enumerate(grey):
        Image.fromarray(frame * 16).save(tmp_path / f"{t}.png")
    scene = scene_of(read_clip(tmp_path, size=192, square_ok=True))
    for image, frame in zip(read_source_images(scene, tmp_path), grey, strict=True):
        assert np.abs(image[..., 0].astype(int) - frame).max() <= 1


def test_depth_maps_beside_the_images_are_left_out(tmp_path):
    for t, frame in enumerate(shot(3)):
        Image.fromarray(frame).save(tmp_path / f"frame_{t}.png")
        depth = frame[..., 0].astype(np.uint16) * 100
        Image.fromarray(depth).save(tmp_path / f"frame_{t}_depth.png")
    scene = scene_of(read_clip(tmp_path, size=192, square_ok=True))
    assert len(list(read_source_images(scene, tmp_path))) == 3


def write_video(path: Path, stamps: list[int]) -> Path:
    """Grey frames, each with one brighter column, with these time stamps in tenths of a second."""
    packets = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 1, 0
        for k in range(len(stamps)):
            image = np.full((64, 96, 3), 60, np.uint8)
            image[:, 8 * k : 8 * k + 24] = 200
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode()
        for packet, stamp in zip(packets, stamps):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 10), stamp, None
            container.mux(packet)
    return path


def test_equal_time_stamps_become_increasing(tmp_path):
    video = write_video(tmp_path / "a.mkv", [0, 1, 1, 2, 3, 3, 3, 5])
    clip = read_clip(video, size=96)
    (note,) = [note for note in clip.report.notes if note.topic == "times"]
    assert note.text == "3 time stamps do not increase: these frames are half a frame later"
    np.testing.assert_allclose(clip.times_s, [0, 0.1, 0.15, 0.2, 0.3, 0.35, 0.4, 0.5], atol=2e-3)
    scene = scene_of(clip)
    centres = [
        np.flatnonzero(image[30, :, 1] > 130).mean() for image in read_source_images(scene, video)
    ]
    np.testing.assert_allclose(centres, 8 * np.arange(8) + 11.5, atol=1)
    scene.export("tum", tmp_path / "a.txt")
    known = read_cameras(tmp_path / "a.txt", clip)
    np.testing.assert_allclose(known.T_world_camera, scene.T_world_camera, atol=1e-6)


def test_scenes_with_equal_times_are_exported_with_increasing_ones(tmp_path):
    scene = replace(tiny_scene(), times_s=np.array([0.0, 0.1, 0.1, 0.05]))
    scene.export("tum", tmp_path / "a.txt")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.txt")[:, 0], [0, 0.1, 0.15, 0.2])
