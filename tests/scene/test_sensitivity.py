"""Masks at another sensitivity: one scale for all cues, agreement with later stages, edits."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.motion.masks import motion_from_masks
from dyn3r.motion.probability import LIMIT, agreeing, probability_of
from dyn3r.scene import Scene
from dyn3r.scene.sensitivity import at_sensitivity, masks_at, with_edited_masks
from tests.factories import tiny_scene


def graded_scene(**changes) -> Scene:
    """The probability rises from 0 in the first column to 255 in the last one."""
    ramp = np.round(np.linspace(0, 255, 48)).astype(np.uint8)
    probability = np.broadcast_to(ramp, (4, 32, 48)).copy()
    return tiny_scene(dynamic=probability > LIMIT, dynamic_probability=probability, **changes)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_the_threshold_of_a_score_lies_at_the_limit(threshold):
    score = np.linspace(0, 1, 1001).reshape(1, 7, 143)
    found = probability_of(score, threshold)
    far = np.abs(score - threshold) > 0.01
    np.testing.assert_array_equal((found > LIMIT)[far], (score > threshold)[far])
    assert (np.diff(found.ravel().astype(int)) >= 0).all()
    assert (found.min(), found.max()) == (0, 255)


def test_a_still_clip_lies_below_the_limit():
    assert probability_of(np.ones((1, 4, 4)), np.inf).max() <= LIMIT


def test_later_stages_move_the_probability_across_the_limit():
    probability = np.array([[[0, 100, 127, 128, 200, 255]]], np.uint8)
    np.testing.assert_array_equal(agreeing(probability, probability > LIMIT), probability)
    other = agreeing(probability, probability <= LIMIT)
    np.testing.assert_array_equal(other > LIMIT, probability <= LIMIT)
    # the mean of both: what the cue was sure of comes back first
    np.testing.assert_array_equal(other, [[[128, 178, 191, 64, 100, 127]]])
    assert agreeing(None, probability > LIMIT) is None
    assert motion_from_masks(np.ones((1, 16, 16), bool)).probability is None


def test_more_sensitive_masks_contain_less_sensitive_ones():
    scene = graded_scene()
    assert masks_at(scene, 0.5) is scene.dynamic
    assert at_sensitivity(scene, 0.5) is scene
    shares = [masks_at(scene, s).mean() for s in (0.1, 0.3, 0.5, 0.7, 0.9)]
    np.testing.assert_allclose(shares, [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.03)
    assert not (masks_at(scene, 0.3) & ~masks_at(scene, 0.4)).any()
    plain = tiny_scene()
    assert masks_at(plain, 0.9) is plain.dynamic
    with pytest.raises(InputError, match="sensitivity"):
        masks_at(scene, 1.5)


def test_edits_are_certain_at_every_sensitivity():
    scene = graded_scene()
    before = masks_at(scene, 0.8)
    after = before.copy()
    after[1, :5, :3], after[2, :5, -3:] = True, False
    edited = with_edited_masks(scene, before, after)
    np.testing.assert_array_equal(masks_at(edited, 0.8), after)
    for sensitivity in (0.1, 0.5, 0.9):
        masks = masks_at(edited, sensitivity)
        assert masks[1, :5, :3].all()
        assert not masks[2, :5, -3:].any()
        masks[1, :5, :3], masks[2, :5, -3:] = False, True
        found = masks_at(scene, sensitivity).copy()
        found[1, :5, :3], found[2, :5, -3:] = False, True
        np.testing.assert_array_equal(masks, found)
    with pytest.raises(InputError, match="shape"):
        with_edited_masks(scene, before[:1], after[:1])


def test_the_file_keeps_the_probability(tmp_path):
    scene = graded_scene()
    for precision in ("half", "full"):
        scene.save(tmp_path / f"{precision}.dyn3r", precision=precision)
        loaded = Scene.load(tmp_path / f"{precision}.dyn3r")
        np.testing.assert_array_equal(loaded.dynamic_probability, scene.dynamic_probability)
    tiny_scene().save(tmp_path / "none.dyn3r")
    assert Scene.load(tmp_path / "none.dyn3r").dynamic_probability is None


@pytest.mark.parametrize("wrong", [np.zeros((4, 32, 48)), np.zeros((4, 31, 48), np.uint8), [[[0]]]])
def test_a_probability_that_does_not_fit_is_refused(wrong):
    with pytest.raises(InputError, match="dynamic_probability"):
        tiny_scene(dynamic_probability=wrong)
