"""Files of the viewer: recordings, screenshots, turntables; and the `view` command."""

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
    Appearance,
    TurntableOptions,
    Visibility,
    save_recording,
    write_screenshot,
    write_turntable,
)
from dyn3r.viewer.fixed_view import FixedView
from dyn3r.viewer.playback import PreparedScenes
from dyn3r.viewer.record import record
from dyn3r.viewer.renderer import BACKGROUND, SceneRenderer, Viewpoint, with_background
from dyn3r.viewer.splat import Discs, render_discs
from dyn3r.viewer.turntable import orbit, turntable_angle_deg
from tests.factories import tiny_scene

POINTS = Appearance(style="points")
SHORT = TurntableOptions(seconds=0.4, fps=10.0, size_hw=(48, 64))


def messages(path: Path) -> tuple[list, dict]:
    """The (time, message) pairs of a .viser file, and its whole content."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    inner = zstandard.ZstdDecompressor().decompress(content[8:], max_output_size=size)
    length = int.from_bytes(inner[:8], "little")
    recording = msgspec.msgpack.decode(inner[8 : 8 + length])
    return recording["messages"], recording


def last_point_size(recorded: list) -> float:
    """Point size that a recording sets last."""
    for _, message in reversed(recorded):
        if message["type"] == "PointCloudMessage":
            return message["props"]["point_size"]
        if "point_size" in message.get("updates", {}):
            return message["updates"]["point_size"]
    raise AssertionError("there are no points")


def test_a_recording_holds_every_point_once_and_then_visibility(tmp_path):
    path = save_recording(tiny_scene(n=5), tmp_path / "a.viser", appearance=POINTS)
    recorded, recording = messages(path)
    assert recording["durationSeconds"] == pytest.approx(0.5)
    clouds = [m for time, m in recorded if m["type"] == "PointCloudMessage"]
    assert len({m["name"] for m in clouds}) == len(clouds) == 10  # 5 of the background, 5 moving
    later = {m["type"] for time, m in recorded if time > 0}
    assert later == {"SetSceneNodeVisibilityMessage"}
    third = [m["name"] for time, m in recorded
             if time == pytest.approx(0.3) and m["visible"]]  # fmt: skip
    assert set(third) == {"/scene_0/moving/3", "/scene_0/images/3"}


def test_a_recording_has_its_title_its_point_size_and_a_legend(tmp_path):
    appearance = Appearance(style="points", color="depth")
    prepared = PreparedScenes([tiny_scene()], ["cat"], appearance)
    sizes = []
    for factor in (1.0, 3.0):
        path = tmp_path / f"{factor}.viser"
        path.write_bytes(
            record(prepared, appearance, Visibility(), as_page=False, point_size=factor)
        )
        recorded, _ = messages(path)
        scripts = [m["source"] for _, m in recorded if m["type"] == "RunJavascriptMessage"]
        assert any('document.title = "cat - dyn3r"' in script for script in scripts)
        assert any("dyn3r-legend" in script and "depth " in script for script in scripts)
        sizes.append(last_point_size(recorded))
    assert sizes[1] == pytest.approx(3 * sizes[0], rel=1e-6)


def test_the_point_size_of_a_file_is_checked(tmp_path):
    for wrong in (0.0, -1.0, 11.0, float("nan")):
        with pytest.raises(InputError, match="point size"):
            save_recording(tiny_scene(), tmp_path / "a.viser", point_size=wrong)
    assert not list(tmp_path.iterdir())
    small, large = (tmp_path / f"{size}.viser" for size in (1, 2))
    save_recording(tiny_scene(), small, appearance=POINTS)
    save_recording(tiny_scene(), large, appearance=POINTS, point_size=2.0)

    sizes = [last_point_size(messages(path)[0]) for path in (small, large)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=1e-6)


def test_a_page_is_self_contained(tmp_path):
    path = save_recording(tiny_scene(), tmp_path / "a.html", visibility=Visibility(trail_length=2))
    text = path.read_text()
    assert "__VISER_EMBED_DATA__" in text
    assert '<script src="http' not in text
    assert '<link rel="stylesheet" href="http' not in text


def test_several_scenes_in_one_recording(tmp_path):
    path = save_recording([tiny_scene(n=2), tiny_scene(n=3)], tmp_path / "a.viser",
                          names=["left", "right"])  # fmt: skip
    recorded, recording = messages(path)
    assert recording["durationSeconds"] == pytest.approx(0.3)
    assert [m["props"]["text"] for _, m in recorded if m["type"] == "LabelMessage"] == [
        "left", "right",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.html", "a.viser", "a.png", "a.mp4"])
def test_files_are_kept_without_overwrite(tmp_path, name):
    path = tmp_path / name
    path.write_text("precious")
    write = {".png": write_screenshot, ".mp4": write_turntable}.get(path.suffix, save_recording)
    with pytest.raises(OutputError, match="exists already"):
        write(tiny_scene(n=1), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.html or \.viser"):
        save_recording(tiny_scene(n=1), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def render_points(points, colors, *, radius, **camera) -> np.ndarray:
    """Image of discs of one radius."""
    radii = np.full(len(points), radius, np.float32)
    discs = Discs(points.astype(np.float32), colors, radii)
    return with_background(render_discs(discs, **camera))


def test_near_points_hide_far_ones_and_lie_at_their_projection():
    K = np.array([[50, 0, 20], [0, 50, 15], [0, 0, 1.0]])
    points = np.array([[0, 0, 4], [0, 0, 2], [0.4, 0.2, 2], [0, 0, -2.0]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        image = render_points(
            points[order], colors[order], T_world_camera=np.eye(4), K=K, size_hw=(30, 40),
            radius=0.01,
        )  # fmt: skip
        drawn = np.argwhere((image != BACKGROUND).any(axis=-1)).tolist()
        assert drawn == [[15, 20], [20, 30]]
        assert image[15, 20].tolist() == [0, 255, 0]
        assert image[20, 30].tolist() == [0, 0, 255]


def test_fast_splats_equal_a_slow_renderer():
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


def test_a_fixed_view_equals_the_renderer_in_every_frame():
    scene = tiny_scene(n=3)
    renderer = SceneRenderer(scene)
    view = FixedView(scene, (120, 160), renderer.first_view)
    images = [view.render(t) for t in range(3)]
    for t, image in enumerate(images):
        whole = renderer.render(t, renderer.first_view, (120, 160), supersampling=1)
        np.testing.assert_array_equal(image, whole)
    assert (images[0] != images[2]).any()  # the object moves


def test_no_points_give_the_background():
    image = render_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), T_world_camera=np.eye(4),
                            K=np.eye(3), size_hw=(4, 4), radius=0.1)  # fmt: skip
    assert (image == BACKGROUND).all()


def test_a_viewpoint_is_upright_and_right_handed():
    for up, position in (([0, -1, 0], [1, -2, 3]), ([0, 0, 1], [0, 0, 5])):
        T = Viewpoint(np.array(position, float), np.zeros(3), np.array(up, float)).T_world_camera
        R = T[:3, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        np.testing.assert_allclose(R[:, 2], -T[:3, 3] / np.linalg.norm(T[:3, 3]))
    assert Viewpoint(np.array([0, 0, -5.0]), np.zeros(3), np.array([0, -1.0, 0])).T_world_camera[
        1, 1
    ] == pytest.approx(1)  # the camera's down is the world's +y


def test_an_orbit_keeps_height_and_distance_and_closes():
    viewpoint = Viewpoint(np.array([2.0, -1, 0]), np.array([0.5, 0, 1]), np.array([0, -2.0, 0]))
    half = orbit(viewpoint, np.pi)
    np.testing.assert_allclose(half.position, [-1, -1, 2])
    np.testing.assert_allclose(orbit(half, np.pi).position, viewpoint.position, atol=1e-12)
    assert [turntable_angle_deg(s, 360.0) for s in (0.0, 0.25, 0.5)] == [0, 90, 180]
    assert turntable_angle_deg(0.25, 60.0) == pytest.approx(30)
    assert turntable_angle_deg(0.75, 60.0) == pytest.approx(-30)


def test_rendering_from_a_camera_gives_its_frame():
    scene = tiny_scene(n=2, h=96, w=144)
    images = np.zeros_like(scene.images)
    images[:, :48], images[:, 48:] = (40, 40, 200), (40, 200, 40)
    images[scene.dynamic] = (250, 20, 20)
    scene = tiny_scene(n=2, h=96, w=144, images=images)
    T = scene.T_world_camera[1]
    fov = 2 * np.arctan(48 / scene.K[1, 1, 1])
    viewpoint = Viewpoint(T[:3, 3], T[:3, 3] + T[:3, 2], -T[:3, 1], fov)
    renderer = SceneRenderer(scene, Appearance(drop_static=0.0, drop_moving=0.0), cameras=False)
    image = renderer.render(1, viewpoint, (96, 144)).astype(int)
    inner = np.abs(image - images[1])[8:-8, 8:-8].max(axis=-1)
    assert (inner < 40).mean() > 0.9


def test_screenshot_and_turntable_files(tmp_path):
    scene = tiny_scene(n=3)
    write_screenshot(scene, tmp_path / "a.png", frame=2, size_hw=(60, 80))
    image = np.asarray(Image.open(tmp_path / "a.png"))
    assert image.shape == (60, 80, 3)
    assert (image != BACKGROUND).any(axis=-1).mean() > 0.1
    write_turntable(scene, tmp_path / "a.mp4", options=SHORT)
    with av.open(str(tmp_path / "a.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (48, 64, 3)
    assert np.abs(frames[0].astype(int) - frames[2]).mean() > 1  # half a turn
    with pytest.raises(InputError, match="from 0 to 2"):
        write_screenshot(scene, tmp_path / "b.png", frame=3)


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0.0}, {"degrees": 0.0}, {"size_hw": (4, 4)}, {"supersampling": 5}]
)
def test_turntable_options_are_checked(wrong):
    with pytest.raises(InputError):
        TurntableOptions(**wrong)


@pytest.mark.slow
def test_the_command_writes_files_without_a_page(tmp_path, capsys):
    tiny_scene(n=2).save(tmp_path / "a.dyn3r")
    scene = (tmp_path / "a.dyn3r",)
    View(scene, save=tmp_path / "page.html", screenshot=tmp_path / "a.png")()
    assert (tmp_path / "page.html").stat().st_size > 100_000
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1280, 720)
    out = capsys.readouterr().out
    assert "page.html" in out
    assert "a.png" in out
    with pytest.raises(OutputError, match="--overwrite"):
        View(scene, save=tmp_path / "page.html")()
    View(scene, save=tmp_path / "page.html", overwrite=True)()


def test_the_command_refuses_invalid_arguments(tmp_path):
    with pytest.raises(InputError, match="at least one scene"):
        View(())()
    tiny_scene(n=1).save(tmp_path / "a.dyn3r")
    two = (tmp_path / "a.dyn3r", tmp_path / "a.dyn3r")
    with pytest.raises(InputError, match="one scene"):
        View(two, turntable=tmp_path / "a.mp4")()
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["a.dyn3r"]'
