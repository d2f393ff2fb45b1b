"""COLMAP models: projections against an analytic scene, tracks, both kinds, images and masks."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from dyn3r.scene import Scene
from tests.export.known_world import SOURCE_HW, known_scene, moves, pixels_off, write_source
from tests.factories import tiny_scene


def rotation(wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = wxyz
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def read_text(folder):
    """COLMAP's text model, read as its documentation defines it."""

    def lines(name):
        text = (folder / name).read_text().split("\n")
        return [line for line in text[:-1] if not line.startswith("#")]

    cameras = {}
    for line in lines("cameras.txt"):
        number, kind, *rest = line.split()
        assert kind == "PINHOLE"
        cameras[int(number)] = [float(word) for word in rest]
    points = {}
    for line in lines("points3D.txt"):
        words = line.split()
        track = np.array(words[8:], int).reshape(-1, 2)
        points[int(words[0])] = (np.array(words[1:4], float), np.array(words[4:7], int), track)
    images = {}
    rows = lines("images.txt")
    for head, seen in zip(rows[::2], rows[1::2]):
        number, *place, camera, name = head.split()
        observed = np.array(seen.split(), float).reshape(-1, 3)
        images[int(number)] = (np.array(place, float), int(camera), name, observed)
    return cameras, images, points


def reproject(model, number):
    """Projections (k, 2) of the points that an image observes, the points, the observations."""
    cameras, images, points = model
    place, camera, _, observed = images[number]
    _, _, fx, fy, cx, cy = cameras[camera]
    xyz = np.stack([points[int(k)][0] for k in observed[:, 2]])
    x, y, z = (xyz @ rotation(place[:4]).T + place[4:]).T
    assert (z > 0).all()
    return np.stack([fx * x / z + cx, fy * y / z + cy], axis=1), xyz, observed[:, :2]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colmap") / "model"
    scene = known_scene()
    scene.export("colmap-text", folder)
    return scene, read_text(folder / "sparse" / "0")


def test_points_project_to_their_source_pixels(text_model):
    scene, model = text_model
    cameras, images, _ = model
    height, width = SOURCE_HW
    assert [camera[:2] for camera in cameras.values()] == [[width, height]]
    for t in range(len(scene)):
        xy, xyz, observed = reproject(model, t + 1)
        assert len(xy) > 1000
        assert np.abs(xy - observed).max() < 0.05
        off = pixels_off(t, xy, xyz)  # by the scene's formula, independent of the export
        assert np.abs(off).max() < 0.1
        assert np.abs(off.mean(axis=0)).max() < 0.01
        assert (xy > 0).all()
        assert (xy < [width, height]).all()
        # No dynamic pixel, nor the margin of two prepared pixels (3.8 source pixels).
        assert not moves(t, *xy.T).any()
        assert images[t + 1][2] == f"shot_{t}.jpg"


def test_tracks_are_consistent_and_long_where_frames_overlap(text_model):
    scene, (_, images, points) = text_model
    lengths = []
    for number, (_, _, track) in points.items():
        lengths.append(len(track))
        assert len({image for image, _ in track}) == len(track)
        for image, place in track:
            assert images[image][3][place, 2] == number
    assert sum(lengths) == sum(len(image[3]) for image in images.values())
    assert np.mean(np.array(lengths) > 1) > 0.8
    assert max(lengths) == len(scene)


def test_an_unconfirmed_point_has_no_track():
    from dyn3r.export.tracks import find_tracks

    scene = known_scene()
    depth = scene.depth.copy()
    depth[1] *= 1.05  # the wall is farther away in frame 1
    scene = Scene(**{**vars(scene), "depth": depth})
    tracks = find_tracks(scene, min_confidence=0.0, max_points=5000)
    origin = np.zeros(len(tracks.points_world), int)
    first = np.unique(tracks.point, return_index=True)[1]
    origin[tracks.point[first]] = tracks.frame[first]
    with_1 = set(tracks.point[tracks.frame == 1])
    with_others = set(tracks.point[tracks.frame != 1])
    assert with_1
    assert not with_1 & with_others


def test_pycolmap_reads_both_kinds(tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap to read the model")
    scene = known_scene()
    K = scene.K.copy()
    K[2, 0, 0] *= 1.01  # intrinsics that differ between frames
    scene = Scene(**{**vars(scene), "K": K})
    models = []
    for kind in ("colmap", "colmap-text"):
        scene.export(kind, tmp_path / kind, max_points=500)
        models.append(pycolmap.Reconstruction(str(tmp_path / kind / "sparse" / "0")))
    for model in models:
        assert model.num_cameras() == 4
        assert model.num_images() == 4
        assert 300 < model.num_points3D() <= 500
        for t in range(4):
            image = model.images[t + 1]
            T = np.linalg.inv(scene.T_world_camera[t])[:3]
            np.testing.assert_allclose(image.cam_from_world().matrix(), T, atol=1e-9)
            camera = model.cameras[image.camera_id]
            expected = scene.K_source()[t][[0, 1, 0, 1], [0, 1, 2, 2]] + [0, 0, 0.5, 0.5]
            np.testing.assert_allclose(camera.params, expected, rtol=1e-9)
            assert camera.model.name == "PINHOLE"
            for seen in list(image.points2D)[::50]:
                xyz = model.points3D[seen.point3D_id].xyz
                assert np.linalg.norm(image.project_point(xyz) - seen.xy) < 0.05
    for number, point in models[0].points3D.items():
        twin = models[1].points3D[number]
        np.testing.assert_allclose(twin.xyz, point.xyz, rtol=1e-9)
        np.testing.assert_array_equal(twin.color, point.color)
        assert twin.track.length() == point.track.length()


def test_points_have_the_colours_of_the_images(tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap to read the model")
    scene = known_scene()
    scene.export("colmap", tmp_path / "out", source=write_source(tmp_path / "source"))
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    for image in model.images.values():
        with Image.open(tmp_path / "out" / "images" / image.name) as opened:
            pixels = np.asarray(opened).astype(float)
        seen = list(image.points2D)
        column, row = np.array([image.project_point(model.points3D[p.point3D_id].xyz)
                                for p in seen]).astype(int).T  # fmt: skip
        colors = np.array([model.points3D[p.point3D_id].color for p in seen])
        assert np.abs(pixels[row, column] - colors).mean() < 2


def test_images_and_masks_fit_the_cameras(tmp_path):
    scene = known_scene()
    source = write_source(tmp_path / "source")
    scene.export("colmap", tmp_path / "at_source", source=source)
    scene.export("colmap", tmp_path / "prepared", resolution="prepared")
    for folder, (height, width) in (("at_source", SOURCE_HW), ("prepared", scene.size_hw)):
        images = sorted((tmp_path / folder / "images").iterdir())
        assert len(images) == 4
        for image in images:
            mask = np.asarray(Image.open(tmp_path / folder / "masks" / f"{image.name}.png"))
            with Image.open(image) as opened:
                assert opened.size == (width, height)
            assert mask.shape == (height, width)
    mask = np.asarray(Image.open(tmp_path / "prepared" / "masks" / "shot_2.png.png"))
    np.testing.assert_array_equal(mask == 0, scene.dynamic[2])  # black: ignored


def test_without_images_a_warning_names_their_size(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        known_scene().export("colmap", tmp_path / "model", max_points=50)
    assert "200x120" in caplog.text
    assert not (tmp_path / "model" / "images").exists()


def test_one_frame_and_no_static_pixel(tmp_path):
    tiny_scene(n=1).export("colmap-text", tmp_path / "one")
    _, images, points = read_text(tmp_path / "one" / "sparse" / "0")
    assert len(images) == 1
    assert all(len(point[2]) == 1 for point in points.values())
    scene = tiny_scene(n=2)
    scene = tiny_scene(n=2, dynamic=np.ones_like(scene.dynamic))
    for kind in ("colmap", "colmap-text"):
        scene.export(kind, tmp_path / kind)
    _, images, points = read_text(tmp_path / "colmap-text" / "sparse" / "0")
    assert len(images) == 2
    assert points == {}
