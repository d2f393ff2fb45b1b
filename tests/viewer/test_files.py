"""What the viewer writes: recordings, screenshots, turntables; and the command that asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
import zstandard
from PIL import Image

from dyn3r.cli.view import View
from dyn3r.errors import InputError, OutputError
from dyn3r.viewer import (
    Look,
    Parts,
    TurntableOptions,
    save_recording,
    write_screenshot,
    write_turntable,
)
from dyn3r.viewer.splat import BACKGROUND, Painter, render_points
from dyn3r.viewer.splat import View as Camera
from dyn3r.viewer.turntable import turned, turntable_angle
from tests.factories import tiny_scene

SHORT = TurntableOptions(seconds=0.4, fps=10, size_hw=(48, 64))


def messages(path: Path) -> tuple[list, dict]:
    """The (time, message) pairs of a .viser file, and all that it says."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    inner = zstandard.ZstdDecompressor().decompress(content[8:], max_output_size=size)
    length = int.from_bytes(inner[:8], "little")
    said = msgspec.msgpack.decode(inner[8 : 8 + length])
    return said["messages"], said


def test_a_recording_holds_every_point_once_and_then_visibility(tmp_path):
    path = save_recording(tiny_scene(n=5), tmp_path / "a.viser")
    recorded, said = messages(path)
    assert said["durationSeconds"] == pytest.approx(0.5)
    clouds = [m for time, m in recorded if m["type"] == "PointCloudMessage"]
    assert len({m["name"] for m in clouds}) == len(clouds) == 10  # 5 of the background, 5 moving
    later = {m["type"] for time, m in recorded if time > 0}
    assert later == {"SetSceneNodeVisibilityMessage"}
    third = [m["name"] for time, m in recorded
             if time == pytest.approx(0.3) and m["visible"]]  # fmt: skip
    assert set(third) == {"/scene_0/moving/3", "/scene_0/pictures/3"}


def test_a_page_has_everything_in_it(tmp_path):
    path = save_recording(tiny_scene(), tmp_path / "a.html", parts=Parts(trail=2))
    text = path.read_text()
    assert "__VISER_EMBED_DATA__" in text
    assert '<script src="http' not in text
    assert '<link rel="stylesheet" href="http' not in text


def test_several_scenes_in_one_recording(tmp_path):
    path = save_recording([tiny_scene(n=2), tiny_scene(n=3)], tmp_path / "a.viser",
                          names=["left", "right"])  # fmt: skip
    recorded, said = messages(path)
    assert said["durationSeconds"] == pytest.approx(0.3)
    assert [m["props"]["text"] for _, m in recorded if m["type"] == "LabelMessage"] == [
        "left", "right",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.html", "a.viser", "a.png", "a.mp4"])
def test_nothing_is_overwritten_unasked(tmp_path, name):
    path = tmp_path / name
    path.write_text("precious")
    write = {".png": write_screenshot, ".mp4": write_turntable}.get(path.suffix, save_recording)
    with pytest.raises(OutputError, match="exists already"):
        write(tiny_scene(n=1), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_no_recording_has_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.html or \.viser"):
        save_recording(tiny_scene(n=1), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_near_points_hide_far_ones_and_fall_where_the_camera_sees_them():
    K = np.array([[50, 0, 20], [0, 50, 15], [0, 0, 1.0]])
    points = np.array([[0, 0, 4], [0, 0, 2], [0.4, 0.2, 2], [0, 0, -2.0]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        picture = render_points(
            points[order], colors[order], T_world_camera=np.eye(4), K=K, size_hw=(30, 40),
            radius=0.01,
        )  # fmt: skip
        drawn = np.argwhere((picture != BACKGROUND).any(axis=-1)).tolist()
        assert drawn == [[15, 20], [20, 30]]
        assert picture[15, 20].tolist() == [0, 255, 0]
        assert picture[20, 30].tolist() == [0, 0, 255]


def test_fast_splats_are_the_slow_readable_ones():
    rng = np.random.default_rng(1)
    points = rng.uniform([-1, -1, 1], [1, 1, 4], (300, 3))
    colors = rng.integers(30, 255, (300, 3), dtype=np.uint8)
    K = np.array([[40, 0, 24], [0, 40, 16], [0, 0, 1.0]])
    fast = render_points(points, colors, T_world_camera=np.eye(4), K=K, size_hw=(32, 48),
                         radius=0.05)  # fmt: skip
    slow = np.empty((32, 48, 3), np.uint8)
    slow[:] = BACKGROUND
    z = points[:, 2].astype(np.float32)
    for k in np.argsort(-z):  # far to near
        x, y, _ = points[k].astype(np.float32)
        u, v = round(float(40 * x / z[k] + 24)), round(float(40 * y / z[k] + 16))
        r = round(float(40 * 0.05 / z[k] - 0.5))
        for i in range(v - r, v + r + 1):
            for j in range(u - r, u + r + 1):
                if (i - v) ** 2 + (j - u) ** 2 <= (r + 0.3) ** 2 and 0 <= i < 32 and 0 <= j < 48:
                    slow[i, j] = colors[k]
    np.testing.assert_array_equal(fast, slow)


def test_no_points_are_no_accident():
    picture = render_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), T_world_camera=np.eye(4),
                            K=np.eye(3), size_hw=(4, 4), radius=0.1)  # fmt: skip
    assert (picture == BACKGROUND).all()


def test_a_view_is_upright_and_right_handed():
    for up, position in (([0, -1, 0], [1, -2, 3]), ([0, 0, 1], [0, 0, 5])):
        T = Camera(np.array(position, float), np.zeros(3), np.array(up, float)).T_world_camera
        R = T[:3, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        np.testing.assert_allclose(R[:, 2], -T[:3, 3] / np.linalg.norm(T[:3, 3]))
    assert Camera(np.array([0, 0, -5.0]), np.zeros(3), np.array([0, -1.0, 0])).T_world_camera[
        1, 1
    ] == pytest.approx(1)  # the camera's down is the world's +y


def test_turning_keeps_height_and_distance_and_comes_back():
    view = Camera(np.array([2.0, -1, 0]), np.array([0.5, 0, 1]), np.array([0, -2.0, 0]))
    half = turned(view, np.pi)
    np.testing.assert_allclose(half.position, [-1, -1, 2])
    np.testing.assert_allclose(turned(half, np.pi).position, view.position, atol=1e-12)
    assert [turntable_angle(s, 360) for s in (0, 0.25, 0.5)] == [0, 90, 180]
    assert turntable_angle(0.25, 60) == pytest.approx(30)
    assert turntable_angle(0.75, 60) == pytest.approx(-30)


def test_pictures_from_the_first_camera_look_like_its_frame():
    scene = tiny_scene(n=2, h=96, w=144)
    images = np.zeros_like(scene.images)
    images[:, :48], images[:, 48:] = (40, 40, 200), (40, 200, 40)
    images[scene.dynamic] = (250, 20, 20)
    scene = tiny_scene(n=2, h=96, w=144, images=images)
    T = scene.T_world_camera[1]
    fov = 2 * np.arctan(48 / scene.K[1, 1, 1])
    view = Camera(T[:3, 3], T[:3, 3] + T[:3, 2], -T[:3, 1], fov)
    painter = Painter(scene, Look(drop_static=0, drop_moving=0), cameras=False)
    picture = painter.picture(1, view, (96, 144)).astype(int)
    inner = np.abs(picture - images[1])[8:-8, 8:-8].max(axis=-1)
    assert (inner < 40).mean() > 0.9


def test_screenshot_and_turntable_files(tmp_path):
    scene = tiny_scene(n=3)
    write_screenshot(scene, tmp_path / "a.png", frame=2, size_hw=(60, 80))
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (60, 80, 3)
    assert (picture != BACKGROUND).any(axis=-1).mean() > 0.1
    write_turntable(scene, tmp_path / "a.mp4", options=SHORT)
    with av.open(str(tmp_path / "a.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (48, 64, 3)
    assert np.abs(frames[0].astype(int) - frames[2]).mean() > 1  # half a turn
    with pytest.raises(InputError, match="no frame 3"):
        write_screenshot(scene, tmp_path / "b.png", frame=3)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"degrees": 0}, {"size_hw": (4, 4)}])
def test_turntables_that_can_not_be_are_refused(wrong):
    with pytest.raises(InputError):
        TurntableOptions(**wrong)


def test_the_command_writes_files_without_a_page(tmp_path, capsys):
    tiny_scene(n=2).save(tmp_path / "a.dyn3r")
    scene = (tmp_path / "a.dyn3r",)
    View(scene, save=tmp_path / "page.html", screenshot=tmp_path / "a.png")()
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert Image.open(tmp_path / "a.png").size == (1280, 720)
    said = capsys.readouterr().out
    assert "page.html" in said
    assert "a.png" in said
    with pytest.raises(OutputError, match="--overwrite"):
        View(scene, save=tmp_path / "page.html")()
    View(scene, save=tmp_path / "page.html", overwrite=True)()


def test_the_command_refuses_what_it_can_not_do(tmp_path):
    with pytest.raises(InputError, match="at least one scene"):
        View(())()
    tiny_scene(n=1).save(tmp_path / "a.dyn3r")
    two = (tmp_path / "a.dyn3r", tmp_path / "a.dyn3r")
    with pytest.raises(InputError, match="one scene"):
        View(two, turntable=tmp_path / "a.mp4")()
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["a.dyn3r"]'
