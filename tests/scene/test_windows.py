"""Long clips: windows are computed, kept, taken over by a later run, and joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dyn3r.alignment.clip_windows import WindowOptions, WindowPlan, plan_windows
from dyn3r.errors import InputError
from dyn3r.flow.dis import DisFlow
from dyn3r.geometry.registration import Similarity
from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.scene import PartVerdict, Scene, Verdict
from dyn3r.scene.draft import Draft
from dyn3r.scene.windows.assembly import without_first, worst_verdict
from dyn3r.scene.windows.join import SharedFrames, blended, join, moved
from dyn3r.scene.windows.loops import candidates, find_loops
from dyn3r.scene.windows.reconstruct import LongClip, reconstruct_windows
from dyn3r.scene.windows.store import (
    WindowStore,
    discard_windows,
    fingerprint_of,
    holds_windows,
    window_store,
)
from dyn3r.types import Clip, Motion, Priors, RunContext, WindowFolder
from tests.factories import geometry_of, tiny_scene

N, HW = 26, (32, 48)


def clip_of(scene: Scene) -> Clip:
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "made up", scene.fps)


@pytest.fixture(scope="module")
def truth() -> Scene:
    """A camera that moves right and turns."""
    scene = tiny_scene(N, *HW, frame_quality=np.full(N, 0.9), sigma_log_depth=None)
    turn = torch.zeros(N, 3, dtype=torch.float64)
    turn[:, 1] = torch.linspace(0, 0.3, N)
    T = scene.T_world_camera.copy()
    T[:, :3, :3] = rotvec_to_rotmat(turn).numpy()
    return replace(scene, T_world_camera=T)


@pytest.fixture(scope="module")
def plan() -> WindowPlan:
    found = plan_windows(N, HW, WindowOptions(frames=12, overlap=4))
    assert found is not None
    assert len(found) == 3
    return found


def world(number: int) -> Similarity:
    """A world of its own for each window; the first has that of the truth."""
    if number == 0:
        return similarity(1.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    return similarity(0.5 + number, (0.1, 0.7 * number, -0.2), (3.0, number, -1.0))


def similarity(scale: float, turn: tuple, shift: tuple) -> Similarity:
    values = (torch.tensor(v, dtype=torch.float64) for v in (scale, turn, shift))
    s, w, t = values
    return Similarity(s, rotvec_to_rotmat(w), t)


class Fake:
    """In place of all stages: parts of the truth, each in a world and a unit of its own."""

    def __init__(self, truth: Scene, plan: WindowPlan, *, fails_at: int = 99) -> None:
        self.truth, self.plan, self.fails_at = truth, plan, fails_at
        self.computed: list[int] = []
        self.focal_sigma: tuple[float | None, ...] = (0.02, 0.02, 0.02)
        self.priors: list[Priors] = []

    def __call__(self, rows: slice, priors: Priors, context: RunContext) -> Scene:
        number = self.plan.spans.index((rows.start, rows.stop))
        if len(self.computed) >= self.fails_at:
            raise KeyboardInterrupt
        self.computed.append(number)
        self.priors.append(priors)
        by, truth = world(number), self.truth
        K = truth.K[rows].copy()
        if priors.K is not None and priors.focal_sigma == 0:
            K = priors.K[-len(K) :]
        else:
            K[:, [0, 1], [0, 1]] *= 1 + 0.1 * number
        part = Scene(
            images=truth.images[rows], depth=truth.depth[rows] * np.float32(by.scale),
            confidence=truth.confidence[rows], dynamic=truth.dynamic[rows], K=K,
            T_world_camera=moved(truth.T_world_camera[rows], by), mapping=truth.mapping,
            names=truth.names[rows], times_s=truth.times_s[rows], fps=truth.fps,
            frame_quality=np.full(rows.stop - rows.start, 0.9),
            metadata={
                "plan": {"bundle_adjustment": True}, "pairs": 10, "notes": ["everywhere"],
                "objective": {"total": float(number)},
                "verdict": Verdict(
                    {"focal length": PartVerdict("good", f"of window {number}")}
                ).to_json(),
            },
        )  # fmt: skip
        geometry = replace(
            geometry_of(part.T_world_camera, part.K, part.depth),
            focal_sigma=self.focal_sigma[number],
        )
        empty = np.zeros(part.dynamic.shape, bool)
        motion = Motion(empty, np.zeros((len(part), 1, 1)), "")
        context.observe("draft", Draft(clip_of(part), geometry, motion))
        return part


def work_of(truth: Scene, plan: WindowPlan, **changes: Any) -> LongClip:
    values = {
        "clip": clip_of(truth), "plan": plan, "priors": Priors(), "shared_focal": True,
        "states_focal": False, "flow_estimator": DisFlow, "identity": ("model",),
    }  # fmt: skip
    return LongClip(**(values | changes))


def test_windows_in_worlds_of_their_own_become_the_scene(truth: Scene, plan: WindowPlan) -> None:
    scene = reconstruct_windows(work_of(truth, plan), Fake(truth, plan), RunContext())
    np.testing.assert_allclose(scene.T_world_camera, truth.T_world_camera, atol=1e-5)
    np.testing.assert_allclose(scene.depth, truth.depth, rtol=1e-4)
    np.testing.assert_array_equal(scene.dynamic, truth.dynamic)
    np.testing.assert_array_equal(scene.confidence, truth.confidence)
    np.testing.assert_allclose(scene.K, truth.K)
    assert scene.sigma_log_depth is None
    assert scene.up_world is not None
    assert scene.names == truth.names
    about = scene.metadata
    assert (about["pairs"], about["objective"], scene.notes) == (30, {"total": 1.0}, ["everywhere"])
    assert [j["scale"] for j in about["windows"]["joins"]] == [round(1 / 1.5, 5), 0.4]
    assert about["windows"]["spans"] == [list(span) for span in plan.spans]


def test_known_cameras_put_windows_into_one_world(truth: Scene, plan: WindowPlan) -> None:
    priors = Priors(T_world_camera=truth.T_world_camera)
    fake = Fake(truth, plan)
    scene = reconstruct_windows(work_of(truth, plan, priors=priors), fake, RunContext())
    np.testing.assert_array_equal(fake.priors[1].T_world_camera, truth.T_world_camera[7:18])
    last = moved(truth.T_world_camera[-3:], world(2))  # as the window has them
    np.testing.assert_allclose(scene.T_world_camera[-3:], last)
    assert scene.metadata["windows"]["joins"] == []


def test_a_run_that_is_stopped_goes_on_at_the_last_finished_window(
    truth: Scene, plan: WindowPlan, tmp_path: Path
) -> None:
    work, whole = work_of(truth, plan), Fake(truth, plan)
    expected = reconstruct_windows(work, whole, RunContext())
    context = RunContext(windows=WindowFolder(tmp_path / "kept"))
    stopped, rest = Fake(truth, plan, fails_at=2), Fake(truth, plan)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_windows(work, stopped, context)
    scene = reconstruct_windows(work, rest, context)
    assert (whole.computed, stopped.computed, rest.computed) == ([0, 1, 2], [0, 1], [2])
    for name in ("depth", "T_world_camera", "K", "confidence", "dynamic"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(expected, name))
    assert scene.metadata["windows"] == expected.metadata["windows"]


def test_a_damaged_window_is_computed_again(truth: Scene, plan: WindowPlan, tmp_path: Path) -> None:
    context = RunContext(windows=WindowFolder(tmp_path / "kept"))
    reconstruct_windows(work_of(truth, plan), Fake(truth, plan), context)
    path = WindowStore(tmp_path / "kept").path(1)
    path.write_bytes(path.read_bytes()[:-100])
    again = Fake(truth, plan)
    reconstruct_windows(work_of(truth, plan), again, context)
    assert again.computed == [1]


def test_windows_of_another_run_are_refused_or_replaced(
    truth: Scene, plan: WindowPlan, tmp_path: Path
) -> None:
    context = RunContext(windows=WindowFolder(tmp_path / "kept"))
    reconstruct_windows(work_of(truth, plan), Fake(truth, plan), context)
    other = work_of(truth, plan, identity=("other model",))
    with pytest.raises(InputError, match="windows of another run"):
        reconstruct_windows(other, Fake(truth, plan), context)
    fake = Fake(truth, plan)
    replacing = RunContext(windows=WindowFolder(tmp_path / "kept", replace=True))
    reconstruct_windows(other, fake, replacing)
    assert fake.computed == [0, 1, 2]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    where = WindowFolder(tmp_path, replace=True)
    with pytest.raises(InputError, match="no folder of finished windows"), window_store(where, "a"):
        pass
    assert (tmp_path / "photo.jpg").exists()
    with pytest.raises(InputError):
        discard_windows(tmp_path)
    assert not holds_windows(tmp_path)


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "kept" / ".dyn3r-0123.part").mkdir(parents=True)
    with window_store(WindowFolder(tmp_path / "kept"), "a") as store:
        assert store.finished() == 0
    assert holds_windows(tmp_path / "kept")


def test_known_values_are_not_moved_by_loops(
    truth: Scene, plan: WindowPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("dyn3r.scene.windows.reconstruct.with_loops_closed", none)
    depth = np.full(truth.depth.shape, np.nan, np.float32)
    depth[:3] = truth.depth[:3]
    scene = reconstruct_windows(
        work_of(truth, plan, priors=Priors(depth=depth)), Fake(truth, plan), RunContext()
    )
    assert len(scene.metadata["windows"]["joins"]) == 2
    with pytest.raises(AssertionError):
        reconstruct_windows(work_of(truth, plan), Fake(truth, plan), RunContext())


def test_the_first_window_decides_about_the_focal_length(truth: Scene, plan: WindowPlan) -> None:
    fake = Fake(truth, plan)
    scene = reconstruct_windows(work_of(truth, plan), fake, RunContext())
    assert fake.computed == [0, 1, 2]
    assert fake.priors[0].K is None
    assert [p.focal_sigma for p in fake.priors] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(scene.K, truth.K)
    assert scene.verdict is not None
    assert (
        scene.verdict.parts["focal length"].reason
        == "of window 0, from frame_000000 to frame_000010"
    )


@pytest.mark.parametrize("sigma", [None, 0.2])
def test_a_first_window_that_hardly_knows_the_focal_length_is_computed_again(
    sigma: float | None, truth: Scene, plan: WindowPlan, tmp_path: Path
) -> None:
    fake = Fake(truth, plan)
    fake.focal_sigma = (sigma, 0.2, 0.0)
    work, context = work_of(truth, plan), RunContext(windows=WindowFolder(tmp_path / "kept"))
    scene = reconstruct_windows(work, fake, context)
    assert fake.priors[1].K is None
    factor = 1.1 if sigma is None else 1.1**0.5
    np.testing.assert_allclose(scene.K[:, 0, 0], factor * truth.K[:, 0, 0])
    assert fake.computed == ([0, 1, 0, 2] if sigma is None else [0, 1, 0, 1, 2])
    # what they said is kept with them
    again = Fake(truth, plan)
    np.testing.assert_array_equal(reconstruct_windows(work, again, context).K, scene.K)
    assert again.computed == []


def test_a_focal_length_for_each_frame_is_not_handed_on(truth: Scene, plan: WindowPlan) -> None:
    fake = Fake(truth, plan)
    scene = reconstruct_windows(work_of(truth, plan, shared_focal=False), fake, RunContext())
    assert all(priors.K is None for priors in fake.priors)
    assert len(set(scene.K[:, 0, 0])) == 3


def test_the_fingerprint_is_that_of_the_values() -> None:
    images = np.arange(12, dtype=np.uint8)
    same = fingerprint_of({"a": 1, "b": images.copy()}, WindowOptions())
    assert fingerprint_of({"b": images, "a": 1}, WindowOptions()) == same
    others = [
        ({"a": 2, "b": images}, WindowOptions()),
        ({"a": 1, "b": images.astype(np.int8)}, WindowOptions()),
        ({"a": 1, "b": images.reshape(3, 4)}, WindowOptions()),
        ({"a": 1, "b": images}, WindowOptions(overlap=9)),
    ]
    assert len({same, *(fingerprint_of(*other) for other in others)}) == 5


def shared(scene: Scene, rows: slice, by: Similarity) -> SharedFrames:
    T = moved(scene.T_world_camera[rows], by)
    usable = (scene.confidence[rows] > 0) & ~scene.dynamic[rows]
    depth = scene.depth[rows] * np.float32(by.scale)
    return SharedFrames(T, depth, usable, np.ones(len(T), bool))


def test_a_join_is_not_moved_by_moving_objects_nor_by_a_lost_frame(truth: Scene) -> None:
    rows = slice(4, 10)
    first = shared(truth, rows, world(0))
    second = shared(truth, rows, world(1))
    second.depth[truth.dynamic[rows]] *= 3
    second.T_world_camera[2, :3, 3] += 50.0
    second.found[2] = False
    found = join(first, second)
    back = moved(second.T_world_camera, found.similarity)
    np.testing.assert_allclose(found.similarity.scale, 1 / 1.5, rtol=1e-5)
    np.testing.assert_allclose(
        np.delete(back, 2, 0), np.delete(first.T_world_camera, 2, 0), atol=1e-6
    )
    assert not found.is_guess
    assert found.rotation_deg < 1e-5
    assert not found.disagrees
    second.T_world_camera[:, 1, 3] += [0, 5, 0, -5, 3, -3]
    assert join(first, second).disagrees


def test_a_join_without_static_pixels_is_a_guess(truth: Scene) -> None:
    first = shared(truth, slice(0, 3), world(0))
    first.usable[:] = False
    found = join(first, shared(truth, slice(0, 3), world(0)))
    assert found.is_guess
    np.testing.assert_allclose(found.similarity.scale, 1.0)


def test_cameras_pass_from_one_window_to_the_other(truth: Scene) -> None:
    first, second = truth.T_world_camera[:3], truth.T_world_camera[3:6]
    out = blended(first, second, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(out[0], first[0], atol=1e-12)
    np.testing.assert_allclose(out[2], second[2], atol=1e-12)
    np.testing.assert_allclose(out[1, :3, 3], (first[1, :3, 3] + second[1, :3, 3]) / 2)
    turned = out[1, :3, :3].T @ first[1, :3, :3]
    np.testing.assert_allclose(turned, second[1, :3, :3].T @ out[1, :3, :3], atol=1e-12)


def test_the_worst_judgement_of_each_part_counts() -> None:
    good = Verdict({"depth": PartVerdict("good", "fine"), "masks": PartVerdict("good", "fine")})
    bad = Verdict({"depth": PartVerdict("poor", "flat")})
    found = worst_verdict([good, None, bad], ["a to h", "i to o", "p to z"])
    assert found is not None
    assert found.parts["depth"] == PartVerdict("poor", "flat; p to z")
    assert found.parts["masks"].reason == "fine; a to h"
    assert worst_verdict([None], ["a"]) is None


@pytest.fixture
def there_and_back() -> Scene:
    """A textured plane, seen by a camera that moves right and back; its unit doubles on the way."""
    n, (h, w) = 40, (48, 64)
    rng = np.random.default_rng(3)
    wall = np.kron(rng.integers(0, 255, (24, 80, 3), dtype=np.uint8), np.ones((2, 2, 1), np.uint8))
    place = np.concatenate([np.arange(20), np.arange(20)[::-1]]) * 4
    images = np.stack([wall[:h, x : x + w] for x in place])
    unit = np.linspace(1, 2, n).astype(np.float32)
    depth = np.ones((n, h, w), np.float32) * 4 * unit[:, None, None]
    T = np.tile(np.eye(4), (n, 1, 1))
    steps = np.diff(place) * 4 / 50 * (unit[1:] + unit[:-1]) / 2
    T[1:, 0, 3] = np.cumsum(steps)
    K = np.tile(np.array([[50.0, 0, w / 2], [0, 50.0, h / 2], [0, 0, 1]]), (n, 1, 1))
    return tiny_scene(
        n, h, w, images=images, depth=depth, T_world_camera=T, K=K,
        confidence=np.ones((n, h, w)), dynamic=np.zeros((n, h, w), bool),
    )  # fmt: skip


def test_places_seen_twice_are_found_and_drift_is_removed(there_and_back: Scene) -> None:
    from dyn3r.alignment.similarity_graph import close_loops

    scene = there_and_back
    found = find_loops(scene, DisFlow(), 20)
    assert found.loops is not None
    assert (np.diff(found.loops.pairs) >= 20).all()
    ratio = scene.depth[found.loops.pairs[:, 0], 0, 0] / scene.depth[found.loops.pairs[:, 1], 0, 0]
    np.testing.assert_allclose(found.loops.similarity.scale, ratio, rtol=0.01)
    T, factor = close_loops(scene.T_world_camera, found.loops, scene.median_depth)
    before = abs(scene.T_world_camera[-1, 0, 3])
    assert abs(T[-1, 0, 3]) < 0.1 * before
    np.testing.assert_allclose(factor[-1], 0.5, rtol=0.15)


def test_frames_that_look_different_are_no_candidates() -> None:
    images = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    assert len(candidates(images, 10)) == 0


def test_a_window_that_disagrees_is_computed_again_with_more_frames(
    truth: Scene, plan: WindowPlan, tmp_path: Path
) -> None:
    class Fooled(Fake):
        """The last window follows a moving object, unless it sees the frames before."""

        def __call__(self, rows: slice, priors: Priors, context: RunContext) -> Scene:
            if rows.stop < N:
                return super().__call__(rows, priors, context)
            self.seen = [*getattr(self, "seen", []), rows.start]
            scene = super().__call__(slice(*self.plan.spans[2]), priors, context)
            if rows.start == self.plan.spans[2][0]:
                T = scene.T_world_camera.copy()
                T[:, 1, 3] += 2 * np.arange(len(T))
                return replace(scene, T_world_camera=T)
            more = self.plan.spans[2][0] - rows.start
            first = np.arange(-more, len(scene)).clip(0)  # what is left out may be anything
            fields = ("images", "depth", "confidence", "dynamic", "K", "T_world_camera", "times_s")
            rest = {name: getattr(scene, name)[first] for name in (*fields, "frame_quality")}
            return replace(scene, names=tuple(map(str, first)), **rest)

    fooled = Fooled(truth, plan)
    context = RunContext(windows=WindowFolder(tmp_path / "kept"))
    scene = reconstruct_windows(work_of(truth, plan), fooled, context)
    assert fooled.seen == [14, 14 - 2 * 4]
    np.testing.assert_allclose(scene.T_world_camera, truth.T_world_camera, atol=1e-5)
    np.testing.assert_allclose(scene.depth, truth.depth, rtol=1e-4)
    assert not any("disagree" in note for note in scene.notes)
    later = Fooled(truth, plan)
    reconstruct_windows(work_of(truth, plan), later, context)
    assert later.computed == []


def test_windows_that_still_disagree_are_named(truth: Scene, plan: WindowPlan) -> None:
    class Wrong(Fake):
        def __call__(self, rows: slice, priors: Priors, context: RunContext) -> Scene:
            scene = super().__call__(slice(max(rows.start, 14), N), priors, context)
            if rows.start < 14:
                scene = tiny_scene(N - rows.start, *HW)
            T = scene.T_world_camera.copy()
            T[:, 1, 3] += 2 * np.arange(len(T))
            return replace(scene, T_world_camera=T)

    right, wrong = Fake(truth, plan), Wrong(truth, plan)

    def one(rows: slice, priors: Priors, context: RunContext) -> Scene:
        return (wrong if rows.stop == N else right)(rows, priors, context)

    scene = reconstruct_windows(work_of(truth, plan), one, RunContext())
    assert wrong.computed == [2, 2]
    (note,) = [note for note in scene.notes if "disagree" in note]
    assert note.startswith("frame_000014 to frame_000017: the two windows that share them disagree")


def test_the_rest_of_a_scene_keeps_the_mapping_of_each_frame() -> None:
    scene = tiny_scene(4, 32, 48)
    own = tuple(replace(scene.mapping, source_hw=(64 + t, 96)) for t in range(4))
    mixed = replace(scene, mapping=replace(scene.mapping, frame_mappings=own))
    rest = without_first(mixed, 1)
    assert rest.mapping.frame_mappings == own[1:]
    assert rest.names == scene.names[1:]
