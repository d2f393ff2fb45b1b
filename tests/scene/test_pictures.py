from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from dyn3r.errors import OutputError
from dyn3r.scene import Scene, drawing, pictures
from dyn3r.scene.camera_path import camera_path_picture
from dyn3r.scene.upright import find_up, horizontal_axes
from tests.factories import tiny_scene
from tests.rooms import degrees_between, room


def rotation(axis: str, degrees: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def decode(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_depth_colours_follow_inverse_depth_and_mark_the_unknown():
    depth = np.array([[1.0, 2.0, 4.0, 0.0, 100.0]])
    picture = drawing.depth_picture(depth, (0.25, 1.0))
    red, blue = picture[0, :, 0].astype(int), picture[0, :, 2].astype(int)
    assert red[0] > blue[0]  # near is red
    assert blue[2] > red[2]  # far is blue
    assert tuple(picture[0, 3]) == drawing.UNKNOWN
    np.testing.assert_array_equal(picture[0, 4], picture[0, 2])  # beyond the limits: clipped


def test_limits_are_shared_by_the_clip_and_robust():
    scene = tiny_scene()
    depth = scene.depth.copy()
    depth[0, 5, 5] = 1e-6
    low, high = pictures.find_limits(tiny_scene(depth=depth)).inverse_depth
    assert low == pytest.approx(1 / 6, rel=1e-3)
    assert high < 1.0
    confidence = np.where(np.arange(32)[:, None] < 1, 0, np.full((4, 32, 48), 3.0))
    low, high = pictures.find_limits(tiny_scene(confidence=confidence)).confidence
    assert low < 3 < high


def test_motion_is_tinted_and_the_rest_dimmed():
    image = np.full((4, 6, 3), 200, np.uint8)
    mask = np.zeros((4, 6), bool)
    mask[1, 2] = True
    picture = drawing.motion_picture(image, mask)
    assert picture[1, 2, 0] > 200 > picture[1, 2, 1]
    assert (picture[~mask] == 120).all()
    np.testing.assert_array_equal(drawing.motion_picture(image, ~mask | mask)[0, 0], picture[1, 2])


@pytest.mark.parametrize(("h", "w", "size"), [(96, 128, (192, 256)), (128, 96, (128, 384))])
def test_overview_video_plays_and_looks_like_the_frames(tmp_path, h, w, size):
    smooth = np.zeros((3, h, w, 3), np.uint8)
    smooth[..., 0] = np.linspace(0, 255, w)
    smooth[..., 1] = np.linspace(255, 0, h)[:, None]
    smooth[..., 2] = np.array([40, 120, 200])[:, None, None]
    scene = tiny_scene(n=3, h=h, w=w, images=smooth)
    path = tmp_path / "overview.mp4"
    pictures.write_overview_video(scene, path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 10
    shown = decode(path)
    assert len(shown) == 3
    limits = pictures.find_limits(scene)
    for t, frame in enumerate(shown):
        assert frame.shape[:2] == size
        drawn = pictures.overview(scene, t, limits)
        np.testing.assert_array_equal(
            drawn[h // 2 : h, : w - 1][0, :, 0], smooth[t, h // 2, :-1, 0]
        )
        difference = np.abs(frame[40:h, :w].astype(float) - drawn[40:h, :w])
        assert difference.mean() < 6


@pytest.mark.parametrize(("h", "w"), [(48, 64), (64, 48)])
def test_a_view_in_3d_stands_beside_the_panels_in_at_least_720p(tmp_path, h, w):
    scene = tiny_scene(n=2, h=h, w=w)
    sizes = []

    def view(seen, size_hw):
        assert seen is scene
        sizes.append(size_hw)
        return lambda t: np.full((*size_hw, 3), 40 + 100 * t, np.uint8)

    pictures.write_overview_video(scene, tmp_path / "o.mp4", view=view)
    frames = decode(tmp_path / "o.mp4")
    height, width = frames[0].shape[:2]
    assert (height, sizes) == (720, [pictures.view_size(scene)])
    assert width >= 1280
    means = [frame[100:, -sizes[0][1] + 8 :].mean() for frame in frames]
    np.testing.assert_allclose(means, [40, 140], atol=3)
    left = frames[0][360:, : width - sizes[0][1]]  # motion and confidence
    assert left.std() > 5


def test_odd_sizes_and_unknown_speed_are_fine(tmp_path):
    scene = tiny_scene(n=1, h=81, w=95, fps=0)
    pictures.write_overview_video(scene, tmp_path / "o.mp4")
    assert decode(tmp_path / "o.mp4")[0].shape == (162, 190, 3)


def test_a_failing_drawing_leaves_no_video(tmp_path):
    def broken():
        yield np.zeros((32, 32, 3), np.uint8)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        drawing.write_video(broken(), tmp_path / "x.mp4", fps=5.0)
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet_shows_first_and_last_frame(tmp_path):
    scene = tiny_scene(n=9)
    sheet = pictures.contact_sheet(scene, columns=6)
    assert sheet.shape == (20 + 4 * (32 + 4), 6 * (48 + 4) - 4, 3)
    np.testing.assert_array_equal(sheet[20:52, :48], scene.images[0])
    np.testing.assert_array_equal(sheet[20:52, -48:], scene.images[8])
    assert sheet[:18].max() > 200  # captions
    for name in ("sheet.png", "sheet.jpg"):
        pictures.write_contact_sheet(scene, tmp_path / name, columns=6)
        with Image.open(tmp_path / name) as written:
            assert written.size == (sheet.shape[1], sheet.shape[0])
    with pytest.raises(OutputError, match=r"\.png or \.jpg"):
        pictures.write_contact_sheet(scene, tmp_path / "sheet.bmp")
    with pytest.raises(OutputError, match="exists"):
        pictures.write_contact_sheet(scene, tmp_path / "sheet.png")


def test_camera_path_runs_from_blue_to_red_towards_the_right(tmp_path):
    scene = tiny_scene(n=8, images=np.full((8, 32, 48, 3), 128, np.uint8))
    picture = camera_path_picture(scene, 300).astype(int)
    red = (picture[..., 0] > 120) & (picture[..., 2] < 60) & (picture[..., 1] < 120)
    blue = (picture[..., 2] > 120) & (picture[..., 0] < 90)
    assert red.sum() > 20
    assert np.median(np.nonzero(red)[1]) > np.median(np.nonzero(blue)[1])
    pictures.write_camera_path(scene, tmp_path / "path.png")
    with Image.open(tmp_path / "path.png") as written:
        assert written.size == (800, 800)


def test_camera_path_of_one_frame_without_points():
    scene = tiny_scene(n=1, depth=np.zeros((1, 32, 48)))
    assert camera_path_picture(scene, 100).max() > 100


# --- upright ------------------------------------------------------------------------------------


def test_the_floor_tells_up_where_the_cameras_are_tilted():
    # The camera looks 20 degrees down: the floor of the tiny world appears tilted by as much.
    R = rotation("x", 20)
    scene = tiny_scene()
    T = scene.T_world_camera.copy()
    T[:, :3, :3] = R
    T[:, :3, 3] = T[:, :3, 3] @ R.T
    found = find_up(tiny_scene(T_world_camera=T))
    assert found.source == "ground plane"
    np.testing.assert_allclose(found.up_world, R @ [0, -1, 0], atol=0.01)
    assert found.ground_height == pytest.approx(-1.5, abs=0.02)


def test_vertical_edges_tell_up_where_depth_is_bad():
    seen = room(pitch_deg=20)
    bad = 1 / (1 / seen.depth + 0.5)  # relief is too weak: the floor rises towards the wall
    still = np.zeros(seen.depth.shape, bool)

    def scene_of(depth: np.ndarray) -> Scene:
        return tiny_scene(
            3, 96, 144, images=seen.images, depth=depth, K=seen.K, dynamic=still,
            T_world_camera=seen.T_world_camera,
        )  # fmt: skip

    found = find_up(scene_of(bad))
    assert found.source == "vertical edges"
    assert degrees_between(found.up_world, seen.up_world) < 1.5
    assert find_up(scene_of(seen.depth)).ground_height == pytest.approx(-1.2, abs=0.05)


def test_without_a_floor_the_cameras_tell_up():
    scene = tiny_scene(depth=np.full((4, 32, 48), 5.0))  # a wall only
    found = find_up(scene)
    assert (found.source, found.ground_height) == ("cameras", None)
    np.testing.assert_allclose(found.up_world, [0, -1, 0], atol=1e-9)


def test_a_ceiling_is_no_ground():
    flipped = tiny_scene().depth[:, ::-1]
    found = find_up(tiny_scene(depth=np.ascontiguousarray(flipped)))
    assert found.source == "cameras"


def test_opposite_cameras_fall_back_to_the_first():
    T = np.tile(np.eye(4), (4, 1, 1))
    T[2:, :3, :3] = rotation("z", 180)
    found = find_up(tiny_scene(T_world_camera=T, depth=np.full((4, 32, 48), 5.0)))
    np.testing.assert_allclose(found.up_world, [0, -1, 0], atol=1e-9)


def test_horizontal_axes_of_the_first_camera():
    scene = tiny_scene()
    up = find_up(scene).up_world
    right, ahead = horizontal_axes(scene, up)
    np.testing.assert_allclose([right, ahead], [[1, 0, 0], [0, 0, 1]], atol=0.01)


def test_axes_of_a_camera_that_looks_straight_down():
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, :3] = rotation("x", -90)  # camera z is the world's +y, the image's up is world z
    right, ahead = horizontal_axes(tiny_scene(T_world_camera=T), np.array([0.0, -1, 0]))
    np.testing.assert_allclose(ahead, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(right, [1, 0, 0], atol=1e-9)
