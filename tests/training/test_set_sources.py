"""Data sets as `--data` names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.datasets.training_trees import (
    write_pointodyssey,
    write_spring,
    write_tartanair,
    write_truth_folder,
    write_waymo,
)
from tests.factories import tiny_scene

from dyn3r.datasets import tartanair
from dyn3r.errors import InputError
from dyn3r.training.sets.scene_sequences import MAX_SIGMA, sequences
from dyn3r.training.sets.sources import (
    DataSpec,
    LoadedSet,
    load_set,
    parse_data,
    split_held_out,
)


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def test_the_published_mixture() -> None:
    names = ("pointodyssey", "tartanair", "spring", "waymo")
    counts = [parse_data(f"{name}:somewhere").count for name in names]
    assert counts == [10_000, 5_000, 1_000, 4_000]


def test_a_number_of_pairs_may_be_given() -> None:
    assert parse_data("2_500@folder:a:b") == DataSpec("folder", Path("a:b"), 2500)


@pytest.mark.parametrize(
    "text", ["folder", "folder:", "kitchen:here", "@folder:x", "0@folder:x", "-3@folder:x",
             "1e3@folder:x", "9999999999@folder:x"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="data '"):
        parse_data(text)


def write(name: str, root: Path, world: PlaneWorld) -> None:
    if name == "pointodyssey":
        write_pointodyssey(root / "train", "ani", world)
    elif name == "tartanair":
        write_tartanair(root / "office/Hard/P000", world)
    elif name == "spring":
        write_spring(root / "spring/train/0001", world, np.ones(len(world)))
    elif name == "waymo":
        write_waymo(root / "s.tfrecord", world)
    else:
        write_truth_folder(root / "clip", world)


@pytest.mark.parametrize("name", ["pointodyssey", "tartanair", "spring", "waymo", "folder"])
def test_views_are_those_of_the_world(
    name: str, world: PlaneWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tartanair, "K", world.K)
    write(name, tmp_path, world)
    loaded = load_set(parse_data(f"{name}:{tmp_path}"))
    distances = set((loaded.pairs[:, 3] - loaded.pairs[:, 1]).tolist())
    # 5 frames: the published range has no pair of strides 3 and 4
    assert distances == ({1, 2, 3, 4} if name in ("waymo", "folder") else {1, 2})
    for row, (_, i, _, j) in enumerate(loaded.pairs):
        for view, frame in zip(loaded.views(row), (i, j)):
            np.testing.assert_allclose(view.depth, world.depth[frame], atol=0.008)
            np.testing.assert_allclose(view.K, world.K, atol=1e-5)
            np.testing.assert_allclose(view.T_world_camera, world.T_world_camera[frame], atol=1e-6)
            assert view.moving.any() == (name == "folder")


def test_what_is_far_is_not_trained_on(world: PlaneWorld, tmp_path: Path) -> None:
    far = replace(world, depth=np.where(world.moving, 79.0, 80.0))
    for name, known in (("spring", False), ("waymo", True)):
        write(name, tmp_path / name, far)
        loaded = load_set(parse_data(f"{name}:{tmp_path / name}"))
        (first, _), moving = loaded.views(0), world.moving[loaded.pairs[0, 1]]
        assert (first.depth[moving] > 0).all()
        assert (first.depth[~moving] > 0).all() == known


def test_frames_without_a_pose_are_in_no_pair(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_truth_folder(tmp_path, world)
    T = world.T_world_camera.copy()
    T[1] = np.nan
    np.savez(folder / "camera.npz", cam2world=T, K=world.K)
    pairs = load_set(parse_data(f"folder:{tmp_path}")).pairs
    assert len(pairs) > 0
    assert 1 not in pairs[:, [1, 3]]


def test_data_without_cameras_is_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_truth_folder(tmp_path, world)
    (folder / "camera.npz").unlink()
    with pytest.raises(InputError, match="no sequence with depth, poses and intrinsics"):
        load_set(parse_data(f"folder:{tmp_path}"))
    with pytest.raises(InputError, match="no such file or folder"):
        load_set(parse_data(f"folder:{tmp_path / 'gone'}"))


def test_one_frame_is_no_pair(tmp_path: Path) -> None:
    write_truth_folder(tmp_path, plane_world(1))
    with pytest.raises(InputError, match="no sequence is long enough"):
        load_set(parse_data(f"folder:{tmp_path}"))


def test_scenes_are_trained_on_where_they_are_sure(tmp_path: Path) -> None:
    scene = tiny_scene()
    sigma = np.full(scene.depth.shape, MAX_SIGMA / 2, np.float32)
    sigma[:, 0] = MAX_SIGMA * 2
    confidence = scene.confidence.copy()
    confidence[:, 1] = 0
    scene = replace(scene, sigma_log_depth=sigma, confidence=confidence)
    scene.save(tmp_path / "cat", precision="full")
    scene.save(tmp_path / "dog.dyn3r", precision="full")
    found = sequences(tmp_path)
    assert sorted(s.name for s in found) == ["cat", "dog"]
    depth = found[0].depth(0)
    assert (depth[:2] == 0).all()
    np.testing.assert_array_equal(depth[2:], scene.depth[0, 2:])
    np.testing.assert_array_equal(found[0].mask(1), scene.dynamic[1])
    np.testing.assert_allclose(found[0].camera_of(1)[1], scene.T_world_camera[1])
    assert len(sequences(tmp_path / "cat")) == len(sequences(tmp_path / "dog.dyn3r")) == 1
    with pytest.raises(InputError, match="holds no scene"):
        sequences(tmp_path / "none")


def test_the_last_sequences_are_held_out(world: PlaneWorld, tmp_path: Path) -> None:
    for name in "abc":
        write_truth_folder(tmp_path / name, world)
    train, held = split_held_out(load_set(parse_data(f"folder:{tmp_path}")))
    assert isinstance(held, LoadedSet)
    assert set(train.pairs[:, 0]) == {0, 1}
    assert set(held.pairs[:, 0]) == {2}
    alone, none = split_held_out(load_set(parse_data(f"folder:{tmp_path / 'a'}")))
    assert none is None
    assert len(alone.pairs) > 0


def test_cameras_of_a_segment_stay_together(world: PlaneWorld, tmp_path: Path) -> None:
    for name in "pq":
        write_waymo(tmp_path / f"{name}.tfrecord", world, cameras=(1, 2))
    train, held = split_held_out(load_set(parse_data(f"waymo:{tmp_path}")))
    assert isinstance(held, LoadedSet)
    assert set(train.pairs[:, 0]) == {0, 1}
    assert set(held.pairs[:, 0]) == {2, 3}


def test_cameras_that_are_none_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_truth_folder(tmp_path / "clip", world)
    for K, T, message in (
        (np.full((3, 3), np.nan), world.T_world_camera, "intrinsics that are infinite"),
        (world.K, 2 * world.T_world_camera, "no rotation and translation"),
    ):
        np.savez(folder / "camera.npz", cam2world=T, K=K)
        with pytest.raises(InputError, match=message):
            load_set(parse_data(f"folder:{tmp_path}")).views(0)
