"""Long clips: windows, separate components, and chunked reading."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyn3r.alignment.align import align
from dyn3r.alignment.chunked_io import READ_BYTES, read_part, row_chunks
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.spanning_tree import maximum_spanning_trees
from dyn3r.alignment.windows import window_spans
from dyn3r.errors import InputError
from dyn3r.types import FlowFields, Priors
from tests.oracles.adam import align_adam

from .synthetic_pairs import (
    SIZE,
    all_finite,
    cameras,
    depth_error,
    make,
    pairs_within,
    path_error,
    turn_error,
)

FAST = AlignmentOptions(pixels=192)


@given(st.integers(1, 700), st.integers(0, 120), st.floats(0.01, 0.99))
def test_windows_cover_the_clip_and_overlap(frames: int, size: int, overlap: float) -> None:
    if size == 1:
        return
    spans = window_spans(frames, size, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == frames
    assert all(first < end <= first + (size or frames) for first, end in spans)
    for (_, end), (later, later_end) in pairwise(spans):
        assert 0 < later < end < later_end


def test_published_windows() -> None:
    assert window_spans(100, 100, 0.5) == [(0, 100)]
    assert window_spans(220, 100, 0.5) == [(0, 100), (50, 150), (100, 200), (150, 220)]


T16 = cameras(16)
NEAR16 = pairs_within(16, 3)


@pytest.mark.slow
def test_windows_find_nearly_what_one_solve_finds() -> None:
    predictions, depth = make(T16, NEAR16, 0.02)
    whole = align(predictions, options=FAST)
    calls: list[tuple[str, int, int]] = []
    found = align(
        predictions, options=replace(FAST, window=8), progress=lambda *call: calls.append(call)
    )
    assert turn_error(found.T_world_camera, T16) < 0.6
    assert path_error(found.T_world_camera, T16) < 0.02
    assert depth_error(found.depth, depth) < 0.02
    assert found.diagnostics.terms["pairs"] < 1.05 * whole.diagnostics.terms["pairs"]
    assert found.determined.all()
    assert found.diagnostics.notes == ()
    assert (found.K[0] == found.K).all()
    scales = np.linalg.det(found.diagnostics.pair_similarity[:, :3, :3]) ** (1 / 3)
    assert np.log(scales).mean() == pytest.approx(np.log(0.5), abs=1e-3)
    assert all(0 <= done <= total for _, done, total in calls)


@pytest.mark.slow
def test_later_frames_do_not_touch_what_an_earlier_window_found() -> None:
    """Cameras of the first window are the same, up to the unit, whatever follows them."""
    predictions, _depth = make(T16, NEAR16, 0.03)
    assert predictions.points1 is not None
    assert predictions.points2 is not None
    options = replace(FAST, window=8)
    one = align(predictions, options=options)
    later = (predictions.edges >= 8).any(1)
    random = np.random.default_rng(1)
    for side in (predictions.points1, predictions.points2):
        side[later] *= 1 + 0.05 * random.standard_normal((int(later.sum()), *SIZE, 1))
    two = align(predictions, options=options)
    unit = [np.linalg.norm(found.T_world_camera[7, :3, 3]) for found in (one, two)]
    for t in range(8):
        a, b = one.T_world_camera[t], two.T_world_camera[t]
        np.testing.assert_allclose(a[:3, :3], b[:3, :3], atol=1e-6)
        np.testing.assert_allclose(a[:3, 3] / unit[0], b[:3, 3] / unit[1], atol=1e-6)
    np.testing.assert_allclose(one.K, two.K, rtol=1e-6)
    assert np.abs(one.T_world_camera[12] - two.T_world_camera[12]).max() > 1e-4


@pytest.mark.slow
def test_own_focals_in_windows() -> None:
    predictions, depth = make(cameras(10), pairs_within(10, 2), 0.01)
    found = align(predictions, options=replace(FAST, window=6, shared_focal=False))
    assert len(np.unique(found.K[:, 0, 0])) == 10
    assert depth_error(found.depth, depth) < 0.02


@pytest.mark.slow
def test_pairs_longer_than_a_window_are_named_and_still_place_frames() -> None:
    """A reference graph: every frame meets frame 0 only, most of them outside its window."""
    edges = np.array([(0, j) for j in range(1, 8)])
    predictions, depth = make(cameras(8), edges, 0.005)
    found = align(predictions, options=replace(FAST, window=4))
    assert found.determined.all()
    assert turn_error(found.T_world_camera, cameras(8)) < 0.6
    assert depth_error(found.depth, depth) < 0.02
    cyclic = np.concatenate([NEAR16, [(0, 15), (15, 0)]])
    predictions, depth = make(T16, cyclic, 0.02)
    found = align(predictions, options=replace(FAST, window=8))
    assert any("2 of 86 pairs reach beyond" in note for note in found.diagnostics.notes)
    assert depth_error(found.depth, depth) < 0.02
    assert all_finite(found)


@pytest.mark.slow
def test_a_gap_at_a_window_boundary_makes_components() -> None:
    edges = np.array([e for e in NEAR16 if (e[0] < 7) == (e[1] < 7)])
    predictions, depth = make(T16, edges, 0.02)
    found = align(predictions, options=replace(FAST, window=6))
    assert found.determined.tolist() == [True] * 7 + [False] * 9
    assert any("frames 7..15 (9 frames) share no pair" in note for note in found.diagnostics.notes)
    assert path_error(found.T_world_camera[:7], T16[:7]) < 0.02
    assert path_error(found.T_world_camera[7:], T16[7:]) < 0.02
    assert depth_error(found.depth[7:], depth[7:]) < 0.03


@pytest.mark.slow
def test_separate_components_converge_early() -> None:
    """Solved together, their relative scale would drift until the last iteration."""
    edges = np.array([e for e in pairs_within(8, 3) if (e[0] < 5) == (e[1] < 5)])
    predictions, _depth = make(cameras(8), edges, 0.05)
    found = align(predictions, options=FAST)
    assert len(found.diagnostics.history) < 2 * 2 * 41 / 2
    assert [note for note in found.diagnostics.notes if "share no pair" in note]


def test_a_known_camera_without_pairs_or_unit_stays_where_it_is() -> None:
    edges = np.array([e for e in pairs_within(6, 2) if 3 not in e])
    predictions, _depth = make(cameras(6), edges, 0.02)
    T = np.full((6, 4, 4), np.nan)
    for t in (1, 3):
        T[t] = cameras(6)[t]
        T[t, :3, 3] += [5.0, -2.0, 1.0]
    found = align(predictions, priors=Priors(T_world_camera=T), options=FAST)
    np.testing.assert_array_equal(found.T_world_camera[[1, 3]], T[[1, 3]])
    assert found.determined.all()
    assert all_finite(found)


@pytest.mark.slow
def test_flow_and_masks_in_windows() -> None:
    predictions, depth = make(T16, NEAR16, 0.02)
    edges = np.array([(t, t + 1) for t in range(15)])
    dynamic = np.zeros((16, *SIZE), bool)
    dynamic[:, :8, :8] = True
    flow = FlowFields(edges, np.zeros((15, *SIZE, 2), np.float32))
    options = replace(FAST, window=8, flow_weight=1e-3, smoothness_weight=1e-3)
    found = align(predictions, dynamic=dynamic, flow=flow, options=options)
    assert depth_error(found.depth, depth) < 0.05
    assert found.diagnostics.terms["flow"] > 0


@pytest.mark.slow
def test_adam_in_windows() -> None:
    predictions, depth = make(cameras(8), pairs_within(8, 2), 0.01)
    found = align_adam(predictions, options=AlignmentOptions(window=5), steps=60)
    assert depth_error(found.depth, depth) < 0.05
    assert found.determined.all()


@pytest.mark.parametrize("change", [{"window": 1}, {"window": -3}, {"overlap": 0.0}])
def test_windows_that_make_no_sense_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="window"):
        AlignmentOptions(**change)


@given(st.integers(0, 10_000))
def test_spanning_tree_with_a_heap_is_prims(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, m = int(random.integers(2, 9)), int(random.integers(1, 20))
    edges = random.integers(0, n, (m, 2)).tolist()
    scores = (random.permutation(m) * (random.random(m) > 0.2)).astype(float).tolist()
    for root, steps in maximum_spanning_trees(scores, edges, n):
        known = set(edges[root])
        for edge, new in steps:
            crossing = [
                e
                for e in range(m)
                if scores[e] > 0 and (edges[e][0] in known) != (edges[e][1] in known)
            ]
            assert edge == max(crossing, key=lambda e: scores[e])
            assert new in edges[edge]
            assert new not in known
            known.add(new)
        assert not [
            e
            for e in range(m)
            if scores[e] > 0 and (edges[e][0] in known) != (edges[e][1] in known)
        ]


def resident_bytes(path) -> int:
    """Resident pages of a mapped file, from the kernel's list of mappings."""
    total, mine = 0, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if "-" in line.split()[0] and ":" not in line.split()[0]:
                mine = str(path) in line
            elif mine and line.startswith("Rss:"):
                total += 1024 * int(line.split()[1])
    return total


def test_reading_a_mapped_file_keeps_no_pages(tmp_path) -> None:
    path = tmp_path / "points.npy"
    np.save(path, np.arange(1_000_000, dtype=np.float32).reshape(100, 100, 100))
    mapped = np.load(path, mmap_mode="r")
    assert float(mapped.sum()) > 0
    try:
        assert resident_bytes(path) > 1_000_000
    except OSError:
        pytest.skip("this system does not list mappings")
    part = read_part(mapped, slice(3, 5), slice(0, None, 10))
    assert resident_bytes(path) == 0
    assert not isinstance(part, np.memmap)
    np.testing.assert_array_equal(part, np.load(path)[3:5, ::10])


def test_what_was_written_to_a_mapped_file_survives(tmp_path) -> None:
    for mode in ("w+", "c"):
        if mode == "w+":
            array = np.memmap(tmp_path / "a", np.float32, mode="w+", shape=(8, 4))
        else:
            array = np.memmap(tmp_path / "a", np.float32, mode="c", shape=(8, 4))
        array[:] = 7
        assert (read_part(array, slice(0, 2)) == 7).all()
        assert (read_part(array[2:], slice(0, 6)) == 7).all()


def test_chunks_of_rows_are_bounded() -> None:
    array = np.broadcast_to(np.float32(0), (50, READ_BYTES // 40))
    chunks = list(row_chunks(array))
    assert [c.start for c in chunks][1:] == [c.stop for c in chunks][:-1]
    assert chunks[-1].stop == 50
    assert max(array[c].nbytes for c in chunks) <= READ_BYTES
