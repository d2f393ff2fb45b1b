"""Mixtures of data sets: their order, and batches with known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.datasets.training_trees import write_truth_folder, write_waymo

from dyn3r.errors import InputError
from dyn3r.geometry.cameras import project
from dyn3r.training.pairs import PairBatch
from dyn3r.training.sets.mixture import (
    DEPTH_TOLERANCE,
    Mixture,
    _epoch_order,
    held_out_batch,
    sample_batch,
)
from dyn3r.training.sets.sources import LoadedSet, load_set, parse_data

N = 5


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(N)


@pytest.fixture(scope="module")
def loaded(world: PlaneWorld, tmp_path_factory: pytest.TempPathFactory) -> LoadedSet:
    folder = write_truth_folder(tmp_path_factory.mktemp("clip"), world)
    return load_set(parse_data(f"7@folder:{folder}"))


def test_an_epoch_has_the_counts_and_every_epoch_another_order() -> None:
    sizes = ((30, 10), (5, 40))  # a set that is repeated, and one that is cut
    first, second = (_epoch_order(sizes, 3, epoch) for epoch in (0, 1))
    for order in (first, second):
        assert (order[:, 0] == 0).sum() == 30
        np.testing.assert_array_equal(np.bincount(order[order[:, 0] == 0, 1]), np.full(10, 3))
        assert len(np.unique(order[order[:, 0] == 1, 1])) == 5
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.sort(first, axis=0))
    np.testing.assert_array_equal(first, _epoch_order(sizes, 3, 0))
    assert not np.array_equal(first, _epoch_order(sizes, 4, 0))


def test_positions_run_through_the_epochs(loaded: LoadedSet) -> None:
    mixture = Mixture([loaded, replace(loaded, spec=replace(loaded.spec, count=2))], seed=0)
    assert len(mixture) == 9
    seen = [mixture.at(position)[0] for position in range(18)]
    assert (seen[:9].count(1), seen[9:].count(1)) == (2, 2)


def plain_batch(loaded: LoadedSet, pairs: list[tuple[int, int]], *, flow: bool) -> PairBatch:
    rows = [loaded.pairs[:, [1, 3]].tolist().index(list(pair)) for pair in pairs]
    return held_out_batch(loaded, rows, (48, 64), flow=flow)


def test_points_are_in_the_first_camera_in_both_orders(
    loaded: LoadedSet, world: PlaneWorld
) -> None:
    batch = plain_batch(loaded, [(0, 3), (1, 2)], flow=False)
    assert batch.images.shape == (4, 3, 48, 64)
    assert (batch.first.tolist(), batch.second.tolist()) == ([0, 1, 2, 3], [2, 3, 0, 1])
    frames = (0, 1, 3, 2)
    T = torch.from_numpy(world.T_world_camera)
    for k, (i, j) in enumerate(((0, 3), (1, 2), (3, 0), (2, 1))):
        assert (frames[batch.first[k]], frames[batch.second[k]]) == (i, j)
        np.testing.assert_allclose(batch.points1[k, ..., 2], world.depth[i], atol=1e-6)
        # back in the other camera, its own depth and pixels
        back = torch.linalg.inv(T[j]) @ T[i]
        own = batch.points2[k].double() @ back[:3, :3].T + back[:3, 3]
        np.testing.assert_allclose(own[..., 2], world.depth[j], atol=1e-5)
        uv = project(own.reshape(-1, 3), torch.from_numpy(world.K)).reshape(48, 64, 2)
        v, u = np.indices((48, 64))
        np.testing.assert_allclose(uv, np.stack([u, v], -1), atol=1e-3)
        image = ((batch.images[batch.first[k]] + 1) * 127.5).round().permute(1, 2, 0)
        np.testing.assert_array_equal(image, world.images[i])
        assert batch.valid1.all()
    assert not batch.visible12.any()


def test_static_matches_are_those_of_the_plane(loaded: LoadedSet, world: PlaneWorld) -> None:
    batch = plain_batch(loaded, [(0, 2)], flow=True)
    for k, (i, j) in enumerate(((0, 2), (2, 0))):
        T = np.linalg.inv(world.T_world_camera[j]) @ world.T_world_camera[i]
        there = batch.points1[k].numpy().astype(float) @ T[:3, :3].T + T[:3, 3]
        uv = there @ world.K.T
        uv = uv[..., :2] / uv[..., 2:]
        v, u = np.indices((48, 64))
        flow = uv - np.stack([u, v], -1)
        visible = batch.visible12[k].numpy()
        inside = ((uv > 0) & (uv < (63, 47))).all(-1)
        assert visible[inside & ~world.moving[i]].mean() > 0.9  # the rest is behind the patch
        assert not visible[world.moving[i]].any()
        assert not visible[~((uv > -0.5) & (uv < (63.5, 47.5))).all(-1)].any()
        np.testing.assert_allclose(batch.flow12[k].numpy()[visible], flow[visible], atol=1e-3)
        column, row = uv.round().astype(int)[visible].T
        seen = world.depth[j][row, column]
        assert (np.abs(there[visible][:, 2] - seen) <= DEPTH_TOLERANCE * seen).all()
    np.testing.assert_array_equal(batch.flow21[0], batch.flow12[1])
    np.testing.assert_array_equal(batch.visible21[0], batch.visible12[1])


def test_a_batch_is_a_pure_function_of_seed_and_number(loaded: LoadedSet) -> None:
    one, again, other, later = (
        sample_batch(Mixture([loaded], seed), number, 2, (32, 48), flow=True)
        for seed, number in ((0, 3), (0, 3), (1, 3), (0, 4))
    )
    assert one.images.shape == (4, 3, 32, 48)
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.points2, again.points2)
    assert not torch.equal(one.images, other.images)
    assert not torch.equal(one.images, later.images)
    # both orders show the same frames: augmentation is drawn once per view
    assert torch.equal(one.valid1[:2], one.valid2[2:])


def test_portrait_pictures_give_portrait_batches(tmp_path: Path) -> None:
    K = np.array([[50.0, 0, 23.5], [0, 50, 31.5], [0, 0, 1]])
    write_truth_folder(tmp_path, plane_world(3, K=K, size_hw=(64, 48)))
    tall = load_set(parse_data(f"folder:{tmp_path}"))
    for size in ((32, 48), (48, 32)):
        batch = sample_batch(Mixture([tall], 0), 0, 1, size, flow=False)
        assert batch.images.shape[-2:] == (48, 32)


def test_a_pair_without_depth_is_replaced(world: PlaneWorld, tmp_path: Path) -> None:
    """Frame 0 has too few pixels with depth: no batch shows it; nor are all pairs like that."""
    depth = world.depth.copy()
    depth[0] = 0
    depth[0, 0, :63] = 5
    write_truth_folder(tmp_path, replace(world, depth=depth))
    mixture = Mixture([load_set(parse_data(f"folder:{tmp_path}"))], 0)
    assert any(0 in mixture.sets[0].pairs[mixture.at(k)[1], [1, 3]] for k in range(8))
    for k in range(8):
        batch = sample_batch(mixture, k, 1, (48, 64), flow=False)
        assert batch.valid1.float().mean() > 0.99
    write_truth_folder(tmp_path, replace(world, depth=np.zeros_like(depth)))
    with pytest.raises(InputError, match="20 pairs in a row have fewer than 64 pixels"):
        sample_batch(Mixture([load_set(parse_data(f"folder:{tmp_path}"))], 0), 0, 1, (48, 64),
                     flow=False)  # fmt: skip


def test_pairs_of_two_cameras(world: PlaneWorld, tmp_path: Path) -> None:
    """DUSt3R's list of Waymo pairs may join cameras, whose poses are in one world."""
    write_waymo(tmp_path / "s.tfrecord", world, cameras=(1, 2))
    np.savez(
        tmp_path / "waymo_pairs.npz",
        scenes=np.array(["s.tfrecord"]),
        frames=np.array(["00000_1", "00003_2"]),
        pairs=np.array([[0, 0, 1]]),
    )
    loaded = load_set(parse_data(f"waymo:{tmp_path}"))
    assert loaded.pairs.tolist() == [[0, 0, 1, 3]]
    batch = held_out_batch(loaded, [0], (48, 64))
    np.testing.assert_allclose(batch.points1[1, ..., 2], world.depth[3], atol=1e-5)
