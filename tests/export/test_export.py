"""All formats: table, command, names, atomic results. Trajectories, official folder, video."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.cli.export import Export
from dyn3r.errors import InputError, OutputError
from dyn3r.export import FORMATS, ExportOptions
from dyn3r.export.camera_conventions import continuous_quaternions, quaternions_wxyz
from dyn3r.export.naming import frame_stems
from dyn3r.scene import Scene
from tests.export.known_world import known_scene
from tests.factories import tiny_scene

DOCS = Path(__file__).parents[2] / "docs" / "exports.md"
LIGHT = [name for name in FORMATS if name not in ("usd", "rerun")]  # these have their own tests


def turned_scene() -> Scene:
    """Frame 1 is rotated by 90 degrees about y: its z is world x, its x is world -z."""
    T = tiny_scene(n=2).T_world_camera.copy()
    T[1, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    T[1, :3, 3] = [1.5, -2.0, 0.25]
    return tiny_scene(n=2, T_world_camera=T, times_s=np.array([0.0, 0.1]))


# --- trajectories -------------------------------------------------------------------------------


def test_tum_has_the_standard_quaternion_order(tmp_path):
    turned_scene().export("tum", tmp_path / "a.txt")
    rows = np.loadtxt(tmp_path / "a.txt")
    half = np.sqrt(0.5)
    np.testing.assert_allclose(rows[0], [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(rows[1], [0.1, 1.5, -2, 0.25, 0, half, 0, half], atol=1e-9)
    turned_scene().export("tum", tmp_path / "b.txt", quaternion="wxyz")
    rows = np.loadtxt(tmp_path / "b.txt")
    np.testing.assert_allclose(rows[1], [0.1, 1.5, -2, 0.25, half, 0, half, 0], atol=1e-9)


def test_kitti_is_the_matrix_row_by_row(tmp_path):
    turned_scene().export("kitti", tmp_path / "a.txt")
    rows = np.loadtxt(tmp_path / "a.txt")
    np.testing.assert_allclose(rows[1], [0, 0, 1, 1.5, 0, 1, 0, -2, -1, 0, 0, 0.25])


def test_evo_reads_both(tmp_path):
    file_interface = pytest.importorskip(
        "evo.tools.file_interface", reason="needs evo to read the trajectories"
    )
    scene = known_scene()
    scene.export("tum", tmp_path / "a.txt")
    scene.export("kitti", tmp_path / "b.txt")
    for read in (
        file_interface.read_tum_trajectory_file(str(tmp_path / "a.txt")),
        file_interface.read_kitti_poses_file(str(tmp_path / "b.txt")),
    ):
        np.testing.assert_allclose(np.stack(read.poses_se3), scene.T_world_camera, atol=1e-7)


def test_quaternions_are_continuous():
    angles = np.radians(np.arange(0, 720, 20))
    T = np.tile(np.eye(4), (len(angles), 1, 1))
    T[:, 0, 0] = T[:, 2, 2] = np.cos(angles)
    T[:, 0, 2], T[:, 2, 0] = np.sin(angles), -np.sin(angles)
    quat = quaternions_wxyz(T)
    assert (quat[:, 0] >= 0).all()
    smooth = continuous_quaternions(quat)
    assert (smooth[1:] * smooth[:-1]).sum(axis=1).min() > 0.98


# --- official -----------------------------------------------------------------------------------


def test_official_has_the_published_layout(tmp_path):
    scene = tiny_scene()
    scene.export("official", tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"pred_traj.txt", "pred_intrinsics.txt", "scene.glb", "_depth_maps.gif"} <= names
    assert {"0_dynamic_masks.mp4", "visualization.mp4"} <= names
    for t in range(4):
        for name in ("frame_{:04d}.png", "frame_{:04d}.npy", "conf_{}.npy", "dynamic_mask_{}.png"):
            assert name.format(t) in names
    assert len(names) == 6 + 5 * 4
    out = tmp_path / "out"
    np.testing.assert_array_equal(np.load(out / "frame_0003.npy"), scene.depth[3])
    np.testing.assert_array_equal(np.load(out / "conf_3.npy"), scene.confidence[3])
    np.testing.assert_array_equal(np.asarray(Image.open(out / "frame_0001.png")), scene.images[1])
    mask = np.asarray(Image.open(out / "dynamic_mask_1.png")) > 0
    large = np.asarray(Image.open(out / "enlarged_dynamic_mask_1.png")) > 0
    np.testing.assert_array_equal(mask, scene.dynamic[1])
    assert mask.sum() == 8 * 6
    assert large.sum() == 10 * 8  # a 3x3 dilation
    np.testing.assert_allclose(np.loadtxt(out / "pred_intrinsics.txt"), scene.K.reshape(4, 9))
    np.testing.assert_array_equal(np.loadtxt(out / "pred_traj.txt")[:, 0], [0, 1, 2, 3])
    with Image.open(out / "_depth_maps.gif") as gif:
        assert gif.n_frames == 4


def test_the_video_shows_four_panels(tmp_path):
    import av

    scene = tiny_scene()
    scene.export("video", tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (32, 4 * 48, 3)


# --- all formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIGHT)
def test_results_are_kept_without_overwrite(tmp_path, name):
    scene, exporter = tiny_scene(n=2), FORMATS[name]
    target = tmp_path / exporter.default_name
    if exporter.suffixes:
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="overwrit"):
        scene.export(name, target)
    if exporter.suffixes:
        assert target.read_text() == "mine"
    assert scene.export(name, target, overwrite=True) == target
    if exporter.suffixes:
        assert target.read_bytes()[:4] != b"mine"
    else:
        assert (target / "mine.txt").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", LIGHT)
def test_one_frame_without_depth_can_be_written(tmp_path, name):
    scene = tiny_scene(n=1)
    empty = tiny_scene(n=1, depth=np.zeros_like(scene.depth), names=("../../etc/pass wd",), fps=0.0)
    target = empty.export(name, tmp_path / "folder" / FORMATS[name].default_name)
    assert target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [target.name]


def test_equal_scenes_give_equal_bytes(tmp_path):
    for name in ("colmap", "ply", "glb", "tum", "depth"):
        for place in ("a", "b"):
            tiny_scene().export(name, tmp_path / place / FORMATS[name].default_name)
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file():
            twin = tmp_path / "b" / file.relative_to(tmp_path / "a")
            assert file.read_bytes() == twin.read_bytes()


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        tiny_scene().export("masks", tmp_path / "out", source=tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_and_wrong_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown format 'obj'.*colmap"):
        tiny_scene().export("obj", tmp_path / "a.obj")
    with pytest.raises(OutputError, match=r"must end in \.ply"):
        tiny_scene().export("ply", tmp_path / "a.obj")


def test_names_are_safe_and_unique():
    names = ("a.jpg", "a.png", "../../b", "c d\\e.f.JPG", "...", "ü.png", "x" * 999, "A.tif")
    stems = frame_stems(tiny_scene(n=8, names=names))
    assert len({stem.casefold() for stem in stems}) == 8
    assert all(re.fullmatch(r"[\w\-][\w.\-]*", stem) for stem in stems)
    assert stems[2:6] == ["b", "e.f", "frame", "ü"]
    assert max(map(len, stems)) <= 207
    awkward = ("a", "a", "a_000000", "b")
    assert len(set(frame_stems(tiny_scene(n=4, names=awkward)))) == 4


def test_the_command_writes_beside_the_scene(tmp_path, capsys):
    tiny_scene().save(tmp_path)
    Export(scene=tmp_path, to="tum", quiet=True)()
    assert (tmp_path / "exports" / "trajectory_tum.txt").exists()
    assert capsys.readouterr().out == ""
    with pytest.raises(OutputError, match="--overwrite"):
        Export(scene=tmp_path, to="tum")()
    Export(scene=tmp_path, to="tum", overwrite=True)()
    static = ExportOptions(which="static")
    Export(scene=tmp_path / "scene.dyn3r", to="ply", output=tmp_path / "x.ply", options=static)()
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "x.ply").exists()
    with pytest.raises(InputError, match="unknown format"):
        Export(scene=tmp_path, to="colmpa")()
    with pytest.raises(InputError, match="no scene"):
        Export(scene=tmp_path / "nowhere", to="tum")()


def test_the_command_and_the_page_name_every_format():
    page, help_text = DOCS.read_text(), Export.__doc__ or ""
    for name in FORMATS:
        assert f"`{name}`" in page, name
        assert re.search(rf"\b{name}\b", help_text), name
