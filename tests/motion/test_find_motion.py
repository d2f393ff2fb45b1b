"""The whole search for motion: against the golden numbers, and on clips that are short or still.

The scores in golden/motion.npz were made from the golden encoder tokens by a slow decoder written
from SPEC 1, whose statistics agree with the golden ones of two pairs within 1e-6; every other array
is the published program's.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from simulated_attention import SIZE_HW, simulate

from dyn3r.errors import InputError
from dyn3r.motion.attention_cue import find_motion
from dyn3r.motion.masks import motion_from_masks
from dyn3r.motion.options import AttentionCueOptions
from dyn3r.network.patches import token_mask
from dyn3r.types import Motion

GOLDEN = Path(__file__).parents[1] / "golden" / "motion.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


def run_golden(golden: dict[str, np.ndarray], options: AttentionCueOptions | None) -> Motion:
    names = ("scores1", "scores2", "edges", "tokens")
    return find_motion(*(golden[name] for name in names), (80, 160), options=options)


@pytest.mark.parametrize("options", [None, AttentionCueOptions.easi3r()], ids=["default", "easi3r"])
def test_agrees_with_the_published_program(golden, options):
    motion = run_golden(golden, options)
    for name in ("mu1", "sd1", "mu2", "sd2"):
        np.testing.assert_allclose(motion.evidence.statistics[name], golden[name], atol=1e-4)
    np.testing.assert_allclose(motion.evidence.raw_map, golden["dynamic_map"], atol=1e-4)
    np.testing.assert_allclose(motion.dynamic_map, golden["refined_map"], atol=1e-4)
    assert motion.evidence.threshold == pytest.approx(float(golden["threshold"]), abs=1e-4)
    assert (motion.masks != golden["masks"]).sum() <= 2
    assert motion.has_motion


def test_torch_and_half_precision_input_change_little(golden):
    edges, tokens = torch.from_numpy(golden["edges"]), torch.from_numpy(golden["tokens"])
    half = [torch.from_numpy(golden[name]).half() for name in ("scores1", "scores2")]
    motion = find_motion(*half, edges, tokens, (80, 160))
    np.testing.assert_allclose(motion.dynamic_map, golden["refined_map"], atol=2e-2)
    assert (motion.masks != golden["masks"]).mean() < 0.02


def test_inputs_are_left_as_they_were(golden):
    names = ("scores1", "scores2", "tokens")
    copies = [golden[name].copy() for name in names]
    find_motion(copies[0], copies[1], golden["edges"], copies[2], (80, 160))
    for copy, name in zip(copies, names):
        np.testing.assert_array_equal(copy, golden[name])


def test_order_of_the_pairs_does_not_matter(golden):
    order = np.random.default_rng(3).permutation(len(golden["edges"]))
    shuffled = {**golden, **{k: golden[k][order] for k in ("scores1", "scores2", "edges")}}
    motion = run_golden(shuffled, None)
    np.testing.assert_allclose(motion.dynamic_map, golden["refined_map"], atol=1e-4)


def overlap(motion: Motion, dynamic: np.ndarray) -> tuple[float, float]:
    """Share of the object's tokens that are masked, and share of the others."""
    found = token_mask(motion.masks)
    return float(found[dynamic].mean()), float(found[~dynamic].mean())


@pytest.mark.slow
@pytest.mark.parametrize("still_test", [True, False])
def test_a_moving_object_is_found(still_test):
    clip = simulate()
    options = AttentionCueOptions(still_test=still_test)
    motion = find_motion(*clip[:4], SIZE_HW, options=options)
    hit, false = overlap(motion, clip.dynamic)
    assert motion.has_motion
    assert math.isfinite(motion.evidence.threshold)
    assert hit == 1.0
    assert false < 0.15  # the tokens that border on the object
    assert "automatic threshold" in motion.reason


def assert_still(motion: Motion) -> None:
    assert not motion.has_motion
    assert not motion.masks.any()
    assert motion.evidence.threshold == math.inf
    assert np.isfinite(motion.dynamic_map).all()


@pytest.mark.slow
def test_equal_frames_are_still_where_the_published_recipe_tears_them_apart():
    clip = simulate(mover=False, camera=0.0, noise=1e-4)
    motion = find_motion(*clip[:4], SIZE_HW)
    assert_still(motion)
    assert "agree" in motion.reason
    torn = find_motion(*clip[:4], SIZE_HW, options=AttentionCueOptions.easi3r())
    assert torn.has_motion
    assert torn.masks.any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_stillness_and_motion_do_not_depend_on_the_scale_of_the_scores(scale):
    still, moving = simulate(mover=False, camera=0.0, noise=0.002), simulate()
    for clip, expected in ((still, False), (moving, True)):
        scores = [
            5 + np.float32(scale) * s if scale >= 1 else np.float32(scale) * s for s in clip[:2]
        ]
        motion = find_motion(*scores, clip.edges, clip.tokens, SIZE_HW)
        assert motion.has_motion == expected


def test_a_mask_over_most_of_the_clip_is_rejected(monkeypatch):
    monkeypatch.setattr("dyn3r.motion.stillness.MAX_SHARE", 0.01)
    clip = simulate()
    motion = find_motion(*clip[:4], SIZE_HW)
    assert_still(motion)
    assert "background" in motion.reason


def test_two_frames_use_the_means_alone_and_say_so():
    clip = simulate(2)
    motion = find_motion(*clip[:4], SIZE_HW)
    hit, false = overlap(motion, clip.dynamic)
    assert motion.has_motion
    assert "only the mean attention" in motion.reason
    assert hit == 1.0
    assert false < 0.2
    assert_still(find_motion(*clip[:4], SIZE_HW, options=AttentionCueOptions.easi3r()))


def test_two_equal_frames_are_still():
    clip = simulate(2, mover=False, camera=0.0, noise=1e-4)
    motion = find_motion(*clip[:4], SIZE_HW)
    assert_still(motion)
    assert "equal" in motion.reason


def test_a_frame_with_one_pair_takes_over_what_the_others_say():
    clip = simulate(3, window=1)  # frames 0 and 2 have one pair each
    motion = find_motion(*clip[:4], SIZE_HW)
    assert not motion.evidence.raw_map[[0, 2]].any()
    for t in (0, 2):
        found = token_mask(motion.masks)[t]
        assert found[clip.dynamic[t]].all()
        assert found[~clip.dynamic[t]].mean() < 0.2
    assert "2 frames with a single pair" in motion.reason


def test_one_reference_frame_paired_with_all_others():
    clip = simulate(5, window=5)
    keep = clip.edges[:, 0] == 0
    motion = find_motion(
        clip.scores1[keep], clip.scores2[keep], clip.edges[keep], clip.tokens, SIZE_HW
    )
    assert np.isfinite(motion.dynamic_map).all()
    assert token_mask(motion.masks)[1:][clip.dynamic[1:]].mean() > 0.9


def test_a_single_frame_and_no_pairs_are_still():
    clip = simulate(2)
    alone = find_motion(
        clip.scores1[:1], clip.scores2[:1], np.array([[0, 0]]), clip.tokens[:1], SIZE_HW
    )
    assert_still(alone)
    none = find_motion(
        clip.scores1[:0], clip.scores2[:0], np.zeros((0, 2), int), clip.tokens, SIZE_HW
    )
    assert_still(none)
    assert alone.masks.shape == (1, *SIZE_HW)
    assert none.masks.shape == (2, *SIZE_HW)


def test_a_frame_without_pairs_among_others():
    clip = simulate(6)
    keep = (clip.edges != 5).all(axis=1)
    motion = find_motion(
        clip.scores1[keep], clip.scores2[keep], clip.edges[keep], clip.tokens, SIZE_HW
    )
    assert motion.has_motion
    assert not motion.evidence.raw_map[5].any()
    assert token_mask(motion.masks)[5][clip.dynamic[5]].all()  # through its clusters


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("edges", np.full((36, 2), 99), "edges must name frames"),
        ("edges", np.zeros((3, 2), int), "edges must be integers"),
        ("edges", np.zeros((36, 2)), "edges must be integers"),
        ("tokens", np.zeros((8, 7, 4), np.float32), "tokens must have the shape"),
        ("scores2", np.zeros((36, 2, 2, 2), np.float32), "one shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name, wrong, words):
    clip = simulate()
    assert len(clip.edges) == 36
    given = {k: getattr(clip, k) for k in ("scores1", "scores2", "edges", "tokens")}
    given[name] = torch.from_numpy(wrong)  # the shapes of tensors are not in the signature
    with pytest.raises(InputError, match=words):
        find_motion(*given.values(), SIZE_HW)


@pytest.mark.parametrize("name", ["scores1", "scores2", "tokens"])
def test_values_that_are_not_finite_are_refused(name):
    clip = simulate()._asdict()
    clip[name] = clip[name].copy()
    clip[name].flat[-1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        find_motion(clip["scores1"], clip["scores2"], clip["edges"], clip["tokens"], SIZE_HW)


def test_number_of_frames_is_checked():
    clip = simulate()
    with pytest.raises(InputError, match="9 frames"):
        find_motion(*clip[:4], SIZE_HW, num_frames=9)


def test_given_masks_become_motion():
    masks = np.zeros((2, 32, 48), bool)
    masks[1, 17, 33] = True
    motion = motion_from_masks(masks)
    assert motion.has_motion
    np.testing.assert_array_equal(motion.masks, masks)
    assert motion.dynamic_map[1, 1, 2] == 1.0
    assert motion.dynamic_map.sum() == 1.0
    empty = motion_from_masks(torch.zeros(2, 32, 48, dtype=torch.bool))
    assert not empty.has_motion
    assert empty.reason == "the masks that were given are empty"
