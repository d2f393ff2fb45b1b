"""Depth of moving things from the ground they stand on: a floor, a wall, and masks before them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dyn3r
import dyn3r.pipeline
from dyn3r.bundle_adjustment.measurements import with_margin
from dyn3r.errors import InputError
from dyn3r.geometry.ground_contact import CUT_OFF, LEAST_SHARE, RELIEF, stand_on_ground
from dyn3r.motion.implausible_depth import farther_than_predicted
from dyn3r.network.model import Model, prepare_model
from tests.factories import tiny_network
from tests.test_pipeline import clip_of

H, W = 64, 96
WALL = 6.0


def floor_depth(row: float) -> float:
    """Depth of the floor seen in a row: a level camera 1.5 above it, f = 80, horizon in row 24."""
    return 1.5 * 80 / (row - 24)


def room(frames: int = 1) -> np.ndarray:
    """Floor from row 44 on, a wall above it; no person in it."""
    column = [min(WALL, floor_depth(v)) if v > 24 else WALL for v in range(H)]
    return np.tile(np.array(column, np.float32)[None, :, None], (frames, 1, W))


def box(top: int, bottom: int, left: int = 40, right: int = 50) -> np.ndarray:
    """Mask of one frame, rows top..bottom and columns left..right, both inclusive."""
    mask = np.zeros((1, H, W), bool)
    mask[0, top : bottom + 1, left : right + 1] = True
    return mask


def painted(mask: np.ndarray, value: float = WALL) -> np.ndarray:
    """The room with everything masked at one depth."""
    return np.where(mask, np.float32(value), room(len(mask)))


def assert_at(values: np.ndarray, depth: float, share: float = 0.05) -> None:
    np.testing.assert_allclose(np.median(values), depth, rtol=share)
    assert np.ptp(np.log(values)) <= 2 * RELIEF + 1e-6


@pytest.mark.parametrize("feet", [48, 54, 59])
def test_a_person_stands_where_the_feet_are(feet: int) -> None:
    person = box(15, feet)
    out = stand_on_ground(painted(person), person)
    assert_at(out[person], floor_depth(feet))
    np.testing.assert_array_equal(out[~person], room()[~person])
    assert out.dtype == np.float32


def test_the_lowest_foot_counts_and_shape_is_kept_a_little() -> None:
    person = box(15, 45) | box(40, 54, 40, 43) | box(40, 50, 47, 50)
    wavy = painted(person)
    wavy[person] *= np.linspace(0.98, 1.02, person.sum()).astype(np.float32)
    out = stand_on_ground(wavy, person)
    assert_at(out[person], floor_depth(54))
    order = np.corrcoef(wavy[person], out[person])[0, 1]
    assert order > 0.999


def test_on_the_wall_nothing_changes() -> None:
    picture = box(8, 30)
    np.testing.assert_array_equal(stand_on_ground(painted(picture), picture), painted(picture))


def test_nothing_is_put_behind_what_it_hides() -> None:
    person = box(15, 54)
    near = painted(person, 2.0)  # the floor at the feet is at 4
    np.testing.assert_array_equal(stand_on_ground(near, person), near)


def test_cut_off_by_the_lower_edge_is_nearer_than_the_ground_there() -> None:
    """The more so the more of its width is cut: a toe at the edge hides little."""
    person = box(20, H - 1)
    out = stand_on_ground(painted(person), person)
    assert_at(out[person], floor_depth(H - 1) * np.exp(-CUT_OFF))
    toe = box(20, H - 3) | box(H - 2, H - 1, 40, 41)
    out = stand_on_ground(painted(toe), toe)
    assert_at(out[toe], floor_depth(H - 1) * np.exp(-CUT_OFF * 2 / 11), share=0.02)


def test_two_parts_close_together_are_one_thing() -> None:
    close = box(15, 35) | box(39, 54)
    out = stand_on_ground(painted(close), close)
    assert_at(out[close], floor_depth(54))
    head, legs = box(4, 16), box(39, 54)
    apart = head | legs
    out = stand_on_ground(painted(apart), apart)
    assert_at(out[legs], floor_depth(54))
    assert (out[head] == WALL).all()  # hangs before the wall


def walk(frames: int = 7) -> np.ndarray:
    return np.concatenate([box(15, 54, 30 + 2 * t, 40 + 2 * t) for t in range(frames)])


def test_two_things_that_come_near_each_other_stay_two() -> None:
    far, near = box(30, 45), box(50, 60, 50, 62)
    moving = np.concatenate([far | box(50, 60, 54, 66)] * 2 + [far | near])
    out = stand_on_ground(painted(moving), moving)
    assert_at(out[2][far[0]], floor_depth(46))
    assert_at(out[2][near[0]], floor_depth(61))
    alone = stand_on_ground(painted(moving[2:]), moving[2:])  # nothing says that they are two
    assert_at(alone[0][far[0]], floor_depth(61))
    backwards = stand_on_ground(painted(moving[::-1]), moving[::-1])
    np.testing.assert_allclose(backwards[::-1], out, rtol=1e-5)


def test_a_thing_in_two_parts_beside_a_frame_where_nothing_moves() -> None:
    both = box(30, 45) | box(47, 60)
    moving = np.concatenate([np.zeros_like(both), both, np.zeros_like(both)])
    out = stand_on_ground(painted(moving), moving)
    assert_at(out[1][both[0]], floor_depth(61))  # nothing says that they are two
    np.testing.assert_array_equal(out[[0, 2]], room(2))


def test_a_wrong_contact_of_one_frame_is_outvoted() -> None:
    moving = walk()
    depth = painted(moving)
    depth[3, 55:58] = 1.0  # wrong just below the feet
    alone = stand_on_ground(depth[3:4], moving[3:4])
    assert_at(alone[moving[3:4]], 1.0)
    out = stand_on_ground(depth, moving)
    for t in range(7):
        assert_at(out[t][moving[t]], floor_depth(54))


def test_who_comes_nearer_does_not_lag_behind() -> None:
    feet = [47 + t for t in range(13)]  # from 5.2 to 3.4
    moving = np.concatenate([box(row - 30, row) for row in feet])
    out = stand_on_ground(painted(moving), moving)
    for t in (0, 6, 12):
        assert_at(out[t][moving[t]], floor_depth(feet[t]), share=0.08)  # a mean: 0.17
    noisy = painted(moving)
    noisy[::2] *= np.where(moving[::2], 1, 0.95)  # the ground seems nearer every other frame
    found = np.array([np.median(o[m]) for o, m in zip(stand_on_ground(noisy, moving), moving)])
    steps = np.diff(np.log(found))
    assert (steps < 0).all()
    assert np.ptp(steps) < 0.05  # 0.1 without what is known of the frames around


def test_a_hidden_contact_is_remembered() -> None:
    moving = walk()
    moving[3] |= (box(55, H - 1, 36, 46) | box(H - 2, H - 1, 0, W - 1))[0]  # no ground to be seen
    depth = painted(moving)
    np.testing.assert_array_equal(stand_on_ground(depth[3:4], moving[3:4]), depth[3:4])
    out = stand_on_ground(depth, moving)
    assert_at(out[3][moving[3]], floor_depth(54))


def test_another_thing_is_not_asked() -> None:
    """Contacts are followed by overlap: who is elsewhere in the next frame is somebody else."""
    here, there = box(15, 54, 20, 30), box(15, 59, 60, 70)
    moving = np.concatenate([here, there, there])
    out = stand_on_ground(painted(moving), moving)
    assert_at(out[0][here[0]], floor_depth(54))
    assert_at(out[1][there[0]], floor_depth(59))


def test_known_depth_stays() -> None:
    person, known = box(15, 54), np.zeros((1, H, W), bool)
    known[:, :30] = True
    out = stand_on_ground(painted(person), person, known)
    assert (out[person & known] == WALL).all()
    assert_at(out[person & ~known], floor_depth(54))


def test_nothing_and_everything_moves() -> None:
    depth = room(3)
    np.testing.assert_array_equal(stand_on_ground(depth, np.zeros((3, H, W), bool)), depth)
    np.testing.assert_array_equal(stand_on_ground(depth, np.ones((3, H, W), bool)), depth)
    nothing = stand_on_ground(depth[:0], np.zeros((0, H, W), bool))
    assert nothing.shape == (0, H, W)


def test_small_specks_stay() -> None:
    speck = box(45, 47, 40, 43)
    assert speck.mean() < LEAST_SHARE
    np.testing.assert_array_equal(stand_on_ground(painted(speck), speck), painted(speck))


@pytest.mark.parametrize("seed", range(4))
def test_any_masks_give_finite_depth_and_leave_the_rest(seed: int) -> None:
    import cv2

    random = np.random.default_rng(seed)
    noise = np.stack([cv2.GaussianBlur(random.normal(0, 1, (H, W)), (0, 0), 5) for _ in range(4)])
    moving = noise > 0.06
    depth = np.exp(random.normal(0, 1, (4, H, W))).astype(np.float32)
    before = depth.copy()
    out = stand_on_ground(depth, moving)
    np.testing.assert_array_equal(depth, before)
    assert np.isfinite(out).all()
    assert (out > 0).all()
    np.testing.assert_array_equal(out[~moving], depth[~moving])
    assert (out != depth).any()


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


@pytest.mark.parametrize(
    ("asked", "recommended", "on_ground"),
    [
        ("auto", None, False), ("auto", "ground", True), ("auto", "sonar", False),
        ("ground", None, True), ("network", "ground", False),
    ],
)  # fmt: skip
def test_the_pipeline_asks_the_option_and_then_the_models_file(
    model: Model, monkeypatch: pytest.MonkeyPatch, asked: str, recommended: str | None,
    on_ground: bool,
) -> None:  # fmt: skip
    masks = np.zeros((2, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    calls = []

    def stand(depth: np.ndarray, moving: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        calls.append((depth, moving, known))
        return np.where(moving, np.float32(0.125), depth)

    monkeypatch.setattr(dyn3r.pipeline, "stand_on_ground", stand)
    model = replace(model, facts={"bundle": "on", "mover_depth": recommended or ""})
    options = dyn3r.Options(mover_depth=asked, flow_term=False)  # type: ignore[arg-type]
    scene = dyn3r.reconstruct(clip_of(2), model, options, masks=masks)
    assert len(calls) == on_ground
    assert bool((scene.depth[masks] == 0.125).all()) == on_ground
    for depth, moving, _ in calls:
        np.testing.assert_array_equal(moving, masks)
        np.testing.assert_array_equal(scene.depth[~masks], depth[~masks])


def test_without_motion_there_is_nobody_to_stand(model: Model) -> None:
    options = dyn3r.Options(mover_depth="ground", motion="none", flow_term=False, bundle=False)
    scene = dyn3r.reconstruct(clip_of(2), model, options)
    plain = dyn3r.reconstruct(clip_of(2), model, replace(options, mover_depth="network"))
    np.testing.assert_array_equal(scene.depth, plain.depth)
    assert scene.metadata["options"]["mover_depth"] == "ground"


def test_a_wrong_way_is_refused() -> None:
    with pytest.raises(InputError, match="auto, network or ground, not 'sonar'"):
        dyn3r.Options(mover_depth="sonar")  # type: ignore[arg-type]


def test_what_flow_puts_behind_the_scene_moves() -> None:
    predicted = room(2)
    solved = 3 * predicted  # another unit of length
    nothing = np.zeros((2, H, W), bool)
    assert not farther_than_predicted(predicted, solved, nothing).any()
    solved[1, 30:50, 40:60] *= 2.5
    solved[1, 30:50, 60:70] *= 1.6  # hangs together with it
    solved[1, 5:15, 5:15] *= 1.6  # this does not
    solved[0, 30:50, 40:60] /= 2.5  # nearer: a network may well have overlooked it
    found = farther_than_predicted(predicted, solved, nothing)
    expected = nothing.copy()
    expected[1, 30:50, 40:70] = True
    np.testing.assert_array_equal(found, expected)


def test_specks_and_what_moves_anyhow_are_not_put_behind() -> None:
    predicted = room()
    solved = predicted.copy()
    solved[0, 20, 20] *= 9
    solved[0, 40:60, 10:30] *= 9
    moving = box(40, 59, 10, 29)
    assert not farther_than_predicted(predicted, solved, moving).any()
    assert not farther_than_predicted(predicted, solved, np.ones_like(moving)).any()
    # the median is that of what stands still
    solved[:, :, :60] = np.where(moving, solved, predicted)[:, :, :60] * 1
    assert not farther_than_predicted(predicted, solved, moving).any()


def test_a_margin_around_movers_unless_it_takes_nearly_all() -> None:
    moving = np.zeros((2, H, W), bool)
    moving[0, 30, 40] = True
    moving[1, :, 20:] = True  # what is left stands in a narrow strip
    moving[1, :, :6] = True
    wide = with_margin(moving, 0.1)
    v, u = np.mgrid[:H, :W]
    distance = np.hypot(v - 30, u - 40)
    assert wide[0][distance <= 9].all()
    assert not wide[0][distance > 11].any()
    np.testing.assert_array_equal(wide[1], moving[1])
    np.testing.assert_array_equal(with_margin(moving, 0.0), moving)
    assert moving[0].sum() == 1  # the mask given is not written to
