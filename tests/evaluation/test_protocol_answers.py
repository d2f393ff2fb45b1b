"""A known answer for every protocol: a tiny data set on disk, an estimate with known errors.

Paths: four cameras at the corners of a square of side 2, all looking along z. The estimate, in
another unit and world, raises and lowers them by `BENT` in turn, which no similarity undoes, and
turns the last one. Depth: 2 m everywhere; of the estimate, in another unit, 2 in 10 pixels are 1.2
times too far and 1 in 10 is twice too far. Masks: one sequence is right, the other one empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tests.datasets import test_kitti, test_scannet, test_sintel, test_tum
from tests.datasets.davis_tree import squares, write_sequence
from tests.datasets.plane_world import K, PlaneWorld, numbers, save_png, save_text
from tests.evaluation.scene_of_clip import scene_of

from dyn3r.datasets.sequence import Sequence
from dyn3r.evaluation.benchmark import Result, measure
from dyn3r.evaluation.benchmark_frames import prepare_clip, read_sequences, truth_of
from dyn3r.evaluation.benchmark_table import mean
from dyn3r.evaluation.protocols import PROTOCOLS, Protocol, find_protocol

SIZE_HW = (48, 64)
CORNERS = np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
BENT, TURNED = 0.1, 0.05
"""Error of the cameras' heights; rotation error of the last camera, radians."""
DEPTH = 2.0
ABS_REL, DELTA = 0.2 * 0.2 + 0.1 * 1.0, 0.9

Write = Callable[[Path, PlaneWorld], None]


def square(K: np.ndarray = K) -> PlaneWorld:
    """Frames at the corners; the depth is constant."""
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, 3] = CORNERS
    grey = np.random.default_rng(0).integers(60, 90, (4, *SIZE_HW, 3)).astype(np.uint8)
    return PlaneWorld(grey, np.full((4, *SIZE_HW), DEPTH), K, T, squares(4))


def write_tum(suffix: str) -> Write:
    def write(root: Path, world: PlaneWorld) -> None:
        folder = root / test_tum.NAME
        for time, image in zip(test_tum.TIMES, world.images):
            save_png(folder / f"rgb_{suffix}/{time:.6f}.png", image)
        lines = map(test_tum.pose_line, test_tum.TIMES, world.T_world_camera)
        save_text(folder / f"groundtruth_{suffix}.txt", *lines)

    return write


def write_odometry(root: Path, world: PlaneWorld) -> None:
    P = np.column_stack([world.K, np.zeros(3)])
    for i, image in enumerate(world.images):
        save_png(root / f"sequences/04/image_0/{i:06d}.png", image)
    save_text(root / "sequences/04/calib.txt", f"P0: {numbers(P)}")
    save_text(root / "poses/04.txt", *(numbers(T[:3]) for T in world.T_world_camera))


def write_scannet(root: Path, world: PlaneWorld) -> None:
    scene = root / test_scannet.NAME
    for i, image in enumerate(world.images):
        save_png(scene / f"color_90/frame_{i:04d}.png", image)
        save_png(scene / f"depth_90/frame_{i:04d}.png", np.ones(SIZE_HW, np.uint16))
    save_text(scene / "pose_90.txt", *(numbers(T) for T in world.T_world_camera))
    matrix = test_scannet.matrix(world.K)
    save_text(scene / "intrinsic/intrinsic_color.txt", *(numbers(row) for row in matrix))


def write_prepared(place: str, *more: str) -> Write:
    """The form of Easi3R's scripts, with empty maps of further kinds."""

    def write(root: Path, world: PlaneWorld) -> None:
        for i, T in enumerate(world.T_world_camera):
            camera = {"w2c": np.linalg.inv(T).tolist(), "K": world.K.tolist()}
            save_text(root / place / f"camera/0_{i:05d}.json", json.dumps(camera))
            save_png(root / place / f"rgb/0_{i:05d}.png", world.images[i])
            if more:
                save_png(root / place / f"masks/0_{i:05d}.png", world.moving[i])
                (root / place / "depth_npy").mkdir(exist_ok=True)
                np.save(root / place / f"depth_npy/0_{i:05d}.npy", np.ones(SIZE_HW, np.float32))

    return write


def write_folder(root: Path, world: PlaneWorld) -> None:
    for i, image in enumerate(world.images):
        save_png(root / f"walk/frames/{i}.png", image)
    np.savez(root / "walk/camera.npz", cam2world=world.T_world_camera, K=world.K)
    np.savez(root / "walk/depth.npz", depth=world.depth)
    np.savez(root / "walk/dynamic.npz", mask=world.moving)


CAMERAS: dict[str, Write] = {
    "monst3r/sintel-pose": lambda root, world: test_sintel.write_sequence(
        root / "training", "alley_2", world
    ),
    "monst3r/tum": write_tum("90"),
    "easi3r/tum": write_tum("all_stride30"),
    "dyn3r/kitti-odometry": write_odometry,
    "monst3r/scannet": write_scannet,
    "easi3r/adt": write_prepared("Apartment_release_work_seq140_1/prepare_all_stride5"),
    "easi3r/dycheck": write_prepared("spin/prepare_all_stride10", "masks", "depth_npy"),
    "dyn3r/folder": write_folder,
}


@pytest.mark.parametrize("name", CAMERAS)
def test_cameras(name: str, tmp_path: Path) -> None:
    CAMERAS[name](tmp_path, square(test_tum.K_FR3 if "tum" in name else K))
    protocol = find_protocol(name)
    (sequence,) = read_sequences(protocol, tmp_path)
    clip = prepare_clip(sequence, 64, stretch=protocol.stretch)
    truth = truth_of(sequence, clip.mapping, protocol)
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, 3] = CORNERS + np.outer([1, -1, 1, -1], [0, BENT, 0])
    T[3, :3, :3] = Rotation.from_rotvec([0, TURNED, 0]).as_matrix()
    unit, world = 3.0, Rotation.from_rotvec([0.3, -0.5, 0.9]).as_matrix()
    T[:, :3, 3] = unit * T[:, :3, 3] @ world.T + [4, 5, 6]
    T[:, :3, :3] = world @ T[:, :3, :3]
    scene = scene_of(clip, T_world_camera=T, K=truth.K * [[1.1], [1.1], [1]])
    metrics = measure(scene, truth, sequence, protocol).metrics
    # the mean square distance from the centre is 2, and 2 + BENT^2 of the estimate
    scale = 2 / (2 + BENT**2)
    assert metrics["ATE"] == pytest.approx(np.sqrt(2 * BENT**2 / (2 + BENT**2)), rel=1e-5)
    step = np.hypot(2 - 2 * scale, 2 * BENT * scale)
    assert metrics["RPEt"] == pytest.approx(step, rel=1e-5)
    assert metrics["RPEr"] == pytest.approx(np.rad2deg(TURNED) / np.sqrt(3), rel=1e-5)
    assert metrics["ATE/path"] == pytest.approx(metrics["ATE"] / 6, rel=1e-5)
    assert metrics["focal"] == pytest.approx(0.1, rel=1e-5)


def wrong_depth(n: int) -> np.ndarray:
    """The estimate (n, h, w): 1.2 and 2 times too far in columns of every ten, in another unit."""
    factor = np.array([1, 1, 1.2, 1, 1, 2, 1, 1, 1.2, 1])[np.arange(60) % 10]
    out = np.full((n, *SIZE_HW), 3 * DEPTH)
    out[:, :, :60] *= factor
    return out.astype(np.float32)


def known_truth(n: int) -> np.ndarray:
    """True depth (n, h, w), unknown at the right edge."""
    out = np.full((n, *SIZE_HW), DEPTH)
    out[:, :, 60:] = 0
    return out


def write_sintel_depth(root: Path) -> None:
    for name, n in (("alley_2", 3), ("ambush_4", 1)):
        true = known_truth(n)
        true[:, 40:44], true[:, 44:] = 70, 9000  # the limit, and the sky
        for i in range(n):
            file = f"{name}/frame_{i + 1:04d}"
            save_png(root / f"training/final/{file}.png", square().images[i])
            test_sintel.write_tagged(root / f"training/depth/{file}.dpt", true[i][..., None])


def write_bonn_depth(root: Path) -> None:
    for name, n in (("balloon2", 3), ("crowd2", 1)):
        folder = root / f"rgbd_bonn_{name}"
        for i, time in enumerate(test_tum.TIMES[:n]):
            save_png(folder / f"rgb_110/{time:.5f}.png", square().images[i])
            depth = (5000 * known_truth(1)[0]).astype(np.uint16)
            save_png(folder / f"depth_110/{time:.5f}.png", depth)
        line = test_tum.pose_line(test_tum.TIMES[0], np.eye(4))
        save_text(folder / "groundtruth_110.txt", line)


def write_kitti_depth(root: Path) -> None:
    for number, n in (("0002", 3), ("0005", 1)):
        drive = f"2011_09_26_drive_{number}_sync_02"
        for i in range(n):
            base = root / test_kitti.GATHERED
            save_png(base / f"image_gathered/{drive}/{i + 5:010d}.png", square().images[i])
            depth = (256 * known_truth(1)[0]).astype(np.uint16)
            save_png(base / f"groundtruth_depth_gathered/{drive}/{i + 5:010d}.png", depth)


def write_selection(root: Path) -> None:
    for i in (5, 8):
        base, drive = root / test_kitti.GATHERED, "2011_09_26_drive_0002_sync"
        save_png(base / f"image/{drive}_image_{i:010d}_image_02.png", square().images[0])
        depth = (256 * known_truth(1)[0]).astype(np.uint16)
        depth[:, : 40 * (i == 8)] = 0  # the second one has 20 of 60 columns
        save_png(base / f"groundtruth_depth/{drive}_groundtruth_depth_{i:010d}_image_02.png", depth)


def write_nyu(root: Path) -> None:
    (root / "val/nyu_depths").mkdir(parents=True)
    for i in (1, 2):
        save_png(root / f"val/nyu_images/{i:05d}.png", square().images[0])
        depth = known_truth(1)[0].astype(np.float32)
        depth[:, : 40 * (i == 2)] = 0
        np.save(root / f"val/nyu_depths/{i:05d}.npy", depth)


DEPTHS: dict[str, tuple[Callable[[Path], None], float]] = {
    "monst3r/sintel-depth": (write_sintel_depth, 3 / 4),
    "monst3r/sintel-depth-lad2": (write_sintel_depth, 3 / 4),
    "cut3r/sintel-depth": (write_sintel_depth, 3 / 4),
    "monst3r/bonn": (write_bonn_depth, 3 / 4),
    "monst3r/bonn-lad2": (write_bonn_depth, 3 / 4),
    "cut3r/bonn": (write_bonn_depth, 3 / 4),
    "monst3r/kitti": (write_kitti_depth, 3 / 4),
    "monst3r/kitti-lad2": (write_kitti_depth, 3 / 4),
    "cut3r/kitti": (write_kitti_depth, 3 / 4),
    "dyn3r/kitti-selection": (write_selection, 3 / 4),
    "monst3r/nyu": (write_nyu, 3 / 4),
}
"""Writer, and the share of the valid pixels that the first sequence has."""


@pytest.mark.parametrize("name", DEPTHS)
def test_depth(name: str, tmp_path: Path) -> None:
    """The first sequence has the errors; the second one is right, but for a scale of its own."""
    write, share = DEPTHS[name]
    write(tmp_path)
    protocol = find_protocol(name)
    wrong, right = read_sequences(protocol, tmp_path)
    results = [
        result_of(wrong, protocol, depth=wrong_depth(len(wrong))),
        result_of(right, protocol, depth=np.full((len(right), *SIZE_HW), 0.7, np.float32)),
    ]
    rows = 40 if "sintel" in name else 48
    assert results[0].pixels == len(wrong) * rows * 60
    assert results[0].pixels == pytest.approx(share * sum(r.pixels for r in results))
    # the median and the scale of least absolute error are both that of the 7 in 10 pixels
    tolerance = 1e-5 if protocol.depth_alignment == "median" else 0.02
    assert results[0].metrics["abs rel"] == pytest.approx(ABS_REL, rel=tolerance)
    assert results[0].metrics["d<1.25"] == pytest.approx(DELTA)
    assert results[1].metrics["abs rel"] == pytest.approx(0, abs=1e-3)
    assert mean(results, "abs rel", protocol.average) == pytest.approx(
        share * ABS_REL, rel=tolerance, abs=1e-3
    )


def write_davis(root: Path) -> None:
    for name, n in (("cows", 3), ("dog", 2)):
        write_sequence(root / "DAVIS", name, squares(n))


def write_sintel_masks(root: Path) -> None:
    world = square()
    for name, n in (("alley_2", 4), ("ambush_4", 3)):  # the last frame has no mask
        fields = {key: value[:n] for key, value in vars(world).items() if key != "K"}
        test_sintel.write_sequence(root / "training", name, replace(world, **fields))


MASKS: dict[str, Callable[[Path], None]] = {
    "easi3r/davis-16": write_davis,
    "easi3r/davis-17": write_davis,
    "easi3r/davis-all": write_davis,
    "dyn3r/sintel-masks": write_sintel_masks,
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str, tmp_path: Path) -> None:
    """Half of the object in 3 frames of 5: frames have one weight, sequences another."""
    MASKS[name](tmp_path)
    protocol = find_protocol(name)
    half, none = read_sequences(protocol, tmp_path)
    assert [len(half), len(none)] == [3, 2]
    mask = squares(3)
    mask[:, :22] = False  # 10 of 16 rows are found
    results = [
        result_of(half, protocol, dynamic=mask),
        result_of(none, protocol, dynamic=np.zeros((2, *SIZE_HW), bool)),
    ]
    for metric, value in (("JM", 10 / 16), ("JR", 1.0)):
        assert results[0].metrics[metric] == pytest.approx(value)
        assert mean(results, metric, "frames") == pytest.approx(3 / 5 * value)
        assert mean(results, metric, "sequences") == pytest.approx(value / 2)
    assert protocol.average == "frames"


def result_of(sequence: Sequence, protocol: Protocol, **estimate: np.ndarray) -> Result:
    clip = prepare_clip(sequence, 64, stretch=protocol.stretch)
    assert clip.size_hw == SIZE_HW
    truth = truth_of(sequence, clip.mapping, protocol)
    return measure(scene_of(clip, **estimate), truth, sequence, protocol)


def test_every_protocol_has_an_answer() -> None:
    assert {p.name for p in PROTOCOLS} == {*CAMERAS, *DEPTHS, *MASKS}
