"""Depth of dynamic things from the ground they stand on: a floor, a wall, and masks before them."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.bundle_adjustment.measurements import dilate_masks
from dyn3r.geometry.ground_contact import (
    CUT_OFF_LOG_DEPTH,
    MAX_LOG_RELIEF,
    MIN_AREA_SHARE,
    snap_to_ground_contact,
)
from dyn3r.motion.implausible_depth import implausible_depth_outliers, lasting

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
    assert np.ptp(np.log(values)) <= 2 * MAX_LOG_RELIEF + 1e-6


@pytest.mark.parametrize("feet", [48, 54, 59])
def test_depth_is_that_of_the_floor_at_the_feet(feet: int) -> None:
    person = box(15, feet)
    out = snap_to_ground_contact(painted(person), person)
    assert_at(out[person], floor_depth(feet))
    np.testing.assert_array_equal(out[~person], room()[~person])
    assert out.dtype == np.float32


def test_the_lowest_foot_decides_and_shape_is_kept() -> None:
    person = box(15, 45) | box(40, 54, 40, 43) | box(40, 50, 47, 50)
    wavy = painted(person)
    wavy[person] *= np.linspace(0.98, 1.02, person.sum()).astype(np.float32)
    out = snap_to_ground_contact(wavy, person)
    assert_at(out[person], floor_depth(54))
    order = np.corrcoef(wavy[person], out[person])[0, 1]
    assert order > 0.999


def test_on_the_wall_nothing_changes() -> None:
    picture = box(8, 30)
    np.testing.assert_array_equal(
        snap_to_ground_contact(painted(picture), picture), painted(picture)
    )


def test_objects_never_move_away() -> None:
    person = box(15, 54)
    near = painted(person, 2.0)  # the floor at the feet is at 4
    np.testing.assert_array_equal(snap_to_ground_contact(near, person), near)


def test_an_object_cut_off_by_the_lower_edge_is_nearer_than_the_ground_there() -> None:
    """The difference grows with the share of its width that is cut off."""
    person = box(20, H - 1)
    out = snap_to_ground_contact(painted(person), person)
    assert_at(out[person], floor_depth(H - 1) * np.exp(-CUT_OFF_LOG_DEPTH))
    toe = box(20, H - 3) | box(H - 2, H - 1, 40, 41)
    out = snap_to_ground_contact(painted(toe), toe)
    assert_at(out[toe], floor_depth(H - 1) * np.exp(-CUT_OFF_LOG_DEPTH * 2 / 11), share=0.02)


def test_two_parts_close_together_are_one_object() -> None:
    close = box(15, 35) | box(39, 54)
    out = snap_to_ground_contact(painted(close), close)
    assert_at(out[close], floor_depth(54))
    head, legs = box(4, 16), box(39, 54)
    apart = head | legs
    out = snap_to_ground_contact(painted(apart), apart)
    assert_at(out[legs], floor_depth(54))
    assert (out[head] == WALL).all()  # in front of the wall


def walk(frames: int = 7) -> np.ndarray:
    return np.concatenate([box(15, 54, 30 + 2 * t, 40 + 2 * t) for t in range(frames)])


def test_two_objects_that_come_near_each_other_stay_two() -> None:
    far, near = box(30, 45), box(50, 60, 50, 62)
    dynamic = np.concatenate([far | box(50, 60, 54, 66)] * 2 + [far | near])
    out = snap_to_ground_contact(painted(dynamic), dynamic)
    assert_at(out[2][far[0]], floor_depth(46))
    assert_at(out[2][near[0]], floor_depth(61))
    alone = snap_to_ground_contact(
        painted(dynamic[2:]), dynamic[2:]
    )  # no frame shows them separately
    assert_at(alone[0][far[0]], floor_depth(61))
    backwards = snap_to_ground_contact(painted(dynamic[::-1]), dynamic[::-1])
    np.testing.assert_allclose(backwards[::-1], out, rtol=1e-5)


def test_an_object_in_two_parts_next_to_a_frame_without_objects() -> None:
    both = box(30, 45) | box(47, 60)
    dynamic = np.concatenate([np.zeros_like(both), both, np.zeros_like(both)])
    out = snap_to_ground_contact(painted(dynamic), dynamic)
    assert_at(out[1][both[0]], floor_depth(61))  # no frame shows them separately
    np.testing.assert_array_equal(out[[0, 2]], room(2))


def test_a_wrong_contact_in_one_frame_is_an_outlier() -> None:
    dynamic = walk()
    depth = painted(dynamic)
    depth[3, 55:58] = 1.0  # wrong just below the feet
    alone = snap_to_ground_contact(depth[3:4], dynamic[3:4])
    assert_at(alone[dynamic[3:4]], 1.0)
    out = snap_to_ground_contact(depth, dynamic)
    for t in range(7):
        assert_at(out[t][dynamic[t]], floor_depth(54))


def test_an_approaching_object_does_not_lag() -> None:
    feet = [47 + t for t in range(13)]  # from 5.2 to 3.4
    dynamic = np.concatenate([box(row - 30, row) for row in feet])
    out = snap_to_ground_contact(painted(dynamic), dynamic)
    for t in (0, 6, 12):
        assert_at(out[t][dynamic[t]], floor_depth(feet[t]), share=0.08)  # a mean: 0.17
    noisy = painted(dynamic)
    noisy[::2] *= np.where(dynamic[::2], 1, 0.95)  # the ground seems nearer every other frame
    found = np.array(
        [np.median(o[m]) for o, m in zip(snap_to_ground_contact(noisy, dynamic), dynamic)]
    )
    steps = np.diff(np.log(found))
    assert (steps < 0).all()
    assert np.ptp(steps) < 0.05  # 0.1 without what is known of the frames around


def test_a_hidden_contact_follows_from_the_track() -> None:
    dynamic = walk()
    dynamic[3] |= (box(55, H - 1, 36, 46) | box(H - 2, H - 1, 0, W - 1))[0]  # no ground to be seen
    depth = painted(dynamic)
    np.testing.assert_array_equal(snap_to_ground_contact(depth[3:4], dynamic[3:4]), depth[3:4])
    out = snap_to_ground_contact(depth, dynamic)
    assert_at(out[3][dynamic[3]], floor_depth(54))


def test_different_objects_have_separate_tracks() -> None:
    """Objects are tracked by overlap: one elsewhere in the next frame is another object."""
    here, there = box(15, 54, 20, 30), box(15, 59, 60, 70)
    dynamic = np.concatenate([here, there, there])
    out = snap_to_ground_contact(painted(dynamic), dynamic)
    assert_at(out[0][here[0]], floor_depth(54))
    assert_at(out[1][there[0]], floor_depth(59))


def test_fixed_depth_is_kept() -> None:
    person, known = box(15, 54), np.zeros((1, H, W), bool)
    known[:, :30] = True
    out = snap_to_ground_contact(painted(person), person, known)
    assert (out[person & known] == WALL).all()
    assert_at(out[person & ~known], floor_depth(54))


def test_nothing_and_everything_is_dynamic() -> None:
    depth = room(3)
    np.testing.assert_array_equal(snap_to_ground_contact(depth, np.zeros((3, H, W), bool)), depth)
    np.testing.assert_array_equal(snap_to_ground_contact(depth, np.ones((3, H, W), bool)), depth)
    nothing = snap_to_ground_contact(depth[:0], np.zeros((0, H, W), bool))
    assert nothing.shape == (0, H, W)


def test_small_specks_keep_their_depth() -> None:
    speck = box(45, 47, 40, 43)
    assert speck.mean() < MIN_AREA_SHARE
    np.testing.assert_array_equal(snap_to_ground_contact(painted(speck), speck), painted(speck))


@pytest.mark.parametrize("seed", range(4))
def test_any_masks_give_finite_depth_and_leave_the_rest(seed: int) -> None:
    import cv2

    random = np.random.default_rng(seed)
    noise = np.stack([cv2.GaussianBlur(random.normal(0, 1, (H, W)), (0, 0), 5) for _ in range(4)])
    dynamic = noise > 0.06
    depth = np.exp(random.normal(0, 1, (4, H, W))).astype(np.float32)
    before = depth.copy()
    out = snap_to_ground_contact(depth, dynamic)
    np.testing.assert_array_equal(depth, before)
    assert np.isfinite(out).all()
    assert (out > 0).all()
    np.testing.assert_array_equal(out[~dynamic], depth[~dynamic])
    assert (out != depth).any()


def test_implausibly_far_static_pixels_are_outliers() -> None:
    predicted = room(2)
    solved = 3 * predicted  # another unit of length
    nothing = np.zeros((2, H, W), bool)
    assert not implausible_depth_outliers(predicted, solved, nothing).any()
    solved[1, 30:50, 40:60] *= 2.5
    solved[1, 30:50, 60:70] *= 1.6  # connected with it
    solved[1, 5:15, 5:15] *= 1.6  # this does not
    solved[0, 30:50, 40:60] /= 2.5  # nearer: a network may well have overlooked it
    found = implausible_depth_outliers(predicted, solved, nothing)
    expected = nothing.copy()
    expected[1, 30:50, 40:70] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("frames", [11, 12])
def test_what_follows_the_camera_does_so_for_a_while(frames: int) -> None:
    """Errors of the network's depth differ from frame to frame."""
    found = np.zeros((20, H, W), bool)
    found[4 : 4 + frames, 30:50, 40:60] = True
    found[17:, 10:25, 10:25] = True
    expected = np.zeros_like(found)
    expected[4 : 4 + frames, 30:50, 40:60] = frames == 12
    np.testing.assert_array_equal(lasting(found), expected)
    np.testing.assert_array_equal(lasting(found[17:]), found[17:])  # all there is


def test_specks_and_dynamic_pixels_are_no_outliers() -> None:
    predicted = room()
    solved = predicted.copy()
    solved[0, 20, 20] *= 9
    solved[0, 40:60, 10:30] *= 9
    dynamic = box(40, 59, 10, 29)
    assert not implausible_depth_outliers(predicted, solved, dynamic).any()
    assert not implausible_depth_outliers(predicted, solved, np.ones_like(dynamic)).any()
    # the median is that of what stands still
    solved[:, :, :60] = np.where(dynamic, solved, predicted)[:, :, :60] * 1
    assert not implausible_depth_outliers(predicted, solved, dynamic).any()


def test_masks_are_dilated_unless_hardly_anything_remains() -> None:
    dynamic = np.zeros((2, H, W), bool)
    dynamic[0, 30, 40] = True
    dynamic[1, :, 20:] = True  # what is left stands in a narrow strip
    dynamic[1, :, :6] = True
    wide = dilate_masks(dynamic, 0.1)
    v, u = np.mgrid[:H, :W]
    distance = np.hypot(v - 30, u - 40)
    assert wide[0][distance <= 9].all()
    assert not wide[0][distance > 11].any()
    np.testing.assert_array_equal(wide[1], dynamic[1])
    np.testing.assert_array_equal(dilate_masks(dynamic, 0.0), dynamic)
    assert dynamic[0].sum() == 1  # the mask given is not written to
