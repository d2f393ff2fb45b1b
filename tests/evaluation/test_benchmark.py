"""Protocols, frames, measures, means, tables and runs of the benchmark."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.datasets.davis_tree import break_mask, squares, write_sequence
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.evaluation.scene_of_clip import reconstruct, scene_of
from tests.factories import tiny_network

from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import CheckpointError, InputError
from dyn3r.evaluation import benchmark_run
from dyn3r.evaluation.benchmark import Result
from dyn3r.evaluation.benchmark import measure as measure_with
from dyn3r.evaluation.benchmark_frames import (
    numbering_gaps,
    prepare_clip,
    read_sequences,
    truth_of,
)
from dyn3r.evaluation.benchmark_run import BenchmarkSettings, read_results, run_benchmark
from dyn3r.evaluation.benchmark_table import mean, runs_table, sequence_csv, sequence_table
from dyn3r.evaluation.completeness import shortfalls
from dyn3r.evaluation.protocols import DEFAULTS, METRICS, PROTOCOLS, Protocol, find_protocol
from dyn3r.io.images import frame_mapping, resize_nearest
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.network.model import Model, load_model
from dyn3r.scene import Scene

ALL = range(400)
FRAMES = {
    "easi3r/davis-16": ALL,
    "easi3r/davis-17": ALL,
    "easi3r/davis-all": ALL,
    "monst3r/sintel-pose": ALL,
    "dyn3r/sintel-masks": range(399),
    "monst3r/sintel-depth": ALL,
    "monst3r/sintel-depth-lad2": ALL,
    "cut3r/sintel-depth": ALL,
    "monst3r/tum": range(0, 270, 3),
    "easi3r/tum": range(0, 400, 30),
    "monst3r/bonn": range(30, 140),
    "monst3r/bonn-lad2": range(30, 140),
    "cut3r/bonn": range(30, 140),
    "monst3r/kitti": range(110),
    "monst3r/kitti-lad2": range(110),
    "cut3r/kitti": range(110),
    "dyn3r/kitti-selection": ALL,
    "dyn3r/kitti-odometry": ALL,
    "monst3r/nyu": ALL,
    "monst3r/scannet": range(0, 270, 3),
    "easi3r/adt": range(0, 400, 5),
    "easi3r/dycheck": range(0, 400, 10),
    "dyn3r/folder": ALL,
}
"""Frames of a sequence of 400 that each protocol takes. Source: DATASETS.md, 2."""
DAVIS_16 = [
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
    "dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf",
    "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox",
]  # fmt: skip
DAVIS_17 = [
    *DAVIS_16, "bike-packing", "dogs-jump", "gold-fish", "india", "judo", "lab-coat", "loading",
    "mbike-trick", "pigs", "shooting",
]  # fmt: skip
SINTEL_FRAMES = {"ambush_2": 21, "ambush_4": 33, "ambush_6": 20, "market_6": 40}
"""Sequences that don't have 50 frames."""


def fake_sequence(name: str = "one", n: int = 400, **truth: object) -> Sequence:
    """Frames whose only pixel values are their own number."""
    return Sequence(
        name=name,
        frame_names=tuple(str(i) for i in range(n)),
        image=lambda i: np.full((48, 64, 3), i % 256, np.uint8),
        **truth,
    )  # fmt: skip


def no_truth(index: int) -> np.ndarray:
    raise AssertionError("truth is read when it is compared")


def read(
    protocol: str, found: list[Sequence], monkeypatch: pytest.MonkeyPatch, *names: str
) -> list[Sequence]:
    """`read_sequences` of a data set that has these sequences, with all kinds of truth."""
    chosen = find_protocol(protocol)
    found = [
        replace(s, mask=no_truth, depth=no_truth, K=np.tile(np.eye(3), (len(s), 1, 1)))
        for s in found
    ]
    monkeypatch.setattr(f"dyn3r.datasets.{chosen.dataset}.sequences", lambda root: found)
    return read_sequences(chosen, Path(), names)


class TestProtocols:
    def test_every_protocol_is_in_the_table(self) -> None:
        assert {p.name for p in PROTOCOLS} == set(FRAMES)
        assert set(DEFAULTS.values()) <= set(FRAMES)
        assert all(set(p.metrics) <= set(METRICS) for p in PROTOCOLS)
        assert all(set(row.values) <= set(p.metrics) for p in PROTOCOLS for row in p.published)

    @pytest.mark.parametrize("name", FRAMES)
    def test_frames(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = (find_protocol(name).sequences or ("one",))[0]
        (sequence,) = read(name, [fake_sequence(chosen)], monkeypatch)
        assert sequence.frame_names == tuple(str(i) for i in FRAMES[name])
        last = FRAMES[name][-1]
        assert sequence.image(len(sequence) - 1)[0, 0, 0] == last % 256

    def test_published_numbers_of_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, total, length in (("tum", 720, 400), ("adt", 480, 300), ("bonn", 550, 400)):
            protocol = find_protocol(name)
            found = [fake_sequence(s, length) for s in protocol.sequences]
            assert sum(len(s) for s in read(name, found, monkeypatch)) == protocol.frames == total
        sintel = find_protocol("monst3r/sintel-pose")
        assert len(sintel.sequences) == 14
        assert sum(SINTEL_FRAMES.get(s, 50) for s in sintel.sequences) == sintel.frames == 643
        for name in ("monst3r/sintel-depth", "cut3r/sintel-depth", "monst3r/sintel-depth-lad2"):
            missing = sum(50 - n for n in SINTEL_FRAMES.values())
            assert find_protocol(name).frames == 23 * 50 - missing == 1064

    @pytest.mark.parametrize("name", ["monst3r/tum", "easi3r/tum", "monst3r/scannet",
                                      "monst3r/bonn", "easi3r/adt", "easi3r/dycheck"])  # fmt: skip
    def test_prepared_frames_are_not_strided_again(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = (find_protocol(name).sequences or ("one",))[0]
        prepared = fake_sequence(chosen, len(FRAMES[name]), prepared_for=name)
        (sequence,) = read(name, [prepared], monkeypatch)
        assert len(sequence) == len(FRAMES[name])
        another = "dyn3r/sintel-masks"
        other = fake_sequence(chosen, 90, prepared_for=another)
        with pytest.raises(InputError, match=rf"^{chosen}: .* prepared for {another}.*{name}"):
            read(name, [other], monkeypatch)

    @pytest.mark.parametrize("name", ["monst3r/bonn-lad2", "cut3r/bonn"])
    def test_protocols_of_the_same_frames_share_prepared_ones(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepared = fake_sequence("crowd2", 110, prepared_for="monst3r/bonn")
        (sequence,) = read(name, [prepared], monkeypatch)
        assert len(sequence) == 110

    def test_a_sequence_that_ends_before_the_first_frame(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(
            InputError, match=r"^crowd2: cut3r/bonn takes the frames from number 30 on, found 30"
        ):
            read("bonn", [fake_sequence("crowd2", 30)], monkeypatch)

    def test_sequences(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert set(find_protocol("davis").sequences) == set(DAVIS_16)
        assert set(find_protocol("easi3r/davis-17").sequences) == set(DAVIS_17)
        assert find_protocol("easi3r/davis-all").sequences is None
        assert len(find_protocol("kitti").sequences) == 13
        assert all("_release_" in name for name in find_protocol("adt").sequences)
        bonn = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
        found = [fake_sequence(name, 150) for name in (*bonn, "balloon")]
        assert tuple(s.name for s in read("bonn", found, monkeypatch)) == bonn
        (only,) = read("bonn", found, monkeypatch, "balloon")
        assert only.name == "balloon"
        with pytest.raises(InputError, match="no sequence 'x': it has balloon2, "):
            read("bonn", found, monkeypatch, "x")
        with pytest.raises(InputError, match="none of the sequences of cut3r/bonn"):
            read("bonn", found[-1:], monkeypatch)

    def test_their_names_are_in_the_manual(self) -> None:
        manual = (Path(__file__).parents[2] / "docs/benchmark.md").read_text()
        for protocol in PROTOCOLS:
            assert f"`{protocol.name}`" in manual
            for name in (*(protocol.sequences or ()), *protocol.exclude):
                assert name in manual, name

    def test_a_root_without_the_truth_stops_at_once(
        self, world: PlaneWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bare = world_sequence(world, T_world_camera=None, K=None, mask=None)
        monkeypatch.setattr("dyn3r.datasets.sintel.sequences", lambda root: [bare])
        with pytest.raises(
            InputError, match=r"has no true cameras, which .* compares: found images, depth$"
        ):
            read_sequences(find_protocol("sintel"), Path(), ("plane",))

    def test_excluded_scenes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [fake_sequence(f"scene{n:04d}_00", 4) for n in range(707, 807)]
        kept = {s.name for s in read("scannet", found, monkeypatch)}
        assert len(kept) == 94
        for n in ("0711", "0737", "0750", "0761", "0791", "0796"):
            assert f"scene{n}_00" not in kept

    def test_how_frames_are_brought_to_the_network_and_compared(self) -> None:
        stretched = {p.name for p in PROTOCOLS if p.stretch}
        assert stretched == {"monst3r/sintel-depth", "cut3r/sintel-depth", "monst3r/bonn",
                             "monst3r/kitti", "monst3r/nyu", "easi3r/dycheck",
                             "monst3r/sintel-depth-lad2", "monst3r/bonn-lad2",
                             "monst3r/kitti-lad2", "dyn3r/kitti-selection", "cut3r/bonn",
                             "cut3r/kitti"}  # fmt: skip
        cut = {p.name for p in PROTOCOLS if p.max_depth == 70}
        assert cut == {"monst3r/sintel-depth", "cut3r/sintel-depth", "monst3r/bonn",
                       "monst3r/sintel-depth-lad2", "monst3r/bonn-lad2", "cut3r/bonn"}  # fmt: skip
        steps = {p.name for p in PROTOCOLS if p.depth_alignment == "lad2"}
        assert steps == {name for name in FRAMES if name.endswith("-lad2")}
        least = {p.name for p in PROTOCOLS if p.depth_alignment == "scale_weiszfeld"}
        assert least == {name for name in FRAMES if name.startswith("cut3r/")}
        for p in PROTOCOLS:
            of = {"masks": "frames", "cameras": "sequences", "depth": "pixels"}
            assert p.average == of[p.tasks[0]]

    @pytest.mark.parametrize(
        ("name", "method", "values"),
        [
            ("easi3r/davis-16", "Easi3R (MonST3R)", {"JM": 0.577, "JR": 0.716}),
            ("easi3r/davis-17", "DUSt3R + flow", {"JM": 0.352, "JR": 0.353}),
            ("easi3r/davis-all", "MonST3R + flow", {"JM": 0.367, "JR": 0.343}),
            ("monst3r/sintel-pose", "MonST3R", {"ATE": 0.108, "RPEt": 0.042, "RPEr": 0.732}),
            ("monst3r/tum", "CUT3R", {"ATE": 0.046, "RPEt": 0.015, "RPEr": 0.473}),
            ("easi3r/tum", "MonST3R", {"ATE": 0.183, "RPEt": 0.148, "RPEr": 6.985}),
            ("cut3r/bonn", "MonST3R", {"abs rel": 0.067, "d<1.25": 0.963}),
            ("monst3r/sintel-depth-lad2", "MonST3R", {"abs rel": 0.335, "d<1.25": 0.585}),
            ("monst3r/kitti-lad2", "MonST3R, updated setting", {"abs rel": 0.089, "d<1.25": 0.911}),
            ("monst3r/bonn-lad2", "MonST3R", {"abs rel": 0.063, "d<1.25": 0.964}),
            ("cut3r/kitti", "CUT3R", {"abs rel": 0.118, "d<1.25": 0.881}),
            ("cut3r/kitti", "MonST3R", {"abs rel": 0.168, "d<1.25": 0.744}),
            ("easi3r/dycheck", "DUSt3R", {"ATE": 0.035, "RPEt": 0.030, "RPEr": 2.323}),
        ],
    )
    def test_published_values(self, name: str, method: str, values: dict) -> None:
        (row,) = (row for row in find_protocol(name).published if row.method == method)
        assert row.values == values
        assert row.source

    def test_unknown_names(self) -> None:
        with pytest.raises(InputError, match=r"'kiti': choose one of davis, .*easi3r/tum"):
            find_protocol("kiti")


class TestFrames:
    @pytest.mark.parametrize(
        ("source_wh", "crop_wh", "stretch_wh"),
        [
            ((1024, 436), (512, 208), (512, 208)),
            ((854, 480), (512, 288), (512, 288)),
            ((640, 480), (512, 384), (512, 384)),
            ((1242, 375), (512, 144), (512, 144)),
            ((512, 512), (512, 384), None),
        ],
    )
    def test_sizes(self, source_wh: tuple, crop_wh: tuple, stretch_wh: tuple | None) -> None:
        w, h = source_wh
        picture = np.zeros((h, w, 3), np.uint8)
        sequence = Sequence("one", ("0",), image=lambda i: picture)
        assert prepare_clip(sequence, 512).size_hw == crop_wh[::-1]
        if stretch_wh is not None:
            clip = prepare_clip(sequence, 512, stretch=True)
            assert clip.size_hw == clip.mapping.resized_hw == stretch_wh[::-1]
            assert clip.mapping.crop_xy == (0, 0)

    def test_a_stretched_point_stays_at_its_relative_place(self) -> None:
        K = np.array([[[200.0, 0, 120.5], [0, 210, 50.25], [0, 0, 1]]])
        row = np.linspace(0, 255, 256).astype(np.uint8)
        picture = np.tile(row[None, :, None], (109, 1, 3))
        sequence = Sequence("one", ("0",), image=lambda i: picture, K=K,
                            T_world_camera=np.eye(4)[None])  # fmt: skip
        clip = prepare_clip(sequence, 128, stretch=True)
        assert clip.size_hw == (48, 128)  # 128x54 after a crop's resize
        protocol = replace(find_protocol("dycheck"), stretch=True)
        K_small = truth_of(sequence, clip.mapping, protocol).K
        points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (50, 3))
        large, small = (points @ k[0].T for k in (K, K_small))
        for axis, (whole, part) in enumerate(((256, 128), (109, 48))):
            was = (large[:, axis] / large[:, 2] + 0.5) / whole
            now = (small[:, axis] / small[:, 2] + 0.5) / part
            np.testing.assert_allclose(now, was, atol=1e-12)
        # and the pixels went there too
        np.testing.assert_allclose(clip.images[0, 20, 2:-2, 0], 2 * np.arange(2, 126) + 0.5, atol=1)

    def test_cropped_truth(self) -> None:
        mask = np.random.default_rng(0).random((110, 150)) > 0.5
        depth = mask + np.float32(1)
        sequence = Sequence("one", ("0",), image=lambda i: np.zeros((110, 150, 3), np.uint8),
                            mask=lambda i: mask, depth=lambda i: depth)  # fmt: skip
        mapping = frame_mapping((110, 150), size=64)
        truth = truth_of(sequence, mapping, find_protocol("folder"))
        np.testing.assert_array_equal(truth.dynamic[0], resize_nearest(mask, mapping))
        np.testing.assert_array_equal(truth.depth[0], resize_nearest(depth, mapping))
        assert truth.T_world_camera is truth.K is None

    def test_truth_of_another_shape_is_refused(self) -> None:
        mapping = frame_mapping((48, 64), size=64)
        for what, kind in (("mask", bool), ("depth", np.float32)):
            sequence = replace(
                fake_sequence(n=1), **{what: lambda i, kind=kind: np.ones((48, 66), kind)}
            )
            with pytest.raises(
                InputError, match=rf"^one: the true {what} of frame 0 is 66x48, .* image, 64x48"
            ):
                truth_of(sequence, mapping, find_protocol("folder"))

    def test_times_and_names(self) -> None:
        clip = prepare_clip(fake_sequence(n=3, fps=10.0), 64)
        np.testing.assert_allclose(clip.times_s, [0, 0.1, 0.2])
        clip = prepare_clip(fake_sequence(n=2, times_s=np.array([5.0, 5.5])), 64)
        np.testing.assert_allclose(clip.times_s, [0, 0.5])
        assert clip.names == ("0", "1")

    def test_frames_of_different_sizes_are_refused(self) -> None:
        sequence = Sequence(
            "one", ("a", "b"), image=lambda i: np.zeros((48, 64 + 16 * i, 3), np.uint8)
        )
        with pytest.raises(InputError, match="one: frame b has another size"):
            prepare_clip(sequence, 64)


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def world_sequence(world: PlaneWorld, **changes: object) -> Sequence:
    fields: dict = {
        "name": "plane",
        "frame_names": tuple(str(i) for i in range(len(world))),
        "image": lambda i: world.images[i],
        "depth": lambda i: world.depth[i].astype(np.float32),
        "mask": lambda i: world.moving[i],
        "T_world_camera": world.T_world_camera,
        "K": np.tile(world.K, (len(world), 1, 1)),
    }
    return Sequence(**(fields | changes))


def measure(scene: Scene, sequence: Sequence, protocol: Protocol, **more: Any) -> Result:
    """The result of a scene, with the truth of its sequence."""
    return measure_with(
        scene, truth_of(sequence, scene.mapping, protocol), sequence, protocol, **more
    )


def true_scene(world: PlaneWorld, sequence: Sequence, **changes: object) -> Scene:
    fields: dict = {
        "depth": world.depth.astype(np.float32),
        "dynamic": world.moving,
        "K": np.tile(world.K, (len(world), 1, 1)),
        "T_world_camera": world.T_world_camera,
    }
    return scene_of(prepare_clip(sequence, 64), **(fields | changes))


class TestMeasure:
    def test_a_perfect_scene_in_another_unit(self, world: PlaneWorld) -> None:
        sequence = world_sequence(world)
        T = world.T_world_camera.copy()
        T[:, :3, 3] *= 3
        depth = 3 * world.depth.astype(np.float32)
        scene = true_scene(world, sequence, depth=depth, T_world_camera=T)
        result = measure(scene, sequence, find_protocol("folder"), seconds=2.5)
        m = result.metrics
        assert (m["JM"], m["JR"], m["false moving"], m["d<1.25"]) == (1, 1, 0, 1)
        for name in ("ATE", "RPEt", "RPEr", "ATE/path", "focal", "abs rel"):
            assert m[name] == pytest.approx(0, abs=1e-6)
        assert result.pixels == 5 * 48 * 64
        assert result.frames == 5
        assert result.seconds == 2.5
        assert result.baseline["JM"] == 0
        assert result.baseline["false moving"] == 0
        assert result.baseline["abs rel"] > 0.05
        assert result.per_frame["J"] == [1] * 5
        assert len(result.curves["path"]) == 5
        assert result.curves["masks"]["true"] == world.moving.sum()
        written = result.to_json()
        assert json.loads(json.dumps(written, allow_nan=False)) == written

    def test_wrong_masks(self, world: PlaneWorld) -> None:
        sequence = world_sequence(world)
        scene = true_scene(world, sequence, dynamic=~world.moving)
        result = measure(scene, sequence, find_protocol("easi3r/davis-all"))
        assert (result.metrics["JM"], result.metrics["JR"]) == (0, 0)
        assert result.metrics["false moving"] == 1
        assert "ATE" not in result.metrics
        assert "abs rel" not in result.metrics

    def test_stretched_depth_is_compared_at_the_size_of_the_truth(self, world: PlaneWorld) -> None:
        def plane(h: int, w: int) -> np.ndarray:
            v, u = (np.indices((h, w)) + 0.5) / np.array([h, w])[:, None, None]
            return (2 + u + 2 * v).astype(np.float32)

        true = plane(96, 128)
        true[:9, :10] = 70  # at the limit: left out
        true[-9:, :10] = 500
        true[40, :7] = 0
        sequence = world_sequence(world, depth=lambda i: true)
        depth = np.tile(3 * plane(48, 64), (5, 1, 1))
        protocol = find_protocol("monst3r/sintel-depth")
        clip = prepare_clip(sequence, 64, stretch=True)
        result = measure(scene_of(clip, depth=depth), sequence, protocol)
        assert result.pixels == 5 * (96 * 128 - 180 - 7)
        assert result.metrics["abs rel"] < 1e-3
        assert result.metrics["d<1.25"] == 1
        whole = measure(scene_of(clip, depth=depth), sequence, replace(protocol, max_depth=1e9))
        assert whole.pixels == 5 * (96 * 128 - 7)
        assert whole.metrics["d<1.25"] == pytest.approx(1 - 180 / (96 * 128 - 7))

    def test_the_published_scale_and_shift_are_hardly_a_fit(self, world: PlaneWorld) -> None:
        """A shift of 5 is not found by steps that move by about 0.1; the median scale is kept."""
        depth = world.depth.astype(np.float32)
        true = 3 * depth + 5
        sequence = world_sequence(world, depth=lambda i: true[i])
        clip = prepare_clip(sequence, 64, stretch=True)
        scene = scene_of(clip, depth=depth)
        errors = {
            alignment: measure(
                scene, sequence,
                replace(find_protocol("monst3r/bonn-lad2"), depth_alignment=alignment),
            ).metrics["abs rel"]
            for alignment in ("median", "lad2", "scale_shift")
        }  # fmt: skip
        assert errors["scale_shift"] < 1e-5
        assert 0.9 * errors["median"] < errors["lad2"] < errors["median"]

    def test_depth_of_another_size_than_the_image(self, world: PlaneWorld) -> None:
        small = world.depth[:, ::2, ::2].astype(np.float32)
        sequence = world_sequence(world, depth=lambda i: small[i])
        depth = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
        result = measure(
            true_scene(world, sequence, depth=depth), sequence, find_protocol("folder")
        )
        assert result.metrics["abs rel"] == pytest.approx(0, abs=1e-6)
        assert result.pixels == 5 * 48 * 64

    def test_frames_without_a_true_camera(self, world: PlaneWorld) -> None:
        T = world.T_world_camera.copy()
        T[1], T[4] = np.nan, np.nan
        sequence = world_sequence(world, T_world_camera=T)
        result = measure(true_scene(world, sequence), sequence, find_protocol("tum"))
        assert result.metrics["ATE"] == pytest.approx(0, abs=1e-9)
        assert np.isnan(result.per_frame["distance"]).tolist() == [False, True, False, False, True]
        written = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert written["per_frame"]["distance"][1] is None
        assert written["curves"]["true path"][4] == [None] * 3

    def test_no_true_camera_at_all(self, world: PlaneWorld) -> None:
        T = np.full((5, 4, 4), np.nan)
        sequence = world_sequence(world, T_world_camera=T)
        result = measure(true_scene(world, sequence), sequence, find_protocol("tum"))
        assert set(result.metrics) == {"focal"}
        bare = replace(sequence, K=None)
        with pytest.raises(InputError, match=r"^plane has no truth for cameras, which monst3r/tum"):
            measure(true_scene(world, bare), bare, find_protocol("tum"))

    def test_a_still_camera_has_no_error_of_the_path(self, world: PlaneWorld) -> None:
        sequence = world_sequence(world, T_world_camera=np.tile(np.eye(4), (5, 1, 1)))
        result = measure(true_scene(world, sequence), sequence, find_protocol("tum"))
        assert result.to_json()["metrics"]["ATE"] is None

    @pytest.mark.parametrize(("name", "lacks"), [("davis", "masks"), ("bonn", "depth"),
                                                 ("folder", "cameras, depth, masks")])  # fmt: skip
    def test_no_truth(self, name: str, lacks: str) -> None:
        sequence = fake_sequence("bare", 2)
        with pytest.raises(InputError, match=f"^bare has no truth for {lacks}"):
            measure(scene_of(prepare_clip(sequence, 64)), sequence, find_protocol(name))


def result(name: str, frames: int, jm: float | None, **more: object) -> Result:
    protocol = str(more.pop("protocol", "easi3r/davis-16"))
    metrics = {"JM": jm, "JR": jm}
    fields: dict = {"metrics": metrics, "baseline": {"JM": 0.0, "JR": 0.0}, "seconds": 1.0}
    return Result(protocol, name, frames, **(fields | more))


def failed(name: str, frames: int) -> Result:
    return Result("easi3r/davis-16", name, frames, "failed", "it broke")


def davis_results(frames: int = 1376) -> list[Result]:
    """A result of every sequence of DAVIS-16."""
    lengths = [68] * 19 + [frames - 19 * 68]
    return [result(name, n, 0.25) for name, n in zip(DAVIS_16, lengths)]


def table_rows(table: str) -> dict[str, list[str]]:
    """First cell -> the others, of a Markdown table."""
    rows = [[c.strip() for c in x.split("|")[1:-1]] for x in table.splitlines() if "|" in x]
    return {row[0]: row[1:] for row in rows}


class TestCompleteness:
    @pytest.mark.parametrize(
        ("names", "gaps"),
        [
            ("00000 00001 00002", []),
            ("00000 00001 00003 00004", ["no frame between 00001 and 00003"]),
            ("frame_0001 frame_0004 frame_0010", ["no frame between frame_0004 and frame_0010"]),
            ("9 10 12", ["no frame between 10 and 12"]),
            ("1305031102.175304 1305031102.211214 1305031102.275326", []),  # time stamps
            ("a b c", []),
            ("a1 b7 a9", []),
            ("0007", []),
        ],
    )
    def test_gaps_in_the_numbering(self, names: str, gaps: list[str]) -> None:
        assert numbering_gaps(tuple(names.split())) == gaps

    def test_many_gaps_are_counted(self) -> None:
        names = [str(i) for i in range(20) if i % 3]
        assert numbering_gaps(tuple(names))[2:] == ["no frame between 8 and 10", "3 more gaps"]

    def test_a_gap_shows_after_the_stride(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = fake_sequence(find_protocol("adt").sequences[0], 300)
        found = found.select([i for i in range(300) if i != 13])
        (sequence,) = read("adt", [found], monkeypatch)
        assert numbering_gaps(sequence.frame_names) == ["no frame between 10 and 16"]

    def test_sequences(self) -> None:
        davis, dycheck = find_protocol("davis"), find_protocol("dycheck")
        whole = davis_results()
        assert shortfalls(davis, whole) == []
        assert shortfalls(davis, whole[1:]) == ["19 of 20 sequences"]
        assert shortfalls(davis, [*whole, result("india", 81, 0.5)]) == ["also india"]
        assert shortfalls(davis, whole, shortened=True) == ["not all frames of the protocol"]
        some = [result(str(i), 9, None, metrics=dict.fromkeys(("ATE", "RPEt", "RPEr"), 0.1))
                for i in range(12)]  # fmt: skip
        assert shortfalls(dycheck, some) == []
        assert shortfalls(dycheck, some[1:]) == ["11 of 12 sequences"]
        one_more = replace(some[0], sequence="more")
        assert shortfalls(dycheck, [*some, one_more]) == ["13 sequences, not 12"]
        assert shortfalls(find_protocol("folder"), some) == []

    def test_frames_and_truth(self) -> None:
        davis = find_protocol("davis")
        assert shortfalls(davis, davis_results(1375)) == ["1375 of 1376 frames"]
        whole = davis_results()
        whole[3] = replace(whole[3], missing=["no frame between 1 and 3", "x"])
        whole[5] = replace(whole[5], metrics={"JM": 0.0, "JR": None})
        whole[6] = replace(whole[6], metrics={"JM": float("nan"), "JR": 0.0})
        said = ["camel: no frame between 1 and 3, x", "car-shadow: no JR", "cows: no JM"]
        assert shortfalls(davis, whole) == said
        table = sequence_table(davis, whole)
        assert f"Partial: {'; '.join(said)}. Published" in table
        assert "published:" not in table

    def test_a_failed_sequence_is_there(self) -> None:
        whole = davis_results()
        whole[0] = failed(whole[0].sequence, whole[0].frames)
        assert shortfalls(find_protocol("davis"), whole) == []

    def test_truth_of_some_frames(self, world: PlaneWorld) -> None:
        T = world.T_world_camera.copy()
        T[1] = np.nan
        depth = world.depth.astype(np.float32)
        depth[2:4] = 0
        numbered = tuple(str(i) for i in (0, 1, 2, 4, 5))
        sequence = world_sequence(
            world, T_world_camera=T, depth=lambda i: depth[i], frame_names=numbered
        )
        result = measure(true_scene(world, sequence), sequence, find_protocol("folder"))
        assert result.missing == ["no frame between 2 and 4", "1 of 5 frames have no true camera",
                                  "2 of 5 frames have no true depth"]  # fmt: skip
        whole = world_sequence(world)
        assert measure(true_scene(world, whole), whole, find_protocol("folder")).missing == []

    def test_depth_that_is_all_too_far_is_a_truth(self, world: PlaneWorld) -> None:
        depth = np.where(np.arange(5)[:, None, None] == 2, 90, world.depth).astype(np.float32)
        sequence = world_sequence(world, depth=lambda i: depth[i])
        protocol = replace(find_protocol("bonn"), stretch=False)
        result = measure(true_scene(world, sequence), sequence, protocol)
        assert result.pixels == 4 * 48 * 64
        assert result.missing == []


class TestMeansAndTables:
    def test_ten_perfect_frames_and_two_without_overlap(self) -> None:
        """The known answer of the published evaluator: DATASETS.md, 0, finding 1."""
        both = [result("a", 10, 1.0), result("b", 2, 0.0)]
        for metric in ("JM", "JR"):
            assert mean(both, metric, "frames") == pytest.approx(10 / 12)
            assert mean(both, metric, "sequences") == 0.5
        rows = table_rows(sequence_table(find_protocol("davis"), both))
        assert rows["**mean over frames** (the protocol's)"][:3] == ["12", "83.3 %", "83.3 %"]
        assert rows["**mean over sequences**"][:3] == ["12", "50.0 %", "50.0 %"]
        assert "**mean over pixels**" not in rows

    def test_pixels_weigh_depth(self) -> None:
        both = [
            result("a", 1, None, metrics={"abs rel": 0.1}, pixels=300),
            result("b", 1, None, metrics={"abs rel": 0.5}, pixels=100),
        ]
        assert mean(both, "abs rel", "pixels") == pytest.approx(0.2)
        assert mean(both, "abs rel", "frames") == pytest.approx(0.3)
        rows = table_rows(sequence_table(find_protocol("bonn"), both))
        assert rows["**mean over pixels** (the protocol's)"][1] == "0.200"

    def test_a_failed_sequence_counts_as_0_and_is_named(self) -> None:
        some = [result("a", 10, 1.0), failed("b", 2)]
        assert mean(some, "JM", "frames") == pytest.approx(10 / 12)
        assert mean(some, "JR", "sequences") == 0.5
        table = sequence_table(find_protocol("davis"), some)
        assert table_rows(table)["b"] == ["2", "failed", "failed", "-"]
        assert "Failed: b (it broke)." in table
        errors = [result("a", 10, None, metrics={"ATE": 0.25}), failed("b", 2)]
        assert mean(errors, "ATE", "sequences") == 0.25
        assert mean([failed("b", 2)], "ATE", "sequences") is None

    def test_values_that_are_missing_do_not_count(self) -> None:
        some = [result("a", 1, 0.5), result("b", 9, None), result("c", 9, float("nan"))]
        assert mean(some, "JM", "frames") == 0.5

    def test_published_rows_only_beside_the_whole(self) -> None:
        davis = find_protocol("davis")
        whole = davis_results()
        table = sequence_table(davis, whole)
        assert "Partial" not in table
        label = "Easi3R (MonST3R) (published: Easi3R, as quoted in DATASETS.md)"
        assert table_rows(table)[label] == ["", "57.7 %", "71.6 %", ""]
        for partial in (
            sequence_table(davis, whole[1:]),
            sequence_table(davis, whole, shortened=True),
            runs_table(davis, {"x": whole, "y": whole[1:]}),
        ):
            assert "Partial" in partial
            assert "published:" not in partial
        assert "Partial: 19 of 20 sequences. Published" in sequence_table(davis, whole[1:])

    def test_runs_are_compared_on_common_sequences(self) -> None:
        davis = find_protocol("davis")
        x = [result("a", 10, 1.0), result("b", 10, 0.0)]
        y = [result("a", 10, 0.5), failed("c", 10)]
        rows = table_rows(runs_table(davis, {"x": x, "y": y}))
        assert rows["x"] == ["100.0 %", "100.0 %", "10", "0"]
        assert rows["y"] == ["50.0 %", "50.0 %", "10", "0"]
        assert "runs of" not in runs_table(davis, {"x": x, "y": y})
        table = runs_table(davis, {"x": x, "y": [result("a", 7, 0.5)]})
        assert "a: runs of 7 and 10 frames." in table
        with pytest.raises(InputError, match=r"^x, y: no sequence of easi3r/davis-16"):
            runs_table(davis, {"x": x[:1], "y": y[1:]})

    def test_csv_reads_back(self) -> None:
        name = 'quoted "name", with a comma'
        some = [result(name, 3, np.float64(1 / 3)), failed("b", 2), result("a", 1, None)]
        rows = {row["sequence"]: row for row in csv.DictReader(io.StringIO(sequence_csv(some)))}
        assert float(rows[name]["JM"]) == 1 / 3
        assert float(rows[name]["baseline JM"]) == 0
        assert int(rows[name]["frames"]) == 3
        assert rows["b"]["status"] == "failed"
        assert rows["b"]["JM"] == rows["a"]["JM"] == ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_network(path, tiny_network(), {"licence": "Apache-2.0", "steps": "0"})
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load_model(str(checkpoint), device="cpu")


@pytest.fixture
def settings(
    checkpoint: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BenchmarkSettings:
    """Three sequences: `fine` is perfect, `missed` has J = 0, `broken` fails."""
    root = tmp_path / "DAVIS"
    write_sequence(root, "fine", squares(3))
    write_sequence(root, "missed", squares(2), shown=np.zeros((2, 48, 64), bool))
    write_sequence(root, "broken", squares(2))
    monkeypatch.setattr("dyn3r.pipeline.reconstruct", reconstruct)
    monkeypatch.setattr("dyn3r.network.model.load_model", lambda name, **more: model)
    return BenchmarkSettings(
        "easi3r/davis-all", root, tmp_path / "out", model=str(checkpoint), device="cpu"
    )


def states(results: list[Result]) -> dict[str, str]:
    return {r.sequence: r.status for r in results}


class TestRuns:
    def test_results_on_disk_are_the_results(self, settings: BenchmarkSettings) -> None:
        done = list(run_benchmark(settings))
        assert states(done) == {"broken": "failed", "fine": "ok", "missed": "ok"}
        assert read_results(settings.output) == {r.sequence: r for r in done}
        of = {r.sequence: r for r in done}
        assert of["broken"].error == "it cannot be determined"
        assert of["broken"].frames == 2
        assert of["fine"].metrics["JM"] == 1
        assert of["missed"].metrics["JM"] == 0
        assert of["fine"].about["mask_kind"] == "any object"
        assert len(of["fine"].about["model_sha256"]) == 64
        assert mean(done, "JM", "frames") == pytest.approx(3 / 7)
        pictures = {file.name for file in (settings.output / "frames").iterdir()}
        assert pictures == {"fine.jpg", "missed.jpg"}
        written = json.loads((settings.output / "benchmark.json").read_text())
        assert written["sequences"] == ["broken", "fine", "missed"]
        assert written["model"] == settings.model

    def test_resume_keeps_what_is_done_and_runs_what_failed(
        self, settings: BenchmarkSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        list(run_benchmark(settings))
        asked = []

        def repaired(clip, *arguments, **more):
            asked.append(clip.source)
            return scene_of(clip)

        monkeypatch.setattr("dyn3r.pipeline.reconstruct", repaired)
        done = list(run_benchmark(settings, resume=True))
        assert asked == ["broken"]
        assert set(states(done).values()) == {"ok"}
        assert len(done) == 3

    def test_a_run_that_was_interrupted(self, settings: BenchmarkSettings) -> None:
        run = run_benchmark(settings)
        next(run)
        next(run)
        run.close()
        assert set(read_results(settings.output)) == {"broken", "fine"}
        assert len(list(run_benchmark(settings, resume=True))) == 3

    def test_results_of_other_settings_are_refused(self, settings: BenchmarkSettings) -> None:
        list(run_benchmark(replace(settings, sequences=("fine",))))
        for changes, said in (
            ({"model": "compact"}, r"with model '.*tiny\.safetensors', not 'compact'"),
            ({"num_frames": 1}, "with num_frames None, not 1"),
            ({"size": 32}, "with size None, not 32"),
        ):
            with pytest.raises(InputError, match=said):
                list(run_benchmark(replace(settings, **changes), resume=True))
        assert len(list(run_benchmark(settings, resume=True))) == 3  # more sequences are welcome

    def test_results_of_other_weights_are_refused(
        self, settings: BenchmarkSettings, tmp_path: Path
    ) -> None:
        file = tmp_path / "other.safetensors"
        file.write_bytes(Path(settings.model).read_bytes())
        settings = replace(settings, model=str(file))
        list(run_benchmark(replace(settings, sequences=("fine",))))
        assert len(list(run_benchmark(settings, resume=True))) == 3
        file.write_bytes(b"trained on")
        with pytest.raises(InputError, match=r"other weights of the model .*other\.safetensors"):
            list(run_benchmark(settings, resume=True))
        assert states(list(run_benchmark(settings, overwrite=True)))["fine"] == "ok"

    def test_a_sequence_with_more_frames_than_before_is_run_again(
        self, settings: BenchmarkSettings, caplog: pytest.LogCaptureFixture
    ) -> None:
        list(run_benchmark(settings))
        for folder in settings.root.rglob("missed"):
            shutil.rmtree(folder)
        write_sequence(settings.root, "missed", squares(4))
        of = {r.sequence: r.frames for r in run_benchmark(settings, resume=True)}
        assert of == {"broken": 2, "fine": 3, "missed": 4}
        assert caplog.messages == ["run again, with another number of frames: missed"]

    def test_overwrite_replaces_once_everything_is_there(self, settings: BenchmarkSettings) -> None:
        list(run_benchmark(settings))
        (settings.output / "mine.txt").write_text("precious")
        other = replace(settings, num_frames=1, sequences=("fine",))
        with pytest.raises(InputError, match="not a folder"):
            list(run_benchmark(replace(other, root=Path("nowhere")), overwrite=True))
        with pytest.raises(CheckpointError):
            list(run_benchmark(replace(other, model="no-such-model"), overwrite=True))
        assert len(read_results(settings.output)) == 3
        (only,) = run_benchmark(other, overwrite=True)
        assert only.frames == 1
        assert set(read_results(settings.output)) == {"fine"}
        assert (settings.output / "mine.txt").read_text() == "precious"

    def test_num_frames_never_lengthens(self, settings: BenchmarkSettings) -> None:
        for protocol, num_frames, limit in (("monst3r/tum", 200, 90), ("monst3r/tum", 5, 5),
                                            ("easi3r/tum", 7, 7)):  # fmt: skip
            changed = replace(settings, protocol=protocol, num_frames=num_frames)
            assert benchmark_run.protocol_of(changed).limit == limit

    def test_a_damaged_mask_fails_its_sequence_only(self, settings: BenchmarkSettings) -> None:
        break_mask(settings.root, "missed", 1)
        of = {r.sequence: r for r in run_benchmark(settings)}
        assert of["fine"].status == "ok"
        assert of["missed"].status == "failed"
        assert "missed/00001.png cannot be read" in of["missed"].error

    def test_damaged_results_are_refused(self, settings: BenchmarkSettings) -> None:
        list(run_benchmark(replace(settings, sequences=("fine",))))
        file = benchmark_run.result_file(settings.output, "fine")
        good = json.loads(file.read_text())
        changes: list[dict] = [
            {"more": 1}, {"frames": "three"}, {"metrics": {"JM": "high"}}, {"baseline": [1]},
            {"per_frame": {"J": 3}}, {"sequence": "broken"}, {"status": "fine"}, {"about": None},
            {"missing": [1]}, {"curves": "none"},
        ]  # fmt: skip
        for text in ("{", "[]", *(json.dumps(good | change) for change in changes)):
            file.write_text(text)
            with pytest.raises(InputError, match=r"fine\.json is not a result"):
                list(run_benchmark(settings, resume=True))
        for text in ("{", "[]", "{}"):
            (settings.output / "benchmark.json").write_text(text)
            with pytest.raises(InputError, match="benchmark"):
                list(run_benchmark(settings, resume=True))
