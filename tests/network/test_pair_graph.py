"""Pair graphs: golden edges, a slow readable reference, and the corners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyn3r.errors import InputError
from dyn3r.network.pair_graph import (
    Complete,
    LogWindow,
    Reference,
    Window,
    make_pairs,
    parse_graph,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "misc_frames.npz")
GRAPHS = [key.split("__")[1:] for key in GOLDEN.files if key.startswith("graph")]


@pytest.mark.parametrize(("frames", "name"), GRAPHS)
def test_golden_graphs(frames: str, name: str) -> None:
    published = GOLDEN[f"graph__{frames}__{name}"]
    edges = make_pairs(name, int(frames))
    # The published list repeats itself, and pairs frames with themselves, only where a cyclic
    # window is as wide as the clip; everywhere else ours is the same list.
    if name == "swin-3" and int(frames) <= 3:
        published = np.unique(published[published[:, 0] != published[:, 1]], axis=0)
    np.testing.assert_array_equal(edges, published)
    assert edges.dtype == np.int64


def test_default_graph_of_65_frames_has_600_pairs() -> None:
    assert len(make_pairs("swinstride-5-noncyclic", 65)) == 600


def slow_pairs(name: str, n: int) -> list[tuple[int, int]]:
    """SPEC 3 read aloud: loops over frames and offsets."""
    kind, _, rest = name.partition("-")
    noncyclic = name.endswith("-noncyclic")
    found = set()
    if kind == "complete":
        found = {(i, j) for i in range(n) for j in range(n)}
    elif kind == "oneref":
        found = {(int(rest), j) for j in range(n)}
    else:
        width = int(rest.split("-")[0])
        offsets = {
            "swin": range(1, width + 1),
            "swinstride": range(1, 2 * width, 2),
            "swin2stride": range(1, 3 * width - 1, 3),
            "logwin": [2**k for k in range(width)],
        }[kind]
        for i in range(n):
            for offset in offsets:
                j = i + offset if noncyclic else (i + offset) % n
                if j < n:
                    found.add((min(i, j), max(i, j)))
    if (kind != "oneref" and name != "swin-1") or n == 2:
        found |= {(j, i) for i, j in found}
    return sorted((i, j) for i, j in found if i != j)


NAMES = st.one_of(
    st.just("complete"),
    st.builds(
        "{}-{}{}".format,
        st.sampled_from(["swin", "swinstride", "swin2stride", "logwin"]),
        st.integers(1, 9),
        st.sampled_from(["", "-noncyclic"]),
    ),
    st.just("oneref-0"),
)


@settings(max_examples=150, deadline=None)
@given(name=NAMES, n=st.integers(2, 21))
def test_agrees_with_the_slow_reading_of_the_specification(name: str, n: int) -> None:
    edges = make_pairs(name, n)
    assert [tuple(edge) for edge in edges.tolist()] == slow_pairs(name, n)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "name", ["complete", "swin-1", "swin-3", "swinstride-5-noncyclic", "logwin-4", "oneref-0"]
)
def test_one_and_two_frames(name: str, n: int) -> None:
    expected = [[0, 0]] if n == 1 else [[0, 1], [1, 0]]
    assert make_pairs(name, n).tolist() == expected


def test_swin_1_is_a_one_way_ring() -> None:
    assert make_pairs("swin-1", 4).tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    assert len(make_pairs("swin-1-noncyclic", 4)) == 6


def test_names_and_values_are_the_same_graphs() -> None:
    assert parse_graph("complete") == Complete()
    assert parse_graph("swinstride-5-noncyclic") == Window(5, stride=2, cyclic=False)
    assert parse_graph("swin2stride-3") == Window(3, stride=3)
    assert parse_graph("logwin-3") == LogWindow(3)
    assert parse_graph("oneref-7") == Reference(7)
    np.testing.assert_array_equal(make_pairs(Window(2), 6), make_pairs("swin-2", 6))


@pytest.mark.parametrize(
    "name", ["", "swin", "swin-", "swin-0", "swin--1", "ring-3", "oneref-x", "oneref-1-noncyclic"]
)
def test_unknown_names_list_the_valid_ones(name: str) -> None:
    with pytest.raises(InputError, match="swinstride-W"):
        make_pairs(name, 5)


@pytest.mark.parametrize(
    ("graph", "n", "message"),
    [
        ("oneref-5", 5, "frames are 0 to 4"),
        (Reference(-1), 5, "outside"),
        ("complete", 0, "at least one"),
        (Window(0), 5, "1 or more"),
        ("logwin-99", 5, "at most"),
        ("complete", 100_000, "too many"),
    ],
)
def test_bad_values(graph: object, n: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_pairs(graph, n)


def test_a_wide_window_over_many_frames_is_quick() -> None:
    assert len(make_pairs("swinstride-5-noncyclic", 20_000)) == 2 * (5 * 20_000 - 25)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.integers(2, 80))
def test_alternating_graphs_have_each_pair_once(width: int, num_frames: int) -> None:
    both = make_pairs(f"swinstride-{width}-noncyclic", num_frames)
    pairs = make_pairs(f"swinstride-{width}-noncyclic-alternating", num_frames)
    if num_frames < 2 * width:
        np.testing.assert_array_equal(pairs, both)
        return
    assert 2 * len(pairs) == len(both)
    assert len(np.unique(np.sort(pairs, axis=1), axis=0)) == len(pairs)
    assert {tuple(pair) for pair in pairs.tolist()} < {tuple(pair) for pair in both.tolist()}
    for side in (0, 1):  # every frame is the first of a pair, and the second of another
        assert len(np.unique(pairs[:, side])) == num_frames


@pytest.mark.parametrize("start", ["swinstride-5", "swin-5-noncyclic", "logwin-2-noncyclic"])
def test_only_sliding_windows_of_odd_steps_alternate(start: str) -> None:
    with pytest.raises(InputError, match="swinstride-W-noncyclic-alternating"):
        parse_graph(f"{start}-alternating")


@pytest.mark.parametrize("graph", [Window(3, 2, True, True), Window(3, 1, False, True)])
def test_values_that_cannot_alternate_are_refused(graph: Window) -> None:
    with pytest.raises(InputError, match="alternating"):
        make_pairs(graph, 12)
