"""align(): inputs and outputs, priors, and input that determines little or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.alignment.align import align
from dyn3r.alignment.gauss_newton import pyramid_sizes
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.errors import GeometryError, InputError
from dyn3r.geometry.cameras import intrinsics
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.io.workers import at_most
from dyn3r.types import FlowFields, PairPredictions, Priors
from tests.oracles.adam import align_adam
from tests.oracles.cleaning import clean_confidence

from .golden_alignment import small_functions
from .synthetic_pairs import (
    FOCAL,
    SIZE,
    all_finite,
    cameras,
    depth_error,
    make,
    pairs_within,
    path_error,
    turn_error,
)


def test_exact_predictions_give_exact_answers() -> None:
    T = cameras(5)
    predictions, depth = make(T, pairs_within(5))
    found = align(predictions)
    assert path_error(found.T_world_camera, T) < 1e-4
    assert turn_error(found.T_world_camera, T) < 0.05
    assert depth_error(found.depth, depth) < 1e-4
    assert found.K[0, 0, 0] == pytest.approx(FOCAL, rel=1e-3)
    assert (found.frame_quality > 0.99).all()
    assert found.diagnostics.notes == ()
    np.testing.assert_array_equal(found.T_world_camera[0], np.eye(4))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    predictions, _depth = make(cameras(5), pairs_within(5), 0.03)
    with at_most(1):
        alone = align(predictions)
    together = align(predictions)
    for name in ("T_world_camera", "K", "depth", "sigma_log_depth"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    assert alone.diagnostics.terms == together.diagnostics.terms


@pytest.mark.slow
def test_half_precision_memory_maps_and_small_chunks_change_nothing(tmp_path) -> None:
    predictions, _depth = make(cameras(4), pairs_within(4), 0.03, dtype=np.float16)
    names = ("points1", "conf1", "points2", "conf2")
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(predictions, name))
    mapped = replace(
        predictions, **{name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names}
    )
    whole = align(predictions)
    chunked = align(mapped, options=AlignmentOptions(chunk_observations=100))
    np.testing.assert_allclose(chunked.depth, whole.depth, rtol=1e-4)
    np.testing.assert_allclose(chunked.T_world_camera, whole.T_world_camera, atol=1e-5)
    assert chunked.diagnostics.terms["pairs"] == pytest.approx(
        whole.diagnostics.terms["pairs"], rel=1e-5
    )


@pytest.mark.slow
def test_order_of_pairs_does_not_matter() -> None:
    predictions, _depth = make(cameras(5), pairs_within(5), 0.03)
    order = np.random.default_rng(0).permutation(len(predictions))
    shuffled = PairPredictions(
        predictions.edges[order],
        5,
        *(getattr(predictions, name)[order] for name in ("points1", "conf1", "points2", "conf2")),
    )
    one, two = align(predictions), align(shuffled)
    assert one.diagnostics.terms["total"] == pytest.approx(two.diagnostics.terms["total"], rel=2e-3)
    np.testing.assert_allclose(
        one.diagnostics.pair_similarity[order], two.diagnostics.pair_similarity, atol=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["gauss-newton", "adam"])
def test_fixed_priors_are_kept_exactly(solver: str) -> None:
    T = cameras(4)
    predictions, depth = make(T, pairs_within(4), 0.03)
    K = np.tile(np.array([[29.0, 0, 15.5], [0, 31.0, 12.5], [0, 0, 1]]), (4, 1, 1))
    known = depth.astype(np.float32)
    known[:, ::2] = np.nan
    T_known = T.copy()
    T_known[2] = np.nan
    priors = Priors(K=K, T_world_camera=T_known, depth=known)
    if solver == "adam":
        found = align_adam(predictions, priors=priors, steps=10)
    else:
        found = align(predictions, priors=priors, options=AlignmentOptions(iterations=10))
    np.testing.assert_array_equal(found.K, K)
    np.testing.assert_array_equal(found.T_world_camera[[0, 1, 3]], T[[0, 1, 3]])
    assert np.abs(found.T_world_camera[2] - T[2]).max() < 0.25
    np.testing.assert_allclose(found.depth[:, 1::2], depth[:, 1::2], rtol=1e-5)
    assert all_finite(found)


@pytest.mark.slow
def test_priors_that_are_not_fixed_are_initial_values() -> None:
    T = cameras(4)
    predictions, depth = make(T, pairs_within(4), 0.02)
    wrong = np.tile(np.array([[33.0, 0, 16], [0, 33.0, 12], [0, 0, 1]]), (4, 1, 1))
    priors = Priors(
        K=wrong, T_world_camera=T, depth=1.1 * depth, fix_K=False, fix_T=False, fix_depth=False
    )
    found = align(predictions, priors=priors)
    assert found.K[0, 0, 0] == pytest.approx(FOCAL, rel=0.02)
    assert depth_error(found.depth, depth) < 0.02
    assert path_error(found.T_world_camera, T) < 0.02


@pytest.mark.slow
def test_known_cameras_set_the_unit_of_length() -> None:
    T = cameras(4)
    T[:, :3, 3] *= 7
    predictions, depth = make(cameras(4), pairs_within(4), 0.01)
    found = align(predictions, priors=Priors(T_world_camera=T))
    assert np.median(found.depth / (7 * depth)) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_flow_pulls_the_cameras_towards_the_truth() -> None:
    T = cameras(5)
    predictions, depth = make(T, pairs_within(5), 0.02)
    i, j = predictions.edges.T
    K = intrinsics(torch.full((5,), FOCAL, dtype=torch.float64), SIZE)
    true_T = torch.from_numpy(T)
    flow = induced_flow(torch.from_numpy(depth)[i], K[i], true_T[i], K[j], true_T[j]).numpy()
    measured = FlowFields(predictions.edges, flow)
    without = align(predictions)
    found = align(predictions, flow=measured, options=AlignmentOptions(flow_weight=1.0))
    assert path_error(found.T_world_camera, T) < 0.5 * path_error(without.T_world_camera, T)
    assert found.diagnostics.terms["flow"] > 0
    assert found.diagnostics.terms["total"] == pytest.approx(
        found.diagnostics.terms["pairs"] + found.diagnostics.terms["flow"]
    )


@pytest.mark.slow
def test_dynamic_pixels_can_have_less_weight() -> None:
    T = cameras(5)
    predictions, _depth = make(T, pairs_within(5), 0.01)
    dynamic = np.zeros((5, *SIZE), bool)
    dynamic[:, :, :16] = True
    random = np.random.default_rng(0)
    assert predictions.points2 is not None
    for row in range(len(predictions)):  # a different error in every pair
        predictions.points2[row][dynamic[0]] += random.normal(0, 0.5, 3)
    published = align(predictions, dynamic=dynamic)
    still = align(predictions, dynamic=dynamic, options=AlignmentOptions(dynamic_weight=0.0))
    assert path_error(still.T_world_camera, T) < 0.5 * path_error(published.T_world_camera, T)
    assert still.diagnostics.terms["pairs"] >= published.diagnostics.terms["pairs"]


@pytest.mark.slow
def test_depth_prior_and_smoothness_are_obeyed_when_strong() -> None:
    predictions, _depth = make(cameras(5), pairs_within(5), 0.05)
    free, smooth = (
        align(predictions),
        align(predictions, options=AlignmentOptions(smoothness_weight=3.0)),
    )
    assert smooth.diagnostics.terms["smoothness"] < 0.5 * free.diagnostics.terms["smoothness"]
    stiff = align(predictions, options=AlignmentOptions(depth_prior_weight=1e3))
    assert stiff.diagnostics.terms["depth_prior"] < 0.2 * free.diagnostics.terms["depth_prior"]


T6, ALL6 = cameras(6), pairs_within(6)


def test_one_frame() -> None:
    predictions, depth = make(cameras(1), np.array([[0, 0]]), 0.01)
    found = align(predictions)
    assert depth_error(found.depth, depth) < 0.02
    assert found.K[0, 0, 0] == pytest.approx(FOCAL, rel=0.01)
    assert found.determined.all()
    assert all_finite(found)


@pytest.mark.parametrize("edges", [[[0, 1], [1, 0]], [[0, 1]], [[1, 0]]])
def test_two_frames(edges: list) -> None:
    T = cameras(2)
    predictions, depth = make(T, np.array(edges), 0.005)
    found = align(predictions)
    assert turn_error(found.T_world_camera, T) < 0.5
    assert depth_error(found.depth, depth) < 0.02
    baseline = np.linalg.norm(found.T_world_camera[1, :3, 3] - found.T_world_camera[0, :3, 3])
    true = np.linalg.norm(T[1, :3, 3] - T[0, :3, 3])
    scale = np.median(found.depth) / np.median(depth)
    assert baseline / scale == pytest.approx(true, rel=0.1)
    assert all_finite(found)


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["rotation", "plane", "all moving", "identical", pytest.param("reference", marks=SLOW)]
)
def test_hard_but_solvable(kind: str) -> None:
    T = {"rotation": cameras(6, move=0), "identical": np.tile(np.eye(4), (6, 1, 1))}.get(kind, T6)
    edges = np.array([(0, j) for j in range(1, 6)]) if kind == "reference" else ALL6
    predictions, depth = make(T, edges, 0.02, flat=kind == "plane")
    dynamic = np.ones((6, *SIZE), bool) if kind == "all moving" else None
    found = align(predictions, dynamic=dynamic, options=AlignmentOptions(dynamic_weight=0.0))
    assert turn_error(found.T_world_camera, T) < 0.6
    assert depth_error(found.depth, depth) < 0.02
    scale = np.median(found.depth) / np.median(depth)
    shift = found.T_world_camera[:, :3, 3] / scale
    assert np.abs(shift - (T[:, :3, 3] - T[0, :3, 3]) @ T[0, :3, :3]).max() < 0.06
    assert found.determined.all()
    assert all_finite(found)


@pytest.mark.slow
def test_one_outlier_pair_hurts_nobody() -> None:
    predictions, depth = make(T6, ALL6, 0.02)
    random = np.random.default_rng(0)
    assert predictions.points1 is not None
    assert predictions.points2 is not None
    predictions.points1[3] = random.standard_normal((*SIZE, 3))
    predictions.points2[3] = random.standard_normal((*SIZE, 3))
    found = align(predictions)
    assert path_error(found.T_world_camera, T6) < 0.01
    assert depth_error(found.depth, depth) < 0.02


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_left_out() -> None:
    predictions, depth = make(T6, ALL6, 0.02)
    assert predictions.points1 is not None
    assert predictions.conf2 is not None
    predictions.points1[3] = np.nan
    predictions.points1[5, :4] = np.inf
    predictions.conf2[6, 5:9] = np.nan
    found = align(predictions)
    assert all_finite(found)
    assert depth_error(found.depth, depth) < 0.02
    assert any("1 of 18 pairs" in note for note in found.diagnostics.notes)
    assert len(found.diagnostics.pair_similarity) == 18


@pytest.mark.slow
def test_black_frame_is_named_and_gets_a_neighbour_not_an_identity() -> None:
    predictions, _depth = make(T6, ALL6, 0.02)
    assert predictions.conf1 is not None
    assert predictions.conf2 is not None
    touched = (ALL6 == 3).any(1)
    predictions.conf1[touched] = 1
    predictions.conf2[touched] = 1
    found = align(predictions)
    assert found.determined.tolist() == [True, True, True, False, True, True]
    assert found.frame_quality[3] == 0
    assert (found.confidence[3] == 0).all()
    assert any("frame 3" in note for note in found.diagnostics.notes)
    assert not np.allclose(found.T_world_camera[3], np.eye(4))
    assert all_finite(found)


@pytest.mark.slow
def test_components_without_a_common_pair_are_named() -> None:
    edges = np.array([e for e in ALL6 if (e[0] < 4) == (e[1] < 4)])
    predictions, depth = make(T6, edges, 0.02)
    found = align(predictions)
    assert found.determined.tolist() == [True] * 4 + [False] * 2
    assert any("share no pair" in note for note in found.diagnostics.notes)
    assert path_error(found.T_world_camera[:4], T6[:4]) < 0.01
    assert np.median(found.depth[4:]) == pytest.approx(np.median(found.depth[:4]), rel=0.1)
    assert depth_error(found.depth[4:], depth[4:]) < 0.02
    assert all_finite(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["zeros", pytest.param("constant", marks=SLOW), pytest.param("garbage", marks=SLOW)],
)
def test_nonsense_is_finite_and_not_trusted(kind: str) -> None:
    predictions, _depth = make(T6, ALL6)
    random = np.random.default_rng(0)
    shape = (len(ALL6), *SIZE, 3)
    sides = {
        "zeros": np.zeros(shape),
        "constant": np.ones(shape) * [0, 0, 1],
        "garbage": random.standard_normal(shape),
    }
    found = align(replace(predictions, points1=sides[kind], points2=sides[kind][::-1].copy()))
    assert all_finite(found)
    assert found.diagnostics.notes


def test_nothing_usable_is_an_error() -> None:
    predictions, _depth = make(T6, ALL6)
    assert predictions.conf1 is not None
    with pytest.raises(GeometryError, match="no pair of frames has usable points"):
        align(replace(predictions, conf1=np.ones_like(predictions.conf1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": np.zeros((0, 2), int)}, "at least one pair"),
        ({"edges": ALL6 + 1}, "edges must"),
        ({"conf1": np.ones((18, 3, 3))}, "conf1 of shape"),
        ({"points2": None}, "points2 of shape"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    predictions, _depth = make(T6, ALL6)
    with pytest.raises(InputError, match=message):
        align(replace(predictions, **change))


def test_arguments_that_do_not_fit_are_refused() -> None:
    predictions, _depth = make(T6, ALL6)
    with pytest.raises(InputError, match=r"priors\.K of shape"):
        align(predictions, priors=Priors(K=np.zeros((2, 3, 3))))
    with pytest.raises(InputError, match="negative"):
        AlignmentOptions(flow_weight=-1.0)


@pytest.mark.slow
def test_progress_counts_up_and_ends() -> None:
    predictions, _depth = make(cameras(3), pairs_within(3), 0.02)
    calls: list[tuple[str, int, int]] = []
    align(predictions, progress=lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"aligning: cameras", "aligning: depth"}
    assert all(0 <= done <= total for _, done, total in calls)
    assert calls[-1][1:] == (3, 3)


def test_cleaning_agrees_with_golden() -> None:
    g = {name[6:]: torch.from_numpy(a) for name, a in small_functions().items() if "clean|" in name}
    K = g["K"].expand(4, 3, 3)
    cleaned = clean_confidence(g["depth"], g["conf"], K, g["cam2world"])
    torch.testing.assert_close(cleaned, g["conf_out"])
    assert int((cleaned == 0).sum()) > 100


@pytest.mark.parametrize(
    ("count", "expected"),
    [(16, [16, 16]), (192, [48, 192]), (1408, [352, 1408]), (22528, [352, 1408, 5632, 22528])],
)
def test_pyramid_sizes_grow_by_four_from_a_few_hundred(count: int, expected: list[int]) -> None:
    assert pyramid_sizes(count) == expected


@pytest.mark.slow
def test_more_pixels_end_nearer_to_the_minimum_of_the_whole_objective() -> None:
    predictions, _depth = make(cameras(4), pairs_within(4), 0.03)
    height, width = predictions.size_hw
    ends = [
        align(predictions, options=AlignmentOptions(pixels=pixels)).diagnostics.terms["pairs"]
        for pixels in (100, height * width)
    ]
    assert ends[1] < ends[0]
